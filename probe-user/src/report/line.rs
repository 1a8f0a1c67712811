//! Lines of the JSON contract, as a program reads them: from the daemon's stream, from the history, and for the JSON schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    address::Address,
    api::types::{FindingStatus, PidRef, ProcessRef, V},
    clock::Nanos,
    engine::finding::{FindingState, Kind, Severity},
    event::TimeSource,
};

/// One line of `probe watch --json`, `probe replay --json`, `probe history --json` or `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    Watching(WatchingLine),
    Event(Box<EventLine>),
    Finding(Box<FindingLine>),
    Lost(LostLine),
}

/// What is watched of a service; said before its first event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WatchingLine {
    pub v: u32,
    pub service: String,
    pub listen: Vec<Address>,
    pub pid_file: Option<String>,
    pub main: Option<PidRef>,
    /// How each subject is captured.
    pub tier: BTreeMap<String, String>,
    /// What can never be seen of it here.
    pub cannot_see: Vec<String>,
}

/// Something that happened. More fields tell the facts of its kind: `signal`, `code`, `status`, …
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventLine {
    pub v: u32,
    /// Its number within the epoch, which `evidence` of findings names. `null`: probe itself did it (`action`).
    pub seq: Option<u64>,
    /// Changes whenever numbering begins anew.
    pub epoch: String,
    /// RFC 3339.
    pub at: String,
    pub boot_ns: Nanos,
    pub time_source: TimeSource,
    /// `null`: it concerns probe as a whole.
    pub service: Option<String>,
    pub kind: String,
    pub process: Option<ProcessRef>,
    /// What it is about besides the process: an address, a path.
    pub subject: Option<String>,
    pub actor: Option<ProcessRef>,
    /// One sentence for a person; only in lines of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Its place in the daemon's stream; only in lines of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

/// A turn in the life of a finding. More fields tell the facts of its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FindingLine {
    pub v: u32,
    pub id: String,
    pub state: FindingState,
    pub kind: Kind,
    pub service: String,
    pub severity: Severity,
    pub subject: String,
    /// The same for all findings that one cause opened.
    pub cause: String,
    /// When its cause happened: RFC 3339.
    pub at: String,
    pub boot_ns: Nanos,
    /// From the cause to this line. `null`: it was open already when this reader came.
    pub detected_after_ns: Option<u64>,
    pub actor: Option<ProcessRef>,
    pub summary: String,
    /// `seq` of the events that it rests on.
    pub evidence: Vec<u64>,
    /// What ended it.
    pub resolution: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

impl From<&FindingStatus> for FindingLine {
    fn from(f: &FindingStatus) -> Self {
        Self {
            v: V,
            id: f.id.clone(),
            state: f.state,
            kind: f.kind,
            service: f.service.clone(),
            severity: f.severity,
            subject: f.subject.clone(),
            cause: f.cause.clone(),
            at: f.at.clone(),
            boot_ns: f.boot_ns,
            detected_after_ns: None,
            actor: f.actor.clone(),
            summary: f.summary.clone(),
            evidence: f.evidence.clone(),
            resolution: None,
            epoch: None,
            cursor: None,
            facts: f.facts.clone(),
        }
    }
}

/// Something is missing here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LostLine {
    pub v: u32,
    /// `stream`: this reader was too slow, or asked for what is no longer kept. `epoch`: the daemon began anew since.
    /// `history`: lines could not be written. Any other: events of that source were lost before the engine saw them.
    pub source: String,
    /// `null`: it cannot be known.
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}
