//! What a reclaim says: each step with its reason, and at the end whether the service can start.

use std::fmt;

use serde::Serialize;

use crate::{event::Process, signal::Signal};

/// What was done, found or left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "act")]
#[non_exhaustive]
pub enum Act {
    /// Nothing was done; something to know.
    Found,
    /// A process is to be ended, or would be.
    End,
    Signal {
        signal: Signal,
    },
    /// Everything in a control group was killed at once.
    KillGroup,
    Ended,
    /// A file was removed, or would be.
    Remove,
    /// It was not touched, because nothing asks for it or because of a doubt.
    Leave,
    /// It is a target that could only be a mistake.
    Refuse,
    /// It was to be done, and could not be.
    Fail,
}

/// One step.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub service: String,
    #[serde(flatten)]
    pub act: Act,
    /// `process 812 (/usr/bin/annad)`, `unix:/run/annad.sock`, `/run/annad.pid`, `/system.slice/annad.service`.
    pub subject: String,
    pub pid: Option<u32>,
    pub reason: String,
    /// Nothing was done.
    pub dry_run: bool,
}

/// How it ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub service: String,
    /// The service can start now; after a dry run: could.
    pub can_start: bool,
    /// What keeps it from starting, one a line.
    pub in_the_way: Vec<String>,
    /// Processes that were ended, and how many of them only by SIGKILL.
    pub ended: usize,
    pub killed: usize,
    /// Paths that were removed.
    pub removed: Vec<String>,
    pub dry_run: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would " } else { "" };
        match &self.act {
            Act::Found => write!(f, "{}: {}", self.subject, self.reason),
            Act::End => write!(f, "{would}end {}: {}", self.subject, self.reason),
            Act::Signal { signal } => write!(f, "sent {signal} to {}: {}", self.subject, self.reason),
            Act::KillGroup => write!(f, "killed all of {}: {}", self.subject, self.reason),
            Act::Ended => write!(f, "{} has ended", self.subject),
            Act::Remove if self.dry_run => write!(f, "would remove {}: {}", self.subject, self.reason),
            Act::Remove => write!(f, "removed {}: {}", self.subject, self.reason),
            Act::Leave => write!(f, "left {} alone: {}", self.subject, self.reason),
            Act::Refuse => write!(f, "refused to touch {}: {}", self.subject, self.reason),
            Act::Fail => write!(f, "failed with {}: {}", self.subject, self.reason),
        }
    }
}

/// `process 812 (/usr/bin/annad)`
pub(super) fn name(process: &Process) -> String {
    let what = process.exe.as_deref().unwrap_or(&process.comm);
    format!("process {} ({what})", process.id.pid)
}
