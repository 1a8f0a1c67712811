//! Silences: those that are, a new one, and the end of one.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};

use super::{
    Api,
    answer::{Body, Refused},
    peer::Peer,
    services::known,
    types::{NewSilence, Silence, Silences, V},
};
use crate::silence::SilenceError;

pub(super) async fn silences(State(api): State<Api>) -> Json<Silences> {
    let all = api.0.silences.list();
    Json(Silences {
        v: V,
        silences: all.iter().map(Silence::from).collect(),
    })
}

pub(super) async fn silence(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Body(new): Body<NewSilence>,
) -> Result<Json<Silence>, Refused> {
    known(&api, &new.service).await?;
    let lasts = Duration::from_secs(new.seconds);
    let silence = api.0.silences.add(&new.service, lasts, &new.reason, peer.uid())?;
    Ok(Json((&silence).into()))
}

pub(super) async fn end(
    State(api): State<Api>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<Silence>, Refused> {
    let Path(id) = path.map_err(|e| Refused::bad(e.body_text()))?;
    Ok(Json((&api.0.silences.end(id)?).into()))
}

impl From<SilenceError> for Refused {
    fn from(e: SilenceError) -> Self {
        let status = match &e {
            SilenceError::NoService(_) | SilenceError::Unknown(_) => StatusCode::NOT_FOUND,
            SilenceError::Duration(_) | SilenceError::Reason(_) => StatusCode::BAD_REQUEST,
            SilenceError::TooMany => StatusCode::CONFLICT,
        };
        Self::new(status, e.to_string())
    }
}
