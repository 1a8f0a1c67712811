//! The one table of what can be asked: it builds the router and the OpenAPI document.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode},
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    Api,
    answer::Refused,
    events,
    guard::{Guard, guard},
    hooks, metrics, openapi, services, silences,
    types::{Findings, Health, HookTested, NewSilence, OneService, Reloaded, Services, Silence, Silences},
    who,
};
use crate::{metrics::Format, who::Answer};

const METRICS: [&str; 2] = [Format::Classic.content_type(), Format::OpenMetrics.content_type()];
/// Bytes that a question may have.
const BODY: usize = 64 * 1024;

/// One operation.
pub(super) struct Route {
    pub(super) method: Method,
    /// With `{name}` where a part varies, as axum and OpenAPI write it.
    pub(super) path: &'static str,
    /// Its name in the document.
    pub(super) operation: &'static str,
    pub(super) summary: &'static str,
    /// The query's parameters, as the fields of a type.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: Content,
    /// Codes of refusals besides [`ALWAYS`], and when they come.
    pub(super) refusals: &'static [(u16, &'static str)],
    pub(super) handler: fn() -> MethodRouter<Api>,
}

pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What an answer with 200 holds.
pub(super) enum Content {
    Json(SchemaOf),
    /// JSON, a line each.
    Lines,
    /// The same answer with 200 and 503.
    Health(SchemaOf),
    /// A document of this type.
    Other(&'static str),
    /// Text of one of these types.
    Text(&'static [&'static str]),
}

/// Refusals that every operation can give.
pub(super) const ALWAYS: [(u16, &str); 3] = [
    (400, "The question is wrong"),
    (403, "Whoever asks may not"),
    (503, "The engine does not answer in time, or ends"),
];

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

macro_rules! get {
    ($handler:path) => {
        || on(MethodFilter::GET, $handler)
    };
}

/// Everything that can be asked.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route {
            method: Method::GET,
            path: "/v1/services",
            operation: "services",
            summary: "Every declared service as it is now",
            query: None,
            body: None,
            answer: Content::Json(schema::<Services>),
            refusals: &[],
            handler: get!(services::services),
        },
        Route {
            method: Method::GET,
            path: "/v1/services/{name}",
            operation: "service",
            summary: "One service as it is now",
            query: None,
            body: None,
            answer: Content::Json(schema::<OneService>),
            refusals: &[(404, "There is no such service")],
            handler: get!(services::service),
        },
        Route {
            method: Method::GET,
            path: "/v1/findings",
            operation: "findings",
            summary: "Every open finding",
            query: None,
            body: None,
            answer: Content::Json(schema::<Findings>),
            refusals: &[],
            handler: get!(services::findings),
        },
        Route {
            method: Method::GET,
            path: "/v1/events",
            operation: "events",
            summary: "Events, findings and losses as they are said, a line of JSON each, for as long as the client reads",
            query: Some(schema::<events::Events>),
            body: None,
            answer: Content::Lines,
            refusals: &[],
            handler: get!(events::events),
        },
        Route {
            method: Method::POST,
            path: "/v1/reload",
            operation: "reload",
            summary: "Read the configuration anew; an error changes nothing",
            query: None,
            body: None,
            answer: Content::Json(schema::<Reloaded>),
            refusals: &[(422, "The configuration is not valid; nothing has changed")],
            handler: || on(MethodFilter::POST, services::reload),
        },
        Route {
            method: Method::GET,
            path: "/v1/who",
            operation: "who",
            summary: "Who holds an address, and whether somebody who asks for it reaches them",
            query: Some(schema::<who::Who>),
            body: None,
            answer: Content::Json(schema::<Answer>),
            refusals: &[],
            handler: get!(who::who),
        },
        Route {
            method: Method::GET,
            path: "/v1/silences",
            operation: "silences",
            summary: "Every silence that is not over",
            query: None,
            body: None,
            answer: Content::Json(schema::<Silences>),
            refusals: &[],
            handler: get!(silences::silences),
        },
        Route {
            method: Method::POST,
            path: "/v1/silences",
            operation: "silence",
            summary: "Silence a service: findings still open and show, hooks and healing rest",
            query: None,
            body: Some(schema::<NewSilence>),
            answer: Content::Json(schema::<Silence>),
            refusals: &[
                (404, "There is no such service"),
                (409, "There are too many silences already"),
            ],
            handler: || on(MethodFilter::POST, silences::silence),
        },
        Route {
            method: Method::DELETE,
            path: "/v1/silences/{id}",
            operation: "end_silence",
            summary: "End a silence before its time",
            query: None,
            body: None,
            answer: Content::Json(schema::<Silence>),
            refusals: &[(404, "There is no such silence")],
            handler: || on(MethodFilter::DELETE, silences::end),
        },
        Route {
            method: Method::POST,
            path: "/v1/hooks/{name}/test",
            operation: "test_hook",
            summary: "Send a sample finding through a hook; its answer must come within ten seconds",
            query: None,
            body: None,
            answer: Content::Json(schema::<HookTested>),
            refusals: &[(404, "There is no such hook")],
            handler: || on(MethodFilter::POST, hooks::test),
        },
        Route {
            method: Method::GET,
            path: "/metrics",
            operation: "metrics",
            summary: "Metrics, in OpenMetrics where the client asks for it, else in Prometheus' text format",
            query: None,
            body: None,
            answer: Content::Text(&METRICS),
            refusals: &[],
            handler: get!(metrics::metrics),
        },
        Route {
            method: Method::GET,
            path: "/healthz",
            operation: "healthz",
            summary: "Whether the engine makes progress",
            query: None,
            body: None,
            answer: Content::Health(schema::<Health>),
            refusals: &[],
            handler: get!(services::healthz),
        },
        Route {
            method: Method::GET,
            path: "/readyz",
            operation: "readyz",
            summary: "Whether verdicts can be given",
            query: None,
            body: None,
            answer: Content::Health(schema::<Health>),
            refusals: &[],
            handler: get!(services::readyz),
        },
        Route {
            method: Method::GET,
            path: "/openapi.json",
            operation: "openapi",
            summary: "This document",
            query: None,
            body: None,
            answer: Content::Other("application/json"),
            refusals: &[],
            handler: get!(openapi::openapi),
        },
    ]
}

/// Answers everything in the table, and refuses everything else.
pub(super) fn router(api: Api, who: Guard) -> Router {
    let routes = routes().into_iter();
    routes
        // Methods of one path are joined.
        .fold(Router::new(), |router, r| router.route(r.path, (r.handler)()))
        .fallback(|| async { Refused::absent("there is no such path: see /openapi.json") })
        .method_not_allowed_fallback(|| async {
            Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method: see /openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(who, guard))
        .with_state(api)
}
