//! `unhandled-signal`: a member died from a signal's default action (KILL aside), and that was no asked stop. A stop
//! signal that is declared as handled and still kills by default is one.

use crate::{
    event::{Disposition, ExitStatus},
    signal::Signal,
};

use super::{
    super::{
        finding::Kind,
        show::describe,
        state::{Ask, End},
        verdict::Verdict,
    },
    View, after_end, is_replaced,
};

pub(in super::super) fn applies(end: &End, handled: &[Signal]) -> bool {
    let ExitStatus::Signal { signal, .. } = end.status else {
        return false;
    };
    if signal == Signal::KILL || end.oom.is_some() || end.stopped_by_own {
        return false;
    }
    // A master ends its workers, and the kernel does so by their parent-death signal: that is how they are meant to end.
    // A worker whose master has just died may have become the main process; only that signal of the kernel is a TERM.
    let ends_workers = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal);
    let by_master = end.killer.as_ref().is_some_and(|k| match &k.actor {
        Some(a) => Some(a.id) == end.process.parent && !end.was_main,
        None => !end.was_main || signal == Signal::TERM,
    });
    if by_master && ends_workers {
        return false;
    }
    match &end.asked {
        None => true,
        // Caught first and then re-raised is how many daemons end as they were asked to.
        Some(a) => match a.how {
            Ask::Signal {
                signal: asked,
                disposition,
            } => asked == signal && disposition == Disposition::Default && handled.contains(&signal),
            Ask::Job { .. } => false,
        },
    }
}

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    let handled = &service.decl.signals.handled;
    for end in service
        .deaths
        .iter()
        .filter(|e| applies(e, handled) && !is_replaced(service, e))
    {
        let ExitStatus::Signal { signal, .. } = end.status else {
            continue;
        };
        let from = match end.killer.as_ref().map(|k| &k.actor) {
            Some(Some(a)) => format!("sent by {}", describe(a)),
            Some(None) => "sent by the kernel".to_owned(),
            None => "its sender was not seen".to_owned(),
        };
        let summary = format!(
            "{} died of {signal}, which it does not handle, {from}",
            describe(&end.process)
        );
        verdict
            .conditions
            .push(after_end(Kind::UnhandledSignal, service, end, summary));
    }
}
