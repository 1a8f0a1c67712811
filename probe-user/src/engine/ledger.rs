//! Which sockets are bound to a declared address, who holds them, what became of them, and who touched the path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    clock::Nanos,
    event::{
        Actor, AddressState, FileId, PathChange, PathState, ProcId, Process, Socket, SocketId, SocketState,
    },
};

use super::addresses::{Addresses, Place};

/// Path changes and dead sockets remembered per address.
pub(super) const KEPT: usize = 8;

#[derive(Debug, Default)]
pub(super) struct AddressLedger {
    /// Services that declare it.
    pub(super) services: Vec<usize>,
    pub(super) live: BTreeMap<SocketId, Box<Entry>>,
    /// Inodes of sockets whose beginning an edge has told: the level tells of them no more.
    pub(super) told: VecDeque<u64>,
    /// The socket of a bind that an edge has told: the name that appears with it is no news.
    pub(super) bound: Option<Bound>,
    /// The last name that was told to appear without its bind being known, and who made it.
    pub(super) named: Option<(Nanos, Option<ProcId>)>,
    pub(super) dead: VecDeque<Dead>,
    /// Holders that belong to none of the services, to be named. Sorted.
    pub(super) strangers: Vec<Process>,
    pub(super) path: Option<PathState>,
    /// Who made the socket file that the path last led to, where that was told before it was read.
    pub(super) made: Option<Made>,
    /// When the path was first read as it is.
    pub(super) path_since: Option<Nanos>,
    pub(super) changes: VecDeque<Change>,
    /// The network namespace that the newest level was read in.
    pub(super) netns: Option<u32>,
    /// When the newest level was read.
    pub(super) read_at: Option<Nanos>,
    /// Why the kernel could not be asked.
    pub(super) error: Option<String>,
    /// Asking again until it is ready or settled: next wait, and when to give up.
    pub(super) pending: Option<Pending>,
}

/// How long before the end of a bind its name can be told.
const ONE_BIND: std::time::Duration = std::time::Duration::from_secs(1);

/// A bind that an edge has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    inode: u64,
    /// The directory has told of the name.
    named: bool,
}

/// Where a socket or a holder was seen: at no fewer addresses than it is at. Made anew with a snapshot, once what has ended
/// unheard of since the last time may outweigh what lives.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    by_inode: BTreeSet<(u64, Place)>,
    by_holder: BTreeSet<(ProcId, Place)>,
    /// How many there were when they were made anew.
    lived: usize,
}

/// Sightings are not made anew for fewer than these.
const FEW: usize = 64;

impl Sightings {
    pub(super) fn note(&mut self, address: Place, socket: &Socket) {
        self.by_inode.insert((socket.inode, address));
        for h in &socket.holders {
            self.by_holder.insert((h.process, address));
        }
    }

    fn len(&self) -> usize {
        self.by_inode.len() + self.by_holder.len()
    }

    /// Forgets what has gone, where that is worth the walk.
    pub(super) fn renew(&mut self, addresses: &Addresses) {
        if self.len() > self.lived * 2 + FEW {
            *self = Self::of(addresses);
        }
    }

    pub(super) fn of(addresses: &Addresses) -> Self {
        let sockets = || {
            addresses
                .iter()
                .flat_map(|(address, _, ledger)| ledger.live.values().map(move |e| (address, &e.socket)))
        };
        let by_inode: BTreeSet<_> = sockets().map(|(address, s)| (s.inode, address)).collect();
        let by_holder: BTreeSet<_> = sockets()
            .flat_map(|(address, s)| s.holders.iter().map(move |h| (h.process, address)))
            .collect();
        Self {
            lived: by_inode.len() + by_holder.len(),
            by_inode,
            by_holder,
        }
    }

    pub(super) fn forget_inode(&mut self, inode: u64) -> Vec<Place> {
        forget(&mut self.by_inode, inode)
    }

    pub(super) fn forget_holder(&mut self, id: ProcId) -> Vec<Place> {
        forget(&mut self.by_holder, id)
    }
}

fn forget<T: Copy + Ord>(seen: &mut BTreeSet<(T, Place)>, what: T) -> Vec<Place> {
    let places: Vec<Place> = seen
        .range((what, Place::FIRST)..)
        .take_while(|(other, _)| *other == what)
        .map(|(_, place)| *place)
        .collect();
    for place in &places {
        seen.remove(&(what, *place));
    }
    places
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) wait: std::time::Duration,
    pub(super) until: Nanos,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    /// Since when it was seen here.
    pub(super) since: Nanos,
    pub(super) seq: u64,
    /// Who was last seen to hold it: still known when they have ended and the socket dies of it.
    pub(super) last_holders: Vec<ProcId>,
    /// A member of a service has held it. Then it is the service's own, whoever else holds it: a service manager that
    /// starts the daemon on it keeps it open while the daemon is down.
    pub(super) served: bool,
    /// The connection at the head of the queue, since when it is seen there, and when it was last seen.
    pub(super) head: Option<(u64, Nanos, Nanos)>,
}

/// A socket that is gone.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) inode: u64,
    pub(super) file: Option<FileId>,
    pub(super) holders: Vec<ProcId>,
    pub(super) at: Nanos,
    pub(super) seq: u64,
}

/// Who made a socket file, and the event that told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) file: FileId,
    pub(super) by: ProcId,
    pub(super) at: Nanos,
    pub(super) seq: u64,
}

#[derive(Debug)]
pub(super) struct Change {
    pub(super) change: PathChange,
    pub(super) actor: Option<Actor>,
    pub(super) at: Nanos,
    pub(super) seq: u64,
}

impl Entry {
    pub(super) fn new(socket: Socket, since: Nanos, seq: u64) -> Self {
        let mut entry = Self {
            socket,
            since,
            seq,
            last_holders: Vec::new(),
            served: false,
            head: None,
        };
        entry.note_holders();
        entry
    }

    pub(super) fn note_holders(&mut self) {
        if !self.socket.holders.is_empty() {
            self.last_holders = self.socket.holders.iter().map(|h| h.process).collect();
        }
    }

    pub(super) fn note_head(&mut self, at: Nanos) {
        self.head = match (self.socket.head, self.head) {
            (Some(now), Some((known, since, _))) if now == known => Some((known, since, at)),
            (Some(now), _) => Some((now, at, at)),
            (None, _) => None,
        };
    }

    pub(super) fn is_listening(&self) -> bool {
        self.socket.state == SocketState::Listening
    }

    pub(super) fn is_held_by(&self, id: &ProcId) -> bool {
        self.socket.holders.iter().any(|h| h.process == *id)
    }
}

impl AddressLedger {
    /// Whether the name leads to what this socket was bound to. Always so without a path.
    pub(super) fn leads_to(&self, socket: &Socket) -> bool {
        match &self.path {
            None => true,
            Some(PathState::Socket(file)) => socket.file == Some(*file),
            // Not looked at is not absent.
            Some(PathState::Unknown(_)) => true,
            Some(PathState::Absent | PathState::Other(_)) => false,
        }
    }

    /// A holder of one of its sockets, as it was last seen.
    pub(super) fn stranger(&self, id: &ProcId) -> Option<&Process> {
        let found = self.strangers.binary_search_by_key(id, |p| p.id).ok()?;
        self.strangers.get(found)
    }

    /// The path was read: whoever has just made the name has made this file, whatever is done to the name later.
    pub(super) fn note_maker(&mut self) {
        if let (Some(PathState::Socket(file)), Some(by), Some(made)) =
            (&self.path, self.maker(), self.changes.back())
            && self.read_at.is_some_and(|read| made.at <= read)
        {
            let (file, at, seq) = (*file, made.at, made.seq);
            self.made = Some(Made { file, by, at, seq });
        }
    }

    /// Who has made the name, if nothing has happened to it since.
    pub(super) fn maker(&self) -> Option<ProcId> {
        let last = self.changes.back()?;
        let made = last.change == PathChange::Created;
        last.actor.as_ref().filter(|_| made).map(|a| a.id)
    }

    /// Who holds its sockets, and who has made the name if nobody has looked since: notifications overtake the kernel's
    /// records, and its end may be told before anybody looks.
    pub(super) fn holders(&self) -> impl Iterator<Item = ProcId> {
        let maker = self.maker().filter(|_| self.is_renamed());
        let held = self.live.values().flat_map(|e| &e.socket.holders);
        held.map(|h| h.process).chain(maker)
    }

    /// Listeners that somebody who asks for the address reaches.
    pub(super) fn serving(&self) -> impl Iterator<Item = &Entry> {
        self.live
            .values()
            .map(Box::as_ref)
            .filter(|e| e.is_listening() && self.leads_to(&e.socket))
    }

    /// Whether any live socket, listening or not, is bound to the file that the path names.
    pub(super) fn path_is_bound(&self) -> bool {
        self.live.values().any(|e| self.leads_to(&e.socket))
    }

    /// Of a listener that was shut down and is still open: the event that told of its end.
    pub(super) fn end_told(&self, id: SocketId) -> Option<u64> {
        let e = self.live.get(&id)?;
        let is_it = |d: &&Dead| e.socket.state == SocketState::ShutDown && d.inode == e.socket.inode;
        self.dead.iter().rev().find(is_it).map(|d| d.seq)
    }

    pub(super) fn bury(&mut self, id: SocketId, at: Nanos, seq: u64) {
        let Some(e) = self.live.remove(&id) else { return };
        // A socket that was shut down can listen again.
        self.told.retain(|inode| *inode != e.socket.inode);
        self.remember(Dead {
            inode: e.socket.inode,
            file: e.socket.file,
            holders: e.last_holders,
            at,
            seq,
        });
    }

    pub(super) fn note(&mut self, change: Change) {
        if self.changes.len() == KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    /// A process bound a socket to the path. `false`: the name was told already, which the file system does in the middle
    /// of a bind.
    pub(super) fn note_bound(&mut self, inode: u64, by: ProcId, at: Nanos) -> bool {
        if self.bound.is_some_and(|b| b.inode == inode) {
            return true;
        }
        let named = self.named.take().is_some_and(|(when, who)| {
            // The name was there before the bind had ended. Its event has the time at which it was read, however late.
            at.since(when) <= ONE_BIND && who.is_none_or(|who| who == by)
        });
        self.bound = Some(Bound { inode, named });
        !named
    }

    /// A listener ended that an edge told of and no level: it lived too shortly.
    pub(super) fn bury_unseen(&mut self, inode: u64, at: Nanos, seq: u64) {
        self.told.retain(|i| *i != inode);
        self.remember(Dead {
            inode,
            file: None,
            holders: Vec::new(),
            at,
            seq,
        });
    }

    fn remember(&mut self, dead: Dead) {
        if self.dead.len() == KEPT {
            self.dead.pop_front();
        }
        self.dead.push_back(dead);
    }

    /// Whether the name that appeared is that of a bind which was told.
    pub(super) fn is_told_name(&mut self) -> bool {
        self.bound
            .as_mut()
            .is_some_and(|b| !std::mem::replace(&mut b.named, true))
    }

    pub(super) fn listens(&self, inode: u64) -> bool {
        self.live
            .values()
            .any(|e| e.socket.inode == inode && e.is_listening())
    }

    /// Remembers that an edge told of this listener. `false`: it had already.
    pub(super) fn tell_once(&mut self, inode: u64) -> bool {
        if self.told.contains(&inode) {
            return false;
        }
        if self.told.len() == KEPT {
            self.told.pop_front();
        }
        self.told.push_back(inode);
        true
    }

    /// The dead socket that the file was bound to.
    pub(super) fn last_owner(&self, file: FileId) -> Option<&Dead> {
        self.dead.iter().rev().find(|d| d.file == Some(file))
    }

    /// Whether a level tells what is known already, and nothing waits for one.
    pub(super) fn is_unchanged(&self, state: &AddressState) -> bool {
        let Some(read_at) = self
            .read_at
            .filter(|_| self.error.is_none() && self.pending.is_none())
        else {
            return false;
        };
        let same_socket =
            |s: &Socket| s.head.is_none() && self.live.get(&s.id).is_some_and(|e| e.socket == *s);
        state.error.is_none()
            && self.path == state.path
            && self.netns == state.netns
            && self.live.len() == state.sockets.len()
            && state.sockets.iter().all(same_socket)
            && self.dead.iter().all(|d| d.at <= read_at)
            && self.changes.iter().all(|c| c.at <= read_at)
    }

    /// Whether the name has changed since the newest level was read.
    pub(super) fn is_renamed(&self) -> bool {
        self.changes
            .back()
            .is_some_and(|c| self.read_at.is_none_or(|read| read < c.at))
    }

    pub(super) fn is_older_than_known(&self, state_at: Nanos) -> bool {
        self.read_at.is_some_and(|known| state_at < known)
    }

    pub(super) fn died_after(&self, socket: &Socket, at: Nanos) -> bool {
        self.dead.iter().any(|d| d.inode == socket.inode && d.at >= at)
    }
}
