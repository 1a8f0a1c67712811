//! `slow-stop`: a stop was asked for, and the process lives on past half of `stop_within`.

use crate::event::Disposition;

use super::{
    super::{
        finding::Kind,
        show::describe,
        state::Ask,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let (Some(asked), Some(m)) = (service.stopping(), service.main_member()) else {
        return;
    };
    // It was not yet told, and what it waits for may take its time.
    if matches!(asked.how, Ask::Job { waiting: true, .. }) {
        return;
    }
    let patience = asked.at + service.decl.stop_within / 2;
    if view.now < patience {
        verdict.again_at(patience);
        return;
    }
    let became = match asked.how {
        Ask::Signal { disposition, .. } => match disposition {
            Disposition::Caught => ": caught",
            Disposition::Blocked => ": blocked",
            Disposition::Ignored => ": ignored",
            Disposition::Default => ": not handled",
        },
        Ask::Job { .. } => "",
    };
    let open = view
        .addresses()
        .filter(|(_, l)| l.live.values().any(|e| e.is_listening()))
        .count();
    let listeners = match (open, service.decl.listen.len()) {
        (_, 0) => String::new(),
        (0, _) => ", its listeners are closed".to_owned(),
        (n, all) => format!(", {n} of {all} listeners are still open"),
    };
    let mut evidence = vec![asked.seq];
    evidence.extend(
        view.addresses()
            .flat_map(|(_, l)| l.dead.iter().filter(|d| d.at >= asked.at).map(|d| d.seq)),
    );
    verdict.conditions.push(Condition {
        severity: None,
        key: Key {
            kind: Kind::SlowStop,
            subject: service.decl.name.clone(),
            detail: format!("{} {}", m.process.id.pid, asked.seq),
        },
        at: asked.at,
        cause: format!("signal {}", asked.seq),
        actor: asked.actor.clone(),
        summary: format!(
            "{} lives on {:.1} s after it was asked to stop {}{became}{listeners}",
            describe(&m.process),
            (service.decl.stop_within / 2).as_secs_f64(),
            asked.words(),
        ),
        evidence,
    });
}
