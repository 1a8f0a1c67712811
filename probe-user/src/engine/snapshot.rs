//! Snapshots: the state of everything declared, read at once.

use std::collections::BTreeSet;

use crate::event::{Snapshot, SnapshotReason};

use super::{Due, Effect, Engine, process::Met};

impl Engine {
    pub(super) fn on_snapshot(&mut self, snapshot: Snapshot) {
        // Levels count from when reading began: whatever an edge says after that is newer.
        self.at = snapshot.began;
        self.forget_overflows();
        let settles = !self.joined || self.blind.is_some() || snapshot.reason == SnapshotReason::Loss;
        self.member_of.begin_snapshot();
        let mut joined = false;
        for p in &snapshot.processes {
            joined |= self.meet(p, Met::Level);
            self.member_of.list(&p.id);
        }
        for a in snapshot.addresses {
            joined |= self.take_address(a);
        }
        for p in snapshot.pid_files {
            joined |= self.take_pid_file(p);
        }
        let missing = self.member_of.end_snapshot();
        // Before the first snapshot an end is told, unless it is among what an earlier daemon's programs have lost.
        if self.joined || self.blind.is_some() {
            self.end_unseen(missing, snapshot.began);
        }
        if !self.joined {
            self.join_sharers();
            self.set_timer(Due::Resync, self.now + self.config.probe.settle_every);
        }
        let at = snapshot.began;
        for s in 0..self.services.len() {
            if self.services[s].down.is_none() && self.is_absent(s) {
                self.services[s].down = Some((at, self.seq));
                self.touched.insert(s);
            }
            // Otherwise what it told anew has touched them, and what waits for the clock has a timer.
            if settles {
                self.touched.insert(s);
            }
        }
        self.joined = true;
        self.sightings.renew(&self.addresses);
        // Whatever it was taken for, it shows everything as it was after it began, and nothing of a later loss.
        if self.blind.as_ref().is_some_and(|b| b.last <= snapshot.began) {
            self.blind = None;
        }
        // Processes that were started between the look and the moment the kernel was told to follow their parents.
        if joined {
            self.effects.push(Effect::Recheck(snapshot.reason));
        }
    }

    /// Who shared a socket before probe looked has inherited it: workers whose master is gone are one instance, though
    /// nobody has seen where they came from.
    fn join_sharers(&mut self) {
        for s in 0..self.services.len() {
            let service = &mut self.services[s];
            let places = service.places.clone();
            let ledgers = places.iter().filter_map(|place| self.addresses.get(*place));
            for entry in ledgers.flat_map(|ledger| ledger.live.values()) {
                let holders = entry.socket.holders.iter();
                let mut instances: BTreeSet<u32> = holders
                    .filter_map(|h| Some(service.members.get(&h.process)?.instance))
                    .collect();
                let Some(first) = instances.pop_first() else {
                    continue;
                };
                for other in instances {
                    service.merge_instances(first, other);
                }
            }
        }
    }
}
