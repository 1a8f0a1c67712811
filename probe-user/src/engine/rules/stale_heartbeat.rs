//! `stale-heartbeat`: no sign of life within `stale_after`. What the process is doing then is looked at once.

use crate::event::RunState;

use super::{
    super::{
        finding::{Kind, Severity},
        show::{describe, ended},
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let Some(heartbeat) = &service.decl.heartbeat else {
        return;
    };
    if service.stopped_as_asked() || service.stopping().is_some() {
        return;
    }
    // A process that has only begun has not had the time for its first beat.
    let began = service.main.as_ref().map(|m| m.began);
    let Some(last) = service.beat.map(|(at, _)| at).into_iter().chain(began).max() else {
        return;
    };
    let stale_at = view.engine.sleeps.awake(last, heartbeat.stale_after);
    if view.now < stale_at {
        verdict.again_at(stale_at);
        return;
    }
    let key = Key {
        kind: Kind::StaleHeartbeat,
        subject: service.decl.name.clone(),
        detail: String::new(),
    };
    let mut evidence: Vec<u64> = service.beat.map(|(_, seq)| seq).into_iter().collect();
    let (what, actor, cause, severity) = match service.main_member() {
        None => {
            let end = service.last_end.as_ref();
            evidence.extend(end.map(|e| e.evidence()).unwrap_or_default());
            let what = end.map_or("it does not run".to_owned(), |e| {
                format!("{} {}", describe(&e.process), ended(e))
            });
            (what, end.and_then(|e| e.actor()), end.map(|e| e.cause()), None)
        }
        Some(m) => {
            let Some((seen, _)) = m.seen.as_ref().filter(|(_, at)| *at >= stale_at) else {
                verdict.looks.push(m.process.id);
                return;
            };
            let who = describe(&m.process);
            let (what, severity) = match &seen.run {
                RunState::Gone => (format!("{who} is gone"), None),
                RunState::Running => (format!("{who} runs"), None),
                RunState::Stopped => (format!("{who} is stopped"), None),
                RunState::Uninterruptible { syscall } => {
                    let call = syscall.as_ref().map_or(String::new(), |c| format!(" in {c}"));
                    (format!("{who} is in uninterruptible sleep{call}"), None)
                }
                RunState::WaitingOnPeer { peer } => (
                    format!("{who} waits on {peer}, which does not answer"),
                    Some(Severity::Warning),
                ),
            };
            let stop = m.stopped.as_ref();
            evidence.extend(stop.map(|s| s.seq));
            (
                what,
                stop.and_then(|s| s.actor.clone()),
                stop.map(|s| format!("signal {}", s.seq)),
                severity,
            )
        }
    };
    verdict.conditions.push(Condition {
        severity,
        at: stale_at,
        cause: cause.unwrap_or_else(|| format!("heartbeat {} {}", service.decl.name, last.0)),
        actor,
        summary: format!(
            "no sign of life for {:.1} s: {what}",
            heartbeat.stale_after.as_secs_f64()
        ),
        evidence,
        key,
    });
}
