//! Answers that are none, and questions that are read strictly: whatever is wrong is said as JSON.

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::types::{Problem, V};
use crate::daemon::ask::AskError;

/// An answer with a code of 4xx or 5xx.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    /// 400
    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// 404
    pub(crate) fn absent(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            v: V,
            error: self.error,
        };
        (self.status, Json(problem)).into_response()
    }
}

impl From<AskError> for Refused {
    fn from(e: AskError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string())
    }
}

/// A query whose every parameter is known and right.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|e: QueryRejection| Refused::bad(e.body_text()))
    }
}

/// A body of JSON.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        Json::from_request(request, state)
            .await
            .map(|Json(body)| Self(body))
            .map_err(|e: JsonRejection| match e.status() {
                status @ (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
                    Refused::new(status, e.body_text())
                }
                // Wrong syntax and wrong content are the same to whoever asks.
                _ => Refused::bad(e.body_text()),
            })
    }
}
