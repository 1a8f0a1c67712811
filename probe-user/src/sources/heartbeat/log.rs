//! A line in a log file as a sign of life. Only what was appended is read; what the text is looked for in spans no line,
//! because the text has no line break, so nothing but its length is ever kept between two reads.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::Stat;

use super::file;
use crate::clock::Nanos;

/// How much of the end of a log is looked at when probe begins.
const SEED_BYTES: u64 = 64 * 1024;
/// Most bytes read in one go, and of a log that another one has replaced.
const READ_BYTES: u64 = 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) struct Log {
    /// Empty: any line counts.
    text: Vec<u8>,
    begun: bool,
    /// What is being read. Stays open after a rename, since its writer goes on until it opens the new one.
    current: Option<Tail>,
    /// What has taken the name, until something stands in it.
    next: Option<Tail>,
    has_more: bool,
}

struct Tail {
    file: File,
    id: (u64, u64),
    offset: u64,
    /// The end of what was read, shorter than the text.
    rest: Vec<u8>,
}

impl Log {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_vec(),
            begun: false,
            current: None,
            next: None,
            has_more: false,
        }
    }

    /// Whether the last read left something.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// The files to go on watching, whatever their names.
    pub(super) fn files(&self) -> Vec<BorrowedFd<'_>> {
        [&self.current, &self.next]
            .into_iter()
            .flatten()
            .map(|t| t.file.as_fd())
            .collect()
    }

    /// The name leads to this file now, or nowhere. Reads on.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn found(&mut self, path: Option<&OwnedFd>, now: Nanos) -> io::Result<Option<Nanos>> {
        let first = !std::mem::replace(&mut self.begun, true);
        self.next = None;
        if let Some(path) = path {
            let stat = rustix::fs::fstat(path)?;
            if self.current.as_ref().is_none_or(|t| t.id != id(&stat)) {
                let back = if first { SEED_BYTES } else { READ_BYTES };
                self.next = Some(Tail {
                    file: file::open(path)?,
                    id: id(&stat),
                    offset: size(&stat).saturating_sub(back),
                    rest: Vec::new(),
                });
            }
        }
        self.read(now)
    }

    /// Reads what was appended since, at most 1 MiB. A beat is as old as the last write to the file.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn read(&mut self, now: Nanos) -> io::Result<Option<Nanos>> {
        self.has_more = false;
        let mut beat = None;
        let mut budget = READ_BYTES;
        loop {
            let mut ended = true;
            if let Some(tail) = &mut self.current {
                beat = beat.max(tail.read(&self.text, &mut budget, now)?);
                let stat = rustix::fs::fstat(&tail.file)?;
                if tail.offset < size(&stat) {
                    self.has_more = true;
                    return Ok(beat);
                }
                // A deleted file is not held: its space is wanted back.
                ended = stat.st_nlink == 0;
            }
            let Some(next) = &self.next else {
                if ended {
                    self.current = None;
                }
                return Ok(beat);
            };
            if !ended && rustix::fs::fstat(&next.file)?.st_size == 0 {
                return Ok(beat);
            }
            self.current = self.next.take();
        }
    }
}

impl Tail {
    fn read(&mut self, text: &[u8], budget: &mut u64, now: Nanos) -> io::Result<Option<Nanos>> {
        let stat = rustix::fs::fstat(&self.file)?;
        if size(&stat) < self.offset {
            // Truncated: copytruncate, or `> log`.
            self.offset = 0;
            self.rest.clear();
        }
        let mut found = false;
        let mut buffer = vec![0; BUFFER_BYTES];
        while *budget > 0 {
            let want = BUFFER_BYTES.min(usize::try_from(*budget).unwrap_or(BUFFER_BYTES));
            let n = match self.file.read_at(&mut buffer[..want], self.offset) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.offset += n as u64;
            *budget = budget.saturating_sub(n as u64);
            found |= self.search(&buffer[..n], text);
        }
        if !found {
            return Ok(None);
        }
        // The stat is from before the read where more was appended meanwhile.
        let stat = rustix::fs::fstat(&self.file)?;
        Ok(Some(file::to_boot(file::wall(&stat), now).unwrap_or(now)))
    }

    fn search(&mut self, piece: &[u8], text: &[u8]) -> bool {
        let Some(keep) = text.len().checked_sub(1) else {
            return !piece.is_empty();
        };
        // A text that is cut in two lies in the end of what was read before, and the beginning of this.
        self.rest.extend_from_slice(&piece[..piece.len().min(keep)]);
        let found = contains(&self.rest, text) || contains(piece, text);
        if piece.len() >= keep {
            self.rest.clear();
            self.rest.extend_from_slice(&piece[piece.len() - keep..]);
        } else {
            let excess = self.rest.len().saturating_sub(keep);
            self.rest.drain(..excess);
        }
        found
    }
}

fn contains(all: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = text.split_first() else {
        return true;
    };
    let mut all = all;
    while let Some(at) = all.iter().position(|b| b == first) {
        all = &all[at + 1..];
        if all.starts_with(rest) {
            return true;
        }
    }
    false
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Tail {
        Tail {
            file: File::open("/dev/null").unwrap(),
            id: (0, 0),
            offset: 0,
            rest: Vec::new(),
        }
    }

    #[test]
    fn a_text_is_found_however_it_is_cut() {
        let line = b"xx daemon alive yy";
        let text = b"daemon alive";
        for size in 1..=line.len() {
            let mut tail = tail();
            let found = line.chunks(size).filter(|c| tail.search(c, text)).count();
            assert_eq!(found, 1, "in pieces of {size}");
            assert!(tail.rest.len() < text.len());
        }
        assert!(!tail().search(b"daemon  alive", text));
        assert!(tail().search(b"dadaemon alive", text));
        assert!(tail().search(b"x", b"x"));
        assert!(tail().search(b"x", b""));
    }
}
