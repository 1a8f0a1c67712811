//! `unhandled-signal-risk`: after `ready_within`, a signal that is declared as handled is neither caught nor blocked by
//! the main process: the next one would kill it.

use crate::{event::SignalMasks, signal::DefaultAction};

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
    let handled = &service.decl.signals.handled;
    let (Some(main), Some(m)) = (&service.main, service.main_member()) else {
        return;
    };
    // A worker that outlives its master handles what workers handle.
    if handled.is_empty() || service.stopping().is_some() || service.outlived().is_some() {
        return;
    }
    let ready_by = main.began.max(m.process.start) + service.decl.ready_within;
    if view.now < ready_by {
        verdict.again_at(ready_by);
        return;
    }
    let Some((seen, at)) = m.seen.as_ref().filter(|(_, at)| *at >= ready_by) else {
        verdict.looks.push(m.process.id);
        return;
    };
    let Some(masks) = seen.masks else { return };
    let open: Vec<String> = handled
        .iter()
        .filter(|s| s.default_action() == DefaultAction::Terminate)
        .filter(|s| !masks.handles(**s) && !SignalMasks::has(masks.ignored, **s))
        .map(|s| s.to_string())
        .collect();
    if open.is_empty() {
        return;
    }
    verdict.conditions.push(Condition {
        severity: None,
        key: Key {
            kind: Kind::UnhandledSignalRisk,
            subject: service.decl.name.clone(),
            detail: m.process.id.pid.to_string(),
        },
        at: *at,
        cause: format!("masks {} {}", m.process.id.pid, m.process.id.start_ticks),
        actor: None,
        summary: format!(
            "{} neither catches nor blocks {}, declared as handled: the next one kills it",
            describe(&m.process),
            open.join(", ")
        ),
        evidence: Vec::new(),
    });
}
