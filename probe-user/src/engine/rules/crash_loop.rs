//! `crash-loop`: `restarts` generations ended unasked within `window`, or systemd gave up because the unit was started
//! too often.

use super::{
    super::{
        finding::Kind,
        show::{describe, ended},
        state::End,
        unit::Seen,
        verdict::{Condition, Key, Verdict},
    },
    View,
};

/// What systemd said when it gave up, until it says something else.
fn gave_up<'a>(view: &View<'a>) -> Option<&'a Seen> {
    view.service
        .unit
        .as_ref()
        .filter(|u| u.state.result == "start-limit-hit")
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
    if let (None, Some(oldest)) = (gave_up, recent.first()) {
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
    let words = gave_up.map(|u| format!("systemd gave up {}: {}", u.state.unit, u.state.result));
    let (Some(first), Some(last)) = (recent.first(), recent.last()) else {
        let (Some(unit), Some(summary)) = (gave_up, words) else {
            return;
        };
        verdict.conditions.push(Condition {
            severity: None,
            key,
            at: unit.at,
            cause: format!("unit {}", unit.seq),
            actor: None,
            summary,
            evidence: vec![unit.seq],
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
    let end = words.map_or(String::new(), |w| format!("; {w}"));
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
