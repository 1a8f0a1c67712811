//! PID files: what stands in them, and whom it names.

use std::{collections::VecDeque, sync::Arc};

use serde_json::json;

use crate::{
    clock::Nanos,
    event::{Actor, PathChange, PidFileContent, PidFileState, ProcId, Process},
};

use super::{
    Effect, Engine,
    finding::EventKind,
    ledger::KEPT,
    process::Met,
    state::{Asked, End, EndKind, Member, ServiceState, keep},
};

/// What a `start` in ticks and one in nanoseconds may differ by, and the file system's coarse clock with it.
const PID_FILE_SLACK: std::time::Duration = std::time::Duration::from_secs(1);

impl Engine {
    pub(super) fn on_pid_file_path(
        &mut self,
        path: &str,
        of: Option<String>,
        change: PathChange,
        actor: Option<Actor>,
    ) {
        let wrote = matches!(change, PathChange::Created | PathChange::RenamedTo);
        for s in self.index.of_pid_file(path, of.as_deref()) {
            self.services[s].pid_file_touched = Some(self.now);
            if let (true, Some(a)) = (wrote, &actor) {
                let writers = &mut self.services[s].pid_file_writers;
                if writers.len() == KEPT {
                    writers.pop_front();
                }
                writers.push_back(a.id);
            }
            if let Some(a) = &actor
                && let Some(m) = self.services[s].members.get_mut(&a.id)
            {
                // What it removed before it wrote its own was an earlier life's.
                m.cleaned_up = matches!(change, PathChange::Removed | PathChange::RenamedAway);
            }
        }
        self.effects.push(Effect::ReadPidFile(path.to_owned(), of));
    }

    /// A level: how the PID file was at `self.at`. `true` when its process joined a service.
    pub(super) fn on_pid_file(&mut self, state: PidFileState) {
        if self.take_pid_file(state) && self.joined {
            self.effects
                .push(Effect::Resync(crate::event::SnapshotReason::Interval));
        }
    }

    /// Whether a level tells what is known already of a process that has joined.
    fn is_known_pid_file(&self, s: usize, state: &PidFileState) -> bool {
        let Some((known, ..)) = &self.services[s].pid_file else {
            return false;
        };
        let same_process = match (&known.process, &state.process) {
            // What a snapshot lists was compared there.
            (Some(k), Some(p)) => k.id == p.id && (self.member_of.is_listed(&p.id) || k == p),
            (k, p) => k == p,
        };
        let joined = |p: &Process| self.services[s].members.contains_key(&p.id);
        self.joined
            && same_process
            && (&known.content, known.local, known.modified) == (&state.content, state.local, state.modified)
            && (&known.path, &known.of) == (&state.path, &state.of)
            && state.process.as_ref().is_none_or(joined)
    }

    pub(super) fn take_pid_file(&mut self, state: PidFileState) -> bool {
        let at = self.at;
        let mut joined = false;
        for s in self.index.of_pid_file(&state.path, state.of.as_deref()) {
            if self.is_known_pid_file(s, &state) {
                let service = &mut self.services[s];
                if let Some((_, read_at, _)) = &mut service.pid_file
                    && *read_at <= at
                {
                    *read_at = at;
                    service.pid_file_touched = None;
                }
                if let Some(p) = &state.process {
                    joined |= !self.member_of.is_listed(&p.id) && self.meet(p, Met::Level);
                }
                continue;
            }
            let mut state = state.clone();
            if let Some((known, read_at, _)) = &self.services[s].pid_file {
                if *read_at > at {
                    continue;
                }
                // The number means the same process as before, though nobody can say so any more: it has ended.
                if state.process.is_none()
                    && state.local.is_some()
                    && (known.local, known.modified) == (state.local, state.modified)
                {
                    state.content = known.content.clone();
                }
            }
            self.services[s].pid_file_touched = None;
            let before = self.services[s]
                .pid_file
                .as_ref()
                .map(|(p, ..)| p.content.clone());
            let changed = before.as_ref() != Some(&state.content);
            let seq = if changed {
                self.next_seq()
            } else {
                self.services[s].pid_file.as_ref().map_or(0, |p| p.2)
            };
            if let Some(p) = state.process.clone() {
                joined |= self.meet(&p, Met::Level);
                if !self.services[s].decl.has_selector() && ServiceState::pid_file_is_about(&state, &p) {
                    joined |= self.join(s, &p, Met::Level);
                }
            }
            self.services[s].pid_file = Some((state.clone(), at, seq));
            self.services[s].confirm_named(&state);
            if let Some(p) = &state.process {
                self.confirm_late(s, p.id);
            }
            if changed && self.joined {
                let (facts, says) = match &state.content {
                    PidFileContent::Pid(p) => match state.local {
                        None => (json!({ "pid": p }), format!("says {p}")),
                        Some(local) => (
                            json!({ "pid": state.process.as_ref().map(|_| p), "local_pid": local }),
                            match state.process {
                                Some(_) => format!("says {local} in its pid namespace, which is {p}"),
                                None => format!("says {local}, and its pid namespace has no such process"),
                            },
                        ),
                    },
                    PidFileContent::Absent => (json!({}), "is gone".to_owned()),
                    PidFileContent::Empty => (json!({}), "is empty".to_owned()),
                    PidFileContent::Garbage(g) => (json!({ "garbage": g }), format!("says {g:?}")),
                    PidFileContent::Unreadable(e) => (json!({ "error": e }), format!("cannot be read: {e}")),
                };
                let summary = format!("{} {says}", state.path);
                let subject = Some(state.path.clone());
                self.show_at(
                    s,
                    seq,
                    EventKind::PidFile,
                    subject,
                    state.process.clone().map(Arc::new).as_ref(),
                    None,
                    facts,
                    summary,
                );
            }
            self.qualify(s);
            if let Some((heir, from)) = self.services[s].note_named_instead() {
                self.tell_heir(s, &heir, from);
            }
            self.touched.insert(s);
        }
        joined
    }
}

impl ServiceState {
    /// The living member that the PID file names, if it is the one that the file was written for.
    pub(super) fn named_by_pid_file(&self) -> Option<ProcId> {
        let (state, ..) = self.pid_file.as_ref()?;
        let process = state
            .process
            .as_ref()
            .filter(|_| matches!(state.content, PidFileContent::Pid(_)))?;
        self.members.contains_key(&process.id).then_some(process.id)
    }

    /// Whether the process was there when the PID file was written. Without another selector, that is what tells it from
    /// one that was given a used pid.
    pub(super) fn pid_file_is_about(state: &PidFileState, process: &Process) -> bool {
        process.start <= state.modified + PID_FILE_SLACK
    }

    /// When the PID file was written.
    pub(super) fn pid_file_written(&self) -> Nanos {
        self.pid_file.as_ref().map_or(Nanos::ZERO, |(f, ..)| f.modified)
    }

    /// A stop signal can reach the process that the PID file names before the file is read.
    pub(super) fn asked_as_main(&mut self) {
        let written = self.pid_file_written();
        let Some(named) = self.named_by_pid_file() else {
            return;
        };
        let Some(m) = self.members.get_mut(&named) else {
            return;
        };
        let heard = m.heard.iter().find(|h| written <= h.at);
        if let (None, Some(heard)) = (&m.asked, heard.cloned()) {
            self.ask(&named, Some(heard));
        }
    }

    /// Whether the PID file had named another instance before this one ended, and was only read then: it was not the main
    /// process any more.
    pub(super) fn was_named_instead(&self, end: &End) -> bool {
        if end.named_instead {
            return true;
        }
        let Some((file, ..)) = self.pid_file.as_ref().filter(|_| self.unit.is_none()) else {
            return false;
        };
        let named = self.named_by_pid_file().and_then(|id| self.member(&id));
        let counts = |m: &Member| {
            let instance = self.instances.get(&m.instance);
            m.process.start <= end.at && instance.is_some_and(|i| i.qualified.is_some())
        };
        file.modified <= end.at && named.is_some_and(counts)
    }

    /// Remembers it: the next file may name somebody else. Gives who went on for whom, where that was not known and both are
    /// of one instance.
    fn note_named_instead(&mut self) -> Option<(Actor, u32)> {
        let end = self.last_end.as_ref().filter(|end| !end.named_instead)?;
        if !self.was_named_instead(end) {
            return None;
        }
        let (instance, id) = (end.instance, end.process.id);
        if let Some(end) = &mut self.last_end {
            end.named_instead = true;
        }
        // It was a member like others by then, and is forgotten like theirs.
        for end in self.deaths.iter_mut().filter(|e| e.process.id == id) {
            (end.was_main, end.named_instead) = (false, true);
        }
        self.crashes.retain(|e| e.process.id != id);
        let heir = self.named_by_pid_file().and_then(|id| self.member(&id))?;
        (heir.instance == instance).then(|| (heir.process.clone(), id.pid))
    }

    /// Keeps the end of who wrote the PID file before anybody had read whom it names. `heard`: the stop signals that
    /// it was sent, which ask whom the file names.
    pub(super) fn may_have_been_named(&mut self, end: End, heard: VecDeque<Asked>) {
        if self.pid_file_writers.contains(&end.process.id) && self.unit.is_none() {
            keep(&mut self.unread, (end, heard));
        }
    }

    /// Makes the end count of whom the PID file names: it was the main process.
    fn confirm_named(&mut self, state: &PidFileState) {
        let PidFileContent::Pid(pid) = state.content else {
            return;
        };
        let named = |(end, _): &(End, VecDeque<Asked>)| match &state.process {
            Some(p) => p.id == end.process.id,
            None => state.local.is_none() && end.process.id.pid == pid,
        };
        let Some(i) = self.unread.iter().rposition(named) else {
            return;
        };
        let Some((mut end, heard)) = self.unread.remove(i) else {
            return;
        };
        // A later life's end says more.
        if state.modified > end.at || self.last_end.as_ref().is_some_and(|last| last.at > end.at) {
            return;
        }
        // How it counts is known by this.
        self.uncounted.retain(|e| e.process.id != end.process.id);
        // Its instance counts since it was named.
        if let Some(i) = self.instances.get_mut(&end.instance) {
            let since = state.modified.max(i.root.start);
            i.qualified = Some(i.qualified.map_or(since, |known| known.min(since)));
        }
        let asked = heard.into_iter().find(|h| state.modified <= h.at);
        if let (EndKind::Crash, None, Some(asked)) = (end.kind, end.oom, asked) {
            end.kind = EndKind::Asked;
            end.asked = Some(asked);
        }
        self.confirm_end(end);
    }
}
