//! The JSON contract: one object a line, the fields in this order, absent facts `null`.

use std::{collections::BTreeMap, io};

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{Options, Watching, escape, filter};
use crate::{
    address::Address,
    clock::Nanos,
    engine::finding::{EventKind, Finding, FindingState, Kind, Severity, Shown},
    event::{Process, TimeSource},
    stream::Action,
};

/// The version of the contract. It changes when a field goes, not when one comes.
const V: u32 = 1;

pub(super) fn watching(line: &mut Vec<u8>, w: &Watching) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        v: u32,
        r#type: &'static str,
        service: &'a str,
        listen: &'a [Address],
        pid_file: Option<&'a str>,
        main: Option<Pid>,
        tier: &'a BTreeMap<String, String>,
        cannot_see: &'a [String],
    }
    write(
        line,
        &Line {
            v: V,
            r#type: "watching",
            service: &w.service,
            listen: &w.listen,
            pid_file: w.pid_file.as_deref(),
            main: w.main.map(|pid| Pid { pid }),
            tier: &w.tier,
            cannot_see: &w.cannot_see,
        },
    )
}

pub(super) fn event(line: &mut Vec<u8>, options: &Options, shown: &Shown) -> io::Result<()> {
    write(line, &EventLine { options, shown })
}

pub(super) fn finding(line: &mut Vec<u8>, options: &Options, f: &Finding) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        v: u32,
        r#type: &'static str,
        id: &'a str,
        state: FindingState,
        kind: Kind,
        service: &'a str,
        severity: Severity,
        subject: &'a str,
        cause: &'a str,
        at: At,
        boot_ns: Nanos,
        detected_after_ns: u64,
        actor: Option<Who<'a>>,
        summary: &'a str,
        evidence: &'a [u64],
        resolution: Option<&'a str>,
        #[serde(flatten)]
        facts: &'a Map<String, Value>,
    }
    write(
        line,
        &Line {
            v: V,
            r#type: "finding",
            id: &f.id,
            state: f.state,
            kind: f.kind,
            service: &f.service,
            severity: f.severity,
            subject: &f.subject,
            cause: &f.cause,
            at: At(options.wall(f.at)),
            boot_ns: f.at,
            detected_after_ns: f.detected_after_ns,
            actor: f.actor.as_deref().map(Who::from),
            summary: &f.summary,
            evidence: &f.evidence,
            resolution: f.resolution.as_deref(),
            facts: &f.facts,
        },
    )
}

pub(super) fn lost(line: &mut Vec<u8>, source: &str, count: u64) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        v: u32,
        r#type: &'static str,
        source: &'a str,
        count: u64,
    }
    write(
        line,
        &Line {
            v: V,
            r#type: "lost",
            source,
            count,
        },
    )
}

/// One JSON object and a line end: an answer that is no stream.
///
/// # Errors
/// When the value can't be written as JSON.
pub fn line(line: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    write(line, value)?;
    line.push(b'\n');
    Ok(())
}

/// What probe itself did. It has no `seq`: the engine did not say it, and no finding rests on it.
pub(super) fn action(line: &mut Vec<u8>, options: &Options, action: &Action) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        v: u32,
        r#type: &'static str,
        seq: Option<u64>,
        epoch: &'a str,
        at: At,
        boot_ns: Nanos,
        time_source: TimeSource,
        service: Option<&'a str>,
        kind: &'static str,
        process: Option<()>,
        subject: Option<&'a str>,
        action: &'static str,
        outcome: &'static str,
        cause: Option<&'a str>,
        #[serde(flatten)]
        facts: BTreeMap<&'a str, &'a Value>,
        actor: Option<()>,
        summary: &'a str,
    }
    let taken = ["action", "outcome", "cause", "summary", "cursor"];
    let facts = action.facts.iter().map(|(name, value)| (name.as_str(), value));
    write(
        line,
        &Line {
            v: V,
            r#type: "event",
            seq: None,
            epoch: &options.epoch,
            at: At(options.wall(action.at)),
            boot_ns: action.at,
            time_source: TimeSource::Observed,
            service: action.service.as_deref(),
            kind: filter::event_kind(EventKind::Action),
            process: None,
            subject: action.subject.as_deref(),
            action: action.what.name(),
            outcome: action.outcome.name(),
            cause: action.cause.as_deref(),
            facts: facts
                .filter(|(name, _)| !RESERVED.contains(name) && !taken.contains(name))
                .collect(),
            actor: None,
            summary: &action.summary,
        },
    )
}

/// Adds a field to the object that ends here.
pub(super) fn append(line: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let from = line.len();
    let open = line.pop();
    debug_assert_eq!(open, Some(b'}'), "an object");
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    serde_json::to_writer(&mut *line, value).map_err(io::Error::from)?;
    escape::json_controls(line, from);
    line.push(b'}');
    Ok(())
}

fn write(line: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    let from = line.len();
    serde_json::to_writer(&mut *line, value).map_err(io::Error::from)?;
    escape::json_controls(line, from);
    Ok(())
}

/// A map, not a struct: the facts of the kind stand among the other fields.
struct EventLine<'a> {
    options: &'a Options,
    shown: &'a Shown,
}

/// Names that mean the same in every event; a fact can't take one.
const RESERVED: [&str; 14] = [
    "v",
    "type",
    "seq",
    "epoch",
    "at",
    "boot_ns",
    "time_source",
    "service",
    "kind",
    "process",
    "subject",
    "actor",
    "summary",
    "cursor",
];

impl Serialize for EventLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { options, shown: s } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &V)?;
        map.serialize_entry("type", "event")?;
        map.serialize_entry("seq", &s.seq)?;
        map.serialize_entry("epoch", &options.epoch)?;
        map.serialize_entry("at", &At(options.wall(s.at)))?;
        map.serialize_entry("boot_ns", &s.at)?;
        map.serialize_entry::<_, TimeSource>("time_source", &s.time_source)?;
        map.serialize_entry("service", &s.service)?;
        map.serialize_entry("kind", filter::event_kind(s.kind))?;
        map.serialize_entry("process", &s.process.as_deref().map(Who::from))?;
        map.serialize_entry("subject", &s.subject)?;
        for (name, value) in s.facts.iter().filter(|(name, _)| !RESERVED.contains(name)) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("actor", &s.actor.as_deref().map(Who::from))?;
        map.end()
    }
}

#[derive(Serialize)]
struct Pid {
    pid: u32,
}

/// A process as it stands in a line.
#[derive(Serialize)]
struct Who<'a> {
    pid: u32,
    start_ns: Nanos,
    exe: Option<&'a str>,
    comm: &'a str,
    uid: Option<u32>,
    unit: Option<&'a str>,
    parent: Option<Pid>,
}

impl<'a> From<&'a Process> for Who<'a> {
    fn from(p: &'a Process) -> Self {
        Self {
            pid: p.id.pid,
            start_ns: p.start,
            exe: p.exe.as_deref(),
            comm: &p.comm,
            uid: p.uid,
            unit: p.unit.as_deref(),
            parent: p.parent.map(|id| Pid { pid: id.pid }),
        }
    }
}

/// RFC 3339 in UTC, always with nine digits after the second.
struct At(Timestamp);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:.9}", self.0))
    }
}
