//! What the engine's thread can be asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::{mpsc::error::TrySendError, oneshot};

use crate::{
    clock::Nanos,
    config::{Config, Service},
    engine::{finding::Finding, view::ServiceView},
    event::Event,
    kernel::Pinned,
};

/// A question, or something to be told.
#[derive(Debug)]
pub(super) enum Ask {
    /// Of all services, or of one; `None` where there is no such service.
    Picture(Option<String>, oneshot::Sender<Option<Picture>>),
    Reload(Box<Config>, oneshot::Sender<Result<Changes, String>>),
    Tell(Box<Event>),
    Ping(oneshot::Sender<()>),
    Stop,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("the engine has too many questions to answer: ask again later")]
    Busy,
    #[error("the engine has not answered within {0:?}: ask again later")]
    Slow(Duration),
    #[error("the engine has ended")]
    Gone,
}

impl AskError {
    #[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
    pub(super) fn of<T>(e: TrySendError<T>) -> Self {
        match e {
            TrySendError::Full(_) => Self::Busy,
            TrySendError::Closed(_) => Self::Gone,
        }
    }
}

/// Everything that is known at one moment.
#[derive(Debug, Clone)]
pub struct Picture {
    pub at: Nanos,
    /// What makes a boot-clock time a wall-clock time, in nanoseconds.
    pub wall_offset_ns: i64,
    /// The last line of the stream before it.
    pub cursor: u64,
    pub joined: bool,
    pub can_judge: bool,
    /// That events were lost, while that is so.
    pub blind: Option<Finding>,
    /// Events lost since the start, by source.
    pub lost: BTreeMap<String, u64>,
    /// How each subject is captured.
    pub tier: BTreeMap<String, String>,
    /// Records that the programs have written.
    pub records: u64,
    /// Whether the programs outlive this daemon.
    pub pinned: Pinned,
    /// What can't be watched, and why.
    pub unwatched: BTreeMap<String, String>,
    /// Each with what cannot be seen of it.
    pub services: Vec<(ServiceView, Vec<String>)>,
}

/// What another configuration has changed, by names of services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub modified: Vec<String>,
    /// Keys that count only after a restart.
    pub after_restart: Vec<String>,
    /// Something else than services has changed.
    pub other: bool,
}

impl Changes {
    pub fn between(before: &Config, now: &Config) -> Self {
        let by_name = |c: &Config| -> BTreeMap<String, Service> {
            c.services.iter().map(|s| (s.name.clone(), s.clone())).collect()
        };
        let (old, new) = (by_name(before), by_name(now));
        let names = |c: &BTreeMap<String, Service>| -> BTreeSet<String> { c.keys().cloned().collect() };
        let (old_names, new_names) = (names(&old), names(&new));
        let both = old_names.intersection(&new_names);
        Self {
            added: new_names.difference(&old_names).cloned().collect(),
            removed: old_names.difference(&new_names).cloned().collect(),
            modified: both.filter(|n| old.get(*n) != new.get(*n)).cloned().collect(),
            after_restart: after_restart(before, now),
            other: before.probe != now.probe || before.hooks != now.hooks || before.limits != now.limits,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty() && !self.other
    }
}

fn after_restart(before: &Config, now: &Config) -> Vec<String> {
    let (b, n) = (&before.probe, &now.probe);
    [
        ("probe.socket", b.socket != n.socket),
        ("probe.group", b.group != n.group),
        ("probe.api_tcp", b.api_tcp != n.api_tcp),
        ("probe.state_dir", b.state_dir != n.state_dir),
        ("probe.tier", b.tier != n.tier),
        ("probe.keep_pinned", b.keep_pinned != n.keep_pinned),
        ("probe.pin_dir", b.pin_dir != n.pin_dir),
        ("probe.ring", b.ring != n.ring),
        ("probe.realtime", b.realtime != n.realtime),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named() {
        let mut before = Config {
            services: ["a", "b", "c"].map(Service::named).into(),
            ..Config::default()
        };
        let mut now = before.clone();
        assert!(Changes::between(&before, &now).is_empty());
        now.services.remove(0);
        now.services[0].expected = !now.services[0].expected;
        now.services.push(Service::named("d"));
        now.probe.socket = "/run/other.sock".into();
        let changes = Changes::between(&before, &now);
        assert_eq!(changes.added, ["d"]);
        assert_eq!(changes.removed, ["a"]);
        assert_eq!(changes.modified, ["b"]);
        assert_eq!(changes.after_restart, ["probe.socket"]);
        before
            .limits
            .insert("git".into(), crate::config::Span(Duration::from_secs(1)));
        let mut no_limits = before.clone();
        no_limits.limits.clear();
        assert!(!Changes::between(&before, &no_limits).is_empty());
    }
}
