//! What the engine says: events with a service and a number, findings, losses. The JSON contract of the README.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::{
    clock::Nanos,
    event::{Actor, ProcId, TimeSource},
};

/// The 22 kinds of finding. The names are the same in JSON, metrics, hooks and the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    StaleSocket,
    OrphanedListener,
    AddressTaken,
    BindRefused,
    NotListening,
    NotRunning,
    AcceptStall,
    DuplicateInstance,
    StalePidFile,
    PidFileMismatch,
    CrashLoop,
    OomKilled,
    Crashed,
    Stopped,
    UnhandledSignal,
    UnhandledSignalRisk,
    SignalIgnored,
    SignalBlocked,
    SlowStop,
    KilledWhileStopping,
    StaleHeartbeat,
    Blind,
}

impl Kind {
    pub const ALL: [Self; 22] = [
        Self::StaleSocket,
        Self::OrphanedListener,
        Self::AddressTaken,
        Self::BindRefused,
        Self::NotListening,
        Self::NotRunning,
        Self::AcceptStall,
        Self::DuplicateInstance,
        Self::StalePidFile,
        Self::PidFileMismatch,
        Self::CrashLoop,
        Self::OomKilled,
        Self::Crashed,
        Self::Stopped,
        Self::UnhandledSignal,
        Self::UnhandledSignalRisk,
        Self::SignalIgnored,
        Self::SignalBlocked,
        Self::SlowStop,
        Self::KilledWhileStopping,
        Self::StaleHeartbeat,
        Self::Blind,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleSocket => "stale-socket",
            Self::OrphanedListener => "orphaned-listener",
            Self::AddressTaken => "address-taken",
            Self::BindRefused => "bind-refused",
            Self::NotListening => "not-listening",
            Self::NotRunning => "not-running",
            Self::AcceptStall => "accept-stall",
            Self::DuplicateInstance => "duplicate-instance",
            Self::StalePidFile => "stale-pid-file",
            Self::PidFileMismatch => "pid-file-mismatch",
            Self::CrashLoop => "crash-loop",
            Self::OomKilled => "oom-killed",
            Self::Crashed => "crashed",
            Self::Stopped => "stopped",
            Self::UnhandledSignal => "unhandled-signal",
            Self::UnhandledSignalRisk => "unhandled-signal-risk",
            Self::SignalIgnored => "signal-ignored",
            Self::SignalBlocked => "signal-blocked",
            Self::SlowStop => "slow-stop",
            Self::KilledWhileStopping => "killed-while-stopping",
            Self::StaleHeartbeat => "stale-heartbeat",
            Self::Blind => "blind",
        }
    }

    pub const fn severity(self) -> Severity {
        match self {
            Self::BindRefused
            | Self::StalePidFile
            | Self::PidFileMismatch
            | Self::Stopped
            | Self::UnhandledSignalRisk
            | Self::SignalIgnored
            | Self::SignalBlocked
            | Self::SlowStop
            | Self::Blind => Severity::Warning,
            _ => Severity::Critical,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    Opened,
    Updated,
    Resolved,
}

/// A condition with a life, as it is reported each time that life takes a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Derived from service, kind, subject and the moment it opened.
    pub id: String,
    pub state: FindingState,
    pub kind: Kind,
    pub service: String,
    pub severity: Severity,
    /// What it is about: an address, a path, a process.
    pub subject: String,
    /// The same for all findings that one cause opened.
    pub cause: String,
    /// When the cause happened: the kernel's time where there is one.
    pub at: Nanos,
    /// From the cause to this report.
    pub detected_after_ns: u64,
    pub actor: Option<Actor>,
    /// One sentence for a person.
    pub summary: String,
    /// What ended it; only when resolved.
    pub resolution: Option<String>,
    /// `seq` of the events that it rests on.
    pub evidence: Vec<u64>,
    /// Facts of the kind: `gave_up` of a `crash-loop`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// An event of a declared service, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub seq: u64,
    pub at: Nanos,
    pub time_source: TimeSource,
    pub service: String,
    pub kind: EventKind,
    /// What it is about besides the process: an address, a path.
    pub subject: Option<String>,
    pub process: Option<Actor>,
    pub actor: Option<Actor>,
    /// Facts of the kind: `signal`, `code`, `result`, `disposition`, `status`, …
    pub facts: Facts,
    /// One sentence for a person.
    pub summary: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Bind,
    Listen,
    Close,
    Unlink,
    Rename,
    Exec,
    Fork,
    Exit,
    Signal,
    Oom,
    PidFile,
    Heartbeat,
    Notify,
    Handover,
    Stop,
    Ready,
    Snapshot,
    /// What systemd says of the unit has changed.
    Unit,
    Action,
}

/// What the engine wants done. It does nothing itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Show(Box<Shown>),
    Find(Box<Finding>),
    /// Events were lost; said once per loss.
    Lost {
        source: String,
        count: u64,
    },
    /// Look at this address and answer with [`crate::event::What::Address`].
    Settle(crate::address::Site),
    /// Read the PID file of this path, as this service means it where one is named, and answer with
    /// [`crate::event::What::PidFile`].
    ReadPidFile(String, Option<String>),
    /// Look at this process and answer with [`crate::event::What::Process`].
    Look(ProcId),
    /// The kernel shall report this process and its future children.
    Supervise(ProcId, Nanos),
    /// It belongs to one more service from now on, or to its first: to be kept for the next run of probe.
    Member(ProcId),
    /// It belongs to none any more, and is to be reported no longer.
    Forget(ProcId),
    /// Read everything declared anew and answer with [`crate::event::What::Snapshot`].
    Resync(crate::event::SnapshotReason),
    /// The same, unless the processes that were to be supervised with this are as the snapshot has shown them, and have made no
    /// child since then: the kernel was not following them yet.
    Recheck(crate::event::SnapshotReason),
}
