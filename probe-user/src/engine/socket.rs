//! Sockets: what is bound to a declared address, who holds it, who took its path away.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;

use crate::{
    address::{Address, Site},
    clock::Nanos,
    event::{
        Actor, AddressState, Holder, PathChange, PathState, ProcId, Process, SnapshotReason, Socket,
        SocketId, SocketState,
    },
};

use super::{
    Due, Effect, Engine,
    addresses::Place,
    bounds::Bound,
    finding::EventKind,
    ledger::{AddressLedger, Change, Entry, Pending},
    membership,
    process::Met,
    show::describe,
};

/// First and longest wait between two looks at an address that is not yet what it will be.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(500);
/// A socket that nobody holds is looked at again for this long; afterwards the slow snapshot does it.
pub(super) const IN_FLIGHT: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn on_listen(
        &mut self,
        address: &Address,
        process: Process,
        socket: Option<SocketId>,
        inode: Option<u64>,
        netns: Option<u32>,
    ) {
        let (at, process) = (self.at, Arc::new(process));
        for (a, certain) in self.declared_as(address, netns) {
            if !certain {
                self.settle_soon(a);
                continue;
            }
            let seq = self.next_seq();
            let (Some(declared), Some(ledger)) =
                (self.addresses.address(a).cloned(), self.addresses.get_mut(a))
            else {
                continue;
            };
            // `listen` can be called again, with another backlog.
            let again = inode.is_some_and(|inode| !ledger.tell_once(inode) || ledger.listens(inode));
            let limit = self.config.probe.bounds.sockets.get() as usize;
            if let (Some(id), Some(inode)) = (socket, inode)
                && !ledger.dead.iter().any(|d| d.inode == inode)
                && (ledger.live.contains_key(&id) || ledger.live.len() < limit)
            {
                let found = Socket {
                    id,
                    inode,
                    state: SocketState::Listening,
                    file: None,
                    ip: address.inet().and_then(|i| i.ip),
                    queue: 0,
                    backlog: 0,
                    head: None,
                    holders: vec![Holder {
                        process: process.id,
                        fd: -1,
                    }],
                    holders_known: false,
                };
                self.sightings.note(a, &found);
                let entry = ledger
                    .live
                    .entry(id)
                    .or_insert_with(|| Box::new(Entry::new(found, at, seq)));
                entry.socket.state = SocketState::Listening;
            }
            if let Some(inode) = inode.filter(|_| declared.path().is_some()) {
                ledger.note_bound(inode, process.id, at);
            }
            let services = ledger.services.clone();
            for s in services {
                self.note_bind(s, &declared, &process, None, seq);
                if again {
                    continue;
                }
                if self.hold(s, &process, a, None) {
                    self.effects.push(Effect::Resync(SnapshotReason::Interval));
                }
                let summary = format!("{} listens on {declared}", describe(&process));
                let subject = Some(declared.to_string());
                self.show_at(
                    s,
                    seq,
                    EventKind::Listen,
                    subject,
                    Some(&process),
                    None,
                    json!({}),
                    summary,
                );
                self.qualify(s);
                self.touched.insert(s);
            }
            self.settle_soon(a);
        }
    }

    pub(super) fn on_unlisten(
        &mut self,
        address: &Address,
        socket: Option<SocketId>,
        inode: Option<u64>,
        netns: Option<u32>,
    ) {
        let at = self.at;
        for (a, _) in self.declared_as(address, netns) {
            let Some(ledger) = self.addresses.get(a) else {
                continue;
            };
            let known = ledger
                .live
                .iter()
                .find(|(id, e)| socket == Some(**id) || inode == Some(e.socket.inode))
                .map(|(id, _)| *id);
            match (known, inode) {
                (Some(id), _) => self.bury(a, id, at),
                (None, Some(inode)) if ledger.told.contains(&inode) => {
                    let seq = self.next_seq();
                    if let Some(ledger) = self.addresses.get_mut(a) {
                        ledger.bury_unseen(inode, at, seq);
                    }
                    self.show_close(a, None, seq);
                }
                (None, _) => {}
            }
            self.settle_soon(a);
        }
    }

    pub(super) fn on_socket_closed(&mut self, inode: u64) {
        let at = self.at;
        for a in self.sightings.forget_inode(inode) {
            let Some(ledger) = self.addresses.get(a) else {
                continue;
            };
            let live = ledger.live.iter().find(|(_, e)| e.socket.inode == inode);
            if let Some(id) = live.map(|(id, _)| *id) {
                self.bury(a, id, at);
                self.settle_soon(a);
            }
        }
    }

    pub(super) fn on_path(&mut self, site: &Site, change: PathChange, actor: Option<Actor>) {
        let at = self.at;
        let Some(address) = self.addresses.place_of(site) else {
            return;
        };
        let Some(ledger) = self.addresses.get(address) else {
            return;
        };
        let services = ledger.services.clone();
        let seq = self.next_seq();
        let told = change == PathChange::Created
            && self
                .addresses
                .get_mut(address)
                .is_some_and(AddressLedger::is_told_name);
        if change == PathChange::Created
            && !told
            && let Some(ledger) = self.addresses.get_mut(address)
        {
            ledger.named = Some((at, actor.as_ref().map(|a| a.id)));
        }
        if let Some(ledger) = self.addresses.get_mut(address) {
            ledger.note(Change {
                change,
                actor: actor.clone(),
                at,
                seq,
            });
        }
        for s in services {
            if let Some(a) = &actor {
                let service = &mut self.services[s];
                match change {
                    PathChange::Removed | PathChange::RenamedAway => {
                        if let Some(m) = service.members.get_mut(&a.id) {
                            m.cleaned_up = true;
                        }
                    }
                    // It holds what it has just bound, before anything else could be asked. What it removed before that
                    // was an earlier life's.
                    PathChange::Created => {
                        service.held_address(&a.id);
                        if let Some(m) = service.members.get_mut(&a.id) {
                            m.cleaned_up = false;
                        }
                    }
                    PathChange::RenamedTo => {
                        if let Some(m) = service.members.get_mut(&a.id) {
                            m.cleaned_up = false;
                        }
                    }
                }
            }
            self.touched.insert(s);
            if told {
                self.qualify(s);
                continue;
            }
            let by = actor.as_deref().map_or("somebody".to_owned(), describe);
            let (kind, verb) = match change {
                PathChange::Created => (EventKind::Bind, "made"),
                PathChange::Removed => (EventKind::Unlink, "unlinked"),
                PathChange::RenamedAway => (EventKind::Rename, "renamed"),
                PathChange::RenamedTo => (EventKind::Rename, "replaced by a rename"),
            };
            let name = site
                .address
                .path()
                .map(|p| p.display().to_string())
                .unwrap_or_default();
            let subject = Some(site.to_string());
            let facts = json!({ "change": change });
            self.show_at(
                s,
                seq,
                kind,
                subject,
                None,
                actor.as_ref(),
                facts,
                format!("{by} {verb} {name}"),
            );
            self.qualify(s);
        }
        self.settle_soon(address);
    }

    /// A level: how the address was at `self.at`.
    pub(super) fn on_address(&mut self, state: AddressState) {
        let joined = self.take_address(state);
        // What a process that was only just met had started before is found by looking again.
        if joined && self.joined {
            self.effects.push(Effect::Resync(SnapshotReason::Interval));
        }
    }

    pub(super) fn take_address(&mut self, state: AddressState) -> bool {
        let at = self.at;
        // In a snapshot nearly everything is as it was.
        let print = (self.member_of.is_listing() && state.error.is_none()).then(|| self.print_of(&state));
        if let Some(print) = print
            && state.processes.iter().all(|p| self.member_of.is_listed(&p.id))
            && self.addresses.is_as_before(print, at)
        {
            return false;
        }
        let Some(address) = self.addresses.place(&state.address, state.of.as_deref()) else {
            return false;
        };
        let Some(ledger) = self.addresses.get_mut(address) else {
            return false;
        };
        if ledger.is_older_than_known(at) {
            return false;
        }
        let is_member = |p: &Process| {
            let mut of = self.member_of.get(&p.id).into_iter().flatten();
            of.any(|s| ledger.services.contains(s))
        };
        let known = |p: &Process| is_member(p) || ledger.stranger(&p.id).is_some_and(|known| known == p);
        if ledger.is_unchanged(&state) && state.processes.iter().all(known) {
            ledger.read_at = Some(at);
            if let Some(print) = print.filter(|_| state.processes.iter().all(is_member)) {
                self.addresses.remember(address, print);
            }
            // Of services without a selector the holders are members since they were first seen.
            let mut joined = false;
            for p in &state.processes {
                joined |= !self.member_of.is_listed(&p.id) && self.meet(p, Met::Level);
            }
            return joined;
        }
        ledger.error = state.error;
        if ledger.error.is_some() {
            self.follow_up(address);
            return false;
        }
        ledger.read_at = Some(at);
        ledger.netns = state.netns;
        if ledger.path != state.path {
            ledger.path_since = Some(at);
        }
        ledger.path = state.path;
        ledger.note_maker();
        let changed = state.changed;
        let services = ledger.services.clone();
        let listed: BTreeSet<SocketId> = state.sockets.iter().map(|s| s.id).collect();
        let gone: Vec<SocketId> = ledger
            .live
            .iter()
            .filter(|(id, e)| !listed.contains(id) && e.since <= at)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.bury(address, id, at);
        }
        let mut joined = false;
        let mut strangers = Vec::new();
        for p in state.processes {
            joined |= self.meet(&p, Met::Level);
            for s in &services {
                joined |= self.hold_if_holder(*s, &p, address, &state.sockets);
            }
            let is_member = services
                .iter()
                .any(|s| self.services[*s].members.contains_key(&p.id));
            if !is_member && holds_one_of(&state.sockets, &p) {
                strangers.push(p);
            }
        }
        if let Some(ledger) = self.addresses.get_mut(address) {
            strangers.sort_unstable_by_key(|p| p.id);
            ledger.strangers = strangers;
        }
        for socket in state.sockets {
            self.take_socket(address, socket, at);
        }
        for s in services {
            self.note_served(s, address);
            self.settle_end(s, address);
            self.qualify(s);
            if let Some(changed) = changed {
                self.date_binds(s, address, changed);
            }
            self.touched.insert(s);
        }
        self.follow_up(address);
        joined
    }

    /// All that decides whether it is news; of its processes, only who they are.
    fn print_of(&self, state: &AddressState) -> u64 {
        let processes: Vec<ProcId> = state.processes.iter().map(|p| p.id).collect();
        self.member_of.print(&(
            (&state.address, &state.of, state.netns),
            (&state.path, &state.sockets, processes),
        ))
    }

    fn take_socket(&mut self, address: Place, mut socket: Socket, at: Nanos) {
        self.confirm_holders(address, &socket);
        let Some(ledger) = self.addresses.get_mut(address) else {
            return;
        };
        // It was closed after this was read.
        if ledger.died_after(&socket, at) {
            return;
        }
        socket.holders.retain(|h| !self.ended.contains(&h.process));
        let fresh = !ledger.live.contains_key(&socket.id);
        let bounds = self.config.probe.bounds;
        let (full, services) = (
            ledger.live.len() >= bounds.sockets.get() as usize,
            ledger.services.clone(),
        );
        if fresh && full {
            self.overflow_all(&services, Bound::Sockets);
            return;
        }
        if socket.holders.len() > bounds.holders.get() as usize {
            // Members first: one of them is enough to know that the address is not taken.
            socket
                .holders
                .sort_by_key(|h| !self.member_of.contains(&h.process));
            socket.holders.truncate(bounds.holders.get() as usize);
            self.overflow_all(&services, Bound::Holders);
        }
        self.sightings.note(address, &socket);
        let Some(ledger) = self.addresses.get_mut(address) else {
            return;
        };
        let began = match ledger.live.get(&socket.id) {
            Some(known) => known.socket.state != socket.state && socket.state == SocketState::Listening,
            None => socket.state == SocketState::Listening,
        };
        let seq = if fresh || began { self.next_seq() } else { 0 };
        let Some(ledger) = self.addresses.get_mut(address) else {
            return;
        };
        match ledger.live.get_mut(&socket.id) {
            Some(known) => {
                if !socket.holders_known && socket.holders.is_empty() {
                    socket.holders.clone_from(&known.socket.holders);
                }
                known.socket = socket.clone();
                known.note_holders();
                known.note_head(at);
            }
            None => {
                let mut entry = Entry::new(socket.clone(), at, seq);
                entry.note_head(at);
                // Whoever made its name was gone before anybody looked. What is done to the name later says nothing of that.
                if entry.last_holders.is_empty() && ledger.leads_to(&socket) {
                    entry.last_holders.extend(ledger.maker());
                }
                ledger.live.insert(socket.id, Box::new(entry));
            }
        }
        // The first snapshot tells what was there before, and TCP tells of a listener by itself.
        let told = ledger.told.contains(&socket.inode);
        let services = ledger.services.clone();
        let declared = self
            .addresses
            .address(address)
            .filter(|a| a.inet().is_none())
            .cloned();
        if let Some(declared) = declared.filter(|_| began && self.joined && !told) {
            let holder = socket.holders.first().map(|h| h.process);
            for s in services {
                let process = holder
                    .and_then(|id| self.services[s].members.get(&id))
                    .map(|m| m.process.clone());
                let by = process.as_deref().map_or("somebody".to_owned(), describe);
                let subject = Some(declared.to_string());
                let summary = format!("{by} listens on {declared}");
                self.show_at(
                    s,
                    seq,
                    EventKind::Listen,
                    subject,
                    process.as_ref(),
                    None,
                    json!({}),
                    summary,
                );
            }
        }
    }

    fn hold_if_holder(&mut self, s: usize, p: &Process, address: Place, sockets: &[Socket]) -> bool {
        let Some(socket) = sockets
            .iter()
            .find(|x| x.holders.iter().any(|h| h.process == p.id))
        else {
            return false;
        };
        self.hold(s, p, address, Some(socket))
    }

    /// Where a service declares no other selector, who holds its address belongs to it. `true` when it joined.
    fn hold(&mut self, s: usize, p: &Process, address: Place, socket: Option<&Socket>) -> bool {
        if self.services[s].decl.has_selector() || membership::is_service_manager(p) {
            return false;
        }
        let joined = self.join(s, p, Met::Level);
        // Processes that share a socket are one instance, whoever their parents are.
        let (ledger, service) = (self.addresses.get(address), &mut self.services[s]);
        let Some(own) = service.members.get(&p.id).map(|m| m.instance) else {
            return joined;
        };
        let known = socket.and_then(|x| ledger?.live.get(&x.id)).map(|e| &e.socket);
        let others: BTreeSet<u32> = socket
            .into_iter()
            .chain(known)
            .flat_map(|x| &x.holders)
            .filter_map(|h| service.members.get(&h.process).map(|m| m.instance))
            .filter(|i| *i != own)
            .collect();
        for other in others {
            let (into, from) = (own.min(other), own.max(other));
            service.merge_instances(into, from);
        }
        joined
    }

    /// The declared addresses that a socket at `seen` serves, in the network namespace `netns`. `false`: it may be
    /// another namespace's, because that of the declared address is not known yet.
    pub(super) fn declared_as(&self, seen: &Address, netns: Option<u32>) -> Vec<(Place, bool)> {
        let fits = |a: &Address| match (a, seen) {
            (Address::Tcp(want), Address::Tcp(have)) | (Address::Udp(want), Address::Udp(have)) => {
                want.port == have.port && have.ip.is_none_or(|ip| want.is_served_by(ip))
            }
            (a, b) => *a == *b,
        };
        self.index
            .alike(seen)
            .into_iter()
            .filter(|place| self.addresses.address(*place).is_some_and(fits))
            .filter_map(|place| match (netns, self.addresses.get(place)?.netns) {
                (Some(seen), Some(declared)) if seen != declared => None,
                (Some(_), None) => Some((place, false)),
                _ => Some((place, true)),
            })
            .collect()
    }

    fn bury(&mut self, address: Place, id: SocketId, at: Nanos) {
        let seq = self.next_seq();
        let Some(ledger) = self.addresses.get_mut(address) else {
            return;
        };
        let holder = ledger
            .live
            .get(&id)
            .and_then(|e| e.socket.holders.first())
            .map(|h| h.process);
        if let Some(told) = ledger.end_told(id) {
            ledger.bury(id, at, told);
            let services = ledger.services.clone();
            self.touched.extend(services);
            return;
        }
        ledger.bury(id, at, seq);
        self.show_close(address, holder, seq);
    }

    fn show_close(&mut self, address: Place, holder: Option<ProcId>, seq: u64) {
        let (Some(declared), Some(ledger)) = (
            self.addresses.address(address).cloned(),
            self.addresses.get(address),
        ) else {
            return;
        };
        for s in ledger.services.clone() {
            let process = holder
                .and_then(|id| self.services[s].members.get(&id))
                .map(|m| m.process.clone());
            let subject = Some(declared.to_string());
            let summary = format!("the listener of {declared} was closed");
            self.show_at(
                s,
                seq,
                EventKind::Close,
                subject,
                process.as_ref(),
                None,
                json!({}),
                summary,
            );
            self.touched.insert(s);
        }
    }

    /// Asks how the address is now.
    pub(super) fn settle_soon(&mut self, address: Place) {
        if self.settling.insert(address) {
            self.settle_again(address);
        }
        let until = self.now + IN_FLIGHT;
        if let Some(l) = self.addresses.get_mut(address) {
            l.pending = Some(Pending {
                wait: FIRST_LOOK,
                until,
            });
        }
    }

    /// A member began: its addresses are looked at until they are ready, because no event tells of `listen` on a UNIX
    /// socket or of an abstract name.
    pub(super) fn expect_addresses(&mut self, s: usize) {
        let until = self.now + self.services[s].decl.ready_within;
        for a in self.services[s].places.clone() {
            let served = self.is_served_by_members(a);
            let Some(l) = self.addresses.get_mut(a) else {
                continue;
            };
            if !served {
                l.pending = Some(Pending {
                    wait: FIRST_LOOK,
                    until,
                });
                self.set_timer(Due::Address(a), self.now + FIRST_LOOK);
            }
        }
    }

    pub(super) fn settle_again(&mut self, address: Place) {
        if let Some(site) = self.addresses.site(address) {
            self.effects.push(Effect::Settle(site.clone()));
        }
    }

    /// After a look: whether to look again, and when.
    fn follow_up(&mut self, address: Place) {
        let now = self.now;
        let Some(l) = self.addresses.get(address) else {
            return;
        };
        let main_lives = l.services.iter().any(|s| !self.services[*s].members.is_empty());
        let unsettled = l.error.is_some()
            || l.live
                .values()
                .any(|e| e.socket.state == SocketState::Bound || in_flight(e))
            || main_lives && !self.is_served_by_members(address);
        let starting = l
            .services
            .iter()
            .filter_map(|s| {
                let service = &self.services[*s];
                let began = service.main.as_ref()?.began;
                Some(began + service.decl.ready_within)
            })
            .max();
        // While somebody waits at the head of a queue, the next look tells whether it is a stall.
        let standing = l.live.values().any(|e| e.head.is_some());
        let accept = l
            .services
            .iter()
            .map(|s| self.services[*s].decl.accept_within)
            .min();
        let Some(l) = self.addresses.get_mut(address) else {
            return;
        };
        let due = Due::Address(address);
        let until = l.pending.map(|p| p.until).max(starting).unwrap_or(Nanos::ZERO);
        if unsettled && now < until {
            let p = l.pending.get_or_insert(Pending {
                wait: FIRST_LOOK,
                until,
            });
            let at = now + p.wait;
            p.wait = (p.wait * 2).min(LAST_LOOK);
            self.set_timer(due, at);
        } else if let (true, Some(accept)) = (standing, accept) {
            l.pending = None;
            self.set_timer(due, now + accept);
        } else {
            l.pending = None;
            self.clear_timer(due);
        }
    }
}

fn holds_one_of(sockets: &[Socket], p: &Process) -> bool {
    sockets
        .iter()
        .any(|s| s.holders.iter().any(|h| h.process == p.id))
}

pub(super) fn in_flight(e: &Entry) -> bool {
    e.socket.holders_known && e.socket.holders.is_empty()
}

impl AddressLedger {
    /// Whether the kernel could be asked, ever.
    pub(super) fn is_known(&self) -> bool {
        self.read_at.is_some() && !matches!(self.path, Some(PathState::Unknown(_)))
    }
}
