//! Findings for tests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{
    notification::{Alert, Notification, State, Values},
    pending::Silences,
};
use crate::{
    clock::Nanos,
    engine::finding::{Finding, FindingState, Kind},
};

pub(crate) fn finding(id: &str, kind: Kind, cause: &str, at: Nanos) -> Finding {
    Finding {
        id: id.into(),
        state: FindingState::Opened,
        kind,
        service: "annad".into(),
        severity: kind.severity(),
        subject: "unix:/run/anna/annad.sock".into(),
        cause: cause.into(),
        at,
        detected_after_ns: 180_000,
        actor: None,
        summary: "no process holds /run/anna/annad.sock".into(),
        resolution: None,
        evidence: vec![41, 44],
        facts: serde_json::Map::new(),
    }
}

pub(crate) fn notification(summary: &str) -> Notification {
    let mut finding = finding("0123abcd", Kind::StaleSocket, "c1", Nanos(2_000_000_000));
    finding.summary = summary.into();
    Notification {
        state: State::Opened,
        cause: "c1".into(),
        alerts: vec![Alert {
            finding,
            wall_offset_ns: 1_700_000_000_000_000_000,
            started_ns: 1_700_000_002_000_000_000,
            ended_ns: None,
        }],
        made_ns: 1_700_000_003_000_000_000,
        suppressed: 0,
    }
}

pub(crate) fn values(summary: &str) -> Values {
    notification(summary).values("page")
}

/// Services and until when they are silenced.
#[derive(Debug, Default)]
pub(crate) struct Silenced(Mutex<BTreeMap<String, Nanos>>);

impl Silenced {
    pub(crate) fn set(&self, service: &str, until: Option<Nanos>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => all.insert(service.into(), until),
            None => all.remove(service),
        };
    }
}

impl Silences for Silenced {
    fn until(&self, service: &str) -> Option<Nanos> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(service).copied()
    }
}

/// As the daemon's: one thread.
pub(crate) fn on_runtime<T>(f: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(f);
    runtime.shutdown_background();
    result
}
