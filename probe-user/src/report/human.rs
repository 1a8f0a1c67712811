//! Lines for people: time of day, service, what happened, by whom.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::{Options, Watching, escape, filter};
use crate::{
    clock::Nanos,
    engine::finding::{Finding, FindingState, Severity, Shown},
    event::Process,
};

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

pub(super) fn watching(
    line: &mut Vec<u8>,
    options: &Options,
    told: &mut BTreeSet<String>,
    w: &Watching,
) -> io::Result<()> {
    color(line, options, DIM);
    line.extend_from_slice(b"watching ");
    color(line, options, PLAIN);
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
        Some(id) => write!(line, "{separator}main process {}", id.pid)?,
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
        color(line, options, DIM);
        line.extend_from_slice(b" (cannot see ");
        escape::text(line, &news.join("; "))?;
        line.push(b')');
        color(line, options, PLAIN);
    }
    Ok(())
}

pub(super) fn event(line: &mut Vec<u8>, options: &Options, s: &Shown) -> io::Result<()> {
    head(line, options, s.at, &s.service)?;
    write!(line, "{:<9} ", filter::event_kind(s.kind))?;
    escape::text(line, &s.summary)?;
    by(line, &s.summary, s.actor.as_deref())
}

pub(super) fn finding(line: &mut Vec<u8>, options: &Options, f: &Finding) -> io::Result<()> {
    // It opens at its cause; every other turn is told at its own time.
    let told = match f.state {
        FindingState::Opened => f.at,
        _ => f.at + std::time::Duration::from_nanos(f.detected_after_ns),
    };
    head(line, options, told, &f.service)?;
    let (word, how) = match (f.state, f.severity) {
        (FindingState::Resolved, _) => ("RESOLVED", GREEN),
        (_, Severity::Critical) => ("CRITICAL", RED),
        (_, Severity::Warning) => ("WARNING", YELLOW),
    };
    color(line, options, how);
    write!(line, "{word:<9} {}", f.kind.name())?;
    color(line, options, PLAIN);
    line.extend_from_slice(if f.state == FindingState::Updated {
        b" (updated): "
    } else {
        b": "
    });
    match (&f.resolution, f.state) {
        (Some(resolution), FindingState::Resolved) => escape::text(line, resolution),
        _ => {
            escape::text(line, &f.summary)?;
            by(line, &f.summary, f.actor.as_deref())
        }
    }
}

pub(super) fn lost(line: &mut Vec<u8>, options: &Options, source: &str, count: u64) -> io::Result<()> {
    color(line, options, YELLOW);
    write!(
        line,
        "LOST {count} event{} of ",
        if count == 1 { "" } else { "s" }
    )?;
    escape::text(line, source)?;
    color(line, options, PLAIN);
    line.extend_from_slice(b": verdicts are unknown until everything was read anew");
    Ok(())
}

fn head(line: &mut Vec<u8>, options: &Options, at: Nanos, service: &str) -> io::Result<()> {
    let local = options.wall(at).to_zoned(options.time_zone.clone());
    color(line, options, DIM);
    write!(
        line,
        "{:02}:{:02}:{:02}.{:03}",
        local.hour(),
        local.minute(),
        local.second(),
        local.millisecond()
    )?;
    color(line, options, PLAIN);
    line.push(b' ');
    let start = line.len();
    escape::text(line, service)?;
    // Columns, for names of usual length; counted in bytes, which is right for usual names.
    let width = line.len() - start;
    line.resize(line.len() + 12_usize.saturating_sub(width) + 1, b' ');
    Ok(())
}

/// Says who did it, unless the sentence has already named that pid.
fn by(line: &mut Vec<u8>, summary: &str, actor: Option<&Process>) -> io::Result<()> {
    let Some(actor) = actor else { return Ok(()) };
    let pid = actor.id.pid.to_string();
    if summary
        .split(|c: char| !c.is_ascii_digit())
        .any(|word| word == pid)
    {
        return Ok(());
    }
    line.extend_from_slice(b", by ");
    escape::text(line, if actor.comm.is_empty() { "?" } else { &actor.comm })?;
    write!(line, " ({pid}")?;
    if let Some(exe) = &actor.exe {
        line.extend_from_slice(b", ");
        escape::text(line, exe)?;
    }
    if let Some(uid) = actor.uid {
        write!(line, ", uid {uid}")?;
    }
    if let Some(unit) = &actor.unit {
        line.extend_from_slice(b", ");
        escape::text(line, unit)?;
    }
    line.push(b')');
    Ok(())
}

fn color(line: &mut Vec<u8>, options: &Options, code: &str) {
    if options.color {
        line.extend_from_slice(code.as_bytes());
    }
}
