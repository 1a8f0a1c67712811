//! Who is whose child among the members of a service. Kept at hand, so that no event costs a walk over all of them.

use std::collections::BTreeSet;

use crate::{
    clock::Nanos,
    event::{ProcId, Process},
};

#[derive(Debug, Default)]
pub(super) struct Family {
    /// Members whose parent is no living member, the oldest first.
    roots: BTreeSet<(Nanos, ProcId)>,
    /// Parent and child, also of parents that are not, or no longer, members.
    children: BTreeSet<(ProcId, ProcId)>,
    /// When the last one was met, also if it has ended since.
    last_joined: Option<Nanos>,
}

const NOBODY: ProcId = ProcId {
    pid: 0,
    start_ticks: 0,
};

impl Family {
    /// `is_root`: its parent is no member. Its children become no roots by this: see [`Family::has_parent`].
    pub(super) fn add(&mut self, p: &Process, is_root: bool, joined: Nanos) {
        if is_root {
            self.roots.insert((p.start, p.id));
        }
        if let Some(parent) = p.parent {
            self.children.insert((parent, p.id));
        }
        self.last_joined = self.last_joined.max(Some(joined));
    }

    pub(super) fn remove(&mut self, p: &Process) {
        self.roots.remove(&(p.start, p.id));
        if let Some(parent) = p.parent {
            self.children.remove(&(parent, p.id));
        }
    }

    pub(super) fn has_parent(&mut self, child: &Process) {
        self.roots.remove(&(child.start, child.id));
    }

    pub(super) fn lost_parent(&mut self, child: &Process) {
        self.roots.insert((child.start, child.id));
    }

    pub(super) fn children(&self, parent: ProcId) -> impl Iterator<Item = ProcId> + '_ {
        self.children
            .range((parent, NOBODY)..)
            .take_while(move |(p, _)| *p == parent)
            .map(|(_, child)| *child)
    }

    /// The oldest first.
    pub(super) fn roots(&self) -> impl DoubleEndedIterator<Item = ProcId> + '_ {
        self.roots.iter().map(|(_, id)| *id)
    }

    pub(super) fn is_root(&self, p: &Process) -> bool {
        self.roots.contains(&(p.start, p.id))
    }

    /// When a member was met last. It took a place for good, also once it has ended.
    pub(super) fn last_joined(&self) -> Option<Nanos> {
        self.last_joined
    }
}
