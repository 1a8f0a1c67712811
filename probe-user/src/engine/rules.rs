//! What is wrong, one rule a file. A rule looks at the state of one service and says what holds now, or when it may
//! hold; it changes nothing. Each is named after its finding.

mod accept_stall;
mod address_taken;
mod bind_refused;
mod crash_loop;
mod crashed;
mod duplicate_instance;
pub(super) mod killed_while_stopping;
mod not_listening;
mod not_running;
mod oom_killed;
mod orphaned_listener;
mod pid_file_mismatch;
mod signal_blocked;
mod signal_ignored;
mod slow_stop;
mod stale_heartbeat;
mod stale_pid_file;
mod stale_socket;
mod stopped;
pub(super) mod unhandled_signal;
mod unhandled_signal_risk;

use crate::{address::Address, clock::Nanos};

use super::{
    Engine,
    finding::Kind,
    ledger::AddressLedger,
    state::{End, Instance, ServiceState},
    verdict::{Condition, Key, Verdict},
};

/// What a rule may look at.
pub(super) struct View<'a> {
    pub(super) engine: &'a Engine,
    pub(super) service: &'a ServiceState,
    /// Of the service.
    pub(super) index: usize,
    pub(super) now: Nanos,
}

impl<'a> View<'a> {
    fn new(engine: &'a Engine, s: usize) -> Self {
        Self {
            engine,
            service: &engine.services[s],
            index: s,
            now: engine.now,
        }
    }

    /// The declared addresses with what is known of them.
    fn addresses(&self) -> impl Iterator<Item = (&'a Address, &'a AddressLedger)> + use<'a> {
        let (engine, service) = (self.engine, self.service);
        service
            .places
            .iter()
            .filter_map(move |a| Some((engine.addresses.address(*a)?, engine.addresses.get(*a)?)))
    }

    fn is_open(&self, key: &Key) -> bool {
        self.service.open.contains_key(key)
    }

    /// Until when what this end left behind is explained by its having been asked for: the next life may still be about
    /// to replace it.
    fn excused_until(&self, end: &End) -> Option<Nanos> {
        let began = self.service.main.as_ref().map_or(end.at, |m| m.began);
        end.explains_leftovers()
            .then(|| end.at.max(began) + self.service.decl.ready_within)
    }

    /// Until when a member that has not yet shown that it counts may still be starting.
    fn starting_until(&self) -> Option<Nanos> {
        if self.service.qualified().next().is_some() {
            return None;
        }
        let youngest = self.service.family.roots().next_back()?;
        let began = self.service.members.get(&youngest)?.process.start;
        Some(began + self.service.decl.ready_within)
    }
}

/// Everything that is wrong with service `s` now.
pub(super) fn judge(engine: &Engine, s: usize) -> Verdict {
    let view = View::new(engine, s);
    let mut verdict = Verdict::default();
    for rule in [
        stale_socket::judge,
        orphaned_listener::judge,
        not_listening::judge,
        not_running::judge,
        duplicate_instance::judge,
        stale_pid_file::judge,
        crashed::judge,
        oom_killed::judge,
        unhandled_signal::judge,
        killed_while_stopping::judge,
        address_taken::judge,
        bind_refused::judge,
        pid_file_mismatch::judge,
        crash_loop::judge,
        stopped::judge,
        signal_ignored::judge,
        slow_stop::judge,
        stale_heartbeat::judge,
        unhandled_signal_risk::judge,
        signal_blocked::judge,
        accept_stall::judge,
    ] {
        rule(&view, &mut verdict);
    }
    verdict
}

/// Facts of the kind, beyond what every finding has.
pub(super) fn facts(
    engine: &Engine,
    s: usize,
    condition: &Condition,
) -> serde_json::Map<String, serde_json::Value> {
    match condition.key.kind {
        Kind::CrashLoop => crash_loop::facts(&View::new(engine, s)),
        Kind::SlowStop => slow_stop::facts(engine, s),
        Kind::KilledWhileStopping => killed_while_stopping::facts(&View::new(engine, s), condition),
        _ => serde_json::Map::new(),
    }
}

/// What ended a condition that no longer holds.
pub(super) fn resolution(engine: &Engine, s: usize, was: &Condition) -> String {
    let view = View::new(engine, s);
    match was.key.kind {
        Kind::StaleSocket => stale_socket::resolution(&view, was),
        Kind::OrphanedListener => orphaned_listener::resolution(&view, was),
        Kind::NotListening => not_listening::resolution(&view, was),
        Kind::StalePidFile => stale_pid_file::resolution(&view),
        Kind::AddressTaken => address_taken::resolution(&view, was),
        Kind::BindRefused => bind_refused::resolution(&view, was),
        Kind::Stopped => stopped::resolution(&view),
        Kind::CrashLoop => crash_loop::resolution(&view),
        Kind::SlowStop => "the process has ended".to_owned(),
        Kind::StaleHeartbeat => match &view.service.main {
            Some(_) => "it shows signs of life again".to_owned(),
            None => "the service is stopped".to_owned(),
        },
        Kind::SignalBlocked => "the signal is not pending any more".to_owned(),
        Kind::AcceptStall => "the connection was accepted, or its listener is gone".to_owned(),
        Kind::DuplicateInstance => "no more instances than declared are left".to_owned(),
        _ => view
            .service
            .main_member()
            .map_or("the service is stopped".to_owned(), |m| {
                format!(
                    "{} runs, generation {}",
                    super::show::describe(&m.process),
                    view.service.generation
                )
            }),
    }
}

/// A condition that rests on how a process ended. It holds until a later main process counts.
fn after_end(kind: Kind, service: &ServiceState, end: &End, summary: String) -> Condition {
    Condition {
        severity: None,
        key: Key {
            kind,
            subject: service.decl.name.clone(),
            detail: end.cause(),
        },
        at: end.cause_at(),
        cause: end.cause(),
        actor: end.actor(),
        summary,
        evidence: end.evidence(),
    }
}

/// Whether what this end took away has been replaced: by an instance that has come to count since, or a new life of the
/// same one, or, for another member than the main process, by a member that has joined since.
fn is_replaced(service: &ServiceState, end: &End) -> bool {
    if end.was_main && !service.was_named_instead(end) {
        // At the same moment, only whoever began then.
        let counts_since = |i: &Instance| {
            let began_then = || i.root.start == end.at && i.root.id != end.process.id;
            i.qualified
                .is_some_and(|at| at > end.at || at == end.at && began_then())
        };
        let lives_anew = service.generation > end.generation
            && service.main_member().is_some_and(|m| m.process.start > end.at);
        return lives_anew || service.qualified().any(|(_, i)| counts_since(i));
    }
    service.family.last_joined().is_some_and(|at| at > end.at) || service.stopped_as_asked()
}
