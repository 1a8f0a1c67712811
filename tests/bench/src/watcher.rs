//! Reads the daemon's stream of events as fast as a reader can, and notes when.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, bail};
use probe_user::clock::{self, Nanos};
use serde_json::Value;

use crate::process;

/// A line of the daemon, and when it had been read.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Nanos,
    pub(crate) line: Value,
}

impl Seen {
    /// Its type and kind.
    pub(crate) fn is(&self, r#type: &str, kind: &str) -> bool {
        self.line["type"] == r#type && self.line["kind"] == kind
    }

    /// When the kernel saw it.
    pub(crate) fn boot_ns(&self) -> Nanos {
        Nanos(self.line["boot_ns"].as_u64().unwrap_or(0))
    }
}

/// A client of `/v1/events`, in a thread with a real-time priority: what is measured is the daemon, not its reader's wait
/// for a processor.
#[derive(Debug)]
pub(crate) struct Watcher {
    lines: Receiver<(Nanos, Vec<u8>)>,
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(socket: &Path) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        write!(stream, "GET /v1/events HTTP/1.0\r\nhost: probe\r\n\r\n")?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        anyhow::ensure!(
            head.starts_with(b"HTTP/1.0 200"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        let mut reader = stream.try_clone()?;
        let (send, lines) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            _ = tell.send(process::prefer_this_thread());
            let mut buffer = vec![0; 256 * 1024];
            let mut rest = Vec::new();
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                let at = clock::now();
                rest.extend_from_slice(&buffer[..n]);
                while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    if send.send((at, rest.drain(..=end).collect())).is_err() {
                        return;
                    }
                }
            }
        });
        told.recv().context("the reader ended")??;
        Ok(Self {
            lines,
            stream,
            thread: Some(thread),
        })
    }

    /// The next line, if there is one within `limit`.
    pub(crate) fn next(&self, limit: Duration) -> anyhow::Result<Option<Seen>> {
        match self.lines.recv_timeout(limit) {
            Ok((at, line)) => Ok(Some(Seen {
                at,
                line: serde_json::from_slice(&line)?,
            })),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the daemon hung up"),
        }
    }

    /// Waits for a line of this kind; hands over those before it.
    pub(crate) fn wait(&self, what: &str, mut is: impl FnMut(&Seen) -> bool) -> anyhow::Result<Seen> {
        let deadline = clock::now() + PATIENCE;
        loop {
            let left = deadline.since(clock::now());
            match self.next(left)? {
                Some(seen) if is(&seen) => return Ok(seen),
                Some(_) => {}
                None => bail!("{what} was not told within {PATIENCE:?}"),
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Drop for Watcher {
    fn drop(&mut self) {
        _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
