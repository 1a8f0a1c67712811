//! `stopped`: the main process is stopped by a signal (state T).

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
    let Some(stop) = &m.stopped else { return };
    let by = stop.actor.as_deref().map_or("the kernel".to_owned(), describe);
    verdict.conditions.push(Condition {
        severity: None,
        key: Key {
            kind: Kind::Stopped,
            subject: service.decl.name.clone(),
            detail: format!("{} {}", m.process.id.pid, stop.seq),
        },
        at: stop.at,
        cause: format!("signal {}", stop.seq),
        actor: stop.actor.clone(),
        summary: format!("{} is stopped: {by} sent {}", describe(&m.process), stop.signal),
        evidence: vec![stop.seq],
    });
}

pub(super) fn resolution(view: &View<'_>) -> String {
    match view.service.main_member() {
        Some(m) => format!("{} was continued", describe(&m.process)),
        None => "the stopped process has ended".to_owned(),
    }
}
