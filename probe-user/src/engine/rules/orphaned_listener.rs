//! `orphaned-listener`: a live listener's path is gone, or names another inode now.

use crate::{
    clock::Nanos,
    event::{PathChange, PathState},
};

use super::{
    super::{
        finding::Kind,
        ledger::{AddressLedger, Change, Entry},
        show::describe,
        state::ServiceState,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    for (address, ledger) in view.addresses() {
        if ledger.path.is_none() || !ledger.is_known() {
            continue;
        }
        for entry in ledger.live.values().filter(|e| is_orphan(ledger, e)) {
            let key = Key {
                kind: Kind::OrphanedListener,
                subject: address.to_string(),
                detail: entry.socket.inode.to_string(),
            };
            if being_stopped(service, entry) || served_by_same_instance(service, ledger, entry) {
                continue;
            }
            let change = who_took_it(ledger, entry);
            let taken_at = change.map_or(entry.since.max(ledger.path_since.unwrap_or(entry.since)), |c| {
                c.at
            });
            // A daemon that takes its own path away may be about to bind it again, and an unknown hand may be its own.
            let foreign = change
                .and_then(|c| c.actor.as_ref())
                .is_some_and(|a| !same_instance(service, entry, a.id));
            let patience = taken_at + service.decl.relisten_within;
            if !foreign && view.now < patience && !view.is_open(&key) {
                verdict.again_at(patience);
                continue;
            }
            let owner = entry
                .socket
                .holders
                .iter()
                .find_map(|h| service.members.get(&h.process));
            let who = owner.map_or("a process".to_owned(), |m| describe(&m.process));
            let path = address
                .path()
                .map(|p| p.display().to_string())
                .unwrap_or_default();
            let now = match &ledger.path {
                Some(PathState::Socket(_)) => "names another socket now",
                Some(PathState::Other(_)) => "is something else now",
                _ => "is gone",
            };
            let by = change
                .and_then(|c| c.actor.as_ref())
                .map(|a| format!(", by {}", describe(a)))
                .unwrap_or_default();
            verdict.conditions.push(Condition {
                severity: None,
                at: taken_at,
                cause: format!("path {address} {}", change.map_or(0, |c| c.seq)),
                actor: change.and_then(|c| c.actor.clone()),
                summary: format!("nobody reaches {who} any more: {path} {now}{by}"),
                evidence: change
                    .map(|c| c.seq)
                    .into_iter()
                    .chain([entry.seq])
                    .filter(|s| *s > 0)
                    .collect(),
                key,
            });
        }
    }
}

/// A socket that nobody holds any more is on its way out, with its last holder.
fn is_orphan(ledger: &AddressLedger, e: &Entry) -> bool {
    e.is_listening() && !e.socket.holders.is_empty() && e.socket.file.is_some() && !ledger.leads_to(&e.socket)
}

fn being_stopped(service: &ServiceState, e: &Entry) -> bool {
    let mut holders = e
        .socket
        .holders
        .iter()
        .filter_map(|h| service.members.get(&h.process))
        .peekable();
    holders.peek().is_some() && holders.all(|m| service.instance_asked(m.instance).is_some())
}

fn same_instance(service: &ServiceState, e: &Entry, id: crate::event::ProcId) -> bool {
    let Some(other) = service.members.get(&id) else {
        return false;
    };
    e.socket
        .holders
        .iter()
        .filter_map(|h| service.members.get(&h.process))
        .any(|m| m.instance == other.instance)
}

/// The daemon itself has bound the path anew: whoever asks reaches it.
fn served_by_same_instance(service: &ServiceState, ledger: &AddressLedger, e: &Entry) -> bool {
    ledger.serving().any(|now| {
        now.socket
            .holders
            .iter()
            .any(|h| same_instance(service, e, h.process))
    })
}

/// The first who took the path away after this socket had it.
fn who_took_it<'a>(ledger: &'a AddressLedger, e: &Entry) -> Option<&'a Change> {
    use PathChange::{Created, Removed, RenamedAway, RenamedTo};
    let had_it = named_at(ledger, e);
    let after = |c: &&Change| c.at >= had_it;
    let away = |c: &&Change| matches!(c.change, Removed | RenamedAway | RenamedTo);
    let newest = |c: &&Change| matches!(c.change, Created) && c.at >= e.since;
    ledger
        .changes
        .iter()
        .filter(after)
        .find(away)
        .or_else(|| ledger.changes.iter().rev().find(newest))
}

/// Since when the path led to this socket. It may have been taken away again before anybody could ask for the socket: then
/// its holder is who made the name.
fn named_at(ledger: &AddressLedger, e: &Entry) -> Nanos {
    let by_its_holder = |c: &&Change| {
        c.change == PathChange::Created
            && c.at < e.since
            && c.actor.as_ref().is_some_and(|a| e.is_held_by(&a.id))
    };
    let named = ledger.changes.iter().rev().find(by_its_holder);
    named.map_or(e.since, |c| c.at)
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
        None => "the orphaned listener was closed".to_owned(),
        Some(e) if being_stopped(view.service, e) => "its owner is being stopped".to_owned(),
        Some(e) if e.socket.holders.is_empty() => "its owner is gone".to_owned(),
        Some(_) => "the path leads to the daemon again".to_owned(),
    }
}
