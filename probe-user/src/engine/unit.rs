//! systemd units: what systemd says of them, and what follows for the service.

use std::sync::Arc;

use serde_json::json;

use crate::{
    clock::Nanos,
    event::{ProcId, SnapshotReason, UnitJob, UnitState},
};

use super::{
    Effect, Engine,
    finding::EventKind,
    process::{Met, is_a_death},
    show::describe,
    state::{Ask, Asked, End, EndKind, ServiceState, keep},
};

/// What systemd last said, when that was, and the event that tells it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) state: UnitState,
    pub(super) at: Nanos,
    pub(super) seq: u64,
    /// How often the unit had been restarted when its last main process was seen first.
    restarts: u32,
}

impl Seen {
    /// Whether systemd has stopped starting it again. Where the last process failed, the unit's result goes on to say how, and
    /// not that the limit was hit: then it is known from a restart that was counted and brought no process.
    pub(super) fn gave_up(&self) -> bool {
        let state = &self.state;
        state.result == "start-limit-hit"
            || state.error.is_none()
                && state.active_state == "failed"
                && state.job.is_none()
                && state.n_restarts > self.restarts
    }

    /// As `redis.service: start-limit-hit`.
    pub(super) fn why_gave_up(&self) -> String {
        let state = &self.state;
        match state.result.as_str() {
            "start-limit-hit" => format!("{}: start-limit-hit", state.unit),
            result => format!("{}: start limit hit after {result}", state.unit),
        }
    }
}

impl Engine {
    /// A level: the newest counts.
    pub(super) fn on_unit(&mut self, mut state: UnitState) {
        let declares = |s: &ServiceState| {
            s.decl.user == state.user && s.unit.as_ref().is_none_or(|known| known.at <= self.at)
        };
        let declared = self.index.selectors.of_unit(&state.unit).iter().copied();
        let services: Vec<usize> = declared.filter(|s| declares(&self.services[*s])).collect();
        if services.is_empty() {
            return;
        }
        if let Some(p) = &mut state.process {
            // A unit's main process is in the unit, also where its cgroup's name could not be read.
            p.unit.get_or_insert_with(|| state.unit.clone());
            // Its children may have been missed until the kernel was told to follow it.
            if self.meet(p, Met::Level) && self.joined {
                self.effects.push(Effect::Resync(SnapshotReason::Interval));
            }
        }
        for s in services {
            let seq = self.tell_unit(s, &state);
            let known = self.services[s].unit.as_ref();
            let same = known
                .filter(|k| k.state.exec_main_pid == state.exec_main_pid && k.restarts <= state.n_restarts);
            self.services[s].unit = Some(Seen {
                restarts: same.map_or(state.n_restarts, |k| k.restarts),
                state: state.clone(),
                at: self.at,
                seq,
            });
            if state.error.is_none() {
                let at = self.at;
                self.services[s].confirm(&state, at);
                self.take_job(s, &state, seq);
            }
            self.qualify(s);
            self.touched.insert(s);
        }
    }

    /// Shows what is new, and returns the event that tells of it.
    fn tell_unit(&mut self, s: usize, state: &UnitState) -> u64 {
        let known = self.services[s].unit.as_ref();
        if let Some(known) = known.filter(|k| k.state == *state) {
            return known.seq;
        }
        let facts = json!({
            "user": state.user,
            "main_pid": state.main_pid,
            "active_state": state.active_state,
            "sub_state": state.sub_state,
            "result": state.result,
            "n_restarts": state.n_restarts,
            "job": state.job,
            "error": state.error,
        });
        let subject = Some(state.unit.clone());
        self.show(
            s,
            EventKind::Unit,
            subject,
            state.process.clone().map(Arc::new).as_ref(),
            None,
            facts,
            words(state),
        )
    }

    /// A job that stops the unit is an asked stop of its main process, from the moment that the unit is being stopped.
    fn take_job(&mut self, s: usize, state: &UnitState, seq: u64) {
        let at = self.at;
        let service = &mut self.services[s];
        let Some(job) = state.job.as_ref().filter(|j| j.stops()) else {
            // It was cancelled.
            if state.active_state == "active" {
                let asked = service
                    .members
                    .iter()
                    .filter(|(_, m)| m.asked.as_ref().is_some_and(Asked::by_job));
                for id in asked.map(|(id, _)| *id).collect::<Vec<_>>() {
                    service.ask(&id, None);
                }
            }
            return;
        };
        let asked = |waiting| Asked {
            how: Ask::Job {
                job: job.clone(),
                waiting,
            },
            at,
            seq,
            actor: None,
        };
        let waiting = state.active_state != "deactivating";
        let main = match (&state.process, state.main_pid) {
            (Some(p), _) => Some(p.id),
            // It has just gone: what is main now, if anything, is another one.
            (None, Some(_)) => None,
            // Of a unit that is between two lives, or only about to begin one, nothing can be asked to stop.
            (None, None)
                if matches!(
                    state.active_state.as_str(),
                    "active" | "reloading" | "deactivating"
                ) =>
            {
                service.main.as_ref().map(|m| m.id)
            }
            (None, None) => None,
        };
        let known = main.and_then(|id| Some((id, service.members.get(&id)?.asked.as_ref().map(|a| &a.how))));
        if let Some((id, how)) = known {
            match how {
                None => service.ask(&id, Some(asked(waiting))),
                Some(Ask::Job { waiting: true, .. }) if !waiting => service.ask(&id, Some(asked(false))),
                Some(_) => {}
            }
        } else {
            service.excuse(state, &asked(waiting));
        }
    }
}

impl ServiceState {
    /// The living member that systemd names as the unit's main process.
    pub(super) fn named_by_unit(&self) -> Option<ProcId> {
        let id = self.unit.as_ref()?.state.process.as_ref()?.id;
        self.members.contains_key(&id).then_some(id)
    }

    /// Whether a process of the unit need not be the service: systemd names the main one, and the others are helpers that
    /// it runs before, beside or after that. Not so where an active unit has none that systemd knows of.
    pub(super) fn unit_tells_helpers(&self) -> bool {
        let state = self.unit.as_ref().map(|u| &u.state);
        state.is_some_and(|s| s.error.is_none() && (s.main_pid.is_some() || s.active_state != "active"))
    }

    /// Keeps the end of a process of the unit that systemd had not yet named: a main process can end before systemd can
    /// be asked.
    pub(super) fn may_have_been_main(&mut self, end: &End) {
        if self.unit_tells_helpers() && end.process.unit.is_some() && end.process.unit == self.decl.unit {
            keep(&mut self.unconfirmed, end.clone());
        }
    }

    /// Makes an end count whose process systemd names as its last main one. The others' were helpers'.
    fn confirm(&mut self, state: &UnitState, at: Nanos) {
        // A pid that was used again is another process.
        let main = |e: &End| {
            state.exec_main_pid == Some(e.process.id.pid)
                && state.process.as_ref().is_none_or(|p| p.id == e.process.id)
        };
        self.unconfirmed
            .retain(|e| at.since(e.at) < self.decl.ready_within);
        let Some(end) = self.unconfirmed.iter().rfind(|e| main(e)).cloned() else {
            return;
        };
        self.unconfirmed.clear();
        self.confirm_end(end);
    }

    /// A process that ended was the main one, as is only known now.
    pub(super) fn confirm_end(&mut self, mut end: End) {
        end.was_main = true;
        let id = end.process.id;
        let counted = self.last_end.as_ref().is_some_and(|e| e.process.id == id);
        let lives_anew = counted && self.generation_instance.is_some_and(|i| i > end.instance);
        // Its instance has come to count meanwhile, and was taken for a new life.
        if self.generation_instance != Some(end.instance) && !lives_anew {
            if self.remembered.take() != Some(end.process.id) {
                self.generation += 1;
            }
            // What lives on of it goes on with this life.
            self.generation_instance = Some(end.instance);
            self.ready = false;
        }
        if !lives_anew {
            end.generation = self.generation;
        }
        self.deaths.retain(|e| e.process.id != id);
        self.crashes.retain(|e| e.process.id != id);
        for held in self.holder_ends.iter_mut().filter(|e| e.process.id == id) {
            (held.kind, held.asked) = (end.kind, end.asked.clone());
        }
        if is_a_death(&end, &self.decl.signals.handled) {
            keep(&mut self.deaths, end.clone());
        }
        if end.kind == EndKind::Crash {
            self.note_crash(end.clone());
        }
        self.last_end = Some(end);
    }

    /// As many as make a crash loop are kept.
    pub(super) fn note_crash(&mut self, end: End) {
        if self.crashes.len() >= self.decl.crash_loop.restarts.max(1) as usize {
            self.crashes.pop_front();
        }
        self.crashes.push_back(end);
    }

    /// Who had asked the instance's last main process to stop, when it has ended so.
    pub(super) fn asked_before(&self, instance: u32) -> Option<Asked> {
        let end = self.last_end.as_ref()?;
        let same = self.generation_instance == Some(instance);
        end.asked.clone().filter(|_| same && end.kind == EndKind::Asked)
    }

    /// The kernel tells of an end at once, and the bus of the job that led to it a little later: then the end was an
    /// asked stop all the same.
    fn excuse(&mut self, state: &UnitState, asked: &Asked) {
        let Some(last) = &mut self.last_end else { return };
        if last.kind != EndKind::Crash || !job_came_first(state, last) {
            return;
        }
        let id = last.process.id;
        let excuse = |e: &mut End| {
            e.kind = EndKind::Asked;
            e.asked = Some(asked.clone());
        };
        excuse(last);
        let last = last.clone();
        for e in self.holder_ends.iter_mut().filter(|e| e.process.id == id) {
            excuse(e);
        }
        self.crashes.retain(|e| e.process.id != id);
        self.deaths.retain(|e| e.process.id != id);
        if is_a_death(&last, &self.decl.signals.handled) {
            keep(&mut self.deaths, last);
        }
    }
}

/// Whether the unit had the job while the process lived. systemd was asked for the job first and for the main process
/// then, so a main process that it still named had the job while it lived, or died in systemd's hands. Later on, a unit
/// that is being stopped and whose result is still good is one whose process has not failed.
fn job_came_first(state: &UnitState, end: &End) -> bool {
    match state.main_pid {
        Some(pid) => pid == end.process.id.pid,
        None => state.active_state == "deactivating" && state.result == "success",
    }
}

/// `redis.service is active (running), main process redis-server (812), restart job 40, restarted 2 times`.
fn words(state: &UnitState) -> String {
    if let Some(error) = &state.error {
        return format!("{} is out of sight: {error}", state.unit);
    }
    let mut text = format!("{} is {}", state.unit, state.active_state);
    if !state.sub_state.is_empty() && state.sub_state != state.active_state {
        text.push_str(&format!(" ({})", state.sub_state));
    }
    if !matches!(state.result.as_str(), "" | "success") {
        text.push_str(&format!(", {}", state.result));
    }
    match (&state.process, state.main_pid) {
        (Some(p), _) => text.push_str(&format!(", main process {}", describe(p))),
        (None, Some(pid)) => text.push_str(&format!(", main process {pid}")),
        (None, None) => {}
    }
    if let Some(UnitJob { id, kind }) = &state.job {
        text.push_str(&format!(", {kind} job {id}"));
    }
    match state.n_restarts {
        0 => {}
        1 => text.push_str(", restarted once"),
        n => text.push_str(&format!(", restarted {n} times")),
    }
    text
}
