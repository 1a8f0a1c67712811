//! `killed-while-stopping`: KILL ended a process that had been asked to stop.

use crate::{event::ExitStatus, signal::Signal};

use super::{
    super::{
        finding::Kind,
        show::describe,
        state::{Asked, End},
        verdict::{Condition, Verdict},
    },
    View, after_end, is_replaced,
};

pub(in super::super) fn applies(end: &End) -> bool {
    matches!(
        end.status,
        ExitStatus::Signal {
            signal: Signal::KILL,
            ..
        }
    ) && end.asked.is_some()
        && end.oom.is_none()
        && !is_how_the_unit_stops(end)
}

/// A unit whose stop signal is KILL: systemd begins with it, where another unit's process gets it for not having heeded
/// an earlier signal.
fn is_how_the_unit_stops(end: &End) -> bool {
    let by_manager = |a: &crate::event::Actor| a.id.pid == 1 || a.comm == "systemd";
    end.asked.as_ref().is_some_and(Asked::by_job)
        && end
            .killer
            .as_ref()
            .and_then(|k| k.actor.as_ref())
            .is_some_and(by_manager)
}

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    for end in service
        .deaths
        .iter()
        .filter(|e| applies(e) && !is_replaced(service, e))
    {
        let Some(asked) = &end.asked else { continue };
        let by = |a: Option<&crate::event::Actor>| a.map_or("the kernel".to_owned(), |a| describe(a));
        let killer = end.killer.as_ref();
        let between = killer.map_or(end.at, |k| k.at).since(asked.at).as_secs_f64();
        let summary = format!(
            "{} was asked to stop {} and killed by {} {between:.3} s later",
            describe(&end.process),
            asked.words(),
            killer.map_or("somebody".to_owned(), |k| by(k.actor.as_ref())),
        );
        verdict
            .conditions
            .push(after_end(Kind::KilledWhileStopping, service, end, summary));
    }
}

/// The timeline from the request to the kill.
pub(super) fn facts(view: &View<'_>, c: &Condition) -> serde_json::Map<String, serde_json::Value> {
    let end = view.service.deaths.iter().find(|e| e.cause() == c.key.detail);
    let timeline = end.and_then(End::stop_timeline);
    timeline.map(|t| ("stop".to_owned(), t)).into_iter().collect()
}
