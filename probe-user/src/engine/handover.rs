//! Sockets that go from one process to another without an event that tells of it: passed with SCM_RIGHTS, or kept open
//! by whoever starts the daemon on them.

use serde_json::json;

use crate::event::Actor;

use super::{
    Engine, addresses::Place, finding::EventKind, show::describe, socket::in_flight, state::EndKind,
};

impl Engine {
    /// Remembers which sockets members hold.
    pub(super) fn note_served(&mut self, s: usize, address: Place) {
        let members = &self.services[s].members;
        let Some(ledger) = self.addresses.get_mut(address) else {
            return;
        };
        for entry in ledger.live.values_mut() {
            entry.served |= entry
                .socket
                .holders
                .iter()
                .any(|h| members.contains_key(&h.process));
        }
    }

    /// Whether a member of a service that declares the address serves it. Without one, somebody else may keep the listener
    /// for a daemon that is starting.
    pub(super) fn is_served_by_members(&self, address: Place) -> bool {
        let Some(ledger) = self.addresses.get(address) else {
            return false;
        };
        let is_member = |id| {
            ledger
                .services
                .iter()
                .any(|s| self.services[*s].members.contains_key(id))
        };
        ledger
            .serving()
            .any(|e| e.socket.holders.iter().any(|h| is_member(&h.process)))
    }

    /// After a look at an address of a main process that exited with code 0 and its listeners open: another member that
    /// holds one of them goes on for it. If there is none, it was a crash. Likewise after one that seemed to have stopped itself.
    pub(super) fn settle_end(&mut self, s: usize, address: Place) {
        let (at, service) = (self.at, &mut self.services[s]);
        let (Some(ledger), Some(end)) = (self.addresses.get(address), service.last_end.as_mut()) else {
            return;
        };
        if end.unsettled.is_empty() && !end.unread || at < end.at {
            return;
        }
        let bound = end.unread && ledger.maker() == Some(end.process.id);
        end.unread &= !bound;
        let held: Vec<_> = ledger
            .live
            .values()
            .filter(|e| end.unsettled.contains(&e.socket.inode) || bound && ledger.leads_to(&e.socket))
            .collect();
        let heir = held
            .iter()
            .flat_map(|e| &e.socket.holders)
            .find_map(|h| service.members.get(&h.process));
        let Some(heir) = heir.map(|m| m.process.clone()) else {
            let seen = |inode: &u64| {
                held.iter().any(|e| e.socket.inode == *inode && !in_flight(e))
                    || ledger.dead.iter().any(|d| d.inode == *inode)
            };
            end.unsettled.retain(|inode| !seen(inode));
            if end.unsettled.is_empty() && end.kind == EndKind::Crash {
                let end = end.clone();
                service.note_crash(end);
            }
            return;
        };
        end.unsettled.clear();
        end.kind = EndKind::Handover;
        let from = end.process.id.pid;
        self.tell_heir(s, &heir, from);
    }

    /// Says who goes on for a process that has ended.
    pub(super) fn tell_heir(&mut self, s: usize, heir: &Actor, from: u32) {
        let summary = format!("{} goes on for {from}", describe(heir));
        self.show(
            s,
            EventKind::Handover,
            None,
            Some(heir),
            None,
            json!({ "from": from }),
            summary,
        );
    }
}
