//! `crash-loop`: `restarts` generations ended unasked within `window`.

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
    let limit = service.decl.crash_loop;
    let recent: Vec<_> = service
        .crashes
        .iter()
        .filter(|e| view.now < e.at + limit.window)
        .collect();
    let Some(oldest) = recent.first() else { return };
    verdict.again_at(oldest.at + limit.window);
    if recent.len() < limit.restarts as usize {
        return;
    }
    let (Some(last), first) = (recent.last(), oldest) else {
        return;
    };
    let lives: Vec<String> = recent
        .iter()
        .map(|e| {
            format!(
                "{} after {:.3} s",
                ended(e),
                e.at.since(e.process.start).as_secs_f64()
            )
        })
        .collect();
    verdict.conditions.push(Condition {
        key: Key {
            kind: Kind::CrashLoop,
            subject: service.decl.name.clone(),
            detail: String::new(),
        },
        at: last.at,
        cause: last.cause(),
        actor: last.actor(),
        summary: format!(
            "{} ended unasked {} times in {:.1} s: {}",
            describe(&last.process),
            recent.len(),
            last.at.since(first.at).as_secs_f64(),
            lives.join("; ")
        ),
        evidence: recent.iter().map(|e| e.seq).collect(),
    });
}
