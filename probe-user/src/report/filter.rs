//! Which lines are written: `--only` and `--kind`.

use std::{fmt, str::FromStr};

use crate::engine::finding::{Effect, EventKind, Kind};

/// The `type` of a JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineType {
    Watching,
    Event,
    Finding,
    Lost,
}

/// The kind of an event or of a finding; the names of both differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindName {
    Event(EventKind),
    Finding(Kind),
}

/// Lets everything pass by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Types of lines; empty: all.
    pub only: Vec<LineType>,
    /// Kinds of events and findings; empty: all. Other lines have no kind, and pass.
    pub kinds: Vec<KindName>,
}

impl Filter {
    /// Whether lines of this type are written.
    pub fn line_type(&self, t: LineType) -> bool {
        self.only.is_empty() || self.only.contains(&t)
    }

    fn kind(&self, kind: KindName) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Whether events of this kind are written.
    pub(crate) fn event(&self, kind: EventKind) -> bool {
        self.line_type(LineType::Event) && self.kind(KindName::Event(kind))
    }

    /// Whether findings of this kind are written.
    pub fn finding(&self, kind: Kind) -> bool {
        self.line_type(LineType::Finding) && self.kind(KindName::Finding(kind))
    }

    /// Whether losses are written.
    pub(crate) fn lost(&self) -> bool {
        self.line_type(LineType::Lost)
    }

    pub(super) fn effect(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Show(s) => self.event(s.kind),
            Effect::Find(f) => self.finding(f.kind),
            Effect::Lost { .. } => self.lost(),
            _ => false,
        }
    }
}

const LINE_TYPES: [(LineType, &str); 4] = [
    (LineType::Watching, "watching"),
    (LineType::Event, "event"),
    (LineType::Finding, "finding"),
    (LineType::Lost, "lost"),
];

const EVENT_KINDS: [(EventKind, &str); 19] = [
    (EventKind::Bind, "bind"),
    (EventKind::Listen, "listen"),
    (EventKind::Close, "close"),
    (EventKind::Unlink, "unlink"),
    (EventKind::Rename, "rename"),
    (EventKind::Exec, "exec"),
    (EventKind::Fork, "fork"),
    (EventKind::Exit, "exit"),
    (EventKind::Signal, "signal"),
    (EventKind::Oom, "oom"),
    (EventKind::PidFile, "pid_file"),
    (EventKind::Heartbeat, "heartbeat"),
    (EventKind::Notify, "notify"),
    (EventKind::Handover, "handover"),
    (EventKind::Stop, "stop"),
    (EventKind::Ready, "ready"),
    (EventKind::Snapshot, "snapshot"),
    (EventKind::Unit, "unit"),
    (EventKind::Action, "action"),
];

/// The name of an event's kind, as in JSON.
pub fn event_kind(kind: EventKind) -> &'static str {
    EVENT_KINDS
        .iter()
        .find(|(k, _)| *k == kind)
        .map_or("event", |(_, name)| name)
}

/// A name that stands for nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UnknownName {
    what: &'static str,
    text: String,
    nearest: Option<&'static str>,
    expected: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} {:?}", self.what, self.text)?;
        match self.nearest {
            Some(name) => write!(f, ", did you mean {name:?}?"),
            None => write!(f, ", expected one of {}", self.expected.join(", ")),
        }
    }
}

impl UnknownName {
    fn new(what: &'static str, text: &str, expected: Vec<&'static str>) -> Self {
        Self {
            what,
            text: text.to_owned(),
            nearest: crate::config::load::nearest(text, &expected),
            expected,
        }
    }
}

impl LineType {
    /// As it is written.
    pub fn name(self) -> &'static str {
        LINE_TYPES
            .iter()
            .find(|(t, _)| *t == self)
            .map_or("line", |(_, name)| name)
    }
}

impl KindName {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Event(kind) => event_kind(kind),
            Self::Finding(kind) => kind.name(),
        }
    }
}

impl FromStr for LineType {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        LINE_TYPES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(t, _)| *t)
            .ok_or_else(|| UnknownName::new("type of line", text, LINE_TYPES.map(|(_, n)| n).to_vec()))
    }
}

impl FromStr for KindName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let event = EVENT_KINDS
            .iter()
            .find(|(_, n)| *n == text)
            .map(|(k, _)| Self::Event(*k));
        let finding = Kind::ALL
            .iter()
            .find(|k| k.name() == text)
            .map(|k| Self::Finding(*k));
        event.or(finding).ok_or_else(|| {
            let names = Kind::ALL
                .iter()
                .map(|k| k.name())
                .chain(EVENT_KINDS.iter().map(|(_, n)| *n));
            UnknownName::new("kind", text, names.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_events_are_named_as_in_json() {
        for (kind, name) in EVENT_KINDS {
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
    }

    #[test]
    fn every_name_parses_and_no_name_means_two_things() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(KindName::Finding(kind)));
        }
        for (kind, name) in EVENT_KINDS {
            assert_eq!(name.parse(), Ok(KindName::Event(kind)));
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let e = "stale-sockt".parse::<KindName>().unwrap_err().to_string();
        assert_eq!(e, r#"unknown kind "stale-sockt", did you mean "stale-socket"?"#);
        let e = "xyz".parse::<LineType>().unwrap_err().to_string();
        assert_eq!(
            e,
            r#"unknown type of line "xyz", expected one of watching, event, finding, lost"#
        );
    }
}
