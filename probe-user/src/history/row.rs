//! What is written: lines as they were said, and the life of each finding.

use crate::{
    clock::Wall,
    engine::finding::{EventKind, Finding, FindingState, Severity},
    report::filter::event_kind,
    stream::Said,
};

/// The `type` of a line in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowType {
    Event,
    Finding,
    Lost,
}

impl RowType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Finding => "finding",
            Self::Lost => "lost",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When it was said.
    pub at: Wall,
    pub r#type: RowType,
    pub service: Option<String>,
    /// Of the event or finding.
    pub kind: Option<&'static str>,
    /// The line by the JSON contract, without its end.
    pub json: String,
    /// The turn that a finding's life took.
    pub turn: Option<Box<Turn>>,
}

/// A finding, as it is after a turn of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub id: String,
    pub severity: &'static str,
    pub subject: String,
    pub cause: String,
    pub state: FindingState,
    /// When its cause happened.
    pub opened: Wall,
    pub summary: String,
    pub resolution: Option<String>,
}

/// What was said at `at`; `json` is the line.
pub(super) fn row(at: Wall, said: &Said, json: &[u8], wall_offset_ns: i64) -> Row {
    let (r#type, kind) = match said {
        Said::Event(shown) => (RowType::Event, Some(event_kind(shown.kind))),
        Said::Action(_) => (RowType::Event, Some(event_kind(EventKind::Action))),
        Said::Finding(f) => (RowType::Finding, Some(f.kind.name())),
        Said::Lost { .. } => (RowType::Lost, None),
    };
    Row {
        at,
        r#type,
        service: said.service().map(str::to_owned),
        kind,
        json: String::from_utf8_lossy(json).trim_end().to_owned(),
        turn: match said {
            Said::Finding(f) => Some(Box::new(Turn::of(f, wall_offset_ns))),
            _ => None,
        },
    }
}

impl Turn {
    fn of(f: &Finding, wall_offset_ns: i64) -> Self {
        Self {
            id: f.id.clone(),
            severity: match f.severity {
                Severity::Warning => "warning",
                Severity::Critical => "critical",
            },
            subject: f.subject.clone(),
            cause: f.cause.clone(),
            state: f.state,
            opened: Wall((f.at.0 as i64).saturating_add(wall_offset_ns)),
            summary: f.summary.clone(),
            resolution: f.resolution.clone(),
        }
    }
}

impl Row {
    /// Lines that are missing here.
    pub(super) fn lost(at: Wall, count: u64) -> Self {
        let json = serde_json::json!({"v": 1, "type": "lost", "source": "history", "count": count});
        Self {
            at,
            r#type: RowType::Lost,
            service: None,
            kind: None,
            json: json.to_string(),
            turn: None,
        }
    }

    /// How much memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let turn = self
            .turn
            .as_ref()
            .map_or(0, |t| 256 + t.summary.len() + t.subject.len());
        256 + self.json.len() + turn
    }
}

pub(super) const fn state_name(state: FindingState) -> &'static str {
    match state {
        FindingState::Opened => "opened",
        FindingState::Updated => "updated",
        FindingState::Resolved => "resolved",
    }
}
