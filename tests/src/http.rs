//! Questions over HTTP, as any program asks them: what the client of probe makes of an answer is not part of it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::clock::patience;

/// An answer: its code and its body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub body: String,
}

/// Asks over a UNIX socket.
///
/// # Errors
/// Nobody answers in time.
pub fn over_unix(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience()))?;
    ask(stream, method, path, body)
}

/// Asks a port of the loopback interface.
///
/// # Errors
/// Nobody answers in time.
pub fn over_tcp(port: u16, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience().max(Duration::from_secs(1))))?;
    ask(stream, method, path, body)
}

/// HTTP/1.0: whoever answers closes the connection, and sends no chunks.
fn ask(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        code: code.ok_or(io::ErrorKind::InvalidData)?,
        body: body.to_owned(),
    })
}
