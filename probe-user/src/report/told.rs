//! Lines that somebody else wrote as JSON, for people.

use std::{collections::BTreeSet, io, time::Duration};

use jiff::Timestamp;

use super::{
    Look, Watching, filter,
    human::{self, By, EventText, FindingText},
    line::{EventLine, FindingLine, Line, WatchingLine},
};
use crate::{api::types::ProcessRef, engine::finding::FindingState};

impl<'a> From<&'a ProcessRef> for By<'a> {
    fn from(p: &'a ProcessRef) -> Self {
        Self {
            pid: p.pid,
            comm: &p.comm,
            exe: p.exe.as_deref(),
            uid: p.uid,
            unit: p.unit.as_deref(),
        }
    }
}

/// Appends the line for a person, with its end.
///
/// # Errors
/// None on a vector.
pub fn told(out: &mut Vec<u8>, look: &Look, line: &Line) -> io::Result<()> {
    match line {
        Line::Watching(w) => human::watching(out, look, &mut BTreeSet::new(), &watching(w))?,
        Line::Event(e) => event(out, look, e)?,
        Line::Finding(f) => finding(out, look, f)?,
        Line::Lost(l) => human::lost(out, look, &l.source, l.count)?,
    }
    out.push(b'\n');
    Ok(())
}

fn watching(w: &WatchingLine) -> Watching {
    Watching {
        service: w.service.clone(),
        listen: w.listen.clone(),
        pid_file: w.pid_file.clone(),
        main: w.main.map(|m| m.pid),
        tier: w.tier.clone(),
        cannot_see: w.cannot_see.clone(),
    }
}

fn event(out: &mut Vec<u8>, look: &Look, e: &EventLine) -> io::Result<()> {
    let text = EventText {
        at: time(&e.at),
        service: e.service.as_deref().unwrap_or("probe"),
        kind: &e.kind,
        summary: e.summary.as_deref().or(e.subject.as_deref()).unwrap_or_default(),
        by: e.actor.as_ref().map(By::from),
    };
    human::event(out, look, &text)
}

fn finding(out: &mut Vec<u8>, look: &Look, f: &FindingLine) -> io::Result<()> {
    let later = match f.state {
        FindingState::Opened => 0,
        _ => f.detected_after_ns.unwrap_or(0),
    };
    let at = time(&f.at);
    let text = FindingText {
        at: at.checked_add(Duration::from_nanos(later)).unwrap_or(at),
        service: &f.service,
        kind: f.kind.name(),
        state: f.state,
        severity: f.severity,
        summary: &f.summary,
        resolution: f.resolution.as_deref(),
        by: f.actor.as_ref().map(By::from),
    };
    human::finding(out, look, &text)
}

/// The epoch where it is no time.
fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Line {
    /// Whether a filter lets it pass.
    pub fn passes(&self, filter: &filter::Filter) -> bool {
        match self {
            Self::Watching(_) => filter.line_type(filter::LineType::Watching),
            Self::Finding(f) => filter.finding(f.kind),
            Self::Event(e) => match e.kind.parse() {
                Ok(filter::KindName::Event(kind)) => filter.event(kind),
                _ => filter.kinds.is_empty() && filter.line_type(filter::LineType::Event),
            },
            Self::Lost(_) => filter.lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn human(json: &str, dates: bool) -> String {
        let look = Look {
            color: false,
            time_zone: TimeZone::UTC,
            dates,
        };
        let mut out = Vec::new();
        told(&mut out, &look, &serde_json::from_str(json).unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_the_stream_look_as_those_of_watch() {
        let event = r#"{"v":1,"type":"event","seq":4,"epoch":"e","at":"2026-01-02T03:04:05.123456789Z","boot_ns":9,
            "time_source":"kernel","service":"annad","kind":"signal","process":null,"subject":null,"signal":"USR1",
            "actor":{"pid":990,"start_ns":1,"exe":"/bin/kill","comm":"kill","uid":0,"unit":null,"parent":{"pid":1}},
            "summary":"USR1 to annad (812)","cursor":7,"news":true}"#;
        assert_eq!(
            human(event, false),
            "03:04:05.123 annad        signal    USR1 to annad (812), by kill (990, /bin/kill, uid 0)\n"
        );
        let finding = r#"{"v":1,"type":"finding","id":"1","state":"resolved","kind":"stale-socket","service":"annad",
            "severity":"critical","subject":"s","cause":"c","at":"2026-01-02T03:04:05Z","boot_ns":9,
            "detected_after_ns":2000000000,"actor":null,"summary":"dead","evidence":[],"resolution":"alive","epoch":"e","cursor":8}"#;
        assert_eq!(
            human(finding, true),
            "2026-01-02 03:04:07.000 annad        RESOLVED  stale-socket: alive\n"
        );
    }

    #[test]
    fn losses_say_whose_they_are() {
        let lost = |source: &str, count: &str| {
            human(
                &format!(
                    r#"{{"v":1,"type":"lost","source":"{source}","count":{count},"epoch":"e","cursor":1}}"#
                ),
                false,
            )
        };
        assert!(lost("stream", "12").starts_with("LOST 12 lines: this reader was too slow"));
        assert!(lost("epoch", "null").starts_with("LOST some lines: the daemon began anew"));
        assert!(lost("history", "1").starts_with("LOST 1 line: they could not be written"));
        assert!(lost("ring", "2").starts_with("LOST 2 events of ring: verdicts are unknown"));
    }

    #[test]
    fn what_probe_did_itself_has_no_number() {
        let action = r#"{"v":1,"type":"event","seq":null,"epoch":"e","at":"2026-01-02T03:04:05Z","boot_ns":9,
            "time_source":"observed","service":null,"kind":"action","process":null,"subject":null,"action":"reload",
            "outcome":"ok","cause":null,"actor":null,"summary":"read anew","cursor":3}"#;
        assert_eq!(
            human(action, false),
            "03:04:05.000 probe        action    read anew\n"
        );
    }
}
