//! The answer of `probe status`, for people.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::{
    escape,
    look::{DIM, GREEN, Look, PLAIN, RED, YELLOW, span},
    silence,
    table::{Cell, table},
};
use crate::{
    api::types::{
        FindingStatus, HistoryState, HistoryStatus, ListenerState, ListenerStatus, ProbeStatus,
        ServiceStatus, Services, Verdict,
    },
    clock::{Nanos, Wall},
    engine::finding::Severity,
    hooks::status::HookStatus,
};

const HEADING: [&str; 9] = [
    "SERVICE",
    "VERDICT",
    "MAIN",
    "FOR",
    "GENERATION",
    "RESTARTS",
    "HEARTBEAT",
    "FINDINGS",
    "LISTENERS",
];

/// Writes a line a service, then what is wrong in full.
///
/// # Errors
/// None on a vector.
pub fn status(out: &mut Vec<u8>, look: &Look, answer: &Services, now: Nanos, wall: Wall) -> io::Result<()> {
    let rows: Vec<Vec<Cell>> = answer.services.iter().map(|s| row(s, now)).collect();
    table(out, look, &HEADING, &rows);
    let findings = answer.services.iter().flat_map(|s| &s.findings);
    for f in answer.probe.blind.iter().chain(findings) {
        finding(out, look, f, now)?;
    }
    for s in &answer.services {
        if let Some(stop) = &s.stopping {
            escape::text(out, &s.service)?;
            write!(out, " is being stopped for {}: ", span(now.since(stop.since_ns)))?;
            escape::text(out, &stop.asked)?;
            out.push(b'\n');
        }
        if let Some(silence) = &s.silenced {
            silence::sentence(out, silence, wall)?;
        }
    }
    probe(out, look, &answer.probe, answer)
}

fn row(s: &ServiceStatus, now: Nanos) -> Vec<Cell> {
    let worst = s.findings.iter().map(|f| f.severity).max();
    let verdict = match (s.verdict, worst) {
        (Verdict::Ok, _) => Cell::painted("ok", GREEN),
        (Verdict::Unknown, _) | (Verdict::Finding, None) => Cell::painted("unknown", YELLOW),
        (Verdict::Finding, Some(Severity::Warning)) => Cell::painted("warning", YELLOW),
        (Verdict::Finding, Some(Severity::Critical)) => Cell::painted("critical", RED),
    };
    let main = s.main.as_ref().map(|m| format!("{} ({})", m.comm, m.pid));
    let age = |at: Nanos| span(now.since(at));
    let beat = s
        .heartbeat_age_ns
        .map(|ns| span(std::time::Duration::from_nanos(ns)));
    let kinds: BTreeSet<&str> = s.findings.iter().map(|f| f.kind.name()).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let listeners: Vec<String> = s.listeners.iter().map(listener).collect();
    vec![
        Cell::new(&s.service),
        verdict,
        Cell::maybe(main.as_deref()),
        Cell::maybe(s.main_since_ns.map(age).as_deref()),
        Cell::new(&s.generation.to_string()),
        Cell::new(&s.restarts.to_string()),
        Cell::maybe(beat.as_deref()),
        Cell::maybe(Some(&kinds.join(","))),
        Cell::maybe(Some(&listeners.join(", "))),
    ]
}

fn listener(l: &ListenerStatus) -> String {
    let state = match l.state {
        ListenerState::Listening => "",
        ListenerState::Bound => " bound, not listening",
        ListenerState::ShutDown => " shut down",
        ListenerState::Orphaned => " orphaned",
        ListenerState::Stale => " stale",
        ListenerState::Absent => " absent",
        ListenerState::Unknown => " unknown",
    };
    let queue = match (l.queue, l.limit) {
        (Some(queue), Some(limit)) if l.address.inet().is_none_or(|_| limit > 0) => {
            format!(" {queue}/{limit}")
        }
        _ => String::new(),
    };
    format!("{}{state}{queue}", l.address)
}

fn finding(out: &mut Vec<u8>, look: &Look, f: &FindingStatus, now: Nanos) -> io::Result<()> {
    let (word, color) = match f.severity {
        Severity::Critical => ("CRITICAL", RED),
        Severity::Warning => ("WARNING", YELLOW),
    };
    escape::text(out, &f.service)?;
    out.push(b' ');
    look.paint(out, color);
    write!(out, "{word} {}", f.kind.name())?;
    look.paint(out, PLAIN);
    write!(out, ", {} ago: ", span(now.since(f.boot_ns)))?;
    escape::text(out, &f.summary)?;
    out.push(b'\n');
    Ok(())
}

fn probe(out: &mut Vec<u8>, look: &Look, p: &ProbeStatus, answer: &Services) -> io::Result<()> {
    if !p.joined {
        look.painted(
            out,
            YELLOW,
            "probe has not seen everything yet: verdicts are unknown",
        );
        out.push(b'\n');
    }
    for (source, count) in &p.lost {
        let text = format!("probe has lost {count} events of {source} since it began");
        look.painted(out, YELLOW, &text);
        out.push(b'\n');
    }
    if let Some(why) = &p.reload_error {
        look.paint(out, YELLOW);
        out.extend_from_slice(b"probe has refused the configuration as it is now: ");
        look.painted(out, YELLOW, why);
        out.push(b'\n');
    }
    if let Some(why) = p.pinned.as_ref().and_then(|p| p.why_not.as_deref()) {
        let text = format!("a restart of probe would miss what happens meanwhile: {why}");
        look.painted(out, YELLOW, &text);
        out.push(b'\n');
    }
    for (what, why) in &p.unwatched {
        let text = format!("{what} will be noticed late: {why}");
        look.painted(out, YELLOW, &text);
        out.push(b'\n');
    }
    history(out, look, p.history.as_ref());
    for hook in &p.hooks {
        self::hook(out, look, hook);
    }
    let cannot_see: BTreeSet<&str> = answer
        .services
        .iter()
        .flat_map(|s| &s.cannot_see)
        .map(String::as_str)
        .collect();
    if !cannot_see.is_empty() {
        let what: Vec<&str> = cannot_see.into_iter().collect();
        look.painted(out, DIM, &format!("cannot see: {}", what.join("; ")));
        out.push(b'\n');
    }
    Ok(())
}

/// Nothing where it is as it should be.
fn history(out: &mut Vec<u8>, look: &Look, history: Option<&HistoryStatus>) {
    let Some(h) = history else { return };
    let failing = match h.state {
        HistoryState::Failing => {
            let why = h.error.as_deref().unwrap_or("no reason is known");
            Some(format!("the history is not written: {why}; it is tried again"))
        }
        HistoryState::Opening => Some("the history is still being checked".to_owned()),
        HistoryState::Writing => None,
    };
    let lost = (h.lost > 0).then(|| format!("{} lines of the history are missing", h.lost));
    // That it was not written at the start is no news once it is.
    let told = h
        .notices
        .iter()
        .filter(|n| !n.contains("is not written"))
        .cloned();
    for text in told.chain(failing).chain(lost) {
        look.painted(out, YELLOW, &text);
        out.push(b'\n');
    }
}

/// Nothing where it has told everything.
fn hook(out: &mut Vec<u8>, look: &Look, h: &HookStatus) {
    let mut wrong = Vec::new();
    if h.failed_attempts > 0 {
        wrong.push(format!(
            "has failed {} times to send what is first",
            h.failed_attempts
        ));
    }
    if h.waiting > 0 {
        wrong.push(format!("{} notifications wait", h.waiting));
    }
    if let Some(last) = h.last.as_ref().filter(|l| l.outcome != "ok") {
        wrong.push(format!("the last one: {}: {}", last.outcome, last.detail));
    }
    if h.results.dropped > 0 {
        wrong.push(format!("{} were dropped", h.results.dropped));
    }
    wrong.extend(h.not_kept.clone());
    if !wrong.is_empty() {
        let text = format!("hook {}: {}", h.hook, wrong.join("; "));
        look.painted(out, YELLOW, &text);
        out.push(b'\n');
    }
}
