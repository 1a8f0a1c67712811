//! How things are when somebody asks.

use std::collections::BTreeMap;

use prometheus_client::registry::Unit::{Bytes, Seconds};

use super::table::{Labels, Tables, labels};
use crate::{
    api::types::{ProbeStatus, ServiceStatus, Verdict},
    clock::Nanos,
    engine::finding::Severity,
    history,
    hooks::status::HookStatus,
    stream,
};

/// What the metrics are made of besides what was counted. What is `None` is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now<'a> {
    /// The boot clock's time.
    pub at: Nanos,
    pub services: &'a [ServiceStatus],
    pub probe: Option<&'a ProbeStatus>,
    pub hooks: &'a [HookFigures],
    pub history: Option<&'a history::Status>,
    pub stream: Option<stream::Figures>,
}

/// How a hook fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HookFigures {
    pub hook: String,
    /// Notifications that wait to be sent.
    pub waiting: u64,
    /// Notifications by what became of them: words of this program.
    pub results: Vec<(&'static str, u64)>,
}

impl From<&HookStatus> for HookFigures {
    fn from(h: &HookStatus) -> Self {
        Self {
            hook: h.hook.clone(),
            waiting: h.waiting,
            results: h.results.iter().into(),
        }
    }
}

impl Now<'_> {
    pub(super) fn tell(&self, tables: &mut Tables) {
        tables.info(
            "build",
            "The version of probe.",
            labels([("version", env!("CARGO_PKG_VERSION"))]),
        );
        self.probe(tables);
        self.services(tables);
        self.findings(tables);
        self.listeners(tables);
        self.hooks(tables);
        self.history(tables);
        if let Some(stream) = self.stream {
            tables.gauge(
                "stream",
                Some(Bytes),
                "Memory of the lines that are kept for watchers.",
                [(labels([]), stream.bytes as f64)],
            );
            tables.gauge(
                "stream_readers",
                None,
                "Readers of the stream of lines.",
                [(labels([]), stream.readers as f64)],
            );
        }
    }

    fn probe(&self, tables: &mut Tables) {
        let Some(probe) = self.probe else { return };
        let none = || labels([]);
        tables.gauge(
            "uptime",
            Some(Seconds),
            "Time since the daemon began.",
            [(none(), self.at.since(probe.since_ns).as_secs_f64())],
        );
        tables.gauge(
            "joined",
            None,
            "1 once the first snapshot is joined with the events.",
            [(none(), f64::from(u8::from(probe.joined)))],
        );
        tables.gauge(
            "blind",
            None,
            "1 while verdicts are unknown because events were lost.",
            [(none(), f64::from(u8::from(probe.blind.is_some())))],
        );
        tables.gauge(
            "tier",
            None,
            "How each subject is captured.",
            probe
                .tier
                .iter()
                .map(|(subject, tier)| (labels([("subject", subject), ("tier", tier)]), 1.0)),
        );
        tables.counter(
            "reloads",
            "How often the configuration was read anew.",
            [(none(), probe.reloads)],
        );
        tables.gauge(
            "reload_ok",
            None,
            "0 while the configuration on disk is refused.",
            [(none(), f64::from(u8::from(probe.reload_error.is_none())))],
        );
    }

    fn services(&self, tables: &mut Tables) {
        let each = |f: fn(&ServiceStatus) -> Option<f64>| {
            self.services
                .iter()
                .filter_map(move |s| Some((of_service(s), f(s)?)))
        };
        let verdicts = [
            (Verdict::Ok, "ok"),
            (Verdict::Finding, "finding"),
            (Verdict::Unknown, "unknown"),
        ];
        tables.gauge(
            "service_verdict",
            None,
            "1 for what is true of the service.",
            self.services.iter().flat_map(|s| {
                verdicts.map(|(verdict, name)| {
                    let is = f64::from(u8::from(s.verdict == verdict));
                    (labels([("service", &s.service), ("verdict", name)]), is)
                })
            }),
        );
        tables.gauge(
            "service_generation",
            None,
            "Lives of the main process so far.",
            each(|s| Some(s.generation as f64)),
        );
        tables.counter(
            "service_restarts",
            "Lives of the main process after the first; survives a restart of probe.",
            self.services.iter().map(|s| (of_service(s), s.restarts)),
        );
        tables.gauge(
            "service_instances",
            None,
            "Living instances that count.",
            each(|s| Some(f64::from(s.instances))),
        );
        tables.gauge(
            "service_silenced",
            None,
            "1 while hooks and heal rest for the service.",
            each(|s| Some(f64::from(u8::from(s.silenced.is_some())))),
        );
        tables.gauge(
            "heartbeat_age",
            Some(Seconds),
            "Time since the last sign of life.",
            each(|s| s.heartbeat_age_ns.map(|ns| ns as f64 / 1e9)),
        );
    }

    /// Those that are open, and no series for the thousands that are not.
    fn findings(&self, tables: &mut Tables) {
        let blind = self.probe.and_then(|p| p.blind.as_ref());
        let mut open: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        for f in self.services.iter().flat_map(|s| &s.findings).chain(blind) {
            let severity = match f.severity {
                Severity::Warning => "warning",
                Severity::Critical => "critical",
            };
            *open.entry((&f.service, f.kind.name(), severity)).or_default() += 1;
        }
        tables.gauge(
            "findings_open",
            None,
            "Open findings.",
            open.into_iter().map(|((service, kind, severity), n)| {
                (
                    labels([("service", service), ("kind", kind), ("severity", severity)]),
                    n as f64,
                )
            }),
        );
    }

    fn listeners(&self, tables: &mut Tables) {
        let each = |f: fn(&crate::api::types::ListenerStatus) -> Option<u32>| {
            self.services.iter().flat_map(move |s| {
                s.listeners.iter().filter_map(move |l| {
                    let labels = labels([("service", &s.service), ("address", &l.address.to_string())]);
                    Some((labels, f64::from(f(l)?)))
                })
            })
        };
        tables.gauge(
            "accept_queue_length",
            None,
            "Connections that wait to be accepted, when the kernel was last asked.",
            each(|l| l.queue),
        );
        tables.gauge(
            "accept_queue_limit",
            None,
            "Connections that may wait to be accepted.",
            each(|l| l.limit),
        );
    }

    fn hooks(&self, tables: &mut Tables) {
        tables.gauge(
            "hook_queue_length",
            None,
            "Notifications that wait to be sent.",
            self.hooks
                .iter()
                .map(|h| (labels([("hook", &h.hook)]), h.waiting as f64)),
        );
        tables.counter(
            "hook_results",
            "Notifications by what became of them.",
            self.hooks.iter().flat_map(|h| {
                h.results
                    .iter()
                    .map(|(outcome, n)| (labels([("hook", &h.hook), ("outcome", outcome)]), *n))
            }),
        );
    }

    fn history(&self, tables: &mut Tables) {
        let Some(h) = self.history else { return };
        let none = || labels([]);
        let failing = matches!(h.health, history::Health::Failing { .. });
        tables.gauge(
            "history_ok",
            None,
            "0 while the history cannot be written.",
            [(none(), f64::from(u8::from(!failing)))],
        );
        tables.gauge(
            "history",
            Some(Bytes),
            "Bytes of the history.",
            [(none(), h.bytes as f64)],
        );
        tables.gauge(
            "history_queue_length",
            None,
            "Lines that wait to be written.",
            [(none(), h.waiting as f64)],
        );
        tables.counter("history_lines", "Lines written.", [(none(), h.written)]);
        tables.counter(
            "history_lines_lost",
            "Lines that could not be written.",
            [(none(), h.lost)],
        );
    }
}

fn of_service(s: &ServiceStatus) -> Labels {
    labels([("service", &s.service)])
}
