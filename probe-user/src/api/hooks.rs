//! The test of a hook.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};

use super::{Api, answer::Refused, types::HookTested};
use crate::hooks::HookError;

/// Sends a sample, once, beside whatever the hook is doing.
pub(super) async fn test(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<HookTested>, Refused> {
    let Path(name) = path.map_err(|e| Refused::bad(e.body_text()))?;
    let attempt = api.0.acts.test(&name).await.map_err(|e| match e {
        HookError::Unknown { .. } => Refused::absent(e.to_string()),
        HookError::Bad(why) => Refused::new(StatusCode::SERVICE_UNAVAILABLE, why),
    })?;
    Ok(Json(attempt.tested(&name)))
}
