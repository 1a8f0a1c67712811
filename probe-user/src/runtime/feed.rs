//! Hands the engine its events, and does what it wants done.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Runtime, Sink, observed};
use crate::{
    clock::{self, Nanos},
    engine::Effect,
    event::{Event, FileId, ProcId, SnapshotReason, TimeSource, What},
    kernel::{give_back_much_memory, members::Membership},
    sources::{declared_paths::PidFile, process_state},
};

/// Snapshots that one snapshot may lead to, each because it met processes that the kernel was not yet following.
const RESYNC_ROUNDS: usize = 8;
/// Looks that are repeated at once because a holder's descriptor was gone. One that lives in a thread's own table never
/// shows in `/proc/PID/fd`.
const FOLLOW_ROUNDS: usize = 64;

/// Two readings of the clocks differ by less.
const WINK: Duration = Duration::from_millis(500);

/// The engine's time when it is told this event.
///
/// A deadline passes only with [`What::Timer`], which is told behind everything that happened before it. Where records wait,
/// the time that it takes to hand them over would otherwise let a deadline pass before what meets it is told.
fn told_at(event: &Event, deadline: Option<Nanos>, now: Nanos) -> Nanos {
    match (&event.what, event.time_source, deadline) {
        (What::Timer, ..) => event.at,
        (_, source, Some(deadline)) if deadline <= now => {
            let before = Nanos(deadline.0.saturating_sub(1));
            match source {
                // The kernel's records come in the order in which they happened.
                TimeSource::Kernel => before.max(event.at),
                TimeSource::Observed => before,
            }
        }
        _ => now,
    }
}

impl Runtime {
    /// Feeds the engine until nothing is left to do.
    pub(super) fn run(&mut self, sink: &mut Sink<'_>) {
        let mut rounds = 0;
        self.follow_rounds = FOLLOW_ROUNDS;
        loop {
            self.feed_queue(sink);
            // What is known must not wait for what has to be looked at.
            sink.pass_on();
            if std::mem::take(&mut self.mains_may_differ) {
                self.follow_mains();
            }
            if let Some(site) = self.settle.pop_first() {
                self.look_at(&site);
            } else if let Some(file) = self.read_pid_files.pop_first() {
                self.read_pid_file(&file);
            } else if let Some(id) = self.looks.pop_first() {
                let at = clock::now();
                let state = process_state::look(id);
                self.tell_level(at, What::Process(state));
            } else if let Some(reason) = self.resync.take() {
                rounds += 1;
                if rounds > RESYNC_ROUNDS {
                    tracing::warn!("processes keep appearing faster than they can be followed; going on");
                    return;
                }
                self.look_at_all(reason);
                // The list of everything that runs was as long as that; after a loss there is no time for it.
                self.listed = reason == SnapshotReason::Interval;
            } else {
                if std::mem::take(&mut self.listed) {
                    give_back_much_memory();
                }
                return;
            }
        }
    }

    /// Hands over what waits, and does nothing else.
    pub(super) fn feed_queue(&mut self, sink: &mut Sink<'_>) {
        while let Some(event) = self.queue.pop_front() {
            self.feed(event, sink);
        }
    }

    /// Tells of a sleep before anything that happened since, a deadline above all.
    fn feed(&mut self, event: Event, sink: &mut Sink<'_>) {
        let slept = clock::slept();
        if slept > self.slept + WINK {
            let slept_ns = u64::try_from((slept - self.slept).as_nanos()).unwrap_or(u64::MAX);
            self.slept = slept;
            self.feed_one(observed(What::Woke { slept_ns }), sink);
        }
        self.feed_one(event, sink);
    }

    fn feed_one(&mut self, event: Event, sink: &mut Sink<'_>) {
        let now = told_at(&event, self.engine.deadline(), clock::now());
        // To ask for the main process of each service costs more than most events, and these change none.
        self.mains_may_differ |= !matches!(event.what, What::Signal(_) | What::Heartbeat { .. });
        if let Some(trace) = &mut self.trace
            && let Err(e) = trace.write(now, &event)
        {
            tracing::error!("recording stops: {e}");
            self.trace_error = Some(e);
            self.trace = None;
        }
        let began = clock::now();
        let listed = listed(&event);
        let effects = self.engine.apply(event, now);
        self.timings.applied(clock::now().since(began));
        let mut followed = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Show(_) | Effect::Find(_) | Effect::Lost { .. } => sink.hear(effect),
                Effect::Settle(site) => {
                    self.settle.insert(site);
                }
                Effect::ReadPidFile(path, of) => {
                    self.read_pid_files.insert(PidFile { path, of });
                }
                Effect::Look(id) => {
                    self.looks.insert(id);
                }
                Effect::Supervise(id, start) => {
                    followed.insert(id);
                    if let Err(e) = self.kernel.supervise(id, start) {
                        tracing::warn!("process {} cannot be followed: {e}", id.pid);
                        self.queue.push_back(observed(What::Lost {
                            source: "supervised".into(),
                            count: 1,
                        }));
                    }
                }
                Effect::Member(id) => {
                    let (services, parent) = self.engine.membership(&id);
                    let membership = Membership::new(parent, services);
                    if let Err(e) = self.kernel.keep_member(id, membership) {
                        tracing::warn!("the next daemon will not know whose process {} is: {e}", id.pid);
                    }
                }
                Effect::Forget(id) => {
                    if let Err(e) = self.kernel.forget(id) {
                        tracing::warn!("process {} goes on being followed: {e}", id.pid);
                    }
                }
                Effect::Resync(reason) => self.resync(reason),
                Effect::Recheck(reason) => {
                    if !self.observer.are_unchanged(&listed, &followed) {
                        self.resync(reason);
                    }
                }
            }
        }
    }

    fn resync(&mut self, reason: SnapshotReason) {
        // A snapshot that settles a loss settles everything else too.
        if self.resync != Some(SnapshotReason::Loss) {
            self.resync = Some(reason);
        }
    }
}

/// The processes of a snapshot, with their executables.
fn listed(event: &Event) -> BTreeMap<ProcId, Option<FileId>> {
    match &event.what {
        What::Snapshot(snapshot) => snapshot.processes.iter().map(|p| (p.id, p.exe_id)).collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_only_with_the_timer() {
        let told = |what, time_source, at, deadline: Option<u64>| {
            let event = Event {
                at: Nanos(at),
                time_source,
                what,
            };
            told_at(&event, deadline.map(Nanos), Nanos(1000)).0
        };
        let closed = || What::SocketClosed { inode: 1 };
        let (kernel, observed) = (TimeSource::Kernel, TimeSource::Observed);
        // Nothing is due.
        assert_eq!(told(closed(), kernel, 800, None), 1000);
        assert_eq!(told(closed(), observed, 800, Some(1001)), 1000);
        // It waited until after a deadline, but happened before it.
        assert_eq!(told(closed(), kernel, 800, Some(900)), 899);
        // The kernel told everything else from before the deadline.
        assert_eq!(told(closed(), kernel, 950, Some(900)), 950);
        assert_eq!(told(closed(), observed, 950, Some(900)), 899);
        // Told behind everything that happened before 990.
        assert_eq!(told(What::Timer, observed, 990, Some(900)), 990);
    }
}
