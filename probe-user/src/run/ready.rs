//! When a child is ready: it serves every declared address itself.

use std::collections::BTreeSet;

use crate::{
    config::Service,
    event::{ProcId, SocketState},
    reclaim::survey,
    sources::{observer::Observer, sock_diag::DiagError, view::View},
};

/// Asked while a child starts, and never again once it was ready.
pub(super) struct Readiness {
    observer: Observer,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// # Errors
    /// When the kernel's sockets can't be listed.
    pub(super) fn new() -> Result<Self, DiagError> {
        Ok(Self {
            observer: Observer::new(None)?,
        })
    }

    /// Whether every declared address is served by `child` or by what descends from it. What another process serves does
    /// not count, and neither does what can't be known.
    pub(super) fn is_ready(&mut self, service: &Service, child: ProcId) -> bool {
        let family = BTreeSet::from([child]);
        let belongs = |id: ProcId| id == child || survey::descends(id, &family);
        let view = View {
            netns: service.netns.clone(),
            process: Some(child),
            ..View::default()
        };
        let states = survey::addresses(&mut self.observer, service, &view);
        states.iter().all(|state| {
            survey::blocking(state)
                .any(|s| s.state == SocketState::Listening && s.holders.iter().any(|h| belongs(h.process)))
        })
    }
}
