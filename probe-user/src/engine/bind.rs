//! Binds of declared addresses, as the fentry tier tells of them: also those that fail.

use std::sync::Arc;

use nix::errno::Errno;
use serde_json::json;

use crate::{
    address::Address,
    event::{Actor, ProcId, Process},
};

use super::{Engine, finding::EventKind, show::describe, state::RefusedBind};

impl Engine {
    pub(super) fn on_bind(
        &mut self,
        address: &Address,
        process: Process,
        inode: Option<u64>,
        netns: Option<u32>,
        error: Option<i32>,
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
            // The directory tells of the new name too.
            let news = match inode.filter(|_| error.is_none() && declared.path().is_some()) {
                Some(inode) => ledger.note_bound(inode, process.id, at),
                None => true,
            };
            for s in ledger.services.clone() {
                if news {
                    self.show_bind(s, seq, &declared, &process, error);
                }
                let service = &self.services[s];
                let own = !service.decl.has_selector() || service.members.contains_key(&process.id);
                if own {
                    self.note_bind(s, &declared, &process, error, seq);
                }
                self.touched.insert(s);
            }
            self.settle_soon(a);
        }
    }

    fn show_bind(&mut self, s: usize, seq: u64, address: &Address, process: &Actor, error: Option<i32>) {
        let who = describe(process);
        let (facts, summary) = match error {
            None => (json!({}), format!("{who} bound {address}")),
            Some(errno) => (
                json!({ "errno": errno, "error": error_name(errno) }),
                format!("{who} could not bind {address}: {}", error_text(errno)),
            ),
        };
        self.show_at(
            s,
            seq,
            EventKind::Bind,
            Some(address.to_string()),
            Some(process),
            Some(process),
            facts,
            summary,
        );
    }

    /// A bind that succeeded ends what a refused one began.
    pub(super) fn note_bind(
        &mut self,
        s: usize,
        address: &Address,
        process: &Actor,
        error: Option<i32>,
        seq: u64,
    ) {
        let at = self.at;
        let service = &mut self.services[s];
        match error {
            None => {
                service.refused.remove(address);
            }
            Some(errno) => {
                self.refused.entry(process.id).or_default().insert(s);
                let process = process.clone();
                // When it began stays, however often one process tries.
                match service.refused.get_mut(address) {
                    Some(known) if known.process.id == process.id && known.errno == errno => known.seq = seq,
                    _ => drop(service.refused.insert(
                        address.clone(),
                        RefusedBind {
                            process,
                            errno,
                            at,
                            seq,
                        },
                    )),
                }
            }
        }
    }

    /// A process ended: what it could not bind is not missing any more.
    pub(super) fn forget_refused(&mut self, id: ProcId) {
        for s in self.refused.remove(&id).unwrap_or_default() {
            let Some(service) = self.services.get_mut(s) else {
                continue;
            };
            let before = service.refused.len();
            service.refused.retain(|_, r| r.process.id != id);
            if service.refused.len() < before {
                self.touched.insert(s);
            }
        }
    }
}

/// `EADDRINUSE`.
pub(super) fn error_name(errno: i32) -> String {
    format!("{:?}", Errno::from_raw(errno))
}

/// `Address already in use (EADDRINUSE)`.
pub(super) fn error_text(errno: i32) -> String {
    format!("{} ({})", Errno::from_raw(errno).desc(), error_name(errno))
}
