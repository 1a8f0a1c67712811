//! What is written: lines as they were said, and the life of each finding.

use crate::{
    clock::Wall,
    engine::finding::{Finding, FindingState},
};

/// The `type` of a line in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowType {
    Event,
    Finding,
    Lost,
    Action,
}

impl RowType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Finding => "finding",
            Self::Lost => "lost",
            Self::Action => "action",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub at: Wall,
    pub r#type: RowType,
    pub service: Option<String>,
    /// Of the event or finding.
    pub kind: Option<String>,
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

impl Row {
    /// A finding's line; `wall_offset_ns` as of [`crate::clock::wall_offset`].
    pub fn finding(finding: &Finding, json: &[u8], wall_offset_ns: i64) -> Self {
        use crate::engine::finding::Severity;
        let wall = |boot: u64| Wall((boot as i64).saturating_add(wall_offset_ns));
        let said = match finding.state {
            FindingState::Opened => finding.at.0,
            _ => finding.at.0.saturating_add(finding.detected_after_ns),
        };
        Self {
            at: wall(said),
            r#type: RowType::Finding,
            service: Some(finding.service.clone()),
            kind: Some(finding.kind.name().to_owned()),
            json: text(json),
            turn: Some(Box::new(Turn {
                id: finding.id.clone(),
                severity: match finding.severity {
                    Severity::Warning => "warning",
                    Severity::Critical => "critical",
                },
                subject: finding.subject.clone(),
                cause: finding.cause.clone(),
                state: finding.state,
                opened: wall(finding.at.0),
                summary: finding.summary.clone(),
                resolution: finding.resolution.clone(),
            })),
        }
    }

    /// Any other line.
    pub fn line(at: Wall, r#type: RowType, service: Option<&str>, kind: Option<&str>, json: &[u8]) -> Self {
        Self {
            at,
            r#type,
            service: service.map(str::to_owned),
            kind: kind.map(str::to_owned),
            json: text(json),
            turn: None,
        }
    }

    /// Lines that are missing here.
    pub(super) fn lost(at: Wall, count: u64) -> Self {
        let json = serde_json::json!({"v": 1, "type": "lost", "source": "history", "count": count});
        Self::line(at, RowType::Lost, None, None, json.to_string().as_bytes())
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

fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).trim_end().to_owned()
}

pub(super) const fn state_name(state: FindingState) -> &'static str {
    match state {
        FindingState::Opened => "opened",
        FindingState::Updated => "updated",
        FindingState::Resolved => "resolved",
    }
}
