//! A recording: everything that the engine was told, with when it was told. What it said follows from that.
//!
//! The format is described in `docs/trace-format.md`.

mod read;
mod write;

use std::{collections::BTreeMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{read::Reader, write::Writer};
use crate::{
    clock::Nanos,
    config::Config,
    engine::{Effect, Engine},
    event::{Event, FileId},
};

/// The version of the format. A reader refuses every other.
pub const VERSION: u32 = 1;

/// A longer line is no line of a trace: a snapshot of thousands of processes stays far below.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// The first line: all that the engine and the reporter knew before the first event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub v: u32,
    pub r#type: HeaderType,
    /// The version of probe that recorded.
    pub probe: String,
    pub epoch: String,
    /// What makes a boot-clock time of this recording a wall-clock time, in nanoseconds.
    pub wall_offset_ns: i64,
    /// The kernel's release, for people.
    pub kernel: String,
    /// The tier of each subject, as in `watching` lines.
    pub tier: BTreeMap<String, String>,
    /// The effective configuration.
    pub config: Config,
    /// What the declared executables were when the engine began, by path.
    pub exes: BTreeMap<String, FileId>,
}

/// Always `trace`: tells a recording from the lines that `probe watch --json` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderType {
    #[default]
    Trace,
}

/// Every line after the first: an event, and when the engine was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub now: Nanos,
    pub event: Event,
}

/// Why a trace could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("cannot open {}: {error}", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error("{} is not a regular file, as a trace must be", path.display())]
    NotAFile { path: PathBuf },
    #[error("cannot write the trace: {0}")]
    Write(io::Error),
    #[error("cannot read line {line} of the trace: {error}")]
    Read { line: u64, error: io::Error },
    #[error("the trace is empty: its first line, the header, is missing")]
    Empty,
    #[error(
        "line 1 is not the header of a trace: {error}; expected a file that `probe watch --record` wrote"
    )]
    Header { error: serde_json::Error },
    #[error(
        "the trace has format version {found}, this probe reads version {VERSION}: replay it with the probe that recorded it"
    )]
    Version { found: u64 },
    #[error("line {line} of the trace has more than {MAX_LINE_BYTES} bytes: this is no trace")]
    LineTooLong { line: u64 },
    #[error("line {line} of the trace holds a configuration that is not valid: {problem}")]
    Config { line: u64, problem: String },
    #[error("line {line} of the trace is no event: {error}")]
    Event { line: u64, error: serde_json::Error },
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// How many events the engine was told.
    pub events: u64,
    /// The last line was cut off in the middle (the recorder was killed, or the disk was full) and left out.
    pub cut_off: bool,
}

/// Tells `engine` every event of the trace, and `see` every effect.
///
/// # Errors
/// Those of the trace, with the number of the line, and those of `see`.
pub fn replay<R: io::BufRead, E: From<TraceError>>(
    reader: &mut Reader<R>,
    engine: &mut Engine,
    see: &mut impl FnMut(&Effect) -> Result<(), E>,
) -> Result<Replayed, E> {
    let mut events = 0;
    while let Some(Entry { now, event }) = reader.next_entry()? {
        events += 1;
        for effect in &engine.apply(event, now) {
            see(effect)?;
        }
    }
    Ok(Replayed {
        events,
        cut_off: reader.cut_off(),
    })
}

#[cfg(test)]
mod tests;
