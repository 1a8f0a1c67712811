//! Asks the daemon: HTTP/1.1 over its UNIX socket, with a limit on each phase.
//!
//! A daemon that hangs must not hang who asks it. So a question has three limits: until the daemon takes the connection,
//! until it has taken the question, until it has answered. Which one ran out is part of the error.

mod connect;
mod follow;
mod lines;
mod sent;
#[cfg(test)]
mod tests;

use std::{fmt, io, path::PathBuf, pin::pin, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{task::JoinHandle, time::timeout};

use self::sent::Sent;
pub use self::{
    follow::{Follow, Told},
    lines::Lines,
};
use crate::{api::types::Problem, config::Timeouts};

/// Bytes that an answer may have.
const ANSWER: usize = 64 << 20;
/// Bytes of an answer that is an error.
const PROBLEM: usize = 64 << 10;

/// What was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Write,
    Read,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the daemon does not run.
    #[error("no daemon listens at {}: {error}; start `probe daemon`, or name its socket with --socket; `probe check` and `probe watch` need none", socket.display())]
    NotRunning { socket: PathBuf, error: io::Error },
    #[error("{} can't be connected to: {error}", socket.display())]
    Connect { socket: PathBuf, error: io::Error },
    #[error("whoever listens at {} is not to be asked from here", socket.display())]
    Unsuitable { socket: PathBuf },
    #[error("the daemon at {} did not answer in time ({phase}: {})", socket.display(), humantime::format_duration(*limit))]
    Timeout {
        socket: PathBuf,
        phase: Phase,
        limit: Duration,
    },
    /// It hung up, or what it says is no HTTP.
    #[error("the daemon at {} broke off its answer: {error}", socket.display())]
    Broken {
        socket: PathBuf,
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It said no, and why.
    #[error("{error}")]
    Refused { status: u16, error: String },
    #[error("the answer of the daemon can't be read: {0}; are `probe` and the daemon of the same version?")]
    Malformed(serde_json::Error),
}

impl ClientError {
    /// The phase whose time ran out.
    pub fn timeout(&self) -> Option<Phase> {
        match self {
            Self::Timeout { phase, .. } => Some(*phase),
            _ => None,
        }
    }

    /// Nobody is there who could have answered; it may come back.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NotRunning { .. } | Self::Broken { .. })
    }

    /// The daemon can't answer now; asked later, it may.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { status: 503, .. })
    }
}

/// Where the daemon is asked, and how long.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeouts: Timeouts,
    /// Whether the process that listens is one to be asked.
    suits: Option<fn(pid: i32) -> bool>,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>, timeouts: Timeouts) -> Self {
        Self {
            socket: socket.into(),
            timeouts,
            suits: None,
        }
    }

    /// Waits longer for an answer: what is asked for takes its time.
    pub fn patient(mut self, read: Duration) -> Self {
        self.timeouts.read = self.timeouts.read.max(read);
        self
    }

    /// Waits for no phase longer than this.
    pub fn hurried(mut self, limit: Duration) -> Self {
        let t = &mut self.timeouts;
        (t.connect, t.write, t.read) = (t.connect.min(limit), t.write.min(limit), t.read.min(limit));
        self
    }

    /// Asks only a daemon whose process this says yes to.
    pub fn only_where(mut self, suits: fn(pid: i32) -> bool) -> Self {
        self.suits = Some(suits);
        self
    }

    /// Asks for what is there. `path` with its query: see [`query`].
    ///
    /// # Errors
    /// [`ClientError`]; what the daemon says in an error is [`ClientError::Refused`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Malformed)?;
        self.ask(Method::POST, path, body.into()).await
    }

    /// Has something removed.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    /// Lines of JSON for as long as the daemon has some. Only the beginning of the answer has a limit: nothing is said
    /// while nothing happens.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let mut connection = self.connect().await?;
        let request = self.request(Method::GET, path, Bytes::new())?;
        let response = self.sent(&mut connection, request).await?;
        let response = self.in_order(response).await?;
        Ok(Lines::new(self.clone(), connection, response))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let mut connection = self.connect().await?;
        let request = self.request(method, path, body)?;
        let response = self.sent(&mut connection, request).await?;
        let response = self.in_order(response).await?;
        let body = self.read(response, ANSWER).await?;
        serde_json::from_slice(&body).map_err(ClientError::Malformed)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let limit = self.timeouts.connect;
        let stream = match timeout(limit, connect::connect(&self.socket)).await {
            Err(_) => return Err(self.late(Phase::Connect, limit)),
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let socket = self.socket.clone();
                return Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        ClientError::NotRunning { socket, error }
                    }
                    _ => ClientError::Connect { socket, error },
                });
            }
        };
        if let Some(suits) = self.suits {
            let peer = stream.peer_cred().ok().and_then(|c| c.pid());
            if !peer.is_some_and(suits) {
                return Err(ClientError::Unsuitable {
                    socket: self.socket.clone(),
                });
            }
        }
        let sent = Sent::new(stream);
        let written = sent.written();
        // Nothing is said yet, so this waits for nobody.
        let (sender, connection) = http1::handshake(TokioIo::new(sent))
            .await
            .map_err(|e| self.broken(e))?;
        let task = tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("the connection to the daemon ended: {e}");
            }
        });
        Ok(Connection {
            sender,
            written,
            task,
        })
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut builder = Request::builder().method(method).uri(path).header(HOST, "probe");
        if !body.is_empty() {
            builder = builder.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        builder.body(Full::new(body)).map_err(|e| self.broken(e))
    }

    /// Sends the question and waits for the head of the answer.
    async fn sent(
        &self,
        connection: &mut Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let Connection { sender, written, .. } = connection;
        let mut answer = pin!(sender.send_request(request));
        let limit = self.timeouts.write;
        let early = timeout(limit, async {
            tokio::select! {
                biased;
                answer = &mut answer => Some(answer),
                () = written.wait() => None,
            }
        });
        let answer = match early.await {
            Err(_) => return Err(self.late(Phase::Write, limit)),
            Ok(Some(answer)) => answer,
            Ok(None) => match timeout(self.timeouts.read, answer).await {
                Err(_) => return Err(self.late(Phase::Read, self.timeouts.read)),
                Ok(answer) => answer,
            },
        };
        answer.map_err(|e| self.broken(e))
    }

    /// An answer with 4xx or 5xx is an error, and says why.
    async fn in_order(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.read(response, PROBLEM).await?;
        let said = serde_json::from_slice::<Problem>(&body).map(|p| p.error);
        Err(ClientError::Refused {
            status: status.as_u16(),
            error: said.unwrap_or_else(|_| reason(status)),
        })
    }

    /// The limit is on the whole: a daemon that says a byte from time to time does not answer.
    async fn read(&self, response: Response<Incoming>, most: usize) -> Result<Bytes, ClientError> {
        let limit = self.timeouts.read;
        let body = Limited::new(response.into_body(), most).collect();
        match timeout(limit, body).await {
            Err(_) => Err(self.late(Phase::Read, limit)),
            Ok(Err(error)) => Err(ClientError::Broken {
                socket: self.socket.clone(),
                error,
            }),
            Ok(Ok(body)) => Ok(body.to_bytes()),
        }
    }

    fn late(&self, phase: Phase, limit: Duration) -> ClientError {
        ClientError::Timeout {
            socket: self.socket.clone(),
            phase,
            limit,
        }
    }

    fn broken(&self, e: impl std::error::Error + Send + Sync + 'static) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            error: Box::new(e),
        }
    }
}

fn reason(status: StatusCode) -> String {
    format!("the daemon refused with {status}")
}

/// A connection, and the task that moves its bytes.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    written: sent::Written,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A path with its query, both escaped; parameters without a value are left out.
///
/// ```
/// # use probe_user::client::query;
/// let path = query("/v1/events", &[("service", Some("a b")), ("since", None)]);
/// assert_eq!(path, "/v1/events?service=a%20b");
/// ```
pub fn query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            text.push(separator);
            text.push_str(name);
            text.push('=');
            text.push_str(&escape(value));
            separator = '&';
        }
    }
    text
}

/// One part of a path, or a value of a query: RFC 3986's unreserved characters stay.
pub fn escape(text: &str) -> String {
    use fmt::Write;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Never fails on a string.
            _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
