//! What the engine knows, as the answers of the API.

use std::collections::BTreeMap;

use super::{
    Api,
    types::{
        EndStatus, FindingStatus, HistoryState, HistoryStatus, ListenerState, ListenerStatus, PidRef,
        PinStatus, ProbeStatus, ProcessRef, ServiceStatus, Silence, Stopping, Verdict,
    },
};
use crate::{
    clock::Nanos,
    daemon::ask::Picture,
    engine::{
        finding::Finding,
        view::{self, EndView, ListenerView, ServiceView},
    },
    history::{self, Health},
    report,
};

impl From<view::ListenerState> for ListenerState {
    fn from(state: view::ListenerState) -> Self {
        match state {
            view::ListenerState::Socket(state) => state.into(),
            view::ListenerState::Orphaned => Self::Orphaned,
            view::ListenerState::Stale => Self::Stale,
            view::ListenerState::Absent => Self::Absent,
            view::ListenerState::Unknown => Self::Unknown,
        }
    }
}

impl From<&ListenerView> for ListenerStatus {
    fn from(l: &ListenerView) -> Self {
        Self {
            address: l.address.clone(),
            state: l.state.into(),
            holder: l.holder.as_ref().map(ProcessRef::from),
            inode: l.inode,
            queue: l.queue,
            limit: l.limit,
            since_ns: l.since,
        }
    }
}

impl From<&EndView> for EndStatus {
    fn from(e: &EndView) -> Self {
        Self {
            process: (&e.process).into(),
            boot_ns: e.at,
            how: e.how.clone(),
            asked: e.asked,
        }
    }
}

impl FindingStatus {
    fn new(f: &Finding, wall_offset_ns: i64) -> Self {
        Self {
            id: f.id.clone(),
            state: f.state,
            kind: f.kind,
            service: f.service.clone(),
            severity: f.severity,
            subject: f.subject.clone(),
            cause: f.cause.clone(),
            at: report::rfc3339(f.at, wall_offset_ns),
            boot_ns: f.at,
            actor: f.actor.as_deref().map(ProcessRef::from),
            summary: f.summary.clone(),
            evidence: f.evidence.clone(),
            facts: f.facts.clone(),
        }
    }
}

impl Picture {
    /// Every service of it.
    pub(crate) fn services(&self) -> Vec<ServiceStatus> {
        self.services
            .iter()
            .map(|(view, cannot_see)| self.service(view, cannot_see))
            .collect()
    }

    fn service(&self, s: &ServiceView, cannot_see: &[String]) -> ServiceStatus {
        let verdict = match (self.can_judge && s.fits, s.findings.is_empty()) {
            (false, _) => Verdict::Unknown,
            (true, true) => Verdict::Ok,
            (true, false) => Verdict::Finding,
        };
        ServiceStatus {
            service: s.service.clone(),
            verdict,
            expected: s.expected,
            main: s.main.as_ref().map(|(process, _)| process.into()),
            main_since_ns: s.main.as_ref().map(|(_, since)| *since),
            instances: count(s.instances),
            members: count(s.members),
            generation: s.generation,
            restarts: s.generation.saturating_sub(1),
            ready: s.ready,
            listeners: s.listeners.iter().map(ListenerStatus::from).collect(),
            pid_file: s.pid_file.clone(),
            unit: s.unit.clone(),
            heartbeat_age_ns: s.beat.map(|beat| nanos(self.at, beat)),
            stopping: s.stopping.as_ref().map(|(since, asked)| Stopping {
                since_ns: *since,
                asked: asked.clone(),
            }),
            last_end: s.last_end.as_ref().map(EndStatus::from),
            gave_up: s.gave_up,
            findings: s.findings.iter().map(|f| self.finding(f)).collect(),
            silenced: None,
            tier: self.tier.clone(),
            cannot_see: cannot_see.to_vec(),
        }
    }

    fn finding(&self, f: &Finding) -> FindingStatus {
        FindingStatus::new(f, self.wall_offset_ns)
    }

    /// Everything that is open.
    pub(crate) fn findings(&self) -> Vec<FindingStatus> {
        let blind = self.blind.iter();
        let others = self.services.iter().flat_map(|(s, _)| &s.findings);
        blind.chain(others).map(|f| self.finding(f)).collect()
    }
}

impl Api {
    /// Every service of a picture, with its silence.
    pub(super) fn services(&self, picture: &Picture) -> Vec<ServiceStatus> {
        let mut services = picture.services();
        for s in &mut services {
            s.silenced = self.0.silences.active(&s.service).as_ref().map(Silence::from);
        }
        services
    }

    /// Of probe itself.
    pub(super) async fn probe(&self, picture: &Picture) -> ProbeStatus {
        let loaded = self.loaded();
        let lost = picture.lost.iter().map(|(s, n)| (s.clone(), *n));
        ProbeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: PidRef {
                pid: std::process::id(),
            },
            since_ns: self.0.since,
            joined: picture.joined,
            blind: picture.blind.as_ref().map(|f| picture.finding(f)),
            lost: lost.collect::<BTreeMap<_, _>>(),
            tier: picture.tier.clone(),
            pinned: Some(PinStatus {
                directory: picture.pinned.directory.as_ref().map(|d| d.display().to_string()),
                why_not: picture.pinned.why_not.clone(),
            }),
            unwatched: picture.unwatched.clone(),
            loaded_ns: loaded.at,
            reloads: loaded.reloads,
            reload_error: loaded.error,
            history: Some(HistoryStatus::new(&self.0.store.status(), &self.0.notices)),
            hooks: self.0.acts.hooks().await,
            silences: self.0.silences.list().iter().map(Silence::from).collect(),
        }
    }
}

impl HistoryStatus {
    fn new(s: &history::Status, notices: &[String]) -> Self {
        let (state, error) = match &s.health {
            Health::Opening => (HistoryState::Opening, None),
            Health::Writing => (HistoryState::Writing, None),
            Health::Failing { why, .. } => (HistoryState::Failing, Some(why.clone())),
        };
        Self {
            state,
            error,
            notices: notices.to_vec(),
            written: s.written,
            lost: s.lost,
            waiting: u64::try_from(s.waiting).unwrap_or(u64::MAX),
            bytes: s.bytes,
            oldest: s.oldest.map(|at| report::rfc3339(Nanos::ZERO, at.0)),
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn nanos(now: Nanos, then: Nanos) -> u64 {
    u64::try_from(now.since(then).as_nanos()).unwrap_or(u64::MAX)
}
