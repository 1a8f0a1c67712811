//! Reading a recording.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde::Deserialize;

use super::{Entry, Header, MAX_LINE_BYTES, TraceError, VERSION};
use crate::{
    config::{Config, check::check},
    event::What,
};

/// Reads a trace line by line; no more than one line is in memory.
#[derive(Debug)]
pub struct Reader<R: BufRead> {
    source: R,
    header: Header,
    /// Number of the line in `line`, from 1.
    number: u64,
    line: Vec<u8>,
    cut_off: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a recorded file and reads its header.
    ///
    /// # Errors
    /// [`TraceError::Open`], [`TraceError::NotAFile`], and those of [`Reader::new`].
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let open = |error| TraceError::Open {
            path: path.to_owned(),
            error,
        };
        // A FIFO would have probe wait for somebody to write.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(open)?;
        if !file.metadata().map_err(open)?.is_file() {
            return Err(TraceError::NotAFile {
                path: path.to_owned(),
            });
        }
        Self::new(BufReader::new(file))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TraceError::Empty`], [`TraceError::Header`], [`TraceError::Version`], [`TraceError::Read`],
    /// [`TraceError::LineTooLong`].
    pub fn new(mut source: R) -> Result<Self, TraceError> {
        let mut line = Vec::new();
        if !read_line(&mut source, 1, &mut line)? {
            return Err(TraceError::Empty);
        }
        let header = header(&line)?;
        valid(&header.config, 1)?;
        Ok(Self {
            source,
            header,
            number: 1,
            line,
            cut_off: false,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the last line was cut off in the middle and left out. Known at the end.
    pub fn cut_off(&self) -> bool {
        self.cut_off
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// [`TraceError::Read`], [`TraceError::LineTooLong`], [`TraceError::Event`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TraceError> {
        if self.cut_off {
            return Ok(None);
        }
        self.number += 1;
        if !read_line(&mut self.source, self.number, &mut self.line)? {
            return Ok(None);
        }
        match serde_json::from_slice::<Entry>(&self.line) {
            Ok(entry) => {
                if let What::Reload { config, .. } = &entry.event.what {
                    valid(config, self.number)?;
                }
                Ok(Some(entry))
            }
            // The writer ends every line: what has no end is the rest of a recording that was cut off.
            Err(_) if self.line.last() != Some(&b'\n') => {
                self.cut_off = true;
                Ok(None)
            }
            Err(error) => Err(TraceError::Event {
                line: self.number,
                error,
            }),
        }
    }
}

/// `false` at the end. The line keeps its `\n`.
fn read_line(source: &mut impl BufRead, number: u64, line: &mut Vec<u8>) -> Result<bool, TraceError> {
    line.clear();
    let limit = MAX_LINE_BYTES as u64 + 1;
    let got = Read::take(source, limit)
        .read_until(b'\n', line)
        .map_err(|error| TraceError::Read { line: number, error })?;
    if got > MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        return Err(TraceError::LineTooLong { line: number });
    }
    Ok(got > 0)
}

/// A recording can be anybody's: what no file could declare (a snapshot every 0 s) would have the engine work for ever.
fn valid(config: &Config, line: u64) -> Result<(), TraceError> {
    // What `probe watch` was not told a name of, it calls by its address or path.
    let mut config = config.clone();
    for service in &mut config.services {
        service.name = service.name.replace('/', "\u{2215}");
    }
    match check(&config, false).into_iter().next() {
        None => Ok(()),
        Some(wrong) => Err(TraceError::Config {
            line,
            problem: wrong.message,
        }),
    }
}

/// The version is looked at first, so that a newer format is called that and not a broken header.
fn header(line: &[u8]) -> Result<Header, TraceError> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
        #[serde(rename = "type")]
        _type: super::HeaderType,
    }
    let wrong = |error| TraceError::Header { error };
    let version: Version = serde_json::from_slice(line).map_err(wrong)?;
    if version.v != u64::from(VERSION) {
        return Err(TraceError::Version { found: version.v });
    }
    serde_json::from_slice(line).map_err(wrong)
}
