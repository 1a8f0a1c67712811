//! Which lines a reader wants: by service, type and kind.

use serde_json::Value;

use super::Said;
use crate::{
    engine::{
        facts::{Fact, Facts},
        finding::{EventKind, Kind},
    },
    event::Process,
    report,
};

/// Sorts of lines that a filter tells apart: each kind of event, each kind of finding, losses.
pub(super) const SORTS: usize = EVENTS + FINDINGS + 1;
const EVENTS: usize = EventKind::Action as usize + 1;
const FINDINGS: usize = Kind::ALL.len();

/// Whom and what a line concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort(pub(super) usize);

impl Sort {
    pub(super) fn of(said: &Said) -> Self {
        Self(match said {
            Said::Event(shown) => shown.kind as usize,
            Said::Action(_) => EventKind::Action as usize,
            Said::Finding(finding) => EVENTS + finding.kind as usize,
            Said::Lost { .. } => EVENTS + FINDINGS,
        })
    }
}

/// The service whose readers want this line; empty: every reader's.
pub(super) fn service_of(said: &Said) -> &str {
    match said {
        // That probe is blind concerns everybody.
        Said::Finding(finding) if finding.kind == Kind::Blind => "",
        said => said.service().unwrap_or_default(),
    }
}

/// Lets everything pass by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Names of services; empty: all. What concerns no single service passes always.
    pub services: Vec<String>,
    /// Types and kinds.
    pub lines: report::Filter,
}

impl Filter {
    /// Which sorts pass, as bits.
    pub(super) fn mask(&self) -> u64 {
        let lines = &self.lines;
        let events = (0..EVENTS).filter(|n| {
            let kind = EVENT_KINDS.get(*n);
            kind.is_some_and(|k| lines.event(*k))
        });
        let findings = Kind::ALL.iter().filter(|k| lines.finding(**k));
        let lost = lines.lost().then_some(EVENTS + FINDINGS);
        events
            .chain(findings.map(|k| EVENTS + *k as usize))
            .chain(lost)
            .fold(0, |mask, n| mask | 1 << n)
    }
}

const EVENT_KINDS: [EventKind; EVENTS] = [
    EventKind::Bind,
    EventKind::Listen,
    EventKind::Close,
    EventKind::Unlink,
    EventKind::Rename,
    EventKind::Exec,
    EventKind::Fork,
    EventKind::Exit,
    EventKind::Signal,
    EventKind::Oom,
    EventKind::PidFile,
    EventKind::Heartbeat,
    EventKind::Notify,
    EventKind::Handover,
    EventKind::Stop,
    EventKind::Ready,
    EventKind::Snapshot,
    EventKind::Unit,
    EventKind::Action,
];

/// About how many bytes a line takes: its parts, and the JSON that is made of them.
pub(super) fn cost(said: &Said) -> usize {
    // Names of fields, numbers and times of the JSON; the line's place in the tables.
    const FIXED: usize = 512;
    let texts = match said {
        Said::Event(s) => {
            size_of_val(&**s)
                + 2 * (s.service.len() + s.summary.len() + s.subject.as_ref().map_or(0, String::len))
                + 2 * cost_of(&s.facts)
                + process(s.process.as_deref())
                + process(s.actor.as_deref())
        }
        Said::Finding(f) => {
            size_of_val(&**f)
                + 2 * (f.service.len() + f.summary.len() + f.subject.len() + f.cause.len() + f.id.len())
                + 2 * f.resolution.as_ref().map_or(0, String::len)
                + 2 * facts(&f.facts)
                + 16 * f.evidence.len()
                + process(f.actor.as_deref())
        }
        Said::Lost { source, .. } => 2 * source.len(),
        Said::Action(a) => size_of_val(&**a) + 2 * (a.summary.len() + facts(&a.facts)),
    };
    FIXED + texts
}

/// Arguments stand in no line.
fn process(process: Option<&Process>) -> usize {
    process.map_or(0, |p| {
        let arguments: usize = p.argv.iter().map(|a| size_of::<String>() + a.len()).sum();
        let names =
            p.comm.len() + p.exe.as_ref().map_or(0, String::len) + p.unit.as_ref().map_or(0, String::len);
        arguments + 2 * names + 64
    })
}

fn cost_of(facts: &Facts) -> usize {
    let size = |fact: &Fact| match fact {
        Fact::Word(text) => size_of::<Fact>() + text.len(),
        Fact::Other(v) => value(v),
    };
    facts
        .iter()
        .map(|(name, fact)| 32 + name.len() + size(fact))
        .sum()
}

fn facts(map: &serde_json::Map<String, Value>) -> usize {
    map.iter().map(|(name, v)| 32 + name.len() + value(v)).sum()
}

fn value(v: &Value) -> usize {
    size_of::<Value>()
        + match v {
            Value::String(s) => s.len(),
            Value::Array(a) => a.iter().map(value).sum(),
            Value::Object(o) => facts(o),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_has_its_own_bit() {
        const { assert!(SORTS < 64) };
        for (n, kind) in EVENT_KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, n);
        }
        for (n, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, n, "{kind:?}");
        }
        assert_eq!(Filter::default().mask().count_ones() as usize, SORTS);
    }
}
