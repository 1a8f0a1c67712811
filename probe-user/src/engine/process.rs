//! Processes: who joins a service, who is its main process, what an end means.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use serde_json::json;

use crate::{
    clock::Nanos,
    config::Service,
    event::{Disposition, ExitStatus, FileId, PathChange, ProcId, Process, SignalResult, SnapshotReason},
    signal::Signal,
};

use super::{
    Due, Effect, Engine,
    bounds::Bound,
    finding::EventKind,
    ledger::AddressLedger,
    membership,
    show::describe,
    state::{
        Ask, Asked, Before, DEATHS_KEPT, End, EndKind, Instance, Main, Member, ServiceState, SignalFact,
    },
};

/// Ended identities, the newest ones: enough for events that a snapshot overtakes.
#[derive(Debug)]
pub(super) struct Tombstones {
    kept: usize,
    /// Only asked, never walked over.
    ended: HashSet<ProcId, foldhash::fast::RandomState>,
    order: VecDeque<ProcId>,
}

impl Tombstones {
    pub(super) fn new(kept: usize) -> Self {
        Self {
            kept,
            ended: HashSet::default(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn insert(&mut self, id: ProcId) {
        if !self.ended.insert(id) {
            return;
        }
        if self.order.len() == self.kept
            && let Some(old) = self.order.pop_front()
        {
            self.ended.remove(&old);
        }
        self.order.push_back(id);
    }

    pub(super) fn contains(&self, id: &ProcId) -> bool {
        self.ended.contains(id)
    }
}

/// How a process was met; decides whether the kernel must be told to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// By an event of the kernel's own programs, which follow it already.
    Edge,
    /// By looking.
    Level,
}

/// How many times `stop_within` lie between an ignored stop signal and a KILL that follows it: systemd waits for 90 s.
const HEEDING: u32 = 8;

impl Engine {
    pub(super) fn on_exec(&mut self, process: Process) {
        let (id, process) = (process.id, Arc::new(process));
        self.meet(&process, Met::Edge);
        let Some(services) = self.member_of.get(&id).map(<[usize]>::to_vec) else {
            // An interpreter that runs something else, or another file of the same inode number.
            self.effects.push(Effect::Forget(id));
            return;
        };
        for s in services {
            let at = self.at;
            if let Some(m) = self.services[s].members.get_mut(&id) {
                // Told twice.
                if m.exec_at.is_some_and(|known| known >= at) {
                    continue;
                }
                m.exec_at = Some(at);
            }
            let summary = format!("{} runs {}", describe(&process), process.argv.join(" "));
            self.show(
                s,
                EventKind::Exec,
                None,
                Some(&process),
                None,
                json!({ "argv": process.argv }),
                summary,
            );
            self.expect_addresses(s);
        }
    }

    /// A package upgrade replaces the file: who runs the old one stays a member, who runs the new one becomes one.
    pub(super) fn on_executable(&mut self, path: &str, file: Option<FileId>) {
        self.index.selectors.replace_exe(path, file);
        // It may run already.
        self.effects.push(Effect::Resync(SnapshotReason::Interval));
    }

    pub(super) fn on_fork(&mut self, child: Process) {
        let child = Arc::new(child);
        self.meet(&child, Met::Edge);
        let Some(services) = self.member_of.get(&child.id).map(<[usize]>::to_vec) else {
            // Its parent is none of ours any more, or there are too many.
            self.effects.push(Effect::Forget(child.id));
            return;
        };
        for s in services {
            let summary = format!(
                "{} forked {}",
                parent_name(&self.services[s], &child),
                child.id.pid
            );
            self.show(s, EventKind::Fork, None, Some(&child), None, json!({}), summary);
        }
    }

    /// What an earlier run of probe has followed: a member, unless that has ended or is not declared any more.
    pub(super) fn on_followed(&mut self, process: Process, services: &[String]) {
        let id = process.id;
        // It was one before anything that is told from now on.
        self.at = process.start;
        self.meet(&process, Met::Edge);
        // What has made it one may be gone: its parent, or the file that it ran.
        let declared = services.iter().filter_map(|name| self.by_name.get(name));
        for s in declared.copied().collect::<Vec<_>>() {
            self.join(s, &process, Met::Edge);
        }
        if !self.member_of.contains(&id) {
            self.effects.push(Effect::Forget(id));
        }
    }

    /// Learns of a living process, and lets it join the services that it belongs to. `true` when it joined one.
    pub(super) fn meet(&mut self, process: &Process, met: Met) -> bool {
        if self.member_of.is_as_before(process) {
            return false;
        }
        if self.knows_all_of(process) {
            self.member_of.remember(process);
            return false;
        }
        if self.ended.contains(&process.id) {
            return false;
        }
        let mut joined = false;
        let mine = self.member_of.services_of(&process.id);
        self.member_of.has_changed(&process.id);
        for s in &mine {
            self.services[*s].learn(process);
            self.touched.insert(*s);
        }
        let inherited = process.parent.map(|p| self.member_of.services_of(&p));
        let mut candidates = self.index.selectors.candidates(process);
        candidates.retain(|s| {
            membership::selects(&self.services[*s].decl, self.index.selectors.exe_id(*s), process)
        });
        candidates.extend(inherited.into_iter().flatten());
        for s in candidates.into_iter().filter(|s| !mine.contains(s)) {
            joined |= self.join(s, process, met);
        }
        joined
    }

    /// A member of which this tells nothing new, and that belongs wherever its parent does.
    fn knows_all_of(&self, process: &Process) -> bool {
        let Some(mine) = self.member_of.get(&process.id) else {
            return false;
        };
        let parents = process.parent.and_then(|p| self.member_of.get(&p));
        let known = |s: &usize| {
            let m = self.services[*s].members.get(&process.id);
            m.is_some_and(|m| *m.process == *process)
        };
        parents.is_none_or(|p| p.iter().all(|s| mine.contains(s))) && mine.iter().all(known)
    }

    /// Makes `process` a member of service `s`.
    pub(super) fn join(&mut self, s: usize, process: &Process, met: Met) -> bool {
        let id = process.id;
        if self.ended.contains(&id) || self.services[s].members.contains_key(&id) {
            return false;
        }
        if !self.member_of.contains(&id)
            && self.member_of.len() >= self.config.probe.bounds.members.get() as usize
        {
            self.overflow(s, Bound::Members);
            return false;
        }
        // Notifications overtake the kernel's records: what it did may have been told before it was.
        let (mut held_address, mut cleaned_up) = (false, false);
        let ledgers = self.services[s]
            .places
            .iter()
            .filter_map(|a| self.addresses.get(*a));
        for c in ledgers
            .flat_map(|l| &l.changes)
            .filter(|c| c.actor.as_ref().is_some_and(|a| a.id == id))
        {
            held_address |= c.change == PathChange::Created;
            cleaned_up |= matches!(c.change, PathChange::Removed | PathChange::RenamedAway);
        }
        let (seq, at, process) = (self.seq, self.at, Arc::new(process.clone()));
        let service = &mut self.services[s];
        let parents = process
            .parent
            .and_then(|p| service.members.get(&p))
            .map(|m| m.instance);
        // A child may be met before its parent: then the parent adopts the child's instance.
        let children: Vec<(ProcId, u32)> = service
            .family
            .children(id)
            .filter_map(|c| Some((c, service.members.get(&c)?.instance)))
            .collect();
        let instance = parents.or(children.first().map(|(_, i)| *i)).unwrap_or_else(|| {
            service.next_instance += 1;
            service.next_instance
        });
        let entry = service.instances.entry(instance).or_insert_with(|| {
            Box::new(Instance {
                root: process.clone(),
                living: BTreeSet::new(),
                qualified: None,
                evident: false,
                of_unit: false,
                asked: BTreeSet::new(),
                seq,
            })
        });
        entry.living.insert(id);
        if children.iter().any(|(_, i)| *i == instance) && entry.root.parent == Some(id) {
            entry.root = process.clone();
        }
        let merged: Vec<u32> = children
            .iter()
            .map(|(_, i)| *i)
            .filter(|i| *i != instance)
            .collect();
        service.family.add(&process, parents.is_none(), at);
        for (child, _) in &children {
            if let Some(m) = service.members.get(child) {
                service.family.has_parent(&m.process);
            }
        }
        service.members.insert(
            id,
            Box::new(Member {
                process: process.clone(),
                instance,
                joined: at,
                orphaned: Nanos::ZERO,
                exec_at: None,
                asked: None,
                heard: VecDeque::new(),
                signals: VecDeque::new(),
                stopped: None,
                seen: None,
                looking: false,
                ignored: BTreeMap::new(),
                oom: None,
                held_address,
                cleaned_up,
            }),
        );
        for other in merged {
            service.merge_instances(instance, other);
        }
        // Its place is taken for good, also once the one that took it has ended.
        service.deaths.retain(|d| d.was_main || d.at >= at);
        service.note_evidence(&id);
        self.member_of.join(id, s);
        self.effects.push(Effect::Member(id));
        if met == Met::Level {
            self.effects.push(Effect::Supervise(id, process.start));
        }
        self.touched.insert(s);
        self.qualify(s);
        true
    }

    /// Decides which instances count and which process is the main one.
    pub(super) fn qualify(&mut self, s: usize) {
        let (now, at) = (self.now, self.at);
        let holders: BTreeSet<ProcId> = self.services[s]
            .places
            .iter()
            .filter_map(|a| self.addresses.get(*a))
            .flat_map(AddressLedger::holders)
            .collect();
        let service = &mut self.services[s];
        for id in &holders {
            service.held_address(id);
        }
        let instance_of = |id: Option<ProcId>| Some(service.members.get(&id?)?.instance);
        let named = [
            instance_of(service.named_by_unit()).map(|i| (i, at)),
            // A snapshot may have read a file that was written since it began.
            instance_of(service.named_by_pid_file()).map(|i| (i, now.min(service.pid_file_written()))),
            // An earlier run of probe has counted it.
            instance_of(service.remembered).map(|i| (i, Nanos::ZERO)),
        ];
        let plain = service.decl.listen.is_empty() && service.decl.pid_file.is_none();
        let tells_helpers = service.unit_tells_helpers();
        let mut due: Option<Nanos> = None;
        let mut counts_since = Vec::new();
        let ServiceState {
            instances,
            deaths,
            decl,
            ..
        } = service;
        for (n, i) in instances.iter_mut().filter(|(_, i)| i.qualified.is_none()) {
            let evident = i.evident || i.of_unit && !tells_helpers;
            let named = named.iter().flatten().filter(|(named, _)| named == n);
            let old_enough = i.root.start + decl.ready_within;
            // When it came to count, not when that was told.
            let since = named
                .map(|(_, since)| (*since).max(i.root.start))
                .chain(evident.then_some(at))
                .chain((plain && old_enough <= now).then_some(old_enough))
                .min();
            if let Some(since) = since {
                i.qualified = Some(since);
                counts_since.push((*n, since));
                deaths.retain(|d| !d.was_main || d.at >= since);
            } else if plain {
                due = Some(due.map_or(old_enough, |d| d.min(old_enough)));
            }
        }
        if service.qualified().next().is_some() {
            service.down = None;
        }
        if let Some(at) = due {
            self.wake(s, at);
        }
        self.choose_main(s, &holders);
        for (instance, since) in counts_since {
            self.services[s].confirm_uncounted(instance, since..Nanos(u64::MAX));
        }
    }

    /// Asks for a verdict on this service at `at`, unless an earlier one is due.
    pub(super) fn wake(&mut self, s: usize, at: Nanos) {
        let due = Due::Service(s);
        if self.timer_of.get(&due).is_none_or(|known| *known > at) {
            self.set_timer(due, at);
        }
    }

    fn choose_main(&mut self, s: usize, holders: &BTreeSet<ProcId>) {
        let service = &self.services[s];
        // The oldest first.
        let roots = || service.family.roots().filter_map(|id| service.member(&id));
        let counts = |m: &&Member| {
            service
                .instances
                .get(&m.instance)
                .is_some_and(|i| i.qualified.is_some())
        };
        let named = service
            .named_by_unit()
            .or_else(|| service.named_by_pid_file())
            .and_then(|id| service.member(&id));
        let by_unit_or_pid = || {
            let selects = |m: &&Member| {
                service.decl.unit.is_some() && m.process.unit == service.decl.unit
                    || service.decl.pid == Some(m.process.id.pid)
            };
            let by_either = service.decl.unit.is_some() || service.decl.pid.is_some();
            by_either.then(|| roots().filter(selects).find(counts)).flatten()
        };
        // The oldest root that holds an address itself, or whose instance does.
        let holding = || {
            let instances: BTreeSet<u32> = holders
                .iter()
                .filter_map(|id| Some(service.members.get(id)?.instance))
                .collect();
            let holds = |m: &&Member| instances.contains(&m.instance);
            (!instances.is_empty()).then(|| roots().find(holds)).flatten()
        };
        // An instance that counts stays ahead of one that only just began.
        let chosen = named
            .or_else(holding)
            .or_else(by_unit_or_pid)
            .or_else(|| roots().find(counts))
            .or_else(|| roots().next())
            .map(|m| (m.process.clone(), m.instance));
        let Some((process, instance)) = chosen else {
            if !service.members.is_empty() {
                return;
            }
            self.services[s].main = None;
            return;
        };
        let counts = service
            .instances
            .get(&instance)
            .is_some_and(|i| i.qualified.is_some());
        let old = service.main.clone();
        if old.as_ref().is_some_and(|m| m.id == process.id) {
            self.begin_generation(s, instance, counts, &process);
            return;
        }
        let began = match &old {
            Some(m) if m.instance == instance => m.began,
            _ => process.start,
        };
        let service = &mut self.services[s];
        let since = service.instances.get(&instance).and_then(|i| i.qualified);
        service.main_before = old.as_ref().map(|m| {
            let replaced = since.filter(|since| *since >= m.chosen);
            Before {
                id: m.id,
                until: replaced.unwrap_or(self.at),
                generation: service.generation,
                replaced: replaced.is_some() || since.is_none(),
            }
        });
        service.main = Some(Main {
            id: process.id,
            instance,
            began,
            chosen: self.at,
        });
        self.services[s].asked_as_main();
        self.begin_generation(s, instance, counts, &process);
        if let Some(old) = old
            && old.instance == instance
            && counts
        {
            let summary = format!("{} takes over from {}", describe(&process), old.id.pid);
            self.show(
                s,
                EventKind::Handover,
                None,
                Some(&process),
                None,
                json!({ "from": old.id.pid }),
                summary,
            );
        }
    }

    /// A new life begins when an instance that counts takes the place of another one.
    fn begin_generation(&mut self, s: usize, instance: u32, counts: bool, process: &Process) {
        let service = &mut self.services[s];
        // A main process that began after the last one had ended is a new life of the same instance: a member started it.
        let ended = service.last_end.as_ref();
        let anew = ended.is_some_and(|e| e.generation == service.generation && process.start > e.at);
        if !counts || service.generation_instance == Some(instance) && !anew {
            return;
        }
        // It is the one that an earlier run of probe has counted.
        if service.remembered.take() != Some(process.id) {
            service.generation += 1;
        }
        service.deaths.retain(|d| !d.was_main || d.at >= process.start);
        service.generation_instance = Some(instance);
        service.ready = false;
        tracing::debug!(
            service = service.decl.name,
            generation = service.generation,
            pid = process.id.pid,
            "generation"
        );
    }

    pub(super) fn on_exit(&mut self, process: Process, status: ExitStatus, listeners: Option<&[u64]>) {
        let id = process.id;
        if self.ended.contains(&id) {
            return;
        }
        // A process can end before anything else was heard of it.
        if !self.member_of.contains(&id) {
            self.meet(&process, Met::Edge);
        }
        self.ended.insert(id);
        self.forget_refused(id);
        let services = self.member_of.services_of(&id);
        let elsewhere: Vec<bool> = services.iter().map(|s| self.counts_elsewhere(*s, &id)).collect();
        self.member_of.remove(&id);
        if !services.is_empty() {
            self.effects.push(Effect::Forget(id));
        }
        for (s, elsewhere) in services.into_iter().zip(elsewhere) {
            self.end_member(s, &process, status, listeners, elsewhere);
        }
        for a in self.sightings.forget_holder(id) {
            let Some(ledger) = self.addresses.get_mut(a) else {
                continue;
            };
            let mut held = false;
            for e in ledger.live.values_mut().filter(|e| e.is_held_by(&id)) {
                e.socket.holders.retain(|h| h.process != id);
                held = true;
            }
            if held {
                self.settle_soon(a);
            }
        }
    }

    /// Whether another service of the same executable counts this member, and this one does not: it is that one's.
    pub(super) fn counts_elsewhere(&self, s: usize, id: &ProcId) -> bool {
        let counts = |s: usize| {
            let service = &self.services[s];
            let instance = service.members.get(id).map(|m| m.instance);
            instance
                .and_then(|i| service.instances.get(&i))
                .is_some_and(|i| i.qualified.is_some())
        };
        let services = self.member_of.get(id).into_iter().flatten();
        !counts(s) && services.copied().filter(|other| *other != s).any(counts)
    }

    /// Whether no living process is the service's: none is a member, or each is another service's.
    pub(super) fn is_absent(&self, s: usize) -> bool {
        self.services[s].qualified().next().is_none()
            && self.services[s]
                .members
                .keys()
                .all(|id| self.counts_elsewhere(s, id))
    }

    fn end_member(
        &mut self,
        s: usize,
        process: &Process,
        status: ExitStatus,
        listeners: Option<&[u64]>,
        elsewhere: bool,
    ) {
        let (at, seq) = (self.at, self.next_seq());
        let held = self.held_by(s, &process.id);
        let known = self.known_sockets(s);
        let unread = self.has_made_unread_name(s, &process.id);
        // Whoever the PID file has come to name has taken over, and lives its own life.
        let taken_over = self.services[s].named_by_pid_file() == Some(process.id);
        let blind = self.blind.is_some();
        let foreign_holder = self.others_hold(s, &process.id);
        let instance_holds = self.instance_holds(s, &process.id);
        let service = &mut self.services[s];
        let instance_asked = service
            .members
            .get(&process.id)
            .and_then(|m| service.instance_asked(m.instance))
            .cloned();
        let Some(mut m) = service.members.remove(&process.id) else {
            return;
        };
        service.family.remove(&m.process);
        for child in service.family.children(process.id).collect::<Vec<_>>() {
            service.lost_parent(&child, at);
        }
        complete(Arc::make_mut(&mut m.process), process);
        let is_main = service.main.as_ref().is_some_and(|x| x.id == process.id);
        let before = service.main_before.filter(|b| b.id == process.id && at < b.until);
        let was_main = is_main || before.is_some_and(|b| !b.replaced);
        if let Some(i) = service.instances.get_mut(&m.instance) {
            i.living.remove(&process.id);
            if let Some(a) = &m.asked {
                i.asked.remove(&(a.seq, process.id));
            }
        }
        let survivors = service
            .instances
            .get(&m.instance)
            .is_some_and(|i| !i.living.is_empty());
        // What it did itself, it did while it lived, although it may have been noticed later.
        if let Some(i) = service.instances.get_mut(&m.instance).filter(|_| m.held_address) {
            i.qualified = i.qualified.map(|since| since.min(at));
        }
        // What never counted as an instance was a tool run or a start that failed: nothing of the service ended. What came
        // to count only afterwards counts for others.
        let counted = service
            .instances
            .get(&m.instance)
            .is_some_and(|i| i.qualified.is_some_and(|since| since <= at));
        // The main process of this life has ended before: those that follow it end for the same reason.
        let followed = service
            .last_end
            .as_ref()
            .filter(|e| was_main && !taken_over && e.generation == service.generation);
        let stopped = followed.filter(|e| e.explains_leftovers() && at <= e.at + service.decl.stop_within);
        let follows_crash = followed.is_some_and(|e| e.kind == EndKind::Crash);
        // systemd signals every process of the unit when it stops it.
        let by_stop_signal = matches!(status, ExitStatus::Signal { signal, .. } if service.decl.stop_signals.contains(&signal));
        // `stopped`: the end that it follows.
        let asked = |stopped: Option<&End>| {
            let asked = m
                .asked
                .clone()
                .or_else(|| {
                    let by = instance_asked.clone();
                    by.filter(|a| was_main || by_stop_signal || a.by_job())
                })
                .or_else(|| service.asked_before(m.instance).filter(|_| by_stop_signal))
                .or_else(|| stopped?.asked.clone())
                .or_else(|| killed_for_not_heeding(&m, status, &service.decl, at));
            // A process that lives on long after it was asked to stop has not stopped for that.
            asked.filter(|a| a.by_job() || at <= a.at + service.decl.stop_within * HEEDING)
        };
        let killer = match status {
            ExitStatus::Signal { signal, .. } => killer(&m, signal),
            _ => None,
        };
        // The kernel counted them as the exit began, so a close that was told before the exit is the exit's own.
        let still_listening = match listeners {
            Some(open) => open.iter().any(|inode| known.contains(inode)) || unread && !open.is_empty(),
            None => !held.is_empty(),
        };
        let clean_code = matches!(status, ExitStatus::Code(c) if service.decl.clean_exit.contains(&c));
        // Nobody is left to hand over to: helpers that live a moment longer hold nothing.
        let closed_all =
            clean_code && m.held_address && !still_listening && !foreign_holder && !instance_holds;
        let kind = |asked: Option<&Asked>, stopped: Option<&End>| {
            if status == ExitStatus::Unknown && asked.is_none() {
                EndKind::Unseen
            } else if m.oom.is_some() {
                EndKind::Crash
            } else if asked.is_some() {
                EndKind::Asked
            } else if stopped.is_some_and(|e| e.kind == EndKind::Clean) {
                EndKind::Clean
            } else if status == ExitStatus::Code(0) && (survivors || foreign_holder) && !closed_all {
                EndKind::Handover
            } else if clean_code && (m.cleaned_up || m.held_address && !still_listening) {
                EndKind::Clean
            } else {
                EndKind::Crash
            }
        };
        let judge = |stopped: Option<&End>| {
            let asked = asked(stopped);
            let kind = match kind(asked.as_ref(), stopped) {
                // While events are missing, the one that would explain it may be among them.
                EndKind::Crash if blind && m.oom.is_none() => EndKind::Unseen,
                kind => kind,
            };
            (asked, kind)
        };
        let (asked, kind) = judge(stopped);
        // Whom the PID file named lived a life of its own, and followed nobody; the file may be read only later.
        let by_itself = stopped.map(|_| judge(None));
        let by_own = killer
            .as_ref()
            .and_then(|k| k.actor.as_ref())
            .is_some_and(|a| service.members.contains_key(&a.id));
        let stopped_by_own = by_own && by_stop_signal && !was_main;
        let listeners_closed = asked.as_ref().and_then(|a| self.listeners_closed_since(s, a.at));
        let service = &mut self.services[s];
        let unsettled = match kind {
            EndKind::Crash if status == ExitStatus::Code(0) && was_main && counted => held.clone(),
            // A child may have inherited what never listened.
            EndKind::Clean if closed_all && survivors && was_main && counted => held.clone(),
            _ => Vec::new(),
        };
        let settled = unsettled.is_empty() || kind == EndKind::Clean;
        let end = End {
            process: m.process.clone(),
            status,
            at,
            seq,
            was_main,
            instance: m.instance,
            generation: before.map_or(service.generation, |b| b.generation),
            kind,
            asked,
            killer,
            oom: m.oom,
            listeners_closed,
            stopped_by_own,
            named_instead: false,
            unsettled,
            unread: unread && kind == EndKind::Clean && closed_all && survivors,
        };
        let lived = at.since(m.process.start);
        let summary = format!("{} {}", describe(&m.process), super::show::ended(&end));
        let facts = json!({ "status": status, "meaning": if settled { kind_name(kind, was_main) } else { "left its listeners open" }, "lived_ns": lived.as_nanos() as u64 });
        // It was the main process until another one came to count, as was told before its end: that has replaced it.
        let was_replaced = before.is_some_and(|b| b.replaced);
        // Of those, only what another process did to it is worth telling.
        let done_to = counted || !elsewhere && end.killer.as_ref().is_some_and(|k| k.actor.is_some());
        if done_to && !was_replaced && is_a_death(&end, &service.decl.signals.handled) {
            if service.deaths.len() == DEATHS_KEPT {
                service.deaths.pop_front();
            }
            service.deaths.push_back(end.clone());
        }
        if m.held_address || !held.is_empty() {
            if service.holder_ends.len() == DEATHS_KEPT {
                service.holder_ends.pop_front();
            }
            service.holder_ends.push_back(end.clone());
        }
        if !survivors {
            service.instances.remove(&m.instance);
        }
        let actor = end.actor();
        let timeline = end.stop_timeline().filter(|_| was_main && counted);
        if !counted {
            service.may_have_been_main(&end);
            service.may_have_counted(&end);
        }
        if !counted || !was_main || by_itself.is_some() {
            let mut end = end.clone();
            if let Some((asked, kind)) = by_itself {
                (end.asked, end.kind) = (asked, kind);
            }
            service.may_have_been_named(end, m.heard);
        }
        if is_main {
            service.main = None;
        }
        if was_main {
            if counted && kind == EndKind::Crash && settled && !follows_crash {
                service.note_crash(end.clone());
            }
            if counted && (kind != EndKind::Handover || !survivors) && !follows_crash {
                service.last_end = Some(end);
            }
        }
        self.show_at(
            s,
            seq,
            EventKind::Exit,
            None,
            Some(&m.process),
            actor.as_ref(),
            facts,
            summary,
        );
        self.qualify(s);
        if let Some(timeline) = timeline {
            let summary = format!("{} has stopped", describe(&m.process));
            let facts = json!({ "stop": timeline });
            self.show(s, EventKind::Stop, None, Some(&m.process), None, facts, summary);
        }
        let next = self.services[s].main_member().map(|m| m.process.clone());
        if let (true, EndKind::Handover, Some(next)) = (was_main, kind, next) {
            self.tell_heir(s, &next, process.id.pid);
        }
        let absent = self.is_absent(s);
        let service = &mut self.services[s];
        if absent && service.down.is_none() {
            service.down = Some((at, seq));
        }
        self.touched.insert(s);
    }

    /// Inodes of live sockets of the service's addresses that the process holds.
    fn held_by(&self, s: usize, id: &ProcId) -> Vec<u64> {
        let ledgers = self.services[s]
            .places
            .iter()
            .filter_map(|a| self.addresses.get(*a));
        ledgers
            .flat_map(|l| {
                l.live
                    .values()
                    .filter(|e| e.is_held_by(id))
                    .map(|e| e.socket.inode)
            })
            .collect()
    }

    /// When the last of the service's listeners was closed, if all that were open at `since` are.
    pub(super) fn listeners_closed_since(&self, s: usize, since: Nanos) -> Option<Nanos> {
        let ledgers = || {
            self.services[s]
                .places
                .iter()
                .filter_map(|a| self.addresses.get(*a))
        };
        if ledgers().any(|l| {
            l.live
                .values()
                .any(|e| e.is_listening() && !e.socket.holders.is_empty())
        }) {
            return None;
        }
        ledgers()
            .flat_map(|l| &l.dead)
            .map(|d| d.at)
            .filter(|at| *at >= since)
            .max()
    }

    /// Inodes of all sockets of the service's addresses that are remembered, live or dead.
    fn known_sockets(&self, s: usize) -> BTreeSet<u64> {
        let ledgers = self.services[s]
            .places
            .iter()
            .filter_map(|a| self.addresses.get(*a));
        ledgers
            .flat_map(|l| {
                l.live
                    .values()
                    .map(|e| e.socket.inode)
                    .chain(l.dead.iter().map(|d| d.inode))
            })
            .collect()
    }

    /// Whether it has bound a path at which nobody has looked since: a listener of its own that is not known is that one.
    fn has_made_unread_name(&self, s: usize, id: &ProcId) -> bool {
        let mut ledgers = self.services[s]
            .places
            .iter()
            .filter_map(|a| self.addresses.get(*a));
        ledgers.any(|l| l.is_renamed() && l.maker() == Some(*id))
    }

    /// Whether a living process other than this one holds a socket that it holds.
    fn others_hold(&self, s: usize, id: &ProcId) -> bool {
        let ledgers = self.services[s]
            .places
            .iter()
            .filter_map(|a| self.addresses.get(*a));
        ledgers
            .flat_map(|l| l.live.values())
            .filter(|e| e.is_held_by(id))
            .any(|e| {
                e.socket
                    .holders
                    .iter()
                    .any(|h| h.process != *id && !self.ended.contains(&h.process))
            })
    }

    /// Whether another living process of its instance holds a socket of the service's addresses.
    fn instance_holds(&self, s: usize, id: &ProcId) -> bool {
        let service = &self.services[s];
        let living = service
            .members
            .get(id)
            .and_then(|m| service.instances.get(&m.instance))
            .map(|i| &i.living);
        living
            .into_iter()
            .flatten()
            .filter(|other| *other != id)
            .any(|other| !self.held_by(s, other).is_empty())
    }

    /// Living members that a snapshot begun at `began` should have shown and did not.
    pub(super) fn end_unseen(&mut self, missing: Vec<ProcId>, began: Nanos) {
        let gone: Vec<Process> = missing
            .iter()
            .filter_map(|id| self.services[*self.member_of.get(id)?.first()?].members.get(id))
            // One that runs the service's executable only since then was another program when the list was read.
            .filter(|m| m.joined < began)
            .map(|m| Process::clone(&m.process))
            .collect();
        for p in gone {
            self.on_exit(p, ExitStatus::Unknown, None);
        }
    }
}

impl ServiceState {
    /// Fills what was not known of a member.
    fn learn(&mut self, news: &Process) {
        let Some(m) = self.members.get_mut(&news.id) else {
            return;
        };
        let had_parent = m.process.parent.is_some();
        complete(Arc::make_mut(&mut m.process), news);
        if !had_parent && m.process.parent.is_some() {
            let (process, joined) = (m.process.clone(), m.joined);
            let is_root = process.parent.is_none_or(|p| !self.members.contains_key(&p));
            self.family.remove(&process);
            self.family.add(&process, is_root, joined);
        }
        self.note_evidence(&news.id);
    }

    /// Whether its unit or `--pid` names this member, or what it did shows that it is no tool.
    fn note_evidence(&mut self, id: &ProcId) {
        let Some(m) = self.members.get(id) else { return };
        let by_unit = self.decl.unit.is_some() && m.process.unit == self.decl.unit;
        let evident = self.decl.pid == Some(id.pid) || m.held_address;
        if let Some(i) = self.instances.get_mut(&m.instance) {
            i.of_unit |= by_unit;
            i.evident |= evident;
        }
    }

    /// This member, if it is one, holds a declared address: its instance counts, also if no later look sees it.
    pub(super) fn held_address(&mut self, id: &ProcId) {
        if let Some(m) = self.members.get_mut(id)
            && !m.held_address
        {
            m.held_address = true;
            self.note_evidence(id);
        }
    }

    /// The parent of this member, if it is one, ended at `at`: it is a root since then, and what it was sent since then, it
    /// was asked.
    fn lost_parent(&mut self, id: &ProcId, at: Nanos) {
        let Some(m) = self.members.get_mut(id) else { return };
        m.orphaned = at;
        self.family.lost_parent(&m.process);
        let heard = m.heard.iter().find(|h| h.at >= at).cloned();
        if heard.is_some() && m.asked.is_none() {
            self.ask(id, heard);
        }
    }

    /// Says who asked a member to stop. `None`: nobody, after all.
    pub(super) fn ask(&mut self, id: &ProcId, asked: Option<Asked>) {
        let Some(m) = self.members.get_mut(id) else { return };
        let Some(i) = self.instances.get_mut(&m.instance) else {
            return;
        };
        if let Some(old) = &m.asked {
            i.asked.remove(&(old.seq, *id));
        }
        if let Some(new) = &asked {
            i.asked.insert((new.seq, *id));
        }
        m.asked = asked;
    }

    pub(super) fn merge_instances(&mut self, into: u32, from: u32) {
        let Some(gone) = self.instances.remove(&from) else {
            return;
        };
        for id in &gone.living {
            if let Some(m) = self.members.get_mut(id) {
                m.instance = into;
            }
        }
        let Some(kept) = self.instances.get_mut(&into) else {
            return;
        };
        kept.living.extend(gone.living);
        kept.asked.extend(gone.asked);
        kept.evident |= gone.evident;
        kept.of_unit |= gone.of_unit;
        kept.qualified = match (kept.qualified, gone.qualified) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if gone.root.start < kept.root.start {
            kept.root = gone.root;
        }
        for main in self.main.iter_mut().filter(|m| m.instance == from) {
            main.instance = into;
        }
        for end in self.uncounted.iter_mut().filter(|e| e.instance == from) {
            end.instance = into;
        }
        if self.generation_instance == Some(from) {
            self.generation_instance = Some(into);
        }
    }
}

/// Fills what was not known; what is newer replaces what an exec can change.
fn complete(known: &mut Process, news: &Process) {
    if !news.comm.is_empty() {
        known.comm.clone_from(&news.comm);
    }
    if news.exe.is_some() {
        known.exe.clone_from(&news.exe);
        known.exe_deleted = news.exe_deleted;
    }
    if !news.argv.is_empty() {
        known.argv.clone_from(&news.argv);
    }
    known.exe_id = news.exe_id.or(known.exe_id);
    known.uid = news.uid.or(known.uid);
    if news.unit.is_some() {
        known.unit.clone_from(&news.unit);
    }
    known.parent = known.parent.or(news.parent);
}

fn parent_name(service: &ServiceState, child: &Process) -> String {
    match child.parent.and_then(|p| service.members.get(&p)) {
        Some(m) => describe(&m.process),
        None => "a process".to_owned(),
    }
}

/// The signal that ended a process: of those that could have, the first that was queued.
fn killer(m: &Member, signal: Signal) -> Option<SignalFact> {
    let fits = |f: &&SignalFact| f.signal == signal && f.result != SignalResult::Ignored;
    let deadly = |f: &&SignalFact| {
        signal == Signal::KILL || matches!(f.disposition, Disposition::Default | Disposition::Blocked)
    };
    let first = m
        .signals
        .iter()
        .filter(fits)
        .filter(deadly)
        .find(|f| f.result == SignalResult::Queued);
    first.or_else(|| m.signals.iter().rev().find(fits)).cloned()
}

/// A stop signal that the process ignored asks it nothing, unless KILL follows before long: then whoever sent both wanted
/// it to stop, as systemd does.
fn killed_for_not_heeding(m: &Member, status: ExitStatus, decl: &Service, at: Nanos) -> Option<Asked> {
    if !matches!(
        status,
        ExitStatus::Signal {
            signal: Signal::KILL,
            ..
        }
    ) {
        return None;
    }
    let mut ignored = m
        .ignored
        .values()
        .filter(|f| decl.stop_signals.contains(&f.signal) && f.actor.is_some());
    let f = ignored.find(|f| at <= f.at + decl.stop_within * HEEDING)?;
    let how = Ask::Signal {
        signal: f.signal,
        disposition: f.disposition,
    };
    Some(Asked {
        how,
        at: f.at,
        seq: f.seq,
        actor: f.actor.clone(),
    })
}

/// Whether an end is a finding in itself, be it the main process's or not: see the rules of the same names.
pub(super) fn is_a_death(end: &End, handled: &[Signal]) -> bool {
    super::rules::unhandled_signal::applies(end, handled)
        || super::rules::killed_while_stopping::applies(end)
        || end.oom.is_some()
}

fn kind_name(kind: EndKind, was_main: bool) -> &'static str {
    match kind {
        EndKind::Asked => "stopped as asked",
        EndKind::Clean => "stopped itself",
        EndKind::Handover => "handed over",
        EndKind::Crash if was_main => "crashed",
        EndKind::Crash => "ended",
        EndKind::Unseen => "unseen",
    }
}
