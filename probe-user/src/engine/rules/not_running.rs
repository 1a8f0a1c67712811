//! `not-running`: a service that is expected has no member, and no asked stop explains it.

use super::{
    super::{
        finding::Kind,
        show::{describe, ended},
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    if !service.decl.expected || service.stopped_as_asked() {
        return;
    }
    // `down` stays while only processes live that do not count, for as long as they may be starting.
    let Some((since, seq)) = service.down else { return };
    if !view.engine.is_absent(view.index) {
        match view.starting_until() {
            Some(until) if view.now < until => verdict.again_at(until),
            _ => return,
        }
    }
    let key = Key {
        kind: Kind::NotRunning,
        subject: service.decl.name.clone(),
        detail: String::new(),
    };
    let condition = match &service.last_end {
        None => Condition {
            severity: None,
            key,
            at: since,
            cause: format!("not running {}", since.0),
            actor: None,
            summary: "no process belongs to it; none was seen since probe began".to_owned(),
            evidence: [seq].into_iter().filter(|s| *s > 0).collect(),
        },
        Some(end) => Condition {
            severity: None,
            key,
            at: end.cause_at(),
            cause: end.cause(),
            actor: end.actor(),
            summary: format!(
                "no process belongs to it: {} {}",
                describe(&end.process),
                ended(end)
            ),
            evidence: end.evidence(),
        },
    };
    verdict.conditions.push(condition);
}
