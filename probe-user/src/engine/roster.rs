//! Which services each living process belongs to. Asked with nearly every event, and for each process of a snapshot: what is
//! told once more is known by its print, with one look at one place.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
};

use foldhash::fast::RandomState;

use crate::event::{ProcId, Process};

/// Only asked, never walked over where the order would show.
pub(super) type Quick<K, V> = HashMap<K, V, RandomState>;

/// Nearly all belong to one service.
#[derive(Debug)]
enum Services {
    One(usize),
    More(Vec<usize>),
}

#[derive(Debug)]
struct Known {
    services: Services,
    /// What it was like when it was last told and nothing of it was new.
    print: Option<u64>,
    /// The last snapshot that listed it.
    listed: u64,
}

impl Known {
    fn services(&self) -> &[usize] {
        match &self.services {
            Services::One(s) => std::slice::from_ref(s),
            Services::More(all) => all,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    known: Quick<ProcId, Known>,
    /// Nobody can make two things alike: its key is random, and nothing that is shown depends on it.
    printer: RandomState,
    snapshots: u64,
    listing: bool,
}

impl Roster {
    pub(super) fn get(&self, id: &ProcId) -> Option<&[usize]> {
        self.known.get(id).map(Known::services)
    }

    pub(super) fn services_of(&self, id: &ProcId) -> Vec<usize> {
        self.get(id).unwrap_or_default().to_vec()
    }

    pub(super) fn contains(&self, id: &ProcId) -> bool {
        self.known.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Sorted.
    pub(super) fn ids(&self) -> Vec<ProcId> {
        let mut ids: Vec<ProcId> = self.known.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn join(&mut self, id: ProcId, service: usize) {
        let Some(known) = self.known.get_mut(&id) else {
            let known = Known {
                services: Services::One(service),
                print: None,
                listed: 0,
            };
            self.known.insert(id, known);
            return;
        };
        known.print = None;
        match &mut known.services {
            Services::One(first) => known.services = Services::More(vec![*first, service]),
            Services::More(all) => all.push(service),
        }
    }

    pub(super) fn remove(&mut self, id: &ProcId) {
        self.known.remove(id);
    }

    /// Whether this is what was remembered of it, and it belongs wherever its parent does.
    pub(super) fn is_as_before(&self, process: &Process) -> bool {
        let Some(known) = self.known.get(&process.id).filter(|k| k.print.is_some()) else {
            return false;
        };
        let mine = known.services();
        let parent = process.parent.and_then(|p| self.get(&p)).unwrap_or_default();
        parent.iter().all(|s| mine.contains(s)) && known.print == Some(self.print(process))
    }

    /// All of this is known of it.
    pub(super) fn remember(&mut self, process: &Process) {
        let print = self.print(process);
        if let Some(known) = self.known.get_mut(&process.id) {
            known.print = Some(print);
        }
    }

    /// Something of it is known now that was not.
    pub(super) fn has_changed(&mut self, id: &ProcId) {
        if let Some(known) = self.known.get_mut(id) {
            known.print = None;
        }
    }

    pub(super) fn print(&self, of: impl Hash) -> u64 {
        self.printer.hash_one(of)
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.snapshots += 1;
        self.listing = true;
    }

    /// The snapshot lists it.
    pub(super) fn list(&mut self, id: &ProcId) {
        if let Some(known) = self.known.get_mut(id) {
            known.listed = self.snapshots;
        }
    }

    /// A snapshot is being taken.
    pub(super) fn is_listing(&self) -> bool {
        self.listing
    }

    /// The snapshot that is being taken lists it: what it tells of it elsewhere is no news.
    pub(super) fn is_listed(&self, id: &ProcId) -> bool {
        self.listing && self.known.get(id).is_some_and(|k| k.listed == self.snapshots)
    }

    /// Ends the snapshot, and names those that it has not listed. Sorted.
    pub(super) fn end_snapshot(&mut self) -> Vec<ProcId> {
        self.listing = false;
        let missing = self.known.iter().filter(|(_, k)| k.listed != self.snapshots);
        let mut ids: Vec<ProcId> = missing.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}
