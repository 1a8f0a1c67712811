//! What the engine says, as lines: JSON by the contract of the README, or one sentence for a person.

mod escape;
pub mod filter;
mod human;
mod json;
pub mod line;
mod look;
mod numbered;
pub mod schema;
mod silence;
mod status;
mod table;
mod told;
mod watching;
mod who;

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use jiff::{Timestamp, tz::TimeZone};

pub(crate) use self::numbered::numbered;
pub use self::{
    escape::plain,
    filter::{Filter, KindName, LineType},
    json::line as json_line,
    line::Line,
    look::{Look, span},
    silence::{silence, silences},
    status::status,
    told::told,
    watching::{BlindSpot, Watching, blind_spots},
    who::who,
};
use crate::{
    clock::Nanos,
    engine::finding::{Effect, Finding},
};

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

/// Turns effects into lines. The buffer is used again for every line, and each line is written with one call.
#[derive(Debug)]
pub struct Reporter {
    options: Options,
    line: Vec<u8>,
    /// What cannot be seen, as far as people have been told.
    told: BTreeSet<String>,
}

/// A line longer than this gives its memory back.
const KEEP_BYTES: usize = 64 * 1024;

impl Reporter {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            line: Vec::with_capacity(1024),
            told: BTreeSet::new(),
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
            human::watching(&mut self.line, &self.options.look(), &mut self.told, watching)?;
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
        let Self { options, line, .. } = self;
        if !options.filter.effect(effect) {
            return Ok(false);
        }
        match effect {
            Effect::Show(shown) if options.json => json::event(line, options, shown)?,
            Effect::Show(shown) => {
                let text = human::EventText {
                    at: options.wall(shown.at),
                    service: &shown.service,
                    kind: filter::event_kind(shown.kind),
                    summary: &shown.summary,
                    by: shown.actor.as_deref().map(Into::into),
                };
                human::event(line, &options.look(), &text)?;
            }
            Effect::Find(finding) if options.json => json::finding(line, options, finding)?,
            Effect::Find(f) => {
                let text = human::FindingText {
                    at: options.wall(human::turn_at(f.state, f.at, f.detected_after_ns)),
                    service: &f.service,
                    kind: f.kind.name(),
                    state: f.state,
                    severity: f.severity,
                    summary: &f.summary,
                    resolution: f.resolution.as_deref(),
                    by: f.actor.as_deref().map(Into::into),
                };
                human::finding(line, &options.look(), &text)?;
            }
            Effect::Lost { source, count } if options.json => json::lost(line, source, *count)?,
            Effect::Lost { source, count } => human::lost(line, &options.look(), source, Some(*count))?,
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

/// A boot-clock time as the contract writes it: RFC 3339 in UTC.
pub fn rfc3339(at: Nanos, wall_offset_ns: i64) -> String {
    format!("{:.9}", wall(at, wall_offset_ns))
}

fn wall(at: Nanos, offset_ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(at.0) + i128::from(offset_ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The JSON line of a finding, with the line feed.
pub fn finding_line(finding: &Finding, wall_offset_ns: i64) -> Vec<u8> {
    let options = Options {
        json: true,
        color: false,
        wall_offset_ns,
        epoch: String::new(),
        filter: Filter::default(),
        time_zone: TimeZone::UTC,
    };
    let mut line = Vec::with_capacity(1024);
    // Writing to memory does not fail.
    _ = json::finding(&mut line, &options, finding);
    line.push(b'\n');
    line
}

impl Options {
    fn look(&self) -> Look {
        Look {
            color: self.color,
            time_zone: self.time_zone.clone(),
            dates: false,
        }
    }

    /// The wall-clock time of a boot-clock time; the epoch where that leaves the calendar.
    fn wall(&self, at: Nanos) -> Timestamp {
        wall(at, self.wall_offset_ns)
    }
}

#[cfg(test)]
mod tests;
