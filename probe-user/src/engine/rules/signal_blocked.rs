//! `signal-blocked`: a signal stays pending longer than `signal_within`, without anybody who takes it.

use crate::event::{Disposition, SignalMasks, SignalResult};

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
    let Some(m) = service.main_member() else { return };
    let waiting = |f: &&super::super::state::SignalFact| {
        f.disposition == Disposition::Blocked && f.result == SignalResult::Queued
    };
    for fact in m.signals.iter().filter(waiting) {
        let due = fact.at + service.decl.signal_within;
        if view.now < due {
            verdict.again_at(due);
            continue;
        }
        // While it stays pending it is looked at again from time to time: nothing tells of its delivery.
        let fresh = |at: crate::clock::Nanos| at >= due && view.now < at + service.decl.signal_within * 4;
        let Some((seen, at)) = m.seen.as_ref().filter(|(_, at)| *at >= due) else {
            verdict.looks.push(m.process.id);
            continue;
        };
        let Some(masks) = seen
            .masks
            .filter(|masks| SignalMasks::has(masks.pending, fact.signal))
        else {
            continue;
        };
        if fresh(*at) {
            verdict.again_at(*at + service.decl.signal_within * 4);
        } else {
            verdict.looks.push(m.process.id);
        }
        // A stopped process takes nothing until it is continued.
        if masks.waiting || m.stopped.is_some() {
            continue;
        }
        let by = fact.actor.as_deref().map_or("the kernel".to_owned(), describe);
        verdict.conditions.push(Condition {
            severity: None,
            key: Key {
                kind: Kind::SignalBlocked,
                subject: service.decl.name.clone(),
                detail: format!("{} {}", m.process.id.pid, fact.signal),
            },
            at: fact.at,
            cause: format!("signal {}", fact.seq),
            actor: fact.actor.clone(),
            summary: format!(
                "{} blocks {} from {by}: pending for more than {:.1} s",
                describe(&m.process),
                fact.signal,
                service.decl.signal_within.as_secs_f64()
            ),
            evidence: vec![fact.seq],
        });
        return;
    }
}
