//! One request, with a limit on each phase and on the whole.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    pin, select,
    time::{sleep, timeout},
};

use super::Url;
use crate::report;

/// Finding and reaching the server takes no longer than this, whatever the whole may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// As much of an answer that is no success is read, to say why.
const MAX_ANSWER: usize = 2048;

/// How long the reason of a refusal is waited for.
const REASON_WITHIN: Duration = Duration::from_secs(1);

/// What was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Connect,
    /// From the request's first byte to the answer's head.
    Answer,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Answer => "answer",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("timeout ({phase}) after {limit:?}")]
    Timeout { phase: Phase, limit: Duration },
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error("the connection broke before the answer came: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the server answered {status}{}{}", if text.is_empty() { "" } else { ": " }, text)]
    Status {
        status: u16,
        /// The beginning of what it said.
        text: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("cannot make the request: {0}")]
    Request(#[from] hyper::http::Error),
}

impl PostError {
    /// Whether the same request may succeed later: RFC 9110 for what a status means.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Request(_) => false,
            _ => true,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Posts JSON. Returns the status, which is 2xx: redirections are not followed.
///
/// # Errors
/// Everything else.
pub(super) async fn post(url: &Url, body: Bytes, limit: Duration) -> Result<u16, PostError> {
    let whole = sleep(limit);
    pin!(whole);
    let within = limit.min(CONNECT_WITHIN);
    let connect = |source| PostError::Connect {
        host: url.host.clone(),
        port: url.port,
        source,
    };
    let stream = match timeout(within, dial(url)).await {
        Ok(stream) => stream.map_err(connect)?,
        Err(_) => {
            return Err(PostError::Timeout {
                phase: Phase::Connect,
                limit: within,
            });
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(&url.path)
        .header(header::HOST, &url.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, concat!("probe/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        judge(response).await
    };
    pin!(exchange, connection);
    let mut connected = true;
    loop {
        select! {
            biased;
            result = &mut exchange => return result,
            _ = &mut connection, if connected => connected = false,
            () = &mut whole => return Err(PostError::Timeout { phase: Phase::Answer, limit }),
        }
    }
}

/// Each address of the name in turn.
async fn dial(url: &Url) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((url.host.as_str(), url.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn judge(response: Response<Incoming>) -> Result<u16, PostError> {
    let status = response.status();
    if status.is_success() {
        // What else it says does not matter, so nobody waits for it.
        return Ok(status.as_u16());
    }
    let seconds = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|v| v.to_str().ok())
        .filter(|_| status.is_redirection())
        .map(|to| format!("it is at {to}, say so in `webhook`"));
    let reason = Limited::new(response.into_body(), MAX_ANSWER).collect();
    let text = match (location, timeout(REASON_WITHIN, reason).await) {
        (Some(location), _) => location,
        (None, Ok(Ok(body))) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        _ => String::new(),
    };
    Err(PostError::Status {
        status: status.as_u16(),
        text: report::plain(&text),
        retry_after: seconds.map(Duration::from_secs),
    })
}
