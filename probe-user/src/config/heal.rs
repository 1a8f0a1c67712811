//! When restarts are a loop, and what probe may do about a service that does not run.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CrashLoop {
    /// How many generations within `window` make a loop.
    pub restarts: u32,
    /// The time in which they happen.
    #[serde(with = "super::span")]
    #[schemars(with = "super::Span")]
    pub window: Duration,
}

impl Default for CrashLoop {
    fn default() -> Self {
        Self {
            restarts: 5,
            window: Duration::from_secs(60),
        }
    }
}

/// What probe may do about a service that does not run. Nothing, unless it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Heal {
    /// Clean up before a restart.
    pub reclaim: bool,
    /// A program and its arguments; no shell reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Vec<String>>,
    /// The pause before a restart.
    pub backoff: Backoff,
    /// After so many restarts in a row that did not help; never, unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<u32>,
}

/// The pause before the first restart in a row, and the longest: `"1s..60s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

impl FromStr for Backoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of pauses; expected for example \"1s..60s\"");
        let (first, longest) = text.split_once("..").ok_or_else(wrong)?;
        let parse = |part: &str| {
            humantime::parse_duration(part.trim())
                .ok()
                .filter(|d| !d.is_zero())
                .ok_or_else(wrong)
        };
        let (first, longest) = (parse(first)?, parse(longest)?);
        if first > longest {
            Err(wrong())
        } else {
            Ok(Self { first, longest })
        }
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}..{}",
            humantime::format_duration(self.first),
            humantime::format_duration(self.longest)
        )
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
