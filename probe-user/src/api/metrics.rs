//! `GET /metrics`.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{Api, answer::Refused, services::gone};
use crate::metrics::{Format, HookFigures, Now};

pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refused> {
    let picture = api.0.engine.picture(None).await?.ok_or_else(gone)?;
    let probe = api.probe(&picture).await;
    let hooks: Vec<HookFigures> = probe.hooks.iter().map(HookFigures::from).collect();
    let (services, history) = (api.services(&picture), api.0.store.status());
    let now = Now {
        at: picture.at,
        services: &services,
        probe: Some(&probe),
        hooks: &hooks,
        history: Some(&history),
        stream: Some(api.0.stream.figures()),
    };
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let format = Format::accepted(accept);
    let text = api.0.metrics.encode(&now, format);
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}
