//! `not-listening`: a declared address is not listening `ready_within` after the main process began, or its listener
//! closed while members live.

use crate::{clock::Nanos, event::SocketState};

use super::{
    super::{
        finding::Kind,
        ledger::AddressLedger,
        show::describe,
        state::End,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let (Some(main), Some(member)) = (&service.main, service.main_member()) else {
        return;
    };
    if service.stopping().is_some() || view.engine.counts_elsewhere(view.index, &main.id) {
        return;
    }
    // What lives on after a stop closes the listeners as that stop goes on, or never held them. A later life is to listen.
    if service.outlived().is_some_and(End::explains_leftovers) {
        return;
    }
    for (address, ledger) in view.addresses() {
        if ledger.error.is_some() || !ledger.is_known() || ledger.serving().next().is_some() {
            continue;
        }
        // A listener whose path was taken away is `orphaned-listener`.
        if ledger.live.values().any(|e| e.is_listening()) {
            continue;
        }
        let key = Key {
            kind: Kind::NotListening,
            subject: address.to_string(),
            detail: String::new(),
        };
        // One that another living instance closes now is not the main process's.
        let own = |d: &&super::super::ledger::Dead| {
            let elsewhere = |h| {
                service
                    .members
                    .get(h)
                    .is_some_and(|m| m.instance != main.instance)
            };
            d.holders.is_empty() || !d.holders.iter().all(elsewhere)
        };
        let closed = ledger.dead.iter().rev().filter(own).find(|d| d.at >= main.began);
        let since = closed.map_or(main.began, |d| d.at);
        let patience = match closed {
            Some(d) => d.at + service.decl.relisten_within,
            None => main.began + service.decl.ready_within,
        };
        if view.now < patience && !view.is_open(&key) {
            verdict.again_at(patience);
            continue;
        }
        verdict.conditions.push(Condition {
            severity: None,
            at: since,
            cause: format!("not listening {address} {}", since.0),
            actor: None,
            summary: format!(
                "{} does not listen on {address}: {}",
                describe(&member.process),
                what_is_there(ledger, closed.is_some(), since, main.began)
            ),
            evidence: closed.map(|d| d.seq).into_iter().collect(),
            key,
        });
    }
}

fn what_is_there(ledger: &AddressLedger, was_closed: bool, since: Nanos, began: Nanos) -> String {
    let states: Vec<SocketState> = ledger.live.values().map(|e| e.socket.state).collect();
    if states.contains(&SocketState::ShutDown) {
        return "the listener was shut down".to_owned();
    }
    if states.contains(&SocketState::Bound) {
        return "a socket is bound, listen was not called".to_owned();
    }
    if was_closed {
        return format!(
            "the listener was closed {:.3} s after the start",
            since.since(began).as_secs_f64()
        );
    }
    "nothing is bound to it".to_owned()
}

pub(super) fn resolution(view: &View<'_>, was: &Condition) -> String {
    let ledger = view
        .addresses()
        .find(|(a, _)| a.to_string() == was.key.subject)
        .map(|(_, l)| l);
    if ledger.is_some_and(|l| l.serving().next().is_some()) {
        return format!("{} is listening", was.key.subject);
    }
    match &view.service.main {
        None => "the service has ended".to_owned(),
        Some(_) if view.service.stopping().is_some() => "the service is being stopped".to_owned(),
        Some(_) => "a new main process has begun".to_owned(),
    }
}
