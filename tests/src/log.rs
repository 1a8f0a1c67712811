//! What `probe` printed: its JSON contract, as a reader outside the project would read it.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use serde_json::Value;

use crate::clock::Deadline;

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    pub raw: String,
    pub value: Value,
}

impl Line {
    pub fn parse(raw: String) -> Self {
        let value = serde_json::from_str(&raw).unwrap_or(Value::Null);
        Self { raw, value }
    }

    /// `watching`, `event`, `finding`, `lost`; empty for a line that is no JSON.
    pub fn kind(&self) -> &str {
        self.value["type"].as_str().unwrap_or_default()
    }

    /// Of a finding, its kind.
    pub fn finding_kind(&self) -> Option<&str> {
        (self.kind() == "finding").then(|| self.value["kind"].as_str())?
    }

    pub fn finding(&self) -> Option<Finding> {
        (self.kind() == "finding").then(|| {
            serde_json::from_value(self.value.clone())
                .unwrap_or_else(|e| panic!("this finding breaks the contract, {e}: {}", self.raw))
        })
    }
}

/// A `finding` line.
#[derive(Debug, Clone, Deserialize)]
pub struct Finding {
    pub id: String,
    pub state: String,
    pub kind: String,
    pub service: String,
    pub severity: String,
    pub subject: String,
    pub cause: String,
    pub boot_ns: u64,
    pub detected_after_ns: u64,
    pub actor: Option<Actor>,
    pub summary: String,
    pub evidence: Vec<u64>,
}

/// Who did it.
#[derive(Debug, Clone, Deserialize)]
pub struct Actor {
    pub pid: u32,
    pub exe: Option<String>,
    pub comm: Option<String>,
    pub uid: Option<u32>,
}

impl Finding {
    /// The actor; a finding without one fails the test.
    #[track_caller]
    pub fn actor(&self) -> &Actor {
        self.actor
            .as_ref()
            .unwrap_or_else(|| panic!("{} names no actor: {}", self.kind, self.summary))
    }

    /// Fails unless the summary, which is what a person reads, says this.
    #[track_caller]
    pub fn says(&self, text: impl ToString) -> &Self {
        let text = text.to_string();
        assert!(
            self.summary.contains(&text),
            "the summary of {} does not say {text:?}: {}",
            self.kind,
            self.summary
        );
        self
    }

    /// Fails unless the actor is that process.
    #[track_caller]
    pub fn by(&self, pid: u32) -> &Self {
        assert_eq!(self.actor().pid, pid, "actor of {}: {}", self.kind, self.summary);
        self
    }
}

/// Lines as they come, shared between the thread that reads and the test that waits.
#[derive(Debug, Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    ended: bool,
}

/// Why a line did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSeen {
    InTime,
    BeforeTheEnd,
}

impl Log {
    /// Reads until the end.
    pub(crate) fn fill(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.lock().lines.push(Line::parse(line));
            self.more.notify_all();
        }
        self.lock().ended = true;
        self.more.notify_all();
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().lines.len()
    }

    /// Waits until `find` makes something of the lines from the `from`th on.
    pub(crate) fn wait<T>(
        &self,
        from: usize,
        deadline: Deadline,
        find: impl Fn(&[Line]) -> Option<T>,
    ) -> Result<T, NotSeen> {
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&state.lines[from..]) {
                return Ok(found);
            }
            if state.ended {
                return Err(NotSeen::BeforeTheEnd);
            }
            let left = deadline.left().ok_or(NotSeen::InTime)?;
            state = self
                .more
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
