//! Alert hooks: who is told of findings, and how.
//!
//! Each hook is a task of its own that reads the stream, decides ([`router`]) and tells ([`exec`], [`webhook`],
//! [`journal`]); what waits is kept ([`pending`]). A hook that fails or hangs delays no other one, and never the engine.

pub mod backoff;
mod deliver;
pub mod exec;
pub mod journal;
pub mod notification;
pub mod pending;
mod queue;
pub mod router;
pub mod rule;
mod sample;
mod sender;
pub mod status;
mod task;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod webhook;

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::timeout};

pub use self::sender::Attempt;
use self::{
    deliver::RETRY_FOR,
    pending::{Entry, Pending, Silences},
    rule::Rule,
    sender::Sender,
    status::{Board, HookStatus},
    task::{Running, Task},
};
use crate::{
    config::{Config, Hook, Service},
    engine::finding::{EventKind, Finding, Kind},
    report::{self, KindName, LineType},
    stream::{Filter, Start, Stream},
};

/// Everything that hooks need of the daemon. Clones are the same.
#[derive(Debug, Clone)]
pub struct World {
    /// Read for findings; what hooks did is said there.
    pub stream: Stream,
    pub pending: Arc<dyn Pending>,
    pub silences: Arc<dyn Silences>,
    pub open: Arc<dyn OpenFindings>,
}

/// Asks the engine.
pub trait OpenFindings: Send + Sync + std::fmt::Debug {
    /// Every finding that is open now. `None`: that cannot be known now.
    fn open(&self) -> Pin<Box<dyn Future<Output = Option<Vec<Finding>>> + Send + '_>>;
}

/// All hooks, running.
#[derive(Debug)]
pub struct Hooks {
    world: World,
    all: Vec<One>,
}

#[derive(Debug)]
struct One {
    label: String,
    hook: Hook,
    units: Units,
    sender: Sender,
    board: Board,
    task: Option<Running>,
}

/// What stops a hook from being tested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error("no hook is named {name:?}; there {}", list(known))]
    Unknown { name: String, known: Vec<String> },
    #[error("{0}")]
    Bad(String),
}

fn list(known: &[String]) -> String {
    match known {
        [] => "are none; give one a `name` in a [[hook]] table".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

impl Hooks {
    /// Starts every hook of a configuration, with what waits from before. To be called in a tokio runtime. `start`:
    /// from where on the stream is read.
    pub fn start(config: &Config, world: World, start: Start) -> Self {
        let mut hooks = Self {
            world,
            all: Vec::new(),
        };
        hooks.begin(config, Vec::new(), &start);
        hooks
    }

    /// Hooks that are declared as before go on as if nothing had happened.
    pub async fn reload(&mut self, config: &Config) {
        let labels: Vec<String> = labels(config);
        let (keep, end): (Vec<One>, Vec<One>) = self.all.drain(..).partition(|one| {
            let at = labels.iter().position(|l| *l == one.label);
            at.is_some_and(|at| config.hooks[at] == one.hook && units(&config.hooks[at], config) == one.units)
        });
        stop_all(end, Duration::from_secs(1)).await;
        self.begin(config, keep, &Start::Now);
    }

    fn begin(&mut self, config: &Config, mut kept: Vec<One>, start: &Start) {
        let entries = match self.world.pending.load() {
            Ok(entries) => entries,
            Err(e) => {
                tracing::error!("{e}");
                Vec::new()
            }
        };
        for (i, hook) in config.hooks.iter().enumerate() {
            let label = hook.label(i);
            if let Some(at) = kept.iter().position(|one| one.label == label) {
                self.all.push(kept.swap_remove(at));
                continue;
            }
            match Sender::new(&label, hook, &units(hook, config)) {
                Ok(sender) => {
                    let mine = entries.iter().filter(|e| e.hook == label).cloned().collect();
                    self.all
                        .push(self.one(label, hook, sender, config, mine, start.clone()));
                }
                Err(why) => tracing::error!("{why}"),
            }
        }
        let labels = labels(config);
        let gone: Vec<Entry> = entries
            .into_iter()
            .filter(|e| !labels.contains(&e.hook))
            .collect();
        self.forget(gone);
    }

    /// Drops what was kept for hooks that are not declared any more.
    fn forget(&self, gone: Vec<Entry>) {
        let mut by_hook: BTreeMap<String, Vec<pending::Change>> = BTreeMap::new();
        for entry in gone {
            let remove = pending::Change::Remove { key: entry.key };
            by_hook.entry(entry.hook).or_default().push(remove);
        }
        for (hook, changes) in by_hook {
            tracing::warn!(
                "{} entries that waited for the hook {hook} are dropped: it is not declared any more",
                changes.len()
            );
            let pending = Arc::clone(&self.world.pending);
            // It waits for the disk.
            tokio::task::spawn_blocking(move || {
                if let Err(e) = pending.change(&hook, &changes) {
                    tracing::error!("{e}");
                }
            });
        }
    }

    fn one(
        &self,
        label: String,
        hook: &Hook,
        sender: Sender,
        config: &Config,
        entries: Vec<Entry>,
        start: Start,
    ) -> One {
        let board = Board::new(&label, sender.way());
        let task = Task {
            label: label.clone(),
            sender: sender.clone(),
            rule: Rule::from(hook),
            retry_for: hook.retry_for.map_or(RETRY_FOR, |s| s.0),
            board: board.clone(),
            world: self.world.clone(),
            entries,
            inherit_for: inherit_for(&config.services),
        };
        let sub = self.world.stream.subscribe(start, filter());
        let (stop, stopped) = oneshot::channel();
        let handle = tokio::spawn(task.run(sub, stopped));
        One {
            label,
            hook: hook.clone(),
            units: units(hook, config),
            sender,
            board,
            task: Some(Running {
                stop: Some(stop),
                handle,
            }),
        }
    }

    /// How each hook fares, in the order of the configuration.
    pub fn status(&self) -> Vec<HookStatus> {
        self.all.iter().map(|one| one.board.get()).collect()
    }

    /// Prepares a sample for a hook: what is returned sends it, once, beside whatever the hook is doing.
    ///
    /// # Errors
    /// There is no such hook.
    pub fn test(
        &self,
        name: &str,
    ) -> Result<impl Future<Output = Attempt> + Send + 'static + use<>, HookError> {
        let known = || self.all.iter().map(|one| one.label.clone()).collect();
        let one = self.all.iter().find(|one| one.label == name);
        let one = one.ok_or_else(|| HookError::Unknown {
            name: name.to_owned(),
            known: known(),
        })?;
        let (sender, n) = (one.sender.clone(), sample::notification(&one.label, &one.hook));
        Ok(async move { sender.send(&n).await })
    }

    /// Ends all hooks: what is being told is given a moment, what waits is told after the next start.
    pub async fn stop(self, limit: Duration) {
        stop_all(self.all, limit).await;
    }
}

async fn stop_all(all: Vec<One>, limit: Duration) {
    let mut tasks: Vec<Running> = all.into_iter().filter_map(|one| one.task).collect();
    for task in &mut tasks {
        if let Some(stop) = task.stop.take() {
            // A task that has ended by itself hears nothing.
            _ = stop.send(());
        }
    }
    let all_ended = async {
        for task in &mut tasks {
            _ = (&mut task.handle).await;
        }
    };
    if timeout(limit, all_ended).await.is_err() {
        for task in tasks {
            task.handle.abort();
        }
    }
}

/// Sends a sample through a hook of a configuration, without a daemon.
///
/// # Errors
/// There is no such hook, or its declaration is wrong.
pub async fn test_directly(config: &Config, name: &str) -> Result<Attempt, HookError> {
    let labels = labels(config);
    let at = labels.iter().position(|l| l == name);
    let at = at.ok_or_else(|| HookError::Unknown {
        name: name.to_owned(),
        known: labels.clone(),
    })?;
    let hook = &config.hooks[at];
    let sender = Sender::new(name, hook, &units(hook, config)).map_err(HookError::Bad)?;
    Ok(sender.send(&sample::notification(name, hook)).await)
}

/// The unit of each service that has one.
type Units = BTreeMap<String, String>;

/// Only the journal wants to know.
fn units(hook: &Hook, config: &Config) -> Units {
    let unit = |s: &Service| Some((s.name.clone(), s.unit.clone()?));
    let services = config.services.iter().filter(|_| hook.journal);
    services.filter_map(unit).collect()
}

fn labels(config: &Config) -> Vec<String> {
    config.hooks.iter().enumerate().map(|(i, h)| h.label(i)).collect()
}

/// Findings, and that silences have changed.
fn filter() -> Filter {
    let findings = Kind::ALL.into_iter().map(KindName::Finding);
    Filter {
        services: Vec::new(),
        lines: report::Filter {
            only: vec![LineType::Finding, LineType::Event],
            kinds: findings.chain([KindName::Event(EventKind::Action)]).collect(),
        },
    }
}

/// How long the slowest rule may take to find again what it had found before probe was started anew.
fn inherit_for(services: &[Service]) -> Duration {
    let slowest = services.iter().flat_map(|s| {
        let beat = s.heartbeat.as_ref().map(|h| h.stale_after);
        [
            s.ready_within,
            s.overlap,
            s.accept_within,
            s.signal_within,
            s.stop_within,
            s.relisten_within,
        ]
        .into_iter()
        .chain(beat)
    });
    slowest.max().unwrap_or_default() + Duration::from_secs(10)
}
