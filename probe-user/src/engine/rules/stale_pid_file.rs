//! `stale-pid-file`: the PID file names no live process, or one that is no member, and no asked stop explains it.

use crate::{clock::Nanos, event::PidFileContent};

use super::{
    super::{
        finding::Kind,
        show::{describe, ended},
        state::{End, EndKind},
        verdict::{Condition, Key, Verdict},
    },
    View,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let Some((state, read_at, seq)) = &service.pid_file else {
        return;
    };
    let pid = match &state.content {
        PidFileContent::Pid(pid) => *pid,
        PidFileContent::Empty => return stays_empty(view, verdict),
        _ => return,
    };
    if service.named_by_pid_file().is_some() || service.stopped_as_asked() || service.stopping().is_some() {
        return;
    }
    let key = Key {
        kind: Kind::StalePidFile,
        subject: state.path.clone(),
        detail: String::new(),
    };
    // A daemon that is starting has not written its own yet.
    if let Some(until) = view.starting_until()
        && view.now < until
        && !view.is_open(&key)
    {
        verdict.again_at(until);
        return;
    }
    // What stands there was changed or removed, and is being read: a daemon removes its own right before it exits.
    if let Some(touched) = service.pid_file_touched
        && !view.is_open(&key)
    {
        let until = touched + service.decl.relisten_within;
        if view.now < until {
            verdict.again_at(until);
            return;
        }
    }
    let named = state.process.as_ref();
    let fits = |e: &&End| e.process.id.pid == pid && named.is_none_or(|n| n.id == e.process.id);
    // Whom it names was asked to stop, or probe never saw it: a main process that began later has not written its own yet,
    // and what lives on of the same instance may still be ending.
    let end = service
        .last_end
        .iter()
        .chain(service.deaths.iter().rev())
        .chain(service.holder_ends.iter().rev())
        .find(fits);
    let left_behind = end.is_none_or(End::explains_leftovers);
    // Whoever goes on for it writes its own first.
    if let Some(e) = end.filter(|e| e.kind == EndKind::Handover && service.main.is_some()) {
        let until = e.at + service.decl.ready_within;
        if view.now < until && !view.is_open(&key) {
            verdict.again_at(until);
            return;
        }
    }
    if let (true, Some(main)) = (left_behind, &service.main) {
        let stopped = end.map_or(Nanos::ZERO, |e| e.at + service.decl.stop_within);
        let starting = if state.modified < main.began {
            main.began + service.decl.ready_within
        } else {
            Nanos::ZERO
        };
        let until = stopped.max(starting);
        if view.now < until && !view.is_open(&key) {
            verdict.again_at(until);
            return;
        }
    }
    let what = match (end, named) {
        (Some(e), _) => format!("{} {}", describe(&e.process), ended(e)),
        (None, Some(p)) if !view.engine.ended.contains(&p.id) => {
            format!(
                "that is {} now, which does not belong to the service",
                describe(p)
            )
        }
        (None, _) if state.local.is_some() => "no such process lives in its pid namespace".to_owned(),
        (None, _) => "no such process lives".to_owned(),
    };
    verdict.conditions.push(Condition {
        severity: None,
        at: end.map_or(*read_at, |e| e.cause_at()),
        cause: end.map_or_else(|| format!("pid file {} {pid}", state.path), |e| e.cause()),
        actor: end.and_then(|e| e.actor()),
        summary: format!("{} names {pid}: {what}", state.path),
        evidence: end
            .map(|e| e.evidence())
            .unwrap_or_default()
            .into_iter()
            .chain([*seq])
            .filter(|s| *s > 0)
            .collect(),
        key,
    });
}

/// An empty one is not written yet, until `ready_within`.
fn stays_empty(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let (Some((state, read_at, seq)), Some(main)) = (&service.pid_file, &service.main) else {
        return;
    };
    if service.stopping().is_some() {
        return;
    }
    let due = main.began.max(state.modified) + service.decl.ready_within;
    if view.now < due {
        verdict.again_at(due);
        return;
    }
    verdict.conditions.push(Condition {
        severity: None,
        key: Key {
            kind: Kind::StalePidFile,
            subject: state.path.clone(),
            detail: String::new(),
        },
        at: *read_at,
        cause: format!("pid file {} empty", state.path),
        actor: None,
        summary: format!(
            "{} is still empty {:.1} s after it was made",
            state.path,
            service.decl.ready_within.as_secs_f64()
        ),
        evidence: [*seq].into_iter().filter(|s| *s > 0).collect(),
    });
}

pub(super) fn resolution(view: &View<'_>) -> String {
    match view.service.pid_file.as_ref().map(|(s, ..)| &s.content) {
        Some(PidFileContent::Absent) => "the PID file is gone".to_owned(),
        _ if view.service.stopped_as_asked() => "the service was stopped".to_owned(),
        _ => match view
            .service
            .named_by_pid_file()
            .and_then(|id| view.service.members.get(&id))
        {
            Some(m) => format!("it names {}", describe(&m.process)),
            None => "it names no process any more".to_owned(),
        },
    }
}
