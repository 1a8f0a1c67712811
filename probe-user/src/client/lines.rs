//! An answer that is read line by line while it comes.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming, header::HeaderMap};
use memchr::memchr;

use super::{Client, ClientError, Connection};

/// Bytes that a line may have.
const LINE: usize = 4 << 20;

/// Lines of JSON. Dropped, it hangs up.
pub struct Lines {
    client: Client,
    body: Incoming,
    headers: HeaderMap,
    /// What came and was not yet taken.
    buffer: BytesMut,
    /// Bytes of the buffer that hold no line end.
    searched: usize,
    _connection: Connection,
}

impl Lines {
    pub(super) fn new(client: Client, connection: Connection, response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            client,
            body,
            headers: head.headers,
            buffer: BytesMut::new(),
            searched: 0,
            _connection: connection,
        }
    }

    /// A field of the answer's head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next line, without its end. `None`: the daemon has said all. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the daemon hangs up in the middle.
    pub async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            if let Some(line) = self.try_next() {
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE {
                return Err(self
                    .client
                    .broken(std::io::Error::other(format!("a line of more than {LINE} bytes"))));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let half = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(self.client.broken(half));
                }
                Some(Err(e)) => return Err(self.client.broken(e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// A line that is here already.
    pub fn try_next(&mut self) -> Option<BytesMut> {
        let end = memchr(b'\n', &self.buffer[self.searched..]);
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}
