//! The engine's thread: the only one that touches the engine. Others ask it, and read what it says from the stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    ask::{Ask, AskError, Changes, Picture},
    sandbox, takeover,
};
use crate::{
    clock::{self, Nanos},
    config::{Config, Service},
    discover,
    engine::{
        Effect,
        view::{Life, ServiceView},
    },
    kernel::{Kernel, LoadError, LoadOptions, give_back_memory},
    metrics::Timings,
    realtime,
    report::Watching,
    runtime::{Hear, Poller, Runtime, RuntimeError, Waker, exe_ids, wanted},
    sources::{
        observer::{KernelTables, Observer},
        sock_diag::DiagError,
    },
    stream::{Said, Stream},
};

/// Questions that may wait for the engine; more are refused.
const ASKS: usize = 256;
/// What is said during one drain is handed on in portions of this size.
const PORTION: usize = 256;
/// How long an answer is waited for. A client waits longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Why the engine could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Kernel(#[from] LoadError),
    #[error("what this kernel tells of sockets cannot be read: {0}")]
    Observer(DiagError),
    #[error("cannot discover what listens here: {0}")]
    Discover(DiagError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the engine's thread cannot run: {0}")]
    Thread(io::Error),
    #[error("the engine's thread ended before it had begun")]
    Ended,
}

/// What the engine's thread begins with.
#[derive(Debug)]
pub struct Start {
    /// `None`: nothing is declared, so what runs here is.
    pub config: Option<Config>,
    /// What an earlier run knew of each service.
    pub remembered: BTreeMap<String, Life>,
    pub stream: Stream,
    /// Shall the thread have a real-time priority?
    pub realtime: bool,
    pub load: LoadOptions,
    /// What the thread measures itself by.
    pub timings: Arc<Timings>,
}

/// Asks the engine's thread. Clones ask the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    waker: Waker,
    lives: Arc<Lives>,
}

/// The engine's thread, running.
#[derive(Debug)]
pub struct EngineThread {
    pub handle: Handle,
    /// What is declared: as configured, or as discovered.
    pub config: Config,
    /// Ends when the thread does, for whatever reason.
    pub ended: oneshot::Receiver<Result<(), String>>,
    /// When the first snapshot had been joined.
    pub joined: Nanos,
}

/// Generations that have changed and were not written down yet.
#[derive(Debug, Default)]
struct Lives {
    changed: Mutex<BTreeMap<String, Life>>,
    notify: Notify,
}

/// Loads the programs, takes the first snapshot, and goes on in a thread. Blocks until the snapshot is joined.
///
/// # Errors
/// Whatever keeps probe from seeing anything.
pub async fn start(start: Start) -> Result<EngineThread, StartError> {
    let (asks, questions) = mpsc::channel(ASKS);
    let lives = Arc::new(Lives::default());
    let (tell_begun, begun) = oneshot::channel();
    let (tell_ended, ended) = oneshot::channel();
    let board = Arc::clone(&lives);
    thread::Builder::new()
        .name("probe-engine".into())
        .spawn(move || {
            let realtime = start.realtime;
            let (mut drive, joined) = match Drive::begin(start, board, questions) {
                Ok(begun) => begun,
                Err(e) => {
                    _ = tell_begun.send(Err(e));
                    return;
                }
            };
            if realtime && let Err(e) = realtime::prefer_this_thread() {
                tracing::info!(
                    "the engine runs with an ordinary priority, so events may be told late under load: {e} (real-time \
                     needs CAP_SYS_NICE)"
                );
            }
            sandbox::reduce_this_thread();
            let config = drive.runtime.engine().config().clone();
            _ = tell_begun.send(Ok((drive.poller.waker(), config, joined)));
            let result = drive.run();
            // The programs are detached before anybody believes that it is over.
            drop(drive);
            _ = tell_ended.send(result.map_err(|e| e.to_string()));
        })
        .map_err(StartError::Thread)?;
    let (waker, config, joined) = begun.await.map_err(|_| StartError::Ended)??;
    Ok(EngineThread {
        handle: Handle { asks, waker, lives },
        config,
        ended,
        joined,
    })
}

impl Handle {
    /// Of an engine that has ended: it answers nothing.
    ///
    /// # Errors
    /// When the kernel gives no more descriptors.
    pub(crate) fn of_nobody() -> io::Result<Self> {
        let (asks, _) = mpsc::channel(1);
        Ok(Self {
            asks,
            waker: Waker::of_nobody()?,
            lives: Arc::default(),
        })
    }

    /// Everything that is known, or only of one service.
    ///
    /// # Errors
    /// If the engine does not answer in time. `Ok(None)`: there is no such service.
    pub async fn picture(&self, service: Option<String>) -> Result<Option<Picture>, AskError> {
        self.ask(|reply| Ask::Picture(service, reply)).await
    }

    /// Has the engine take another configuration over.
    ///
    /// # Errors
    /// If the engine does not answer in time, or why nothing has changed.
    pub async fn reload(&self, config: Config) -> Result<Result<Changes, String>, AskError> {
        self.ask(|reply| Ask::Reload(Box::new(config), reply)).await
    }

    /// Whether the engine makes progress.
    ///
    /// # Errors
    /// If it does not, within `limit`.
    pub async fn ping(&self, limit: Duration) -> Result<(), AskError> {
        self.ask_within(limit, Ask::Ping).await
    }

    /// Tells what a source saw that is waited for elsewhere. Waits while the engine has too much to do.
    pub async fn tell(&self, event: crate::event::Event) {
        if self.asks.send(Ask::Tell(Box::new(event))).await.is_ok() {
            self.waker.wake();
        }
    }

    /// Has the engine take what has happened until now, detach its programs and end.
    ///
    /// # Errors
    /// If it is not there, or has too much to do to listen.
    pub fn stop(&self) -> Result<(), AskError> {
        let sent = self.asks.try_send(Ask::Stop);
        self.waker.wake();
        sent.map_err(AskError::of)
    }

    /// Waits until generations have changed, and takes them.
    pub async fn changed_lives(&self) -> BTreeMap<String, Life> {
        loop {
            let changed = self.take_lives();
            if !changed.is_empty() {
                return changed;
            }
            self.lives.notify.notified().await;
        }
    }

    /// The generations that have changed since they were last taken.
    pub fn take_lives(&self) -> BTreeMap<String, Life> {
        let mut changed = self.lives.changed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut changed)
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, AskError> {
        self.ask_within(ANSWER_WITHIN, ask).await
    }

    async fn ask_within<T>(
        &self,
        limit: Duration,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(ask(reply)).map_err(AskError::of)?;
        self.waker.wake();
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Gone),
            Err(_) => Err(AskError::Slow(limit)),
        }
    }
}

/// Everything that the thread owns.
struct Drive {
    runtime: Runtime,
    poller: Poller,
    asks: mpsc::Receiver<Ask>,
    mouth: Mouth,
    lives: Arc<Lives>,
    /// Generations as they were last told.
    told: BTreeMap<String, Life>,
}

/// Hands what the engine says to the stream, several lines at once.
struct Mouth {
    stream: Stream,
    said: Vec<Said>,
    /// Services that were spoken of since it was last asked.
    services: BTreeSet<String>,
    lost: BTreeMap<String, u64>,
}

impl Hear for Mouth {
    fn hear(&mut self, effect: Effect) {
        let Some(said) = Said::of(effect) else { return };
        if let Said::Lost { source, count } = &said {
            *self.lost.entry(source.clone()).or_default() += count;
        }
        if let Some(service) = said.service()
            && !self.services.contains(service)
        {
            self.services.insert(service.to_owned());
        }
        self.said.push(said);
        if self.said.len() >= PORTION {
            self.flush();
        }
    }

    fn pass_on(&mut self) {
        self.flush();
    }
}

impl Mouth {
    fn flush(&mut self) {
        if !self.said.is_empty() {
            self.stream.push_all(self.said.drain(..));
        }
    }
}

impl Drive {
    fn begin(
        start: Start,
        lives: Arc<Lives>,
        asks: mpsc::Receiver<Ask>,
    ) -> Result<(Self, Nanos), StartError> {
        let mut load = start.load;
        if let Some(config) = &start.config {
            load.wanted = wanted(config, &exe_ids(config));
        }
        let mut kernel = Kernel::load(&load)?;
        let tables = kernel.iterators().map(|i| Box::new(i) as Box<dyn KernelTables>);
        let mut observer = Observer::new(tables).map_err(StartError::Observer)?;
        let config = match start.config {
            Some(config) if !config.services.is_empty() => config,
            config => {
                let mut config = config.unwrap_or_default();
                discover::declare(&mut config, &mut observer).map_err(StartError::Discover)?;
                config
            }
        };
        if config.services.is_empty() {
            // No reason to fail: at boot, or on a new host, the first daemon and its declaration come later.
            tracing::warn!(
                "nothing is declared, and nothing that listens or has a PID file under /run was found: nothing is watched until a \
                 service is declared in a configuration file"
            );
        }
        let exes = exe_ids(&config);
        let mut runtime = Runtime::new(config, &exes, kernel, observer, None)?;
        runtime.measure(start.timings);
        let poller = Poller::new(&runtime).map_err(StartError::Thread)?;
        for (service, life) in &start.remembered {
            runtime.remember(service, life.generation, life.main);
        }
        let mut mouth = Mouth {
            stream: start.stream,
            said: Vec::new(),
            services: BTreeSet::new(),
            lost: BTreeMap::new(),
        };
        runtime.begin(&mut mouth);
        if let Some(action) = takeover::action(&runtime, &mouth.lost) {
            tracing::info!("{}", action.summary);
            mouth.said.push(Said::Action(Box::new(action)));
        }
        mouth.flush();
        let mut drive = Self {
            runtime,
            poller,
            asks,
            mouth,
            lives,
            told: start.remembered,
        };
        let all = drive.runtime.engine().config().services.iter();
        drive.mouth.services = all.map(|s| s.name.clone()).collect();
        drive.tell_lives();
        give_back_memory();
        Ok((drive, clock::now()))
    }

    /// Until it is told to stop.
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.poller.arm(self.runtime.deadline())?;
            let ready = self.poller.wait(true)?;
            let Self { runtime, mouth, .. } = self;
            if ready.sources {
                runtime.drain(mouth);
            }
            if ready.deadline {
                runtime.tick(mouth);
            }
            self.mouth.flush();
            if ready.woken && self.answer()? {
                return Ok(());
            }
            self.tell_lives();
        }
    }

    /// Answers who has asked. `true`: it is to end.
    fn answer(&mut self) -> io::Result<bool> {
        while let Ok(ask) = self.asks.try_recv() {
            let Self { runtime, mouth, .. } = self;
            match ask {
                Ask::Picture(service, reply) => {
                    _ = reply.send(self.picture(service.as_deref()));
                }
                Ask::Ping(reply) => _ = reply.send(()),
                Ask::Tell(event) => runtime.tell(*event, mouth),
                Ask::Reload(config, reply) => {
                    let result = self.reload(*config);
                    self.poller.follow(&self.runtime)?;
                    _ = reply.send(result);
                }
                Ask::Stop => {
                    // What happened until now is told.
                    runtime.drain(mouth);
                    mouth.flush();
                    self.tell_lives();
                    return Ok(true);
                }
            }
            self.mouth.flush();
        }
        Ok(false)
    }

    fn reload(&mut self, config: Config) -> Result<Changes, String> {
        let before = self.runtime.engine().config().clone();
        let Self { runtime, mouth, .. } = self;
        runtime.reload(config, mouth).map_err(|e| e.to_string())?;
        Ok(Changes::between(&before, self.runtime.engine().config()))
    }

    fn picture(&self, service: Option<&str>) -> Option<Picture> {
        let engine = self.runtime.engine();
        let config = engine.config();
        let plan = self.runtime.kernel().plan();
        let cannot_see = |s: &Service| Watching::new(s, None, plan).cannot_see;
        let services: Vec<(ServiceView, Vec<String>)> = match service {
            Some(name) => {
                let (i, view) = engine.view_of(name)?;
                vec![(view, config.services.get(i).map(cannot_see).unwrap_or_default())]
            }
            None => engine
                .views()
                .into_iter()
                .zip(config.services.iter().map(cannot_see))
                .collect(),
        };
        Some(Picture {
            at: clock::now(),
            wall_offset_ns: self.mouth.stream.wall_offset_ns(),
            cursor: self.mouth.stream.newest(),
            joined: engine.is_joined(),
            can_judge: engine.can_judge(),
            blind: engine.blind_finding(),
            lost: self.mouth.lost.clone(),
            tier: plan.tiers(),
            records: self.runtime.kernel().records(),
            pinned: self.runtime.kernel().pinned(),
            unwatched: self.runtime.unwatched(),
            services,
        })
    }

    /// Tells which generations have changed, to be written down by somebody else.
    fn tell_lives(&mut self) {
        let mut news = BTreeMap::new();
        for service in std::mem::take(&mut self.mouth.services) {
            let Some(life) = self.runtime.engine().life(&service) else {
                continue;
            };
            if life.generation > 0 && self.told.get(&service) != Some(&life) {
                self.told.insert(service.clone(), life);
                news.insert(service, life);
            }
        }
        if !news.is_empty() {
            let mut changed = self.lives.changed.lock().unwrap_or_else(PoisonError::into_inner);
            changed.extend(news);
            drop(changed);
            self.lives.notify.notify_one();
        }
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").finish_non_exhaustive()
    }
}
