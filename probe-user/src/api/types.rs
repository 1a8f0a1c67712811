//! The answers of the API, as JSON: shared by the server, the client and the OpenAPI document.
//!
//! Fields are only added within one `v`; readers ignore those that they do not know. Absent facts are `null`. Times named
//! `boot_ns` or `…_ns` count nanoseconds on the boot clock, or are durations in nanoseconds where they say so; `at` is
//! RFC 3339.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    address::Address,
    clock::Nanos,
    engine::finding::{FindingState, Kind, Severity},
    event::{Process, SocketState},
    hooks::status::HookStatus,
};

/// The version of the answers.
pub const V: u32 = 1;

/// A process, or who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRef {
    pub pid: u32,
    /// When it started, on the boot clock: pid and start together are its identity.
    pub start_ns: Nanos,
    pub exe: Option<String>,
    pub comm: String,
    pub uid: Option<u32>,
    pub unit: Option<String>,
    pub parent: Option<PidRef>,
}

/// A pid alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PidRef {
    pub pid: u32,
}

impl From<&Process> for ProcessRef {
    fn from(p: &Process) -> Self {
        Self {
            pid: p.id.pid,
            start_ns: p.start,
            exe: p.exe.clone(),
            comm: p.comm.clone(),
            uid: p.uid,
            unit: p.unit.clone(),
            parent: p.parent.map(|id| PidRef { pid: id.pid }),
        }
    }
}

/// `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Services {
    pub v: u32,
    /// The stream's epoch, and the number of its last line before this answer: whoever reads on from there misses nothing.
    pub epoch: String,
    pub cursor: u64,
    /// Whether verdicts can be given now.
    pub probe: ProbeStatus,
    pub services: Vec<ServiceStatus>,
}

/// `GET /v1/services/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OneService {
    pub v: u32,
    pub epoch: String,
    pub cursor: u64,
    pub service: ServiceStatus,
}

/// What is true of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// At least one finding is open.
    Finding,
    /// Events were lost, or the first snapshot is not in yet.
    Unknown,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    pub service: String,
    pub verdict: Verdict,
    /// Declared in the configuration, not discovered.
    pub expected: bool,
    pub main: Option<ProcessRef>,
    /// Since when the main process is the main one, on the boot clock.
    pub main_since_ns: Option<Nanos>,
    /// Living instances that count.
    pub instances: u32,
    /// Living processes.
    pub members: u32,
    /// Lives of the main process so far; 0: it was never seen.
    pub generation: u64,
    /// Generations after the first; survives a restart of probe.
    pub restarts: u64,
    /// Every declared address has been served in this generation.
    pub ready: bool,
    pub listeners: Vec<ListenerStatus>,
    pub pid_file: Option<String>,
    pub unit: Option<String>,
    /// Time since the last sign of life. `null`: none is declared, or none was seen.
    pub heartbeat_age_ns: Option<u64>,
    /// Somebody asked it to stop, and it lives on.
    pub stopping: Option<Stopping>,
    /// How the last main process ended.
    pub last_end: Option<EndStatus>,
    /// Whoever restarts it has stopped trying.
    pub gave_up: bool,
    /// Open findings, those of one cause next to each other.
    pub findings: Vec<FindingStatus>,
    pub silenced: Option<Silence>,
    /// How each subject is captured.
    pub tier: BTreeMap<String, String>,
    /// What can never be seen of it here.
    pub cannot_see: Vec<String>,
}

/// A declared address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerStatus {
    pub address: Address,
    pub state: ListenerState,
    /// Who holds it; the first where several do.
    pub holder: Option<ProcessRef>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// Connections that wait to be accepted, when the kernel was last asked.
    pub queue: Option<u32>,
    /// How many may.
    pub limit: Option<u32>,
    /// Since when it is known, on the boot clock.
    pub since_ns: Option<Nanos>,
}

/// How a declared address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerState {
    /// Whoever asks for the address reaches a listener, or a bound datagram socket.
    Listening,
    /// Bound, and `listen` was not called.
    Bound,
    /// `shutdown` was called on it.
    ShutDown,
    /// A live listener, and the path leads elsewhere or nowhere.
    Orphaned,
    /// A socket file without a live socket.
    Stale,
    /// Nothing is bound.
    Absent,
    /// The kernel could not be asked, or was not yet.
    Unknown,
}

impl From<SocketState> for ListenerState {
    fn from(state: SocketState) -> Self {
        match state {
            SocketState::Listening => Self::Listening,
            SocketState::Bound => Self::Bound,
            SocketState::ShutDown => Self::ShutDown,
        }
    }
}

/// A stop that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopping {
    pub since_ns: Nanos,
    /// `with TERM by kill (990)`.
    pub asked: String,
}

/// How a main process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndStatus {
    pub process: ProcessRef,
    pub boot_ns: Nanos,
    /// `was killed by KILL from bash (990)`.
    pub how: String,
    /// It was asked to stop, or stopped itself in good order.
    pub asked: bool,
}

/// An open finding: the fields of its line in the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FindingStatus {
    pub id: String,
    pub state: FindingState,
    pub kind: Kind,
    pub service: String,
    pub severity: Severity,
    pub subject: String,
    pub cause: String,
    /// When its cause happened.
    pub at: String,
    pub boot_ns: Nanos,
    pub actor: Option<ProcessRef>,
    pub summary: String,
    pub evidence: Vec<u64>,
    /// More fields that the kind has.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
}

/// `GET /v1/findings`: what is open, over all services, and that probe is blind where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    pub v: u32,
    pub epoch: String,
    pub cursor: u64,
    pub findings: Vec<FindingStatus>,
}

/// Hooks and healing rest for a service; findings still open and show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Silence {
    pub id: u64,
    pub service: String,
    pub reason: String,
    /// Who asked for it: the user id.
    pub by_uid: Option<u32>,
    /// RFC 3339.
    pub since: String,
    pub until: String,
}

/// `GET /v1/silences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Silences {
    pub v: u32,
    pub silences: Vec<Silence>,
}

/// `POST /v1/silences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSilence {
    pub service: String,
    /// For how many seconds; at least 1.
    pub seconds: u64,
    pub reason: String,
}

/// Of probe itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeStatus {
    pub version: String,
    pub process: PidRef,
    /// When the daemon began, on the boot clock.
    pub since_ns: Nanos,
    /// The first snapshot has been joined with the events.
    pub joined: bool,
    /// The finding that events were lost, while it is open.
    pub blind: Option<FindingStatus>,
    /// Events lost since the daemon began, by source.
    pub lost: BTreeMap<String, u64>,
    /// How each subject is captured.
    pub tier: BTreeMap<String, String>,
    /// Whether the programs outlive the daemon. `null`: an older probe answers.
    #[serde(default)]
    pub pinned: Option<PinStatus>,
    /// What can't be watched for want of something (inotify watches, mostly), and why: only snapshots see it, and each tries again.
    #[serde(default)]
    pub unwatched: BTreeMap<String, String>,
    /// When the configuration was last read, on the boot clock, and how often it was since the daemon began.
    pub loaded_ns: Nanos,
    pub reloads: u64,
    /// Why the last reload changed nothing, where it was refused.
    pub reload_error: Option<String>,
    /// `null`: an older probe answers.
    #[serde(default)]
    pub history: Option<HistoryStatus>,
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// Those that are not over.
    #[serde(default)]
    pub silences: Vec<Silence>,
}

/// Whether what happens while no daemon runs is told by the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinStatus {
    /// Where programs and maps are pinned. `null`: nowhere.
    pub directory: Option<String>,
    /// Why they are not, or not all of them.
    pub why_not: Option<String>,
}

/// How the history does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryStatus {
    pub state: HistoryState,
    /// Why it is not written. It is tried again.
    pub error: Option<String>,
    /// What an administrator should know of its beginning: that a damaged one was set aside, and where.
    pub notices: Vec<String>,
    /// Lines written, and lines that never will be, since the daemon began.
    pub written: u64,
    pub lost: u64,
    /// Lines that wait to be written.
    pub waiting: u64,
    /// Of the database.
    pub bytes: u64,
    /// When its oldest line was said: RFC 3339.
    pub oldest: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HistoryState {
    /// The database is being checked.
    Opening,
    Writing,
    Failing,
}

/// `POST /v1/hooks/{name}/test`: what became of the sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookTested {
    pub v: u32,
    pub hook: String,
    /// `ok`, `failed`, `timeout`.
    pub outcome: String,
    /// Exit code, HTTP status, error.
    pub detail: String,
    /// Of a program; 124: its time was over.
    pub exit_code: Option<i32>,
    /// The last of what the program wrote.
    pub output: String,
}

/// `GET /healthz` and `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    pub v: u32,
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    pub v: u32,
    /// Whether anything is different now.
    pub changed: bool,
    pub services: u32,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Declared in another way than before; their state began anew or was kept as far as it still holds.
    pub modified: Vec<String>,
    /// Keys whose new value counts only after a restart of the daemon.
    pub after_restart: Vec<String>,
}

/// A line of `GET /v1/events` that the daemon's stream itself has to say: `{"type":"lost","source":"stream",…}`. Losses
/// before the stream have another source, and the same fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostLine {
    pub v: u32,
    pub r#type: LostType,
    /// `stream`: this client was too slow, or asked for what is no longer kept. `epoch`: the daemon began anew since.
    pub source: String,
    /// `null`: it cannot be known.
    pub count: Option<u64>,
    pub epoch: String,
    /// Whoever goes on from here is told of this loss no more.
    pub cursor: u64,
}

/// Always `lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LostType {
    #[default]
    Lost,
}

/// Every answer that is none: 4xx and 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    pub v: u32,
    /// One sentence: what is wrong, what was expected, what to do.
    pub error: String,
}

/// A place in the stream: `EPOCH.NUMBER`, or `NUMBER` alone, which is one of the daemon's present epoch. The value of
/// `?since=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: Option<String>,
    pub cursor: u64,
}

/// No place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no cursor; expected EPOCH.NUMBER or NUMBER, as the fields `epoch` and `cursor` of a line tell"
)]
pub struct CursorError(String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.epoch {
            Some(epoch) => write!(f, "{epoch}.{}", self.cursor),
            None => write!(f, "{}", self.cursor),
        }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let wrong = || CursorError(text.chars().take(100).collect());
        let (epoch, number) = match text.rsplit_once('.') {
            Some((epoch, number)) if !epoch.is_empty() => (Some(epoch.to_owned()), number),
            Some(_) => return Err(wrong()),
            None => (None, text),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let cursor = number.parse().map_err(|_| wrong())?;
        Ok(Self { epoch, cursor })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip() {
        for text in ["1a-2b.41", "41", "0", "a.b.7"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in [
            "",
            ".",
            ".4",
            "e.",
            "e.-1",
            "e.+1",
            "99999999999999999999",
            "e.1x",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_reader_ignores_what_it_does_not_know() {
        let health: Health = serde_json::from_str(r#"{"v":1,"ok":true,"reason":null,"news":3}"#).unwrap();
        assert!(health.ok);
    }
}
