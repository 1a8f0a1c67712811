//! What is looked at before any question: who asks, and whether they may.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{answer::Refused, peer::Peer};

/// How long any answer but a stream may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the guard knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    /// Whose members may read.
    pub(super) group: Option<u32>,
}

pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Refused::new(StatusCode::FORBIDDEN, "nobody knows who asks").into_response();
    };
    let method = request.method().clone();
    let reads = matches!(method, Method::GET | Method::HEAD);
    let path = request.uri().path().to_owned();
    if let Err(refused) = allowed(guard, &peer, reads, request.headers()) {
        tracing::warn!("{method} {path} is refused to {peer}: {}", refused.error);
        return refused.into_response();
    }
    if reads {
        tracing::debug!("{peer}: {method} {path}");
    } else {
        tracing::info!("{peer}: {method} {path}");
    }
    // The time until the answer begins: a stream goes on for as long as somebody reads it.
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("there was no answer within {ANSWER_WITHIN:?}"),
        )
        .into_response(),
    }
}

fn allowed(guard: Guard, peer: &Peer, reads: bool, headers: &HeaderMap) -> Result<(), Refused> {
    let no = |why: &str| Err(Refused::new(StatusCode::FORBIDDEN, why));
    if !peer.may_read(guard.group) {
        return no("only root and the group of the socket may ask");
    }
    if !reads && !peer.may_act() {
        return match peer {
            Peer::Tcp(_) => no("the TCP port only answers: act through the UNIX socket, as root"),
            Peer::Unix { .. } => no("only root may act"),
        };
    }
    // A page in a browser may know of the port, under a name of its own.
    if matches!(peer, Peer::Tcp(_)) && !is_loopback(headers) {
        return no("the TCP port is asked by a loopback address or `localhost` only");
    }
    Ok(())
}

fn is_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_for_the_port_is_refused() {
        let asked = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_loopback(&headers)
        };
        assert!(asked("127.0.0.1:9464") && asked("localhost") && asked("[::1]:9464"));
        assert!(!asked("example.org") && !asked("127.0.0.1.example.org:80") && !asked("192.0.2.1"));
        assert!(!is_loopback(&HeaderMap::new()));
    }
}
