//! Processes that are never a target.

use std::collections::BTreeSet;

use crate::{
    engine::membership,
    event::{ProcId, Process},
    sources::process,
};

/// A chain of parents is no longer than this.
const DEPTH: usize = 256;
/// `kthreadd`, the parent of all kernel threads.
const KTHREADD: u32 = 2;

/// Ourselves and those that we descend from.
#[derive(Debug)]
pub(crate) struct Guard {
    me: ProcId,
    ancestors: BTreeSet<ProcId>,
}

/// Why a process is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    Init,
    Me,
    /// It starts us, and mostly the service too.
    Ancestor,
    KernelThread,
    /// It holds sockets for services that it starts on demand.
    ServiceManager,
}

impl Guard {
    pub(crate) fn new() -> Option<Self> {
        let me = process::identity(std::process::id())?;
        let mut ancestors = BTreeSet::new();
        let mut next = process::parent(me);
        while let Some(id) = next.filter(|_| ancestors.len() < DEPTH) {
            ancestors.insert(id);
            next = process::parent(id);
        }
        Some(Self { me, ancestors })
    }

    /// Ourselves and our ancestors.
    pub(crate) fn spared(&self) -> BTreeSet<ProcId> {
        let mut spared = self.ancestors.clone();
        spared.insert(self.me);
        spared
    }

    pub(crate) fn mistake(&self, p: &Process) -> Option<Mistake> {
        let parent = p.parent.map(|p| p.pid);
        if p.id.pid == 1 {
            Some(Mistake::Init)
        } else if p.id == self.me {
            Some(Mistake::Me)
        } else if self.ancestors.contains(&p.id) {
            Some(Mistake::Ancestor)
        } else if p.exe.is_none() && (p.id.pid == KTHREADD || parent == Some(KTHREADD)) {
            Some(Mistake::KernelThread)
        } else if membership::is_service_manager(p) {
            Some(Mistake::ServiceManager)
        } else {
            None
        }
    }
}

impl Mistake {
    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Init => "pid 1 is no service",
            Self::Me => "it is this process itself",
            Self::Ancestor => "it started this process",
            Self::KernelThread => "it is a kernel thread",
            Self::ServiceManager => "it is the service manager, which holds sockets for those that it starts",
        }
    }

    /// It does not keep the service from starting: it is starting it.
    pub(crate) fn is_starter(self) -> bool {
        matches!(self, Self::Me | Self::Ancestor | Self::ServiceManager)
    }
}
