//! Services, findings, health, and the reload.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::sync::oneshot;

use super::{
    Api,
    answer::Refused,
    types::{Findings, Health, OneService, Reloaded, Services, V},
};
use crate::{config::load, daemon::ask::Picture};

/// How long `healthz` waits for a sign of the engine.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn services(State(api): State<Api>) -> Result<Json<Services>, Refused> {
    let picture = api.0.engine.picture(None).await?.ok_or_else(gone)?;
    Ok(Json(Services {
        v: V,
        epoch: api.0.stream.epoch().to_owned(),
        cursor: picture.cursor,
        probe: api.probe(&picture).await,
        services: api.services(&picture),
    }))
}

pub(super) async fn service(
    State(api): State<Api>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<OneService>, Refused> {
    let Path(name) = path.map_err(|e| Refused::bad(e.body_text()))?;
    let picture = known(&api, &name).await?;
    let service = api.services(&picture).pop().ok_or_else(gone)?;
    Ok(Json(OneService {
        v: V,
        epoch: api.0.stream.epoch().to_owned(),
        cursor: picture.cursor,
        service,
    }))
}

/// The one service of that name.
pub(super) async fn known(api: &Api, name: &str) -> Result<Picture, Refused> {
    if let Some(picture) = api.0.engine.picture(Some(name.to_owned())).await? {
        return Ok(picture);
    }
    let all = api.0.engine.picture(None).await?.ok_or_else(gone)?;
    let known: Vec<&str> = all.services.iter().map(|(s, _)| s.service.as_str()).collect();
    let hint = load::nearest(name, &known).map_or(String::new(), |n| format!("; did you mean {n:?}?"));
    Err(Refused::absent(format!("no service is named {name:?}{hint}")))
}

pub(super) async fn findings(State(api): State<Api>) -> Result<Json<Findings>, Refused> {
    let picture = api.0.engine.picture(None).await?.ok_or_else(gone)?;
    Ok(Json(Findings {
        v: V,
        epoch: api.0.stream.epoch().to_owned(),
        cursor: picture.cursor,
        findings: picture.findings(),
    }))
}

/// The engine makes progress.
pub(super) async fn healthz(State(api): State<Api>) -> Response {
    let alive = api.0.engine.ping(ALIVE_WITHIN).await;
    health(alive.err().map(|e| e.to_string()))
}

/// Verdicts can be given.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let reason = match api.0.engine.picture(None).await {
        Err(e) => Some(e.to_string()),
        Ok(Some(picture)) if picture.can_judge => None,
        Ok(Some(Picture { blind: Some(f), .. })) => Some(f.summary),
        Ok(_) => Some("the first snapshot is not in yet".to_owned()),
    };
    health(reason)
}

fn health(reason: Option<String>) -> Response {
    let status = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let health = Health {
        v: V,
        ok: reason.is_none(),
        reason,
    };
    (status, Json(health)).into_response()
}

pub(super) async fn reload(State(api): State<Api>) -> Result<Json<Reloaded>, Refused> {
    let (reply, answer) = oneshot::channel();
    let busy = || {
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "a reload is going on: ask again later",
        )
    };
    api.0.reloads.try_send(reply).map_err(|_| busy())?;
    match answer.await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(why)) => Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(_) => Err(busy()),
    }
}

pub(super) fn gone() -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the engine has ended")
}
