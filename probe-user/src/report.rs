//! What the engine says, as lines: JSON by the contract of the README, or one sentence for a person.

mod escape;
pub mod filter;
mod human;
mod json;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use jiff::{Timestamp, tz::TimeZone};

pub use self::filter::{Filter, KindName, LineType};
use crate::{address::Address, clock::Nanos, engine::finding::Effect, event::ProcId};

/// How lines look and which are written.
#[derive(Debug, Clone)]
pub struct Options {
    pub json: bool,
    /// Colours in lines for people. JSON never has any.
    pub color: bool,
    /// What makes a boot-clock time a wall-clock time, in nanoseconds: [`crate::clock::wall_offset`], or the trace's.
    pub wall_offset_ns: i64,
    /// Changes whenever the numbering of events begins anew.
    pub epoch: String,
    pub filter: Filter,
    /// For the time of day in lines for people; JSON has UTC.
    pub time_zone: TimeZone,
}

/// What is watched of one service, said once before its first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    pub service: String,
    pub listen: Vec<Address>,
    pub pid_file: Option<String>,
    pub main: Option<ProcId>,
    /// The tier of each subject: `unix_socket`, `inet_socket`, `signal`, `process`.
    pub tier: BTreeMap<String, String>,
    /// What this tier can never see for the service.
    pub cannot_see: Vec<String>,
}

/// Turns effects into lines. The buffer is used again for every line, and each line is written with one call.
#[derive(Debug)]
pub struct Reporter {
    options: Options,
    line: Vec<u8>,
}

/// A line longer than this gives its memory back.
const KEEP_BYTES: usize = 64 * 1024;

impl Reporter {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            line: Vec::with_capacity(1024),
        }
    }

    /// Writes the `watching` line of a service.
    ///
    /// # Errors
    /// Those of `out`; a broken pipe is the reader's way to say that it has seen enough.
    pub fn watching(&mut self, out: &mut dyn Write, watching: &Watching) -> io::Result<()> {
        if !self.options.filter.line_type(LineType::Watching) {
            return Ok(());
        }
        if self.options.json {
            json::watching(&mut self.line, watching)?;
        } else {
            human::watching(&mut self.line, &self.options, watching)?;
        }
        self.finish(out)
    }

    /// Writes the line of an effect that is to be seen; what else the engine wants done writes nothing.
    ///
    /// Returns whether a line was written.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn effect(&mut self, out: &mut dyn Write, effect: &Effect) -> io::Result<bool> {
        let Self { options, line } = self;
        if !options.filter.effect(effect) {
            return Ok(false);
        }
        match effect {
            Effect::Show(shown) if options.json => json::event(line, options, shown)?,
            Effect::Show(shown) => human::event(line, options, shown)?,
            Effect::Find(finding) if options.json => json::finding(line, options, finding)?,
            Effect::Find(finding) => human::finding(line, options, finding)?,
            Effect::Lost { source, count } if options.json => json::lost(line, source, *count)?,
            Effect::Lost { source, count } => human::lost(line, options, source, *count)?,
            _ => return Ok(false),
        }
        self.finish(out)?;
        Ok(true)
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.line.push(b'\n');
        let written = out.write_all(&self.line);
        self.line.clear();
        if self.line.capacity() > KEEP_BYTES {
            self.line.shrink_to(KEEP_BYTES);
        }
        written
    }
}

impl Options {
    /// The wall-clock time of a boot-clock time; the epoch where that leaves the calendar.
    fn wall(&self, at: Nanos) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(at.0) + i128::from(self.wall_offset_ns))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests;
