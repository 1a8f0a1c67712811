//! `signal-ignored`: a signal that is declared as handled was sent to the main process, and it ignores it.

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
    for (signal, fact) in &m.ignored {
        if !service.decl.signals.handled.contains(signal) {
            continue;
        }
        let by = fact.actor.as_deref().map_or("the kernel".to_owned(), describe);
        verdict.conditions.push(Condition {
            severity: None,
            key: Key {
                kind: Kind::SignalIgnored,
                subject: service.decl.name.clone(),
                detail: format!("{} {signal}", m.process.id.pid),
            },
            at: fact.at,
            cause: format!("signal {}", fact.seq),
            actor: fact.actor.clone(),
            summary: format!(
                "{} ignored {signal} from {by}, which is declared as handled",
                describe(&m.process)
            ),
            evidence: vec![fact.seq],
        });
    }
}
