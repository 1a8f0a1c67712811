//! What is said, in order, for as many readers as there are: each reads at its own pace, none slows the one who speaks.
//!
//! Lines are numbered without gaps. The newest are kept, bounded in number and bytes; a reader that falls behind them is
//! told exactly how many of those that it wanted are gone. See [`Stream`] and [`Subscription`].

mod kept;
mod sort;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use serde::Serialize;
use serde_json::{Map, Value};

use self::{kept::Kept, sort::Sort};
pub use self::{
    kept::Limits,
    sort::Filter,
    subscription::{Next, Start, Subscription},
};
use crate::{
    clock::{self, Nanos},
    engine::{
        Effect,
        finding::{Finding, Shown},
    },
    report,
};

/// Something that was said.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Event(Box<Shown>),
    Finding(Box<Finding>),
    /// Events were lost on their way to the engine.
    Lost {
        source: String,
        count: u64,
    },
    Action(Box<Action>),
}

/// What probe itself did or tried. An event of kind `action`.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// When it was over.
    pub at: Nanos,
    /// `None`: it concerns probe as a whole.
    pub service: Option<String>,
    pub what: ActionKind,
    /// What it was done with or to: a hook's name, a silence's id, a path.
    pub subject: Option<String>,
    /// The `id` of the finding that led to it.
    pub cause: Option<String>,
    pub outcome: Outcome,
    /// One sentence for a person.
    pub summary: String,
    /// More fields of the line, by name.
    pub facts: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// A hook ran.
    Hook,
    /// A service was started anew.
    Restart,
    /// What a service had left behind was removed.
    Reclaim,
    /// A silence began or ended.
    Silence,
    /// The configuration was read anew.
    Reload,
    /// The history was set aside, trimmed or could not be written.
    History,
    /// What an earlier daemon had left in the kernel was gone on with.
    Takeover,
}

impl ActionKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Restart => "restart",
            Self::Reclaim => "reclaim",
            Self::Silence => "silence",
            Self::Reload => "reload",
            Self::History => "history",
            Self::Takeover => "takeover",
        }
    }
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    Failed,
    /// Its time limit ended it.
    Timeout,
    /// It was not even tried: a limit, a full queue.
    Dropped,
    /// It was found not to be safe, or not to be allowed.
    Refused,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
        }
    }
}

impl Said {
    /// What of an effect is to be said. `None`: it is a wish.
    pub fn of(effect: Effect) -> Option<Self> {
        match effect {
            Effect::Show(shown) => Some(Self::Event(shown)),
            Effect::Find(finding) => Some(Self::Finding(finding)),
            Effect::Lost { source, count } => Some(Self::Lost { source, count }),
            _ => None,
        }
    }

    /// The service that it is about. `None`: it is about no single one.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Event(shown) => Some(&shown.service),
            Self::Finding(finding) => Some(&finding.service),
            Self::Lost { .. } => None,
            Self::Action(action) => action.service.as_deref(),
        }
    }
}

/// One line of the stream.
#[derive(Debug)]
pub struct Line {
    /// Its number within the epoch; the first is 1, and there are no gaps.
    pub cursor: u64,
    /// When it was said.
    pub at: Nanos,
    pub said: Said,
    /// What makes a boot-clock time a wall-clock time, in nanoseconds, when it was said.
    pub wall_offset_ns: i64,
    epoch: Arc<str>,
    /// How much of the stream's memory it counts for.
    cost: usize,
    json: OnceLock<Box<[u8]>>,
}

impl Line {
    pub fn service(&self) -> Option<&str> {
        self.said.service()
    }

    /// Whose numbering [`Line::cursor`] is.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// As a line of JSON, with the line feed. Made when it is first asked for.
    pub fn json(&self) -> &[u8] {
        self.json.get_or_init(|| {
            let mut line = Vec::with_capacity(768);
            report::numbered(&mut line, self);
            line.into_boxed_slice()
        })
    }
}

/// The lines, and who waits for the next one. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct Stream {
    kept: Arc<Mutex<Kept>>,
    epoch: Arc<str>,
    wall_offset_ns: Arc<AtomicI64>,
}

/// The two clocks are read one after the other, so what lies between them seems to differ each time by as long as that
/// takes. Only a larger difference is one: the wall clock was set.
const SAME_OFFSET_NS: u64 = 1_000_000;

impl Stream {
    /// `epoch`: changes whenever the numbering begins anew.
    pub fn new(epoch: &str, limits: Limits) -> Self {
        Self {
            kept: Arc::new(Mutex::new(Kept::new(limits))),
            epoch: epoch.into(),
            wall_offset_ns: Arc::new(AtomicI64::new(clock::wall_offset())),
        }
    }

    /// What makes a boot-clock time a wall-clock time, in nanoseconds. The same each time, until the wall clock is set.
    pub fn wall_offset_ns(&self) -> i64 {
        let (known, now) = (self.wall_offset_ns.load(Ordering::Relaxed), clock::wall_offset());
        if known.abs_diff(now) < SAME_OFFSET_NS {
            return known;
        }
        self.wall_offset_ns.store(now, Ordering::Relaxed);
        now
    }

    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The number of the newest line; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.lock().newest()
    }

    pub fn push(&self, said: Said) {
        self.push_all([said]);
    }

    /// Says several things at once, which costs less.
    pub fn push_all(&self, said: impl IntoIterator<Item = Said>) {
        let (at, wall_offset_ns) = (clock::now(), self.wall_offset_ns());
        // Sizes are counted before anybody is kept waiting.
        let lines: Vec<(Sort, Line)> = said
            .into_iter()
            .map(|said| {
                let line = Line {
                    cursor: 0,
                    at,
                    wall_offset_ns,
                    epoch: self.epoch.clone(),
                    cost: sort::cost(&said),
                    said,
                    json: OnceLock::new(),
                };
                (Sort::of(&line.said), line)
            })
            .collect();
        if lines.is_empty() {
            return;
        }
        let (awake, gone) = {
            let mut kept = self.lock();
            for (sort, line) in lines {
                kept.push(sort, line);
            }
            (kept.take_awake(), kept.take_gone())
        };
        // What costs time is done while nobody waits for the lock.
        for notify in awake {
            notify.notify_one();
        }
        drop(gone);
    }

    /// Reads from `start` on what `filter` lets pass.
    pub fn subscribe(&self, start: Start, filter: Filter) -> Subscription {
        Subscription::new(self.clone(), start, filter)
    }

    /// Nothing more will be said: every reader comes to [`Next::End`] after what it has not read yet.
    pub fn close(&self) {
        let awake = self.lock().close();
        for notify in awake {
            notify.notify_one();
        }
    }

    /// What is kept of this stream, for the daemon's own state.
    pub fn figures(&self) -> Figures {
        self.lock().figures()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whoever panicked did so between two complete states.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub lines: usize,
    /// About as many as the lines take, their JSON included.
    pub bytes: usize,
    pub oldest: u64,
    pub newest: u64,
    pub readers: usize,
}
