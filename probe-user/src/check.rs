//! One verdict of some services, now: what `probe check` says. No daemon, and nothing that stays.
//!
//! The engine judges, as it does in the daemon; only what a look can tell reaches it. Most of what is wrong has to last for a
//! while before it is wrong (two instances for `overlap`, say), and a check does not wait that long. What a process's start
//! time proves to have lasted is told to the engine as having been seen then: see [`past`]. And where something looks
//! wrong it is looked at a second time, so that a daemon that is just being restarted gives no alarm.

mod beats;
mod past;
mod plugin;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    thread,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::plugin::plugin;
use crate::{
    address::Address,
    api::types::ProcessRef,
    clock::{self, Nanos},
    config::{Config, Service},
    engine::{
        Effect, Engine,
        finding::{Kind, Severity},
        view::{ListenerState, ListenerView, ServiceView},
    },
    event::{Event, PathState, ProcId, RunState, Snapshot, SnapshotReason, SocketState, TimeSource, What},
    runtime::exe_ids,
    sources::{observer::Observer, process_state, view::Views},
    who::sight::Sight,
};

/// The longest wait before a second look.
const SECOND_LOOK: Duration = Duration::from_secs(5);
/// Looks at single processes that one verdict may ask for.
const LOOKS: usize = 1024;

/// As monitoring plugins tell it; the exit codes are theirs too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    /// Not everything could be seen, and nothing that was is wrong.
    Unknown = 3,
}

impl Status {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What is wrong counts for more than what could not be seen.
    fn weight(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }

    fn worst(all: impl Iterator<Item = Self>) -> Self {
        all.max_by_key(|s| s.weight()).unwrap_or(Self::Ok)
    }
}

/// The verdict of all services that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The version of the contract.
    pub v: u32,
    /// `check`.
    pub r#type: ReportType,
    /// Nanoseconds on the boot clock.
    pub boot_ns: u64,
    pub status: Status,
    pub services: Vec<ServiceReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportType {
    Check,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceReport {
    pub service: String,
    pub status: Status,
    pub main: Option<ProcessRef>,
    pub findings: Vec<Problem>,
    pub queues: Vec<Queue>,
    /// Time since the last sign of life, and how long it may be. `null`: none is declared, or none was seen.
    pub heartbeat_age_ns: Option<u64>,
    pub stale_after_ns: Option<u64>,
    /// What could not be seen.
    pub cannot_see: Vec<String>,
}

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    pub kind: Kind,
    pub severity: Severity,
    pub subject: String,
    pub summary: String,
}

/// Connections that wait at a listener, and how many may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Queue {
    pub address: Address,
    pub queue: u32,
    pub limit: u32,
}

/// Looks at all services of `config` and judges them.
pub fn check(mut config: Config, observer: &mut Observer) -> Report {
    let sight = Sight::read();
    if !sight.sees_processes() {
        return blind(&config, &sight);
    }
    let mut notes = Notes::default();
    let beats = beats::read(&mut config, &mut notes);
    let mut looker = Looker {
        exes: exe_ids(&config),
        views: Views::new(&config),
        config,
        observer,
        beats,
    };
    looker
        .views
        .guess(&looker.config, || looker.observer.selected(&looker.config));
    let (mut engine, mut snapshot) = looker.judge();
    // A main process in a namespace or root of its own means other addresses than were looked at.
    if !looker.views.follow(engine.mains()).is_empty() {
        (engine, snapshot) = looker.judge();
    }
    if let Some(wait) = looker.doubt(&engine, &snapshot) {
        thread::sleep(wait);
        snapshot = looker.look();
        let at = snapshot.began;
        feed(&mut engine, What::Snapshot(snapshot.clone()), at);
        feed(&mut engine, What::Timer, clock::now());
    }
    notes.unread(&looker.config, &snapshot);
    let services = engine
        .views()
        .iter()
        .zip(&looker.config.services)
        .map(|(view, declared)| service(view, declared, &mut notes))
        .collect();
    report(services)
}

fn report(services: Vec<ServiceReport>) -> Report {
    Report {
        v: 1,
        r#type: ReportType::Check,
        boot_ns: clock::now().0,
        status: Status::worst(services.iter().map(|s| s.status)),
        services,
    }
}

/// Without the right to look at other users' processes nobody can tell which of them belong to a service.
fn blind(config: &Config, sight: &Sight) -> Report {
    let why: Vec<String> = sight.descriptors().into_iter().collect();
    let services = config.services.iter().map(|s| ServiceReport {
        service: s.name.clone(),
        status: Status::Unknown,
        main: None,
        findings: Vec::new(),
        queues: Vec::new(),
        heartbeat_age_ns: None,
        stale_after_ns: None,
        cannot_see: why.clone(),
    });
    report(services.collect())
}

/// What could not be seen, by service.
#[derive(Debug, Default)]
struct Notes(BTreeMap<String, Vec<String>>);

impl Notes {
    fn add(&mut self, service: &str, what: String) {
        self.0.entry(service.to_owned()).or_default().push(what);
    }

    /// Addresses that the kernel told nothing of, or not everything.
    fn unread(&mut self, config: &Config, snapshot: &Snapshot) {
        for (service, sites) in config.services.iter().zip(config.sites()) {
            for state in &snapshot.addresses {
                if !sites.contains(&state.site()) {
                    continue;
                }
                let address = &state.address;
                if let Some(error) = &state.error {
                    self.add(&service.name, format!("{address}: {error}"));
                }
                if let Some(PathState::Unknown(why)) = &state.path {
                    self.add(&service.name, format!("{address}: {why}"));
                }
                if state.sockets.iter().any(|s| !s.holders_known) {
                    self.add(&service.name, format!("who holds {address}"));
                }
            }
        }
    }
}

/// What one verdict rests on.
struct Looker<'a> {
    config: Config,
    exes: BTreeMap<String, crate::event::FileId>,
    views: Views,
    observer: &'a mut Observer,
    /// By service.
    beats: Vec<(String, Option<Nanos>)>,
}

impl Looker<'_> {
    fn look(&mut self) -> Snapshot {
        for i in 0..self.config.services.len() {
            self.views.refresh(i);
        }
        self.observer
            .snapshot(&self.config, &self.views, SnapshotReason::Start)
    }

    fn judge(&mut self) -> (Engine, Snapshot) {
        let snapshot = self.look();
        let at = snapshot.began;
        let before = past::begin(&self.config, at);
        let mut engine = Engine::new(self.config.clone(), &self.exes);
        let past = past::snapshot(&snapshot, before);
        let mut now = snapshot.clone();
        // A level that is told again begins anew: what has lasted since then is told once.
        now.pid_files.retain(|file| !past.pid_files.contains(file));
        feed(&mut engine, What::Snapshot(past), before);
        for (service, beat) in &self.beats {
            let (service, beat) = (service.clone(), *beat);
            feed(&mut engine, What::Heartbeat { service, beat }, at);
        }
        feed(&mut engine, What::Snapshot(now), at);
        feed(&mut engine, What::Timer, clock::now());
        (engine, snapshot)
    }

    /// How long after this first look a second one must follow. `None`: it would tell nothing new.
    fn doubt(&self, engine: &Engine, snapshot: &Snapshot) -> Option<Duration> {
        let waiting: BTreeSet<_> = snapshot
            .addresses
            .iter()
            .filter(|a| a.sockets.iter().any(|s| s.head.is_some()))
            .map(|a| a.site())
            .collect();
        let wait = |(declared, (view, sites)): (&Service, (ServiceView, Vec<_>))| {
            let stalls = sites.iter().any(|site| waiting.contains(site));
            let stall = stalls.then_some(declared.accept_within);
            let unserved = |l: &ListenerView| l.state != ListenerState::Socket(SocketState::Listening);
            let lacks = view.main.is_some() && view.listeners.iter().any(unserved);
            let gap = (lacks || !view.findings.is_empty()).then_some(declared.relisten_within);
            stall.max(gap)
        };
        let views = engine.views().into_iter().zip(self.config.sites());
        let longest = self.config.services.iter().zip(views).filter_map(wait).max()?;
        Some(longest.min(SECOND_LOOK))
    }
}

/// Hands the engine what was seen, and answers at once what it wants to know of processes. Addresses and PID files were
/// just looked at.
fn feed(engine: &mut Engine, what: What, at: Nanos) {
    let mut queue = VecDeque::from([what]);
    let mut looked: BTreeSet<ProcId> = BTreeSet::new();
    while let Some(what) = queue.pop_front() {
        let event = Event {
            at,
            time_source: TimeSource::Observed,
            what,
        };
        for effect in engine.apply(event, at) {
            if let Effect::Look(id) = effect
                && looked.len() < LOOKS
                && looked.insert(id)
            {
                queue.push_back(What::Process(process_state::look(id)));
            }
        }
    }
}

fn service(view: &ServiceView, declared: &Service, notes: &mut Notes) -> ServiceReport {
    let mut findings: Vec<Problem> = view
        .findings
        .iter()
        .map(|f| Problem {
            kind: f.kind,
            severity: f.severity,
            subject: f.subject.clone(),
            summary: f.summary.clone(),
        })
        .collect();
    findings.extend(stopped(view));
    findings.sort_by_key(|f| (std::cmp::Reverse(f.severity), f.kind));
    let cannot_see = notes.0.remove(&view.service).unwrap_or_default();
    let severities = findings.iter().map(|f| match f.severity {
        Severity::Critical => Status::Critical,
        Severity::Warning => Status::Warning,
    });
    let unseen = (!cannot_see.is_empty()).then_some(Status::Unknown);
    let queues = view.listeners.iter().filter_map(|l| {
        Some(Queue {
            address: l.address.clone(),
            queue: l.queue?,
            limit: l.limit?,
        })
    });
    let age = view.beat.map(|at| clock::now().since(at));
    ServiceReport {
        service: view.service.clone(),
        status: Status::worst(severities.chain(unseen)),
        main: view.main.as_ref().map(|(p, _)| ProcessRef::from(p)),
        queues: queues.collect(),
        heartbeat_age_ns: age.map(nanos),
        stale_after_ns: declared
            .heartbeat
            .as_ref()
            .filter(|_| age.is_some())
            .map(|h| nanos(h.stale_after)),
        findings,
        cannot_see,
    }
}

/// The engine goes by the signal that stopped a process; here there is only the process.
fn stopped(view: &ServiceView) -> Option<Problem> {
    let (main, _) = view.main.as_ref()?;
    let told = |f: &crate::engine::finding::Finding| matches!(f.kind, Kind::Stopped | Kind::StaleHeartbeat);
    if view.findings.iter().any(told) || process_state::look(main.id).run != RunState::Stopped {
        return None;
    }
    Some(Problem {
        kind: Kind::Stopped,
        severity: Kind::Stopped.severity(),
        subject: view.service.clone(),
        summary: format!("{} is stopped", crate::engine::describe(main)),
    })
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
