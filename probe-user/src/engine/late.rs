//! A look that was taken while a process lived, and is told after its end: it shows that the process was the service.

use std::{ops::Range, time::Duration};

use crate::{
    clock::Nanos,
    event::{PathChange, ProcId, Socket},
};

use super::{
    Engine,
    addresses::Place,
    state::{End, EndKind, ServiceState, keep},
};

/// A file system stamps files with the time of the last tick, at a hundred of them a second.
const TICK: Duration = Duration::from_millis(10);

impl Engine {
    /// The directory tells late, and without a time, that somebody has bound the address; the file knows when that was.
    /// Whoever holds the socket of the file, or made its name, has counted since then, and with it the main process that has
    /// ended meanwhile.
    pub(super) fn date_binds(&mut self, s: usize, address: Place, changed: Nanos) {
        let Some(ledger) = self.addresses.get(address) else {
            return;
        };
        let (at, bound_by) = (self.at, changed + TICK);
        let service = &mut self.services[s];
        let live = ledger.live.values().filter(|e| ledger.leads_to(&e.socket));
        let holders = live.flat_map(|e| &e.socket.holders).map(|h| h.process);
        // Earlier names came before this one.
        let told = ledger.changes.iter().filter(|c| c.at <= at);
        let made = told.filter(|c| c.change == PathChange::Created);
        let makers = made.filter_map(|c| Some(c.actor.as_ref()?.id));
        for id in holders.chain(makers) {
            service.date_bind(&id, bound_by);
        }
    }

    /// Who held this socket when it was looked at, and has ended since.
    pub(super) fn confirm_holders(&mut self, address: Place, socket: &Socket) {
        let ended = |id: &ProcId| self.ended.contains(id);
        let late: Vec<ProcId> = socket.holders.iter().map(|h| h.process).filter(ended).collect();
        if late.is_empty() {
            return;
        }
        let services = self.addresses.get(address).map(|l| l.services.clone());
        for s in services.unwrap_or_default() {
            for id in &late {
                self.confirm_late(s, *id);
            }
        }
    }

    /// What was looked at at this event's time shows that the process counted.
    pub(super) fn confirm_late(&mut self, s: usize, id: ProcId) {
        if self.services[s].confirm_late(id, self.at) {
            self.touched.insert(s);
        }
    }
}

impl ServiceState {
    fn date_bind(&mut self, holder: &ProcId, bound_by: Nanos) {
        // One that began later was given the socket.
        let Some(m) = self.members.get(holder).filter(|m| m.process.start < bound_by) else {
            return;
        };
        let instance = m.instance;
        let Some(i) = self.instances.get_mut(&instance) else {
            return;
        };
        let Some(known) = i.qualified.filter(|known| bound_by < *known) else {
            return;
        };
        i.qualified = Some(bound_by);
        self.confirm_uncounted(instance, bound_by..known);
    }

    /// An instance has counted while its main process ended, as is only told now.
    pub(super) fn confirm_uncounted(&mut self, instance: u32, counted: Range<Nanos>) {
        let meanwhile = |e: &End| e.instance == instance && counted.contains(&e.at);
        let Some(end) = self
            .uncounted
            .iter()
            .rposition(meanwhile)
            .and_then(|i| self.uncounted.remove(i))
        else {
            return;
        };
        let handed_over = end.kind == EndKind::Handover;
        if handed_over || self.last_end.as_ref().is_some_and(|last| last.at > end.at) {
            return;
        }
        self.confirm_end(end);
    }

    /// Keeps the end of a main process that had not shown that it counts.
    pub(super) fn may_have_counted(&mut self, end: &End) {
        if end.was_main {
            keep(&mut self.uncounted, end.clone());
        }
    }

    fn confirm_late(&mut self, id: ProcId, at: Nanos) -> bool {
        let late = |e: &End| e.process.id == id && at < e.at;
        let Some(end) = self
            .uncounted
            .iter()
            .rposition(late)
            .and_then(|i| self.uncounted.remove(i))
        else {
            return false;
        };
        // A later life's end says more.
        if self.last_end.as_ref().is_some_and(|last| last.at > end.at) {
            return false;
        }
        keep(&mut self.holder_ends, end.clone());
        self.confirm_end(end);
        true
    }
}
