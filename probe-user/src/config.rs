//! What the user declares. Reading files, errors with places and hints: `config/load.rs`.

pub mod load;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{address::Address, signal::Signal};

/// The effective configuration: every default filled in. It stands at the head of each trace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub probe: Probe,
    #[serde(default, rename = "service")]
    pub services: Vec<Service>,
}

/// The `[probe]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// How often the state of everything declared is read anew although no event asked for it.
    #[serde(with = "span")]
    pub settle_every: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            settle_every: Duration::from_secs(60),
        }
    }
}

/// A `[[service]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: String,
    /// A systemd unit, matched against the cgroup's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Path of the executable; matched by what it leads to, and by name once the file was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// For interpreted daemons: an element of the argument vector, matched exactly. `exe` is then the interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Another exact element of the argument vector, for services that share an executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// A process given by `--pid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default)]
    pub listen: Vec<Address>,
    /// Whether it must run.
    #[serde(default = "yes")]
    pub expected: bool,
    #[serde(default = "one")]
    pub max_instances: u32,
    /// How long more instances than that may live side by side.
    #[serde(default = "overlap", with = "span")]
    pub overlap: Duration,
    #[serde(default = "ready_within", with = "span")]
    pub ready_within: Duration,
    #[serde(default = "stop_within", with = "span")]
    pub stop_within: Duration,
    #[serde(default = "relisten_within", with = "span")]
    pub relisten_within: Duration,
    #[serde(default = "clean_exit")]
    pub clean_exit: Vec<i32>,
    #[serde(default = "stop_signals")]
    pub stop_signals: Vec<Signal>,
    #[serde(default)]
    pub signals: Signals,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Signals that the daemon is meant to catch.
    #[serde(default)]
    pub handled: Vec<Signal>,
}

fn yes() -> bool {
    true
}
fn one() -> u32 {
    1
}
fn overlap() -> Duration {
    Duration::from_secs(30)
}
fn ready_within() -> Duration {
    Duration::from_secs(10)
}
fn stop_within() -> Duration {
    Duration::from_secs(15)
}
fn relisten_within() -> Duration {
    Duration::from_secs(1)
}
fn clean_exit() -> Vec<i32> {
    vec![0]
}
fn stop_signals() -> Vec<Signal> {
    vec![Signal::TERM, Signal::INT, Signal::QUIT]
}

impl Service {
    /// A service of this name with every default.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            unit: None,
            exe: None,
            script: None,
            argument: None,
            pid_file: None,
            pid: None,
            listen: Vec::new(),
            expected: yes(),
            max_instances: one(),
            overlap: overlap(),
            ready_within: ready_within(),
            stop_within: stop_within(),
            relisten_within: relisten_within(),
            clean_exit: clean_exit(),
            stop_signals: stop_signals(),
            signals: Signals::default(),
        }
    }

    /// Whether something other than an address or a PID file tells which processes belong to it.
    pub fn has_selector(&self) -> bool {
        self.unit.is_some() || self.exe.is_some() || self.script.is_some() || self.pid.is_some()
    }
}

/// Durations as `"10s"`, `"1m 30s"`.
pub mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*d))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(|e| {
            serde::de::Error::custom(format!(
                "{text:?} is no duration ({e}); expected for example \"500ms\", \"10s\", \"1m\""
            ))
        })
    }
}
