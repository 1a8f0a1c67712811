//! Ending a tree: its first processes are asked, then the rest, then what is left is killed.

use std::{collections::BTreeSet, io, time::Duration};

use super::{Handle, Links, OpenError, Sent, cgroup, cgroup::Cgroup, descendants_of, wait};
use crate::{
    clock,
    event::{ProcId, Process, RunState},
    signal::Signal,
    sources::process_state,
};

/// How often the tree is looked at anew while nobody ends.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long stopped processes may take until they show it; one in an uninterruptible call shows it later.
const STOPS_WITHIN: Duration = Duration::from_millis(50);
/// Looks for processes that were forked while their parents were being stopped.
const STOP_ROUNDS: usize = 16;

/// How a tree is ended.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What asks for it.
    pub signal: Signal,
    /// From the signal to SIGKILL.
    pub stop_within: Duration,
    /// From SIGKILL until what lives on is given up.
    pub kill_within: Duration,
}

/// What happened on the way.
#[derive(Debug)]
pub enum Note<'a> {
    /// It got a signal.
    Sent {
        process: &'a Process,
        signal: Signal,
    },
    /// Everything in the control group was killed.
    Cgroup(&'a Cgroup),
    Ended(&'a Process),
    /// A signal or a kill that the kernel refused.
    Failed {
        process: Option<&'a Process>,
        error: io::Error,
    },
}

/// A process that lives on.
#[derive(Debug, Clone)]
pub struct Left {
    pub process: Process,
    /// What is known of why.
    pub why: String,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct End {
    /// How many processes ended, and how many of them only by SIGKILL.
    pub ended: usize,
    pub killed: usize,
    pub left: Vec<Left>,
}

/// Processes that are ended together.
#[derive(Debug, Default)]
pub struct Tree {
    /// They are asked first.
    pub roots: Vec<Handle>,
    /// The control group that holds them and nothing else.
    pub cgroup: Option<Cgroup>,
    /// Everything that descends from it belongs to the tree, and itself does not: a child subreaper, ourselves.
    pub under: Option<Handle>,
    /// Only the roots, and nothing that descends from them.
    pub alone: bool,
    /// Never signalled, and no way leads through them.
    pub spared: BTreeSet<ProcId>,
    rest: Vec<Handle>,
}

impl Tree {
    pub fn new(roots: Vec<Handle>) -> Self {
        Self {
            roots,
            ..Self::default()
        }
    }

    /// All processes that were found, first the roots.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.handles().map(Handle::process)
    }

    fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.roots.iter().chain(&self.rest)
    }

    fn is_alive(&self) -> bool {
        self.handles().any(|h| !h.has_ended())
    }

    /// Looks who belongs to it now. `true`: somebody new.
    ///
    /// # Errors
    /// When processes can't be listed or held.
    pub fn look(&mut self) -> Result<bool, OpenError> {
        if self.alone {
            return Ok(false);
        }
        let mut known: BTreeSet<ProcId> = self.handles().map(Handle::id).collect();
        known.extend(&self.spared);
        let mut found = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            let pids = cgroup
                .pids()
                .map_err(|source| OpenError::Read { pid: 0, source })?;
            for pid in pids {
                let member = Handle::open(pid)?.filter(|h| !known.contains(&h.id()));
                // Asked again behind the pidfd.
                if let Some(h) = member
                    && h.read(|proc| Some(cgroup.contains(proc))) == Some(true)
                {
                    known.insert(h.id());
                    found.push(h);
                }
            }
        }
        let parents: Vec<&Handle> = self.handles().chain(&found).chain(&self.under).collect();
        let more = descendants_of(&parents, &known)?;
        found.extend(more);
        let is_new = !found.is_empty();
        self.rest.extend(found);
        Ok(is_new)
    }

    /// Asks, waits, kills, waits.
    ///
    /// # Errors
    /// When processes can't be listed or held.
    pub fn end(&mut self, limits: &Limits, note: &mut dyn FnMut(Note<'_>)) -> Result<End, OpenError> {
        self.look()?;
        let mut end = End::default();
        self.ask(limits, &mut end, note)?;
        if self.is_alive() {
            self.kill(limits.kill_within, &mut end, note)?;
        }
        for h in self.handles().filter(|h| !h.has_ended()) {
            end.left.push(Left {
                process: h.process().clone(),
                why: why(h),
            });
        }
        Ok(end)
    }

    fn ask(
        &mut self,
        limits: &Limits,
        end: &mut End,
        note: &mut dyn FnMut(Note<'_>),
    ) -> Result<(), OpenError> {
        let until = clock::now() + limits.stop_within;
        let mut asked = BTreeSet::new();
        for root in &self.roots {
            asked.insert(root.id());
            ask(root, limits.signal, note);
        }
        loop {
            self.forget_ended(end, false, note);
            // Workers that their master has left behind.
            if self.roots.is_empty() {
                for h in &self.rest {
                    if asked.insert(h.id()) {
                        ask(h, limits.signal, note);
                    }
                }
            }
            let left = until.since(clock::now());
            if left.is_zero() || !self.is_alive() && !self.look()? {
                // Whoever ended since then counts as well.
                self.forget_ended(end, false, note);
                return Ok(());
            }
            wait(self.handles().map(Handle::fd), left.min(LOOK_EVERY));
            self.look()?;
        }
    }

    fn kill(
        &mut self,
        within: Duration,
        end: &mut End,
        note: &mut dyn FnMut(Note<'_>),
    ) -> Result<(), OpenError> {
        let until = clock::now() + within;
        let mut killed = BTreeSet::new();
        loop {
            if !self.kill_cgroup(note) {
                self.stop_all()?;
            }
            for h in self.handles() {
                if killed.insert(h.id()) {
                    signal(h, Signal::KILL, note);
                }
            }
            // What was found dead before it could be killed was killed by its group.
            self.forget_ended(end, true, note);
            let left = until.since(clock::now());
            if left.is_zero() || !self.is_alive() && !self.look()? {
                // Whoever ended since then counts as well.
                self.forget_ended(end, true, note);
                return Ok(());
            }
            wait(self.handles().map(Handle::fd), left.min(LOOK_EVERY));
            self.look()?;
        }
    }

    /// `false`: the members must be killed one by one.
    fn kill_cgroup(&self, note: &mut dyn FnMut(Note<'_>)) -> bool {
        let Some(cgroup) = &self.cgroup else { return false };
        // Whoever is spared would be killed too, first of all ourselves.
        let holds = |id: &ProcId| cgroup.contains(&format!("/proc/{}", id.pid));
        if cgroup.contains("/proc/self") || self.spared.iter().any(holds) {
            return false;
        }
        match cgroup.kill() {
            Ok(true) => {
                note(Note::Cgroup(cgroup));
                true
            }
            Ok(false) => false,
            Err(error) => {
                note(Note::Failed { process: None, error });
                false
            }
        }
    }

    /// Stops everybody before anybody is killed: the children of the dead are handed to others and would be lost.
    fn stop_all(&mut self) -> Result<(), OpenError> {
        for _ in 0..STOP_ROUNDS {
            for h in self.handles() {
                // A refusal is told when it is killed.
                let _ = h.send(Signal::STOP);
            }
            let until = clock::now() + STOPS_WITHIN;
            while clock::now() < until && self.handles().any(runs) {
                std::thread::yield_now();
            }
            if !self.look()? {
                break;
            }
        }
        Ok(())
    }

    fn forget_ended(&mut self, end: &mut End, killed: bool, note: &mut dyn FnMut(Note<'_>)) {
        for list in [&mut self.roots, &mut self.rest] {
            list.retain(|h| {
                let ended = h.has_ended();
                if ended {
                    end.ended += 1;
                    end.killed += usize::from(killed);
                    note(Note::Ended(h.process()));
                }
                !ended
            });
        }
    }
}

fn ask(h: &Handle, with: Signal, note: &mut dyn FnMut(Note<'_>)) {
    signal(h, with, note);
    // One that was stopped would not hear of it.
    let _ = h.send(Signal::CONT);
}

fn signal(h: &Handle, signal: Signal, note: &mut dyn FnMut(Note<'_>)) {
    let process = h.process();
    match h.send(signal) {
        Ok(Sent::Yes) => note(Note::Sent { process, signal }),
        Ok(Sent::Ended) => {}
        Err(error) => note(Note::Failed {
            process: Some(process),
            error,
        }),
    }
}

fn runs(h: &Handle) -> bool {
    Links::read(h.pid()).is_some_and(|l| matches!(l.state, b'R' | b'S')) && !h.has_ended()
}

/// Why SIGKILL has not ended it.
fn why(h: &Handle) -> String {
    if let Some(path) = h.read(cgroup::frozen_by) {
        return format!("it is frozen by the control group {path}, which must thaw it");
    }
    match process_state::look(h.id()).run {
        RunState::Uninterruptible { syscall: Some(call) } => format!("it waits uninterruptibly in {call}"),
        RunState::Uninterruptible { syscall: None } => "it waits uninterruptibly in the kernel".into(),
        RunState::Gone => "it is just ending".into(),
        _ => match Links::read(h.pid()).map(|l| l.state) {
            Some(b'D') => "it waits uninterruptibly in the kernel".into(),
            state => format!(
                "the kernel has not ended it (state {})",
                state.map_or('?', char::from)
            ),
        },
    }
}
