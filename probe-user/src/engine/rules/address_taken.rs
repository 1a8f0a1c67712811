//! `address-taken`: a declared address is held by a process that is no member.

use std::sync::Arc;

use crate::event::Holder;

use super::{
    super::{
        finding::Kind,
        membership,
        show::introduce,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    // Without a selector whoever holds the address is the service.
    if !service.decl.has_selector() {
        return;
    }
    for (address, ledger) in view.addresses() {
        let taken = ledger.serving().find(|e| {
            !e.served
                && e.socket.holders_known
                && !e.socket.holders.is_empty()
                && !e
                    .socket
                    .holders
                    .iter()
                    .any(|h| service.members.contains_key(&h.process))
        });
        let Some(entry) = taken else { continue };
        // Other listeners of the service at the same address (SO_REUSEPORT) show that it is shared, not taken.
        if ledger.serving().any(|e| {
            e.socket
                .holders
                .iter()
                .any(|h| service.members.contains_key(&h.process))
        }) {
            continue;
        }
        // Who it is must be known: it may be a child of a member that was not yet told.
        let Some(holder) = entry
            .socket
            .holders
            .iter()
            .find_map(|h| ledger.stranger(&h.process))
        else {
            continue;
        };
        // Socket activation: it listens for the service.
        let of_manager = |h: &Holder| {
            ledger
                .stranger(&h.process)
                .is_some_and(membership::is_service_manager)
        };
        if entry.socket.holders.iter().any(of_manager) {
            continue;
        }
        verdict.conditions.push(Condition {
            severity: None,
            key: Key {
                kind: Kind::AddressTaken,
                subject: address.to_string(),
                detail: entry.socket.inode.to_string(),
            },
            at: entry.since,
            cause: format!("taken {address} {}", entry.socket.inode),
            actor: Some(Arc::new(holder.clone())),
            summary: format!(
                "{address} is held by {}, which does not belong to the service",
                introduce(holder)
            ),
            evidence: [entry.seq].into_iter().filter(|s| *s > 0).collect(),
        });
    }
}

pub(super) fn resolution(view: &View<'_>, was: &Condition) -> String {
    let ledger = view
        .addresses()
        .find(|(a, _)| a.to_string() == was.key.subject)
        .map(|(_, l)| l);
    match ledger.and_then(|l| {
        l.live
            .values()
            .find(|e| e.socket.inode.to_string() == was.key.detail)
    }) {
        None => "the foreign listener was closed".to_owned(),
        Some(_) => "a member of the service holds it too".to_owned(),
    }
}
