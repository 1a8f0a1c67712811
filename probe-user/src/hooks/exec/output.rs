//! The last of what a program wrote.

use std::sync::{Mutex, PoisonError};

use tokio::{io::AsyncReadExt, net::unix::pipe};

use crate::report;

/// No more than this is kept; errors stand at the end.
const KEEP_BYTES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Bytes>);

#[derive(Debug, Default)]
struct Bytes {
    last: Vec<u8>,
    dropped: u64,
}

impl Kept {
    /// Reads to the end.
    pub(super) async fn fill(&self, mut from: pipe::Receiver) {
        let mut chunk = vec![0; KEEP_BYTES];
        loop {
            match from.read(&mut chunk).await {
                Ok(n @ 1..) => self.push(&chunk[..n]),
                _ => return,
            }
        }
    }

    fn push(&self, more: &[u8]) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.last.extend_from_slice(more);
        let too_many = bytes.last.len().saturating_sub(KEEP_BYTES);
        bytes.last.drain(..too_many);
        bytes.dropped += too_many as u64;
    }

    /// As one line of text.
    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes.last);
        let text = report::plain(text.trim_end());
        match bytes.dropped {
            0 => text,
            n => format!("({n} bytes left out) {text}"),
        }
    }
}
