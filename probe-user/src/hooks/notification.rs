//! What a hook is told: findings of one cause, and what became of them. It survives a restart of probe and of the
//! machine, so its times are wall-clock times.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    config::HookState,
    engine::finding::{Finding, Kind},
    report,
};

/// Why a hook is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Opened,
    /// More severe than what was told, or given up.
    Escalated,
    Resolved,
    /// Nothing new: told again to a receiver that forgets.
    Repeated,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
            Self::Repeated => "repeated",
        }
    }
}

impl From<HookState> for State {
    fn from(state: HookState) -> Self {
        match state {
            HookState::Opened => Self::Opened,
            HookState::Escalated => Self::Escalated,
            HookState::Resolved => Self::Resolved,
        }
    }
}

/// One finding of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub finding: Finding,
    /// What makes the finding's times wall-clock times, in nanoseconds.
    pub wall_offset_ns: i64,
    /// When its cause happened; nanoseconds since the Unix epoch.
    pub started_ns: i64,
    /// When it was resolved, or turned into one of another severity. `None`: it is still open.
    pub ended_ns: Option<i64>,
}

/// What is sent at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    pub state: State,
    pub cause: String,
    /// At least one; what matters most comes first.
    pub alerts: Vec<Alert>,
    /// When it was decided; nanoseconds since the Unix epoch.
    pub made_ns: i64,
    /// Notifications that the rate limit suppressed since the one before: what they told of was over before its turn.
    pub suppressed: u64,
}

impl Notification {
    /// The one that matters most.
    pub fn main(&self) -> &Alert {
        &self.alerts[0]
    }

    /// One JSON document for a webhook.
    pub fn json(&self, hook: &str) -> Value {
        let main = &self.main().finding;
        let findings: Vec<Value> = self
            .alerts
            .iter()
            .map(|a| serde_json::from_slice(&a.line()).unwrap_or(Value::Null))
            .collect();
        json!({
            "v": 1,
            "type": "notification",
            "state": self.state,
            "hook": hook,
            "host": host(),
            "at": rfc3339(self.made_ns),
            "service": main.service,
            "kind": main.kind,
            "severity": main.severity,
            "subject": main.subject,
            "summary": main.summary,
            "cause": self.cause,
            "suppressed": self.suppressed,
            "findings": findings,
        })
    }

    /// For programs that read their input: each finding as a JSON line, what matters most first.
    pub fn lines(&self) -> Vec<u8> {
        self.alerts.iter().flat_map(Alert::line).collect()
    }

    /// What can stand in arguments and in the environment.
    pub fn values(&self, hook: &str) -> Values {
        let f = &self.main().finding;
        let text = |s: &str| s.to_owned();
        Values(vec![
            ("service", text(&f.service)),
            ("kind", text(f.kind.name())),
            ("severity", text(f.severity.name())),
            ("state", text(self.state.name())),
            ("id", text(&f.id)),
            ("subject", text(&f.subject)),
            ("summary", text(&f.summary)),
            ("cause", text(&self.cause)),
            ("resolution", f.resolution.clone().unwrap_or_default()),
            ("count", self.alerts.len().to_string()),
            ("hook", text(hook)),
        ])
    }

    /// Brings what matters most to the front: the most severe; of those the one nearest to the cause.
    pub(super) fn sort(&mut self) {
        self.alerts.sort_by_cached_key(|a| {
            let f = &a.finding;
            (
                a.ended_ns.is_some(),
                std::cmp::Reverse(f.severity),
                rank(f.kind),
                f.at,
                f.id.clone(),
            )
        });
    }
}

/// An end explains what it left behind.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::CrashLoop => 0,
        Kind::OomKilled => 1,
        Kind::KilledWhileStopping => 2,
        Kind::UnhandledSignal => 3,
        Kind::Crashed => 4,
        Kind::NotRunning => 6,
        _ => 5,
    }
}

impl Alert {
    /// The line of the JSON contract, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        report::finding_line(&self.finding, self.wall_offset_ns)
    }
}

/// Names and what they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values(Vec<(&'static str, String)>);

impl Values {
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// RFC 3339 in UTC, with nanoseconds.
pub(super) fn rfc3339(ns: i64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.9}")
}

/// The host's name, as the kernel knows it.
pub(super) fn host() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |u| u.nodename().to_string_lossy().into_owned())
}
