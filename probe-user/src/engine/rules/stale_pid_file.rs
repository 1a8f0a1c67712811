//! `stale-pid-file`: the PID file names no live process, or one that is no member, and no asked stop explains it.

use crate::event::PidFileContent;

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
    let Some((state, read_at, seq)) = &service.pid_file else {
        return;
    };
    let PidFileContent::Pid(pid) = state.content else {
        return;
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
    let named = state.process.as_ref();
    let end = service
        .last_end
        .iter()
        .chain(service.deaths.iter().rev())
        .chain(service.holder_ends.iter().rev())
        .find(|e| e.process.id.pid == pid && named.is_none_or(|n| n.id == e.process.id));
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
