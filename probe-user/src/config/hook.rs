//! A `[[hook]]` table: what is done when a finding opens.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::finding::{Kind, Severity};

/// Either `exec` or `webhook`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// For `probe hook test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kinds of findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Kind>,
    /// Every finding of this severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Names of services; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// How often it must happen first.
    #[serde(default)]
    pub after: After,
    /// A program and its arguments; no shell reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// Whom the program runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long the program or the request may take.
    #[serde(default = "timeout", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub timeout: Duration,
    /// An HTTP URL that the finding is posted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// What is posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<WebhookFormat>,
}

fn timeout() -> Duration {
    Duration::from_secs(10)
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
