//! `GET /v1/who`: who holds an address.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Api,
    answer::{Query, Refused},
};
use crate::{
    address::Address,
    who::{Answer, Looker, Options, WhoError},
};

/// How long a look may take: with very many processes, and without the kernel's iterator, it takes its time.
const LOOK_WITHIN: Duration = Duration::from_secs(4);

/// The query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Who {
    /// `unix:/PATH`, `unix:@NAME`, `tcp:[ADDR:]PORT` or `udp:[ADDR:]PORT`.
    address: String,
}

pub(super) async fn who(State(api): State<Api>, Query(query): Query<Who>) -> Result<Json<Answer>, Refused> {
    let address: Address = query
        .address
        .parse()
        .map_err(|e: crate::address::AddressError| Refused::bad(e.to_string()))?;
    let late = |why: String| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
    // The engine knows who made a socket; everybody who has it open only a search finds. One at a time: whoever may only
    // read must not load the host.
    let Ok(mut turn) = tokio::time::timeout(LOOK_WITHIN, Arc::clone(&api.0.looks).lock_owned()).await else {
        return Err(late(
            "too many ask who holds an address: ask again later".to_owned(),
        ));
    };
    let looking = tokio::task::spawn_blocking(move || {
        // What it has found serves the next question.
        let looker = match &mut *turn {
            Some(looker) => looker,
            none => none.insert(Looker::new()?),
        };
        Ok::<_, WhoError>(looker.look(&address, &Options::default()))
    });
    match tokio::time::timeout(LOOK_WITHIN, looking).await {
        Ok(Ok(Ok(answer))) => Ok(Json(answer)),
        Ok(Ok(Err(e))) => Err(late(e.to_string())),
        Ok(Err(e)) => Err(late(e.to_string())),
        Err(_) => Err(late(format!("the look was not over within {LOOK_WITHIN:?}"))),
    }
}
