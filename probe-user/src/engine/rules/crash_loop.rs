//! `crash-loop`: `restarts` generations ended unasked within `window`, or systemd gave up because the unit was started
//! too often, or probe's own healing has stopped trying.

use crate::clock::Nanos;

use super::{
    super::{
        finding::Kind,
        show::{describe, ended},
        state::End,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

/// Whoever restarts it has stopped trying.
struct GaveUp {
    at: Nanos,
    seq: u64,
    words: String,
}

/// systemd, until it says something else of the unit; or probe's own healing.
fn gave_up(view: &View<'_>) -> Option<GaveUp> {
    let service = view.service;
    let by_systemd = service.unit.as_ref().filter(|u| u.gave_up());
    let by_systemd = by_systemd.map(|u| GaveUp {
        at: u.at,
        seq: u.seq,
        words: format!("systemd gave up {}", u.why_gave_up()),
    });
    by_systemd.or_else(|| {
        service.gave_up.map(|g| GaveUp {
            at: g.at,
            seq: g.seq,
            words: format!("probe gave up after {} attempts to heal it", g.attempts),
        })
    })
}

pub(super) fn facts(view: &View<'_>) -> serde_json::Map<String, serde_json::Value> {
    let mut facts = serde_json::Map::new();
    facts.insert("gave_up".to_owned(), gave_up(view).is_some().into());
    facts
}

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let limit = service.decl.crash_loop;
    let gave_up = gave_up(view);
    // Once it was given up, the ends that led there stay the reason.
    let recent: Vec<&End> = service
        .crashes
        .iter()
        .filter(|e| gave_up.is_some() || view.now < e.at + limit.window)
        .collect();
    if let (None, Some(oldest)) = (&gave_up, recent.first()) {
        verdict.again_at(oldest.at + limit.window);
    }
    if gave_up.is_none() && recent.len() < limit.restarts as usize {
        return;
    }
    let key = Key {
        kind: Kind::CrashLoop,
        subject: service.decl.name.clone(),
        detail: String::new(),
    };
    let (Some(first), Some(last)) = (recent.first(), recent.last()) else {
        let Some(gave_up) = gave_up else {
            return;
        };
        verdict.conditions.push(Condition {
            severity: None,
            key,
            at: gave_up.at,
            cause: format!("unit {}", gave_up.seq),
            actor: None,
            summary: gave_up.words,
            evidence: vec![gave_up.seq],
        });
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
    let times = match recent.len() {
        1 => "once".to_owned(),
        n => format!("{n} times in {:.1} s", last.at.since(first.at).as_secs_f64()),
    };
    let end = gave_up
        .as_ref()
        .map_or(String::new(), |g| format!("; {}", g.words));
    verdict.conditions.push(Condition {
        severity: None,
        key,
        at: last.at,
        cause: last.cause(),
        actor: last.actor(),
        summary: format!(
            "{} ended unasked {times}: {}{end}",
            describe(&last.process),
            lives.join("; ")
        ),
        evidence: recent
            .iter()
            .map(|e| e.seq)
            .chain(gave_up.map(|u| u.seq))
            .collect(),
    });
}

pub(super) fn resolution(view: &View<'_>) -> String {
    let state = view.service.unit.as_ref().map(|u| &u.state);
    match state.filter(|s| !s.active_state.is_empty()) {
        Some(s) => format!(
            "no more ends within the window, and {} is {}",
            s.unit, s.active_state
        ),
        None => "no more ends within the window".to_owned(),
    }
}
