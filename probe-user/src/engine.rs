//! The engine: joins what happened with what was declared, and says what is wrong.
//!
//! It is pure: no I/O, no clock, no order that depends on a hash. [`Engine::apply`] takes an event and the time, and
//! returns what shall be shown and done; [`Engine::deadline`] says when it wants to be called although nothing
//! happened. Events change state ([`process`], [`signal`], [`socket`], [`pid_file`], [`unit`], [`snapshot`]); what is wrong is
//! computed from the state alone ([`rules`], [`verdict`]), so the order of events within their uncertainty does not
//! matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    address::Site,
    clock::Nanos,
    config::{Config, Service},
    event::{Event, FileId, ProcId, SnapshotReason, TimeSource, What},
};

mod addresses;
mod bind;
mod bounds;
pub mod facts;
mod family;
pub mod finding;
mod handover;
mod heal;
mod heartbeat;
mod index;
mod late;
mod ledger;
mod look;
pub mod membership;
mod pid_file;
mod process;
mod reload;
mod roster;
mod rules;
pub mod selectors;
mod show;
mod signal;
mod sleep;
mod snapshot;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod unit;
mod verdict;
pub mod view;

use addresses::{Addresses, Place};
use bounds::Bound;
pub use finding::Effect;
use ledger::Sightings;
use process::Tombstones;
use roster::{Quick, Roster};
pub(crate) use show::describe;
use state::{Blind, ServiceState};

/// Ties a timer to what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    Service(usize),
    Address(Place),
    Resync,
}

#[derive(Debug)]
pub struct Engine {
    config: Config,
    services: Vec<ServiceState>,
    /// Services by what selects their members, so that a process is compared only with those it can belong to.
    index: index::Index,
    /// Which services a living process belongs to.
    member_of: Roster,
    /// Services that a living process could not bind an address of.
    refused: BTreeMap<ProcId, BTreeSet<usize>>,
    /// Processes that have ended: an identity never comes back.
    ended: Tombstones,
    sightings: Sightings,
    /// Addresses that this event has asked to look at.
    settling: BTreeSet<Place>,
    /// What there was more of than may be remembered, since when.
    over: BTreeMap<Bound, Nanos>,
    addresses: Addresses,
    /// Only asked, never walked over.
    by_name: Quick<String, usize>,
    timers: BTreeSet<(Nanos, Due)>,
    timer_of: Quick<Due, Nanos>,
    /// The first snapshot is in: verdicts may be given.
    joined: bool,
    blind: Option<Blind>,
    blind_open: Option<verdict::Open>,
    seq: u64,
    sleeps: sleep::Sleeps,
    now: Nanos,
    /// Time and source of the event being applied.
    at: Nanos,
    time_source: TimeSource,
    touched: BTreeSet<usize>,
    effects: Vec<Effect>,
}

impl Engine {
    /// `exes`: what each declared executable's path leads to now.
    pub fn new(config: Config, exes: &BTreeMap<String, FileId>) -> Self {
        let sites = config.sites();
        let addresses = Addresses::new(&sites);
        let services: Vec<_> = config
            .services
            .iter()
            .zip(&sites)
            .map(|(s, sites)| ServiceState::new(s.clone(), addresses.places_of(sites)))
            .collect();
        let by_name = services
            .iter()
            .enumerate()
            .map(|(i, s)| (s.decl.name.clone(), i))
            .collect();
        Self {
            index: index::Index::new(&config.services, &addresses, exes),
            services,
            by_name,
            member_of: Roster::default(),
            refused: BTreeMap::new(),
            ended: Tombstones::new(config.probe.bounds.ended.get() as usize),
            sightings: Sightings::default(),
            settling: BTreeSet::new(),
            over: BTreeMap::new(),
            addresses,
            timers: BTreeSet::new(),
            timer_of: Quick::default(),
            joined: false,
            blind: None,
            blind_open: None,
            seq: 0,
            sleeps: sleep::Sleeps::default(),
            now: Nanos::ZERO,
            at: Nanos::ZERO,
            time_source: TimeSource::Observed,
            touched: BTreeSet::new(),
            effects: Vec::new(),
            config,
        }
    }

    /// Takes one event; `now` never goes back. The effects stand in the order in which they are to be done.
    pub fn apply(&mut self, event: Event, now: Nanos) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.at = event.at;
        self.time_source = event.time_source;
        match event.what {
            What::Exec { process } => self.on_exec(process),
            What::Fork { child } => self.on_fork(child),
            What::Exit {
                process,
                status,
                listeners,
            } => self.on_exit(process, status, listeners.as_deref()),
            What::Signal(sent) => self.on_signal(sent),
            What::Oom { victim, rss } => self.on_oom(victim, rss),
            What::Bind {
                address,
                process,
                inode,
                error,
                netns,
                ..
            } => self.on_bind(&address, process, inode, netns, error),
            What::Listen {
                address,
                process,
                socket,
                inode,
                netns,
            } => self.on_listen(&address, process, socket, inode, netns),
            What::Unlisten {
                address,
                socket,
                inode,
                netns,
            } => self.on_unlisten(&address, socket, inode, netns),
            What::SocketClosed { inode } => self.on_socket_closed(inode),
            What::Path {
                address,
                of,
                change,
                actor,
            } => self.on_path(&Site { address, of }, change, actor),
            What::PidFilePath {
                path,
                of,
                change,
                actor,
            } => self.on_pid_file_path(&path, of, change, actor),
            What::Address(state) => self.on_address(state),
            What::PidFile(state) => self.on_pid_file(state),
            What::Process(state) => self.on_process_state(state),
            What::Unit(state) => self.on_unit(state),
            What::Executable { path, id } => self.on_executable(&path, id),
            What::Heartbeat { service, beat } => self.on_heartbeat(&service, beat),
            What::Snapshot(snapshot) => self.on_snapshot(snapshot),
            What::Lost { source, count } => self.on_lost(source, count),
            What::Reload { config, exes } => self.on_reload(*config, &exes),
            What::Remembered {
                service,
                generation,
                main,
            } => self.on_remembered(&service, generation, main),
            What::Followed { process, services } => self.on_followed(process, &services),
            What::GaveUp { service, attempts } => self.on_gave_up(&service, attempts),
            What::Woke { slept_ns } => self.sleeps.note(self.at, Duration::from_nanos(slept_ns)),
            What::Timer => {}
        }
        self.run_timers();
        self.judge();
        self.settling.clear();
        std::mem::take(&mut self.effects)
    }

    /// When [`Engine::apply`] wants to be called with [`What::Timer`].
    pub fn deadline(&self) -> Option<Nanos> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Living members of all services: what a snapshot must look at, whatever it selects itself.
    pub fn members(&self) -> impl Iterator<Item = ProcId> + use<> {
        self.member_of.ids().into_iter()
    }

    /// What is declared of the services that a process belongs to, and whose child it is.
    pub fn membership(&self, id: &ProcId) -> (impl Iterator<Item = &Service>, Option<ProcId>) {
        let services = self.member_of.get(id).unwrap_or_default();
        let known = services.first().and_then(|s| self.services[*s].member(id));
        (
            services.iter().map(|s| &self.services[*s].decl),
            known.and_then(|m| m.process.parent),
        )
    }

    /// The living main process of each service, in the order of the configuration.
    pub fn mains(&self) -> Vec<Option<ProcId>> {
        self.services
            .iter()
            .map(|s| s.main.as_ref().map(|m| m.id))
            .collect()
    }

    fn run_timers(&mut self) {
        while let Some((at, due)) = self.timers.first().copied() {
            if at > self.now {
                break;
            }
            self.clear_timer(due);
            match due {
                Due::Service(i) => {
                    self.qualify(i);
                    self.touched.insert(i);
                }
                Due::Address(a) => self.settle_again(a),
                Due::Resync => {
                    self.effects.push(Effect::Resync(SnapshotReason::Interval));
                    self.set_timer(Due::Resync, self.now + self.config.probe.settle_every);
                }
            }
        }
    }

    fn set_timer(&mut self, due: Due, at: Nanos) {
        self.clear_timer(due);
        self.timer_of.insert(due, at);
        self.timers.insert((at, due));
    }

    fn clear_timer(&mut self, due: Due) {
        if let Some(at) = self.timer_of.remove(&due) {
            self.timers.remove(&(at, due));
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn on_lost(&mut self, source: String, count: u64) {
        self.effects.push(Effect::Lost {
            source: source.clone(),
            count,
        });
        self.effects.push(Effect::Resync(SnapshotReason::Loss));
        let at = self.at;
        let blind = self.blind.get_or_insert_with(|| Blind {
            since: at,
            last: at,
            sources: BTreeMap::new(),
        });
        blind.last = blind.last.max(at);
        // A few dozen sources exist; a recording may name any.
        let source = match blind.sources.len() < bounds::SOURCES || blind.sources.contains_key(&source) {
            true => source,
            false => "others".to_owned(),
        };
        *blind.sources.entry(source).or_default() += count;
    }
}
