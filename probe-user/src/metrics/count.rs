//! What is counted as it is said.

use std::{collections::BTreeMap, time::Duration};

use super::{
    histogram::Histogram,
    table::{Tables, labels},
};
use crate::{
    engine::{
        facts::{Fact, Facts},
        finding::{EventKind, FindingState, Kind},
    },
    event::Disposition,
    report::filter::event_kind,
    signal::Signal,
    stream::Said,
};

/// Different sources of losses; further ones are `other`.
const SOURCES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Counts {
    events: BTreeMap<&'static str, u64>,
    /// By the signal's number and the disposition.
    signals: BTreeMap<(i32, &'static str), u64>,
    findings: BTreeMap<(Kind, &'static str), u64>,
    detection: BTreeMap<Kind, Histogram>,
    lost: BTreeMap<String, u64>,
    actions: BTreeMap<(&'static str, &'static str), u64>,
}

impl Counts {
    pub(super) fn take(&mut self, said: &Said) {
        match said {
            Said::Event(shown) => {
                *self.events.entry(event_kind(shown.kind)).or_default() += 1;
                if shown.kind == EventKind::Signal {
                    *self.signals.entry(signal(&shown.facts)).or_default() += 1;
                }
            }
            Said::Finding(f) => {
                let state = match f.state {
                    FindingState::Opened => {
                        let latency = Duration::from_nanos(f.detected_after_ns);
                        self.detection.entry(f.kind).or_default().observe(latency);
                        "opened"
                    }
                    FindingState::Updated => "updated",
                    FindingState::Resolved => "resolved",
                };
                *self.findings.entry((f.kind, state)).or_default() += 1;
            }
            Said::Lost { source, count } => self.lost(source, *count),
            Said::Action(action) => {
                *self.events.entry(event_kind(EventKind::Action)).or_default() += 1;
                let key = (action.what.name(), action.outcome.name());
                *self.actions.entry(key).or_default() += 1;
            }
        }
    }

    pub(super) fn lost(&mut self, source: &str, count: u64) {
        let known = self.lost.contains_key(source) || self.lost.len() < SOURCES;
        let source = if known { source } else { "other" };
        *self.lost.entry(source.to_owned()).or_default() += count;
    }

    pub(super) fn tell(&self, tables: &mut Tables) {
        tables.counter(
            "events",
            "Events of declared services, by kind.",
            self.events.iter().map(|(kind, n)| (labels([("kind", kind)]), *n)),
        );
        tables.counter(
            "signals",
            "Signals sent to declared services, by signal and by what becomes of it.",
            self.signals.iter().map(|((number, disposition), n)| {
                let name = Signal(*number).to_string();
                let name = if *number == 0 { "other" } else { &name };
                (
                    labels([
                        ("signal", name),
                        ("number", &number.to_string()),
                        ("disposition", disposition),
                    ]),
                    *n,
                )
            }),
        );
        tables.counter(
            "findings",
            "Turns in the lives of findings, by kind and new state.",
            self.findings
                .iter()
                .map(|((kind, state), n)| (labels([("kind", kind.name()), ("state", state)]), *n)),
        );
        tables.histogram(
            "detection",
            "Time from the cause of a finding until it was told, thresholds included.",
            self.detection
                .iter()
                .map(|(kind, h)| (labels([("kind", kind.name())]), *h)),
        );
        tables.counter(
            "events_lost",
            "Events lost before they were judged or counted, by source.",
            self.lost
                .iter()
                .map(|(source, n)| (labels([("source", source)]), *n)),
        );
        tables.counter(
            "actions",
            "What probe did, by what came of it.",
            self.actions
                .iter()
                .map(|((what, outcome), n)| (labels([("action", what), ("outcome", outcome)]), *n)),
        );
    }
}

/// Both are words of this program; anything else would be a mistake, and is one series.
fn signal(facts: &Facts) -> (i32, &'static str) {
    let text = |name| facts.get(name).and_then(Fact::as_str);
    let number = text("signal").and_then(Signal::parse).map_or(0, |s| s.0);
    let disposition = text("disposition").and_then(|d| {
        Disposition::ALL
            .map(Disposition::name)
            .into_iter()
            .find(|known| *known == d)
    });
    (number, disposition.unwrap_or("other"))
}
