//! `accept-stall`: the same connection stays at the head of a declared listener's queue for `accept_within`.

use crate::event::RunState;

use super::{
    super::{
        finding::Kind,
        show::describe,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    for (address, ledger) in view.addresses() {
        for entry in ledger.serving() {
            let Some((head, since, last)) = entry.head else {
                continue;
            };
            let due = since + service.decl.accept_within;
            // The second look that shows the same head makes the stall.
            if last < due {
                continue;
            }
            let owner = entry
                .socket
                .holders
                .iter()
                .find_map(|h| service.members.get(&h.process));
            let state = match owner {
                None => String::new(),
                Some(m) => match m.seen.as_ref().filter(|(_, at)| *at >= since) {
                    None => {
                        verdict.looks.push(m.process.id);
                        continue;
                    }
                    Some((seen, _)) => match &seen.run {
                        RunState::Gone => ", its owner is gone".to_owned(),
                        RunState::Running => format!(", {} runs", describe(&m.process)),
                        RunState::Stopped => format!(", {} is stopped", describe(&m.process)),
                        RunState::Uninterruptible { syscall } => format!(
                            ", {} is in uninterruptible sleep{}",
                            describe(&m.process),
                            syscall.as_ref().map_or(String::new(), |c| format!(" in {c}"))
                        ),
                        RunState::WaitingOnPeer { peer } => {
                            format!(", {} waits on {peer}", describe(&m.process))
                        }
                    },
                },
            };
            let stop = owner.and_then(|m| m.stopped.as_ref());
            verdict.conditions.push(Condition {
                severity: None,
                key: Key {
                    kind: Kind::AcceptStall,
                    subject: address.to_string(),
                    detail: format!("{} {head}", entry.socket.inode),
                },
                at: since,
                cause: stop.map_or_else(|| format!("stall {address} {head}"), |s| format!("signal {}", s.seq)),
                actor: stop.and_then(|s| s.actor.clone()),
                summary: format!(
                    "nobody accepts on {address}: the same connection has waited for {:.1} s, the queue holds up to {}{state}",
                    service.decl.accept_within.as_secs_f64(),
                    entry.socket.backlog,
                ),
                evidence: stop.map(|s| s.seq).into_iter().collect(),
            });
        }
    }
}
