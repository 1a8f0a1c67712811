//! A `[[hook]]` table: what is done when a finding opens.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::finding::{Kind, Severity};

/// One of `exec`, `webhook` and `journal`, and which findings it is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// For `probe hook test`, and for its queue over a restart; without one it is `hook-1`, `hook-2` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Findings of these kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Kind>,
    /// Also every finding of this severity, or of a higher one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Only once somebody gave the service up: systemd, or probe's own `give_up_after`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gave_up: bool,
    /// Names of services; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Which turns in the life of a finding.
    #[serde(default = "states")]
    pub states: Vec<HookState>,
    /// How often it must happen first, counted for each service and kind.
    #[serde(default)]
    pub after: After,
    /// How long findings of the same cause are waited for, so that they are told as one.
    #[serde(default = "group_wait", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub group_wait: Duration,
    /// No more notifications than this; what is too much waits.
    #[serde(default = "at_most")]
    pub at_most: After,
    /// A program and its arguments; no shell reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// Whom the program runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long the program or one request may take.
    #[serde(default = "timeout", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub timeout: Duration,
    /// An `http://` URL that the finding is posted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// What is posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<WebhookFormat>,
    /// With `webhook`: how long a request that fails is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_for: Option<super::Span>,
    /// With `format = "alertmanager"`: how often it is told again what is still open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend_every: Option<super::Span>,
    /// An entry in systemd's journal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub journal: bool,
}

impl Hook {
    /// Its name, or what it is called without one: by its place among all hooks, from 1.
    pub fn label(&self, index: usize) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("hook-{}", index + 1),
        }
    }
}

/// A turn in the life of a finding that is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HookState {
    Opened,
    /// It became more severe, or the service was given up.
    Escalated,
    Resolved,
}

fn states() -> Vec<HookState> {
    vec![HookState::Opened, HookState::Escalated, HookState::Resolved]
}

fn group_wait() -> Duration {
    Duration::from_secs(1)
}

fn at_most() -> After {
    After {
        count: 60,
        within: Duration::from_secs(600),
    }
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    Json,
    Alertmanager,
}

/// How often it must happen first: `"3 in 10m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    pub count: u32,
    pub within: Duration,
}

impl Default for After {
    /// The first time.
    fn default() -> Self {
        Self {
            count: 1,
            within: Duration::ZERO,
        }
    }
}

impl FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no count within a time; expected for example \"3 in 10m\"");
        let (count, within) = text.split_once(" in ").ok_or_else(wrong)?;
        let count = count.trim().parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        let within = humantime::parse_duration(within.trim()).map_err(|_| wrong())?;
        if count > 1 && within.is_zero() {
            return Err(format!(
                "{text:?} can never happen: {count} findings take more than no time"
            ));
        }
        Ok(Self { count, within })
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.count, humantime::format_duration(self.within))
    }
}

impl Serialize for After {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
