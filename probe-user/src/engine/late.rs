//! A look that was taken while a process lived, and is told after its end: it shows that the process was the service.

use crate::event::{ProcId, Socket};

use super::{
    Engine,
    addresses::Place,
    state::{End, ServiceState, keep},
};

impl Engine {
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
    /// Keeps the end of a main process that had not shown that it counts.
    pub(super) fn may_have_counted(&mut self, end: &End) {
        if end.was_main {
            keep(&mut self.uncounted, end.clone());
        }
    }

    fn confirm_late(&mut self, id: ProcId, at: crate::clock::Nanos) -> bool {
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
