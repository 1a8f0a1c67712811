//! How a hook fares: for the API, for `status`, and for metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stream::Outcome;

/// What a hook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Exec,
    Webhook,
    Alertmanager,
    Journal,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookStatus {
    pub hook: String,
    pub way: Way,
    /// Notifications that wait to be sent.
    pub waiting: u64,
    /// One is being sent.
    pub busy: bool,
    /// Attempts at that one that have failed so far.
    pub failed_attempts: u32,
    pub results: Results,
    pub last: Option<LastResult>,
    /// Why what waits would not survive a restart of probe.
    pub not_kept: Option<String>,
}

/// Notifications by what became of them, since the daemon began or the hook was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    pub ok: u64,
    pub failed: u64,
    pub timeout: u64,
    /// The queue was full.
    pub dropped: u64,
    /// Over before the rate limit let it pass.
    pub limited: u64,
    /// Over before the silence was.
    pub silenced: u64,
    /// Findings beyond those that one hook follows.
    pub overflow: u64,
}

impl Results {
    /// By name, for a metric's label.
    pub fn iter(&self) -> [(&'static str, u64); 7] {
        [
            ("ok", self.ok),
            ("failed", self.failed),
            ("timeout", self.timeout),
            ("dropped", self.dropped),
            ("limited", self.limited),
            ("silenced", self.silenced),
            ("overflow", self.overflow),
        ]
    }
}

/// How the last notification fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastResult {
    /// RFC 3339.
    pub at: String,
    /// `ok`, `failed`, `timeout`.
    pub outcome: String,
    /// Exit code, HTTP status, error; and what the program wrote.
    pub detail: String,
    /// The id of the finding.
    pub finding: String,
    pub attempts: u32,
}

/// Shared by the hook's task, who changes it, and whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Board(Arc<Mutex<HookStatus>>);

impl Board {
    pub(super) fn new(hook: &str, way: Way) -> Self {
        Self(Arc::new(Mutex::new(HookStatus {
            hook: hook.to_owned(),
            way,
            waiting: 0,
            busy: false,
            failed_attempts: 0,
            results: Results::default(),
            last: None,
            not_kept: None,
        })))
    }

    pub(super) fn get(&self) -> HookStatus {
        self.lock().clone()
    }

    pub(super) fn change(&self, f: impl FnOnce(&mut HookStatus)) {
        f(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, HookStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HookStatus {
    pub(super) fn count(&mut self, outcome: Outcome) {
        let results = &mut self.results;
        *match outcome {
            Outcome::Ok => &mut results.ok,
            Outcome::Failed | Outcome::Refused => &mut results.failed,
            Outcome::Timeout => &mut results.timeout,
            Outcome::Dropped => &mut results.dropped,
        } += 1;
    }
}
