//! Recording.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde::Serialize;

use super::{Header, TraceError};
use crate::{clock::Nanos, event::Event};

/// Writes a trace. Buffered; what is in the buffer is written when it is dropped, but only [`Writer::flush`] and [`Writer::finish`] say
/// whether that went well.
#[derive(Debug)]
pub struct Writer<W: Write = File> {
    out: BufWriter<W>,
    /// A line is written whole or not at all, as long as the disk has room for it.
    line: Vec<u8>,
}

/// [`super::Entry`] without owning the event.
#[derive(Serialize)]
struct EntryRef<'a> {
    now: Nanos,
    event: &'a Event,
}

impl Writer<File> {
    /// Creates the file, or empties it. A trace tells arguments of processes, so only its owner may read it; a link in
    /// the file's place is not followed.
    ///
    /// # Errors
    /// [`TraceError::Open`], [`TraceError::NotAFile`], [`TraceError::Write`].
    pub fn create(path: &Path, header: &Header) -> Result<Self, TraceError> {
        let open = |error| TraceError::Open {
            path: path.to_owned(),
            error,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(open)?;
        if !file.metadata().map_err(open)?.is_file() {
            return Err(TraceError::NotAFile {
                path: path.to_owned(),
            });
        }
        file.set_len(0).map_err(open)?;
        Self::new(file, header)
    }
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn new(out: W, header: &Header) -> Result<Self, TraceError> {
        let mut writer = Self {
            out: BufWriter::with_capacity(64 * 1024, out),
            line: Vec::new(),
        };
        writer.line(header)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds what the engine is told, before it is told.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn write(&mut self, now: Nanos, event: &Event) -> Result<(), TraceError> {
        self.line(&EntryRef { now, event })
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.out.flush().map_err(TraceError::Write)
    }

    /// Writes what is buffered, and ends the recording.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn finish(mut self) -> Result<(), TraceError> {
        self.flush()
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), TraceError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value).map_err(|e| TraceError::Write(io::Error::from(e)))?;
        self.line.push(b'\n');
        self.out.write_all(&self.line).map_err(TraceError::Write)
    }
}
