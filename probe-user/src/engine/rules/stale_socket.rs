//! `stale-socket`: the declared path is a socket, no live socket is bound to that inode, and no asked stop explains it.

use crate::{
    clock::Nanos,
    event::{FileId, PathChange, PathState, ProcId},
};

use super::{
    super::{
        finding::Kind,
        ledger::{AddressLedger, Dead},
        show::{describe, ended},
        state::{End, EndKind, ServiceState},
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    for (address, ledger) in view.addresses() {
        let (Some(PathState::Socket(file)), true) = (&ledger.path, ledger.is_known()) else {
            continue;
        };
        if ledger.path_is_bound() || service.stopping().is_some() || service.stopped_as_asked() {
            continue;
        }
        let key = Key {
            kind: Kind::StaleSocket,
            subject: address.to_string(),
            detail: String::new(),
        };
        let owner = Owner::of(service, ledger, *file);
        // The path is looked at again after the socket died: only then is it known to lead to a dead one.
        if owner
            .as_ref()
            .is_some_and(|d| ledger.read_at.is_none_or(|read| read < d.at))
        {
            continue;
        }
        // The name has changed since it was looked at.
        if ledger.is_renamed() && !view.is_open(&key) {
            continue;
        }
        let closed_at = owner.as_ref().map_or(Nanos::ZERO, |d| d.at);
        // A living process that closed it may be about to bind it again; one that only begins may be about to.
        let closer_lives = owner
            .as_ref()
            .is_some_and(|d| d.holders.iter().any(|h| service.members.contains_key(h)));
        let end = owner.as_ref().and_then(|d| end_of_holder(service, &d.holders));
        let end = end.map(|e| crash_before(service, e).unwrap_or(e));
        let excused = end.as_ref().and_then(|e| view.excused_until(e));
        let patience = if let Some(until) = excused {
            until
        } else if closer_lives {
            closed_at + service.decl.relisten_within
        } else if owner.is_none() {
            view.starting_until().unwrap_or(Nanos::ZERO)
        } else {
            Nanos::ZERO
        };
        if view.now < patience && !view.is_open(&key) {
            verdict.again_at(patience);
            continue;
        }
        // What an asked stop left behind is none of the next life's faults; that it never listens is `not-listening`.
        if end.is_some_and(End::explains_leftovers) {
            continue;
        }
        let path = address
            .path()
            .map(|p| p.display().to_string())
            .unwrap_or_default();
        let why = match (&end, &owner) {
            (Some(e), _) => format!(": {} {}", describe(&e.process), ended(e)),
            (None, Some(d)) => match d.holders.iter().find_map(|h| service.members.get(h)) {
                Some(m) => format!(": {} closed it and lives on", describe(&m.process)),
                None => ": its last holder is gone".to_owned(),
            },
            (None, None) => ": it was dead before probe looked".to_owned(),
        };
        let mut evidence = end.as_ref().map(|e| e.evidence()).unwrap_or_default();
        evidence.extend(owner.as_ref().map(|d| d.seq));
        verdict.conditions.push(Condition {
            severity: None,
            at: end.as_ref().map_or(
                if owner.is_some() {
                    closed_at
                } else {
                    ledger.path_since.unwrap_or(view.now)
                },
                |e| e.cause_at(),
            ),
            cause: end
                .as_ref()
                .map_or_else(|| format!("stale {address} {}", file.ino), |e| e.cause()),
            actor: end.as_ref().and_then(|e| e.actor()),
            summary: format!("no process holds {path}{why}"),
            evidence,
            key,
        });
    }
}

/// Who held the socket that the path leads to.
struct Owner {
    holders: Vec<ProcId>,
    at: Nanos,
    seq: u64,
}

impl Owner {
    fn of(service: &ServiceState, ledger: &AddressLedger, file: FileId) -> Option<Self> {
        let made = Self::who_made(service, ledger);
        let Some(dead) = ledger.last_owner(file) else {
            let known = ledger.made.filter(|m| m.file == file);
            let known = known.map(|m| Self {
                holders: vec![m.by],
                at: m.at,
                seq: m.seq,
            });
            return made.or(known);
        };
        // It was seen while its holder was already on its way out, when no descriptor leads to it any more.
        match made.filter(|_| dead.holders.is_empty()) {
            Some(made) => Some(Self {
                holders: made.holders,
                ..Self::of_dead(dead)
            }),
            None => Some(Self::of_dead(dead)),
        }
    }

    fn of_dead(dead: &Dead) -> Self {
        Self {
            holders: dead.holders.clone(),
            at: dead.at,
            seq: dead.seq,
        }
    }

    /// A socket that was bound and died before anybody could ask for it: whoever made the name, if nothing has happened
    /// to the name since.
    fn who_made(service: &ServiceState, ledger: &AddressLedger) -> Option<Self> {
        let made = ledger.changes.back()?;
        let holders = vec![made.actor.as_ref()?.id];
        let is_maker = match made.change {
            PathChange::Created => true,
            // The daemon bound it under another name first. Anybody else only moved what another has bound.
            PathChange::RenamedTo => {
                holders.iter().any(|h| service.members.contains_key(h))
                    || end_of_holder(service, &holders).is_some()
            }
            PathChange::Removed | PathChange::RenamedAway => false,
        };
        is_maker.then_some(Self {
            holders,
            at: made.at,
            seq: made.seq,
        })
    }
}

/// How the last holder of a dead socket ended, when that is what killed the socket.
fn end_of_holder<'a>(service: &'a ServiceState, holders: &[ProcId]) -> Option<&'a End> {
    let ends = service.last_end.iter().chain(service.deaths.iter().rev());
    ends.chain(service.holder_ends.iter().rev())
        .find(|e| holders.contains(&e.process.id))
}

pub(super) fn resolution(view: &View<'_>, was: &Condition) -> String {
    let ledger: Option<&AddressLedger> = view
        .addresses()
        .find(|(a, _)| a.to_string() == was.key.subject)
        .map(|(_, l)| l);
    match ledger.map(|l| &l.path) {
        Some(Some(PathState::Absent)) => "the socket file is gone".to_owned(),
        Some(Some(PathState::Other(what))) => format!("the path is a {what} now"),
        _ if view.service.stopped_as_asked() => "the service was stopped".to_owned(),
        _ => "a live socket is bound to the path again".to_owned(),
    }
}

/// The crash of the main process after which a worker went by itself: that is why nothing holds the socket.
fn crash_before<'a>(service: &'a ServiceState, end: &End) -> Option<&'a End> {
    service.last_end.as_ref().filter(|last| {
        end.kind == EndKind::Clean
            && last.kind == EndKind::Crash
            && last.generation == end.generation
            && last.at < end.at
    })
}
