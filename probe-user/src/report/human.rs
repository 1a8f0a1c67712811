//! Lines for people: time of day, service, what happened, by whom.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Watching, escape,
    look::{DIM, GREEN, Look, PLAIN, RED, YELLOW},
};
use crate::{
    clock::Nanos,
    engine::finding::{FindingState, Severity},
    event::Process,
};

pub(super) fn watching(
    line: &mut Vec<u8>,
    look: &Look,
    told: &mut BTreeSet<String>,
    w: &Watching,
) -> io::Result<()> {
    look.paint(line, DIM);
    line.extend_from_slice(b"watching ");
    look.paint(line, PLAIN);
    escape::text(line, &w.service)?;
    let mut separator = ": ";
    for address in &w.listen {
        line.extend_from_slice(separator.as_bytes());
        escape::text(line, &address.to_string())?;
        separator = ", ";
    }
    if let Some(path) = &w.pid_file {
        write!(line, "{separator}PID file ")?;
        escape::text(line, path)?;
        separator = ", ";
    }
    match w.main {
        Some(pid) => write!(line, "{separator}main process {pid}")?,
        None => write!(line, "{separator}not running")?,
    }
    // Each is told once, of the first service that it concerns; JSON has them all.
    let news: Vec<&str> = w
        .cannot_see
        .iter()
        .filter(|what| told.insert((*what).clone()))
        .map(String::as_str)
        .collect();
    if !news.is_empty() {
        look.paint(line, DIM);
        line.extend_from_slice(b" (cannot see ");
        escape::text(line, &news.join("; "))?;
        line.push(b')');
        look.paint(line, PLAIN);
    }
    Ok(())
}

/// What a line says of an event.
pub(super) struct EventText<'a> {
    pub(super) at: Timestamp,
    pub(super) service: &'a str,
    pub(super) kind: &'a str,
    pub(super) summary: &'a str,
    pub(super) by: Option<By<'a>>,
}

/// What a line says of a turn in a finding's life.
pub(super) struct FindingText<'a> {
    /// When that turn was.
    pub(super) at: Timestamp,
    pub(super) service: &'a str,
    pub(super) kind: &'a str,
    pub(super) state: FindingState,
    pub(super) severity: Severity,
    pub(super) summary: &'a str,
    pub(super) resolution: Option<&'a str>,
    pub(super) by: Option<By<'a>>,
}

/// Who did it.
pub(super) struct By<'a> {
    pub(super) pid: u32,
    pub(super) comm: &'a str,
    pub(super) exe: Option<&'a str>,
    pub(super) uid: Option<u32>,
    pub(super) unit: Option<&'a str>,
}

impl<'a> From<&'a Process> for By<'a> {
    fn from(p: &'a Process) -> Self {
        Self {
            pid: p.id.pid,
            comm: &p.comm,
            exe: p.exe.as_deref(),
            uid: p.uid,
            unit: p.unit.as_deref(),
        }
    }
}

/// It opens at its cause; every other turn is told at its own time.
pub(super) fn turn_at(state: FindingState, at: Nanos, detected_after_ns: u64) -> Nanos {
    match state {
        FindingState::Opened => at,
        _ => at + Duration::from_nanos(detected_after_ns),
    }
}

pub(super) fn event(line: &mut Vec<u8>, look: &Look, e: &EventText<'_>) -> io::Result<()> {
    head(line, look, e.at, e.service)?;
    write!(line, "{:<9} ", e.kind)?;
    escape::text(line, e.summary)?;
    by(line, e.summary, e.by.as_ref())
}

pub(super) fn finding(line: &mut Vec<u8>, look: &Look, f: &FindingText<'_>) -> io::Result<()> {
    head(line, look, f.at, f.service)?;
    let (word, how) = match (f.state, f.severity) {
        (FindingState::Resolved, _) => ("RESOLVED", GREEN),
        (_, Severity::Critical) => ("CRITICAL", RED),
        (_, Severity::Warning) => ("WARNING", YELLOW),
    };
    look.paint(line, how);
    write!(line, "{word:<9} {}", f.kind)?;
    look.paint(line, PLAIN);
    line.extend_from_slice(if f.state == FindingState::Updated {
        b" (updated): "
    } else {
        b": "
    });
    match (f.resolution, f.state) {
        (Some(resolution), FindingState::Resolved) => escape::text(line, resolution),
        _ => {
            escape::text(line, f.summary)?;
            by(line, f.summary, f.by.as_ref())
        }
    }
}

/// `count` is `None` where it can't be known.
pub(super) fn lost(line: &mut Vec<u8>, look: &Look, source: &str, count: Option<u64>) -> io::Result<()> {
    let (what, why) = match source {
        "stream" => (
            "line",
            "this reader was too slow for them, or asked for what is no longer kept",
        ),
        "epoch" => (
            "line",
            "the daemon began anew, and what it said last may be missing",
        ),
        "history" => ("line", "they could not be written"),
        _ => ("event", "verdicts are unknown until everything was read anew"),
    };
    look.paint(line, YELLOW);
    match count {
        Some(1) => write!(line, "LOST 1 {what}")?,
        Some(count) => write!(line, "LOST {count} {what}s")?,
        None => write!(line, "LOST some {what}s")?,
    }
    if what == "event" {
        line.extend_from_slice(b" of ");
        escape::text(line, source)?;
    }
    look.paint(line, PLAIN);
    write!(line, ": {why}")
}

fn head(line: &mut Vec<u8>, look: &Look, at: Timestamp, service: &str) -> io::Result<()> {
    look.paint(line, DIM);
    look.time(line, at)?;
    look.paint(line, PLAIN);
    line.push(b' ');
    let start = line.len();
    escape::text(line, service)?;
    // Columns, for names of usual length; counted in bytes, which is right for usual names.
    let width = line.len() - start;
    line.resize(line.len() + 12_usize.saturating_sub(width) + 1, b' ');
    Ok(())
}

/// Says who did it, unless the sentence has already named that pid.
fn by(line: &mut Vec<u8>, summary: &str, actor: Option<&By<'_>>) -> io::Result<()> {
    let Some(actor) = actor else { return Ok(()) };
    let pid = actor.pid.to_string();
    if summary
        .split(|c: char| !c.is_ascii_digit())
        .any(|word| word == pid)
    {
        return Ok(());
    }
    line.extend_from_slice(b", by ");
    escape::text(line, if actor.comm.is_empty() { "?" } else { actor.comm })?;
    write!(line, " ({pid}")?;
    if let Some(exe) = actor.exe {
        line.extend_from_slice(b", ");
        escape::text(line, exe)?;
    }
    if let Some(uid) = actor.uid {
        write!(line, ", uid {uid}")?;
    }
    if let Some(unit) = actor.unit {
        line.extend_from_slice(b", ");
        escape::text(line, unit)?;
    }
    line.push(b')');
    Ok(())
}
