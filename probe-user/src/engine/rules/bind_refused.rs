//! `bind-refused`: the service could not bind a declared address.

use std::time::Duration;

use super::{
    super::{
        bind::error_text,
        finding::Kind,
        ledger::AddressLedger,
        show::{describe, introduce},
        state::{RefusedBind, ServiceState},
        verdict::{Condition, Key, Verdict},
    },
    View,
};
use crate::{address::Address, event::PathState};

/// How often a process that belongs to no service is looked at: nobody tells of its end.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    for (address, ledger) in view.addresses() {
        let Some(refused) = service.refused.get(address) else {
            continue;
        };
        let id = refused.process.id;
        if !service.members.contains_key(&id) {
            verdict.again_at(view.now + LOOK_AGAIN);
            verdict.looks.push(id);
        }
        verdict.conditions.push(Condition {
            severity: None,
            key: key(address, refused),
            at: refused.at,
            cause: format!("bind {address} {} {}", id.pid, id.start_ticks),
            actor: Some(refused.process.clone()),
            summary: format!(
                "{} could not bind {address}: {}{}",
                describe(&refused.process),
                error_text(refused.errno),
                holder(service, address, ledger, refused)
            ),
            evidence: vec![refused.seq],
        });
    }
}

fn key(address: &Address, refused: &RefusedBind) -> Key {
    let id = refused.process.id;
    Key {
        kind: Kind::BindRefused,
        subject: address.to_string(),
        detail: format!("{} {} {}", id.pid, id.start_ticks, refused.errno),
    }
}

/// What stands in the way, where it can be named.
fn holder(
    service: &ServiceState,
    address: &Address,
    ledger: &AddressLedger,
    refused: &RefusedBind,
) -> String {
    if refused.errno != libc::EADDRINUSE {
        return String::new();
    }
    let holders = ledger.live.values().flat_map(|e| &e.socket.holders);
    let known = holders.filter(|h| h.process != refused.process.id).find_map(|h| {
        let member = service.members.get(&h.process).map(|m| &*m.process);
        member.or_else(|| ledger.stranger(&h.process))
    });
    match (known, &ledger.path) {
        (Some(process), _) => format!("; it is held by {}", introduce(process)),
        (None, Some(PathState::Socket(_))) if ledger.read_at.is_some() && !ledger.path_is_bound() => {
            format!("; nobody holds the socket file that {address} names")
        }
        (None, Some(PathState::Other(what))) => format!("; the path names a {what}"),
        _ => String::new(),
    }
}

pub(super) fn resolution(view: &View<'_>, was: &Condition) -> String {
    match &was.actor {
        Some(p) if view.engine.ended.contains(&p.id) => format!("{} has ended", describe(p)),
        Some(p) if view.service.members.contains_key(&p.id) => "the address was bound".to_owned(),
        _ => "the address was bound, or the process has ended".to_owned(),
    }
}
