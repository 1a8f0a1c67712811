//! A `[[service]]` table.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CrashLoop, Heal, Netns};
use crate::{address::Address, signal::Signal};

/// What belongs together: processes, addresses, a PID file, and what is expected of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Shown with every finding; each service has another one.
    pub name: String,
    /// A systemd unit, matched against the cgroup's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whose service manager the unit belongs to; without it the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Path of the executable; matched by what it leads to, and by name once the file was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// For interpreted daemons: an element of the argument vector, matched exactly. `exe` is then the interpreter. Of a command
    /// line only the first 512 bytes are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Another exact element of the argument vector, within the first 512 bytes too, for services that share an executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// Path of its PID file, as the main process sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// A process given by `--pid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where it listens.
    #[serde(default)]
    pub listen: Vec<Address>,
    /// The network namespace that its ports and abstract names are in.
    #[serde(default)]
    pub netns: Netns,
    /// Whether it must run.
    #[serde(default = "yes")]
    pub expected: bool,
    /// `max_instances` is 1, and `reclaim` may end a predecessor and foreign holders of the addresses.
    #[serde(default)]
    pub singleton: bool,
    /// `reclaim` may end foreign holders of the addresses.
    #[serde(default)]
    pub kill_other: bool,
    /// Which duplicate stays when `heal` acts.
    #[serde(default)]
    pub keep_instance: KeepInstance,
    /// How many instances may run.
    #[serde(default = "one")]
    pub max_instances: u32,
    /// How long more instances than that may live side by side.
    #[serde(default = "overlap", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub overlap: Duration,
    /// How long it may take until all addresses are served.
    #[serde(default = "ready_within", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub ready_within: Duration,
    /// How long a connection may stand at the head of a queue.
    #[serde(default = "accept_within", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub accept_within: Duration,
    /// How long a signal may stay pending.
    #[serde(default = "signal_within", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub signal_within: Duration,
    /// How long an asked stop may take.
    #[serde(default = "stop_within", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub stop_within: Duration,
    /// How long a listener may be closed until it is opened again.
    #[serde(default = "relisten_within", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub relisten_within: Duration,
    /// Exit codes of a stop in good order.
    #[serde(default = "clean_exit")]
    pub clean_exit: Vec<i32>,
    /// Signals that ask it to stop.
    #[serde(default = "stop_signals")]
    pub stop_signals: Vec<Signal>,
    /// Which signals it is meant to handle.
    #[serde(default)]
    pub signals: Signals,
    /// How it shows that it is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// When restarts are a loop.
    #[serde(default)]
    pub crash_loop: CrashLoop,
    /// What probe may do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heal: Option<Heal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Signals that the daemon is meant to catch.
    #[serde(default)]
    pub handled: Vec<Signal>,
}

/// Which duplicate stays when `heal` acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeepInstance {
    /// None is ended; duplicates are only reported.
    #[default]
    Report,
    /// The one that the PID file names.
    PidFile,
    Oldest,
    Newest,
}

/// How the daemon shows that it is alive: one of `file`, `notify`, `connect`, `log`, `journal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// It touches this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// It sends `WATCHDOG=1` to systemd, which says when it last did; needs `unit`. The datagrams themselves are not watched:
    /// that would cost every datagram of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<bool>,
    /// It answers at this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Address>,
    /// With `connect`: what it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// With `connect`: how its answer begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// With `connect`: how often it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<super::Span>,
    /// With `connect`: how long the answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<super::Span>,
    /// It writes lines that contain `contains` to this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// With `log`: what a line that counts contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// It writes journal entries that contain this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// How old the last sign of life may be.
    #[serde(default = "stale_after", with = "super::span")]
    #[schemars(with = "super::Span")]
    pub stale_after: Duration,
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
fn accept_within() -> Duration {
    Duration::from_secs(2)
}
fn signal_within() -> Duration {
    Duration::from_secs(5)
}
fn stop_within() -> Duration {
    Duration::from_secs(15)
}
fn relisten_within() -> Duration {
    Duration::from_secs(1)
}
fn stale_after() -> Duration {
    Duration::from_secs(30)
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
            user: None,
            exe: None,
            script: None,
            argument: None,
            pid_file: None,
            pid: None,
            listen: Vec::new(),
            netns: Netns::default(),
            expected: yes(),
            singleton: false,
            kill_other: false,
            keep_instance: KeepInstance::default(),
            max_instances: one(),
            overlap: overlap(),
            ready_within: ready_within(),
            accept_within: accept_within(),
            signal_within: signal_within(),
            stop_within: stop_within(),
            relisten_within: relisten_within(),
            clean_exit: clean_exit(),
            stop_signals: stop_signals(),
            signals: Signals::default(),
            heartbeat: None,
            crash_loop: CrashLoop::default(),
            heal: None,
        }
    }

    /// Whether something other than an address or a PID file tells which processes belong to it.
    pub fn has_selector(&self) -> bool {
        self.unit.is_some() || self.exe.is_some() || self.script.is_some() || self.pid.is_some()
    }
}
