//! `GET /v1/who`: who holds an address, for those who may not see it themselves.

use axum::{Json, http::StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::answer::{Query, Refused};
use crate::{
    address::Address,
    who::{self, Answer, Options},
};

/// Each look may walk through every process of the host, so there are only so many at once.
static LOOKS: Semaphore = Semaphore::const_new(2);

/// The query. No network namespace can be named: the daemon opens no file that somebody else chose.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Who {
    /// `unix:/path`, `unix:@name`, `tcp:[ADDR:]PORT` or `udp:[ADDR:]PORT`.
    address: String,
}

pub(super) async fn who(Query(query): Query<Who>) -> Result<Json<Answer>, Refused> {
    let address: Address = query
        .address
        .parse()
        .map_err(|e: crate::address::AddressError| Refused::bad(e.to_string()))?;
    let unable = |error: String| Refused::new(StatusCode::SERVICE_UNAVAILABLE, error);
    let turn = LOOKS
        .try_acquire()
        .map_err(|_| unable("others are asking the same just now: ask again later".to_owned()))?;
    let look = tokio::task::spawn_blocking(move || {
        // Held until the look is over, also when nobody waits for it any more.
        let _turn = turn;
        who::look(&address, &Options::default())
    });
    match look.await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(e)) => Err(unable(e.to_string())),
        Err(e) => Err(unable(e.to_string())),
    }
}
