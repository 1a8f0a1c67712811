//! `probe daemon`: one process that runs for years, whom people and monitoring systems ask.
//!
//! The [`engine`]'s thread owns the engine and pushes what it says into the stream. Everything else runs on one tokio thread
//! and reads the stream at its own pace: nobody can slow the engine.

pub mod acts;
pub mod ask;
mod configuration;
pub mod engine;
mod kept;
mod lock;
pub mod sandbox;
mod service_manager;
mod state;
mod stop;
mod takeover;
mod units;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{acts::Acts, configuration::ConfigWatch, engine::Handle, lock::Lock, stop::Stop};
pub use self::{
    configuration::Source,
    engine::{EngineThread, StartError},
    lock::LockError,
};
use crate::{
    api::{self, Api, ListenError, Listeners, ReloadRequest, Server, types::Reloaded},
    clock::{self, Nanos},
    config::{Config, TierChoice, load::ConfigError},
    history::{Store, StoreError, exporter},
    kernel::{LoadOptions, PinOptions, Tier},
    metrics::{self, Metrics, Timings},
    realtime,
    silence::book::Book,
    sources::process,
    spawner::Spawner,
    stream::{self, Action, ActionKind, Limits, Outcome, Stream},
};

/// Reloads that may wait for the one that is going on.
const RELOADS: usize = 16;

/// Why the daemon could not run, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the runtime directory {} cannot be made: {error}", path.display())]
    Directory { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    History(StoreError),
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
    #[error("the engine ended by itself: {0}")]
    Engine(String),
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    #[error(
        "the spawner, which runs hooks and restarts, has ended ({0}): nothing can be run any more without a new start"
    )]
    Spawner(String),
}

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub source: Source,
    /// In place of the configuration's.
    pub tier: Option<Tier>,
    /// Runs what the daemon, in its sandbox, can't. `None`: there is no sandbox.
    pub spawner: Option<Spawner>,
}

/// Runs until it is told to stop. To be called within a Tokio runtime with all of its drivers.
///
/// # Errors
/// Whatever keeps it from beginning, and the end of the engine.
pub async fn run(mut options: Options) -> Result<(), DaemonError> {
    let since = clock::now();
    // Watched first: whoever changes the files once they are read is noticed.
    let mut files = ConfigWatch::new(&options.source);
    let config = options.source.load()?;
    let probe = config.as_ref().map(|c| c.probe.clone()).unwrap_or_default();
    let mut signals = Signals::new().map_err(|error| DaemonError::System {
        what: "signals cannot be waited for",
        error,
    })?;
    let _lock = take_lock(&probe.socket, since)?;
    let listeners = Listeners::open(&probe)?;
    let names = listeners.names().join(" and ");

    if probe.realtime
        && let Err(error) = realtime::keep_the_right()
    {
        tracing::debug!(%error, "RLIMIT_RTPRIO can't be raised");
    }
    let (store, loaded) = kept::open(&probe).await?;

    let epoch = format!("{:x}-{:x}", since.0, std::process::id());
    let stream = Stream::new(&epoch, Limits::default());
    let timings = Arc::new(Timings::default());
    let metrics = Metrics::new(Arc::clone(&timings));
    let mut tasks = JoinSet::new();
    // From the first line on: what the first snapshot finds is counted and kept too.
    let all = || stream.subscribe(stream::Start::Oldest, stream::Filter::default());
    tasks.spawn(metrics::run(all(), metrics.clone()));
    let to_keep = all();
    let EngineThread {
        handle,
        config,
        ended,
        joined,
    } = engine::start(engine::Start {
        config,
        remembered: kept::lives(&loaded.services),
        stream: stream.clone(),
        realtime: probe.realtime,
        load: LoadOptions {
            tier: options.tier.or(tier(probe.tier)),
            ring_bytes: probe.ring_bytes(),
            pins: probe.pins().map(|directory| PinOptions {
                directory,
                keep: probe.keep_pinned,
            }),
            ..LoadOptions::default()
        },
        timings,
    })
    .await?;
    let exporter = tokio::spawn(exporter::run(to_keep, store.clone(), handle.clone()));
    let silences = Book::new(loaded.silences, store.clone(), stream.clone());
    tasks.spawn(silences.clone().run());
    let acts = Acts::start(&config, &handle, &stream, &store, &silences);

    let (reload, reloads) = mpsc::channel(RELOADS);
    let api = Api::new(api::Is {
        engine: handle.clone(),
        stream: stream.clone(),
        reloads: reload,
        since,
        store: store.clone(),
        notices: loaded.notices.iter().map(ToString::to_string).collect(),
        silences,
        acts: acts.clone(),
        metrics,
    });
    let server =
        Server::start(api.clone(), listeners, probe.realtime).map_err(|error| DaemonError::System {
            what: "the API cannot be served",
            error,
        })?;
    // Everything is open, loaded and started that takes more rights than watching does.
    if options.spawner.is_some() {
        sandbox::close()?;
    }
    let (tell_config, configs) = watch::channel(Arc::new(config));
    tasks.spawn(units::follow(handle.clone(), configs.clone()));
    tasks.spawn(service_manager::watchdog(handle.clone()));

    let services = configs.borrow().services.len();
    let status = format!("watching {services} services");
    tracing::info!(
        "{status}, asked at {names}; the first snapshot was joined after {:?}",
        joined.since(since)
    );
    service_manager::ready(&status).await;
    let mut daemon = Daemon {
        source: options.source,
        since,
        handle,
        stream,
        api,
        acts,
        store,
        tell_config,
        reloads,
    };
    let spawner = options.spawner.as_mut();
    let end = daemon.serve(&mut signals, &mut files, ended, spawner).await;
    let stop = Stop {
        handle: daemon.handle.clone(),
        stream: daemon.stream.clone(),
        acts: daemon.acts.clone(),
        store: daemon.store.clone(),
        exporter,
        server,
        tasks,
    };
    match end {
        End::Asked(why, ended) => {
            tracing::info!("{why}: stopping");
            service_manager::stopping().await;
            stop.run(Some(ended)).await;
            Ok(())
        }
        End::Engine(why) => {
            tracing::error!("the engine ended by itself: {why}");
            service_manager::stopping().await;
            stop.run(None).await;
            Err(DaemonError::Engine(why))
        }
        // Half a daemon would look like a whole one. Whoever starts it anew gets both.
        End::Spawner(how, ended) => {
            tracing::error!("the spawner has ended ({how}): stopping");
            service_manager::stopping().await;
            stop.run(Some(ended)).await;
            Err(DaemonError::Spawner(how))
        }
    }
}

fn tier(choice: TierChoice) -> Option<Tier> {
    match choice {
        TierChoice::Auto => None,
        TierChoice::Fentry => Some(Tier::Fentry),
        TierChoice::Tracepoint => Some(Tier::Tracepoint),
    }
}

/// The lock lies beside the socket, in a directory that is made where there is none.
fn take_lock(socket: &str, since: Nanos) -> Result<Lock, DaemonError> {
    let directory = PathBuf::from(socket)
        .parent()
        .map_or_else(|| PathBuf::from("/"), PathBuf::from);
    fs::create_dir_all(&directory).map_err(|error| DaemonError::Directory {
        path: directory.clone(),
        error,
    })?;
    let me = process::identity(std::process::id()).ok_or(DaemonError::System {
        what: "this process cannot be read in /proc",
        error: io::ErrorKind::NotFound.into(),
    })?;
    Ok(Lock::take(&directory.join("probe.lock"), me, since)?)
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }
}

impl Signals {
    /// Does something that may take longer than a stop may. `Err`: it was left alone, because the end was asked for.
    async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Result<T, &'static str> {
        tokio::select! {
            biased;
            _ = self.term.recv() => Err("SIGTERM"),
            _ = self.int.recv() => Err("SIGINT"),
            done = work => Ok(done),
        }
    }
}

type EngineEnded = tokio::sync::oneshot::Receiver<Result<(), String>>;

enum End {
    /// Who asked; the engine still runs.
    Asked(&'static str, EngineEnded),
    Engine(String),
    /// How; the engine still runs.
    Spawner(String, EngineEnded),
}

struct Daemon {
    source: Source,
    since: Nanos,
    handle: Handle,
    stream: Stream,
    api: Api,
    acts: Acts,
    store: Store,
    tell_config: watch::Sender<Arc<Config>>,
    reloads: mpsc::Receiver<ReloadRequest>,
}

impl Daemon {
    async fn serve(
        &mut self,
        signals: &mut Signals,
        files: &mut ConfigWatch,
        mut ended: EngineEnded,
        spawner: Option<&mut Spawner>,
    ) -> End {
        let spawner_ended = async {
            match spawner {
                Some(spawner) => spawner.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(spawner_ended);
        loop {
            tokio::select! {
                biased;
                _ = signals.term.recv() => return End::Asked("SIGTERM", ended),
                _ = signals.int.recv() => return End::Asked("SIGINT", ended),
                result = &mut ended => {
                    return End::Engine(match result {
                        Ok(Ok(())) => "nobody has asked it to".to_owned(),
                        Ok(Err(why)) => why,
                        Err(_) => "it panicked".to_owned(),
                    });
                }
                how = &mut spawner_ended => return End::Spawner(how, ended),
                _ = signals.hup.recv() => {
                    if let Err(why) = signals.unless_ended(self.reload("SIGHUP")).await {
                        return End::Asked(why, ended);
                    }
                }
                () = files.changed() => {
                    if let Err(why) = signals.unless_ended(self.reload("the files have changed")).await {
                        return End::Asked(why, ended);
                    }
                }
                Some(reply) = self.reloads.recv() => {
                    match signals.unless_ended(self.reload("the API was asked")).await {
                        // Whoever asked may have gone.
                        Ok(result) => _ = reply.send(result),
                        Err(why) => return End::Asked(why, ended),
                    }
                }
                _ = signals.usr1.recv() => {
                    self.tell_state().await;
                }
            }
        }
    }

    /// All or nothing.
    async fn reload(&mut self, why: &str) -> Result<Reloaded, String> {
        service_manager::reloading().await;
        let result = self.try_reload().await;
        let (outcome, summary) = match &result {
            Ok(r) if r.changed => (Outcome::Ok, format!("{why}: {}", summary(r))),
            Ok(_) => (
                Outcome::Ok,
                format!("{why}: the configuration is the same as before"),
            ),
            Err(e) => (
                Outcome::Refused,
                format!("{why}: the configuration stays as it was: {e}"),
            ),
        };
        match &result {
            Ok(_) => tracing::info!("{summary}"),
            Err(_) => tracing::error!("{summary}"),
        }
        let same = result.as_ref().is_ok_and(|r| !r.changed);
        self.api.note_loaded(|l| {
            l.reloads += 1;
            l.error = result.as_ref().err().cloned();
            if result.is_ok() {
                l.at = clock::now();
            }
        });
        // A file that was touched is no news.
        if !same {
            self.stream.push(stream::Said::Action(Box::new(Action {
                at: clock::now(),
                service: None,
                what: ActionKind::Reload,
                subject: None,
                cause: None,
                outcome,
                summary,
                facts: Default::default(),
            })));
        }
        let services = self.tell_config.borrow().services.len();
        service_manager::ready(&format!("watching {services} services")).await;
        result
    }

    async fn try_reload(&mut self) -> Result<Reloaded, String> {
        let source = self.source.clone();
        let loaded = tokio::task::spawn_blocking(move || source.load());
        let config = match tokio::time::timeout(READ_WITHIN, loaded).await {
            Ok(Ok(Ok(config))) => config,
            Ok(Ok(Err(e))) => return Err(e.to_string()),
            Ok(Err(e)) => return Err(e.to_string()),
            Err(_) => return Err(format!("the files could not be read within {READ_WITHIN:?}")),
        };
        let Some(config) = config else {
            return Err(format!(
                "there is no configuration in {} any more; what was declared or discovered stays",
                self.source
            ));
        };
        if config.services.is_empty() {
            return Err(
                "no service is declared any more; restart probe to have it discover what runs here"
                    .to_owned(),
            );
        }
        if config == **self.tell_config.borrow() {
            return Ok(Reloaded::default_of(&config));
        }
        let answer = self.handle.reload(config.clone()).await;
        let changes = answer.map_err(|e| e.to_string())??;
        for key in &changes.after_restart {
            tracing::warn!("the new value of `{key}` counts after a restart of probe");
        }
        let reloaded = Reloaded {
            changed: !changes.is_empty(),
            added: changes.added,
            removed: changes.removed,
            modified: changes.modified,
            after_restart: changes.after_restart,
            ..Reloaded::default_of(&config)
        };
        self.store.retain(config.probe.retention);
        self.acts.reload(&config).await;
        self.tell_config.send_replace(Arc::new(config));
        Ok(reloaded)
    }
}

/// How long reading the configuration's files may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

impl Reloaded {
    fn default_of(config: &Config) -> Self {
        Self {
            v: api::types::V,
            changed: false,
            services: u32::try_from(config.services.len()).unwrap_or(u32::MAX),
            added: Vec::new(),
            removed: Vec::new(),
            modified: Vec::new(),
            after_restart: Vec::new(),
        }
    }
}

fn summary(r: &Reloaded) -> String {
    let names = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!(", {what} {}", names.join(", ")),
    };
    format!(
        "the configuration was taken over, {} services{}{}{}",
        r.services,
        names("added", &r.added),
        names("removed", &r.removed),
        names("modified", &r.modified)
    )
}
