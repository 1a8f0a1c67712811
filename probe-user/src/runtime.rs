//! Joins the sources with the engine: hands it what happened, does what it wants done, and looks where it wants to know.
//!
//! One thread owns all of this. Whoever drives it (`probe watch`, the daemon) waits on the file descriptors and on
//! [`Runtime::deadline`], and calls [`Runtime::drain`] or [`Runtime::tick`]; a [`Poller`] waits for both.

mod edges;
mod feed;
mod look;
mod poller;
mod reload;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::BorrowedFd,
    sync::Arc,
    time::Duration,
};

use self::edges::QUEUE_LIMIT;
pub use self::poller::{Poller, Ready, Waker};
use crate::{
    address::Site,
    clock::{self, Nanos},
    config::Config,
    engine::{Effect, Engine},
    event::{Event, FileId, ProcId, Process, SnapshotReason, TimeSource, What},
    kernel::{Kernel, MapsError, Ring, TakenOver, Wanted},
    metrics::Timings,
    sources::{
        close_watch::CloseWatch,
        declared_paths::{DeclaredPaths, PidFile},
        directory_watch::DirectoryWatch,
        file_watch::FileWatch,
        heartbeat::Heartbeats,
        interpreter,
        observer::Observer,
        path, process,
        root::Rooted,
        socket_names::SocketNames,
        view::Views,
    },
    trace,
};

/// Ring-buffer records taken before the other sources are looked at again.
const BATCH: usize = 1024;
/// Batches after which a drain lets its driver look at something else.
const DRAIN_ROUNDS: usize = 8;

/// Why the sources could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(transparent)]
    Wanted(#[from] MapsError),
    #[error("the kernel's events already have a reader")]
    NoRing,
    #[error("directories cannot be watched: {0}")]
    Directories(std::io::Error),
    #[error("heartbeats cannot be watched: {0}")]
    Heartbeats(std::io::Error),
    #[error("files cannot be watched (inotify): {0}")]
    Files(std::io::Error),
    #[error("sockets cannot be watched (inotify): {0}")]
    Closes(std::io::Error),
}

/// Receives what is to be shown.
pub trait Hear {
    fn hear(&mut self, effect: Effect);

    /// Something that takes longer follows: whoever keeps back what he has heard should pass it on now.
    fn pass_on(&mut self) {}
}

impl<F: FnMut(Effect)> Hear for F {
    fn hear(&mut self, effect: Effect) {
        self(effect);
    }
}

pub type Sink<'a> = dyn Hear + 'a;

pub struct Runtime {
    config: Config,
    engine: Engine,
    kernel: Kernel,
    ring: Ring,
    observer: Observer,
    closes: CloseWatch,
    directories: DirectoryWatch,
    files: FileWatch,
    heartbeats: Heartbeats,
    /// What each service means by its names, and where its paths are.
    views: Views,
    paths: DeclaredPaths,
    /// Which declared path a UNIX socket of the kernel's records means.
    names: SocketNames,
    /// What the declared executables are, by path.
    exes: BTreeMap<String, FileId>,
    trace: Option<trace::Writer>,
    /// Why recording stopped, once it has.
    trace_error: Option<trace::TraceError>,
    queue: VecDeque<Event>,
    /// The ring's events of one batch, before they are queued.
    records: Vec<Event>,
    /// What is to be looked at when the events at hand are through.
    settle: BTreeSet<Site>,
    read_pid_files: BTreeSet<PidFile>,
    looks: BTreeSet<ProcId>,
    resync: Option<SnapshotReason>,
    /// Something happened since they were last asked for.
    mains_may_differ: bool,
    /// How many looks at once are left.
    follow_rounds: usize,
    count_losses_at: Option<Nanos>,
    /// The last drain left records behind.
    more: bool,
    timings: Arc<Timings>,
    /// Bytes of records since the ring was last empty.
    ring_bytes: u64,
    /// Records that had waited when it began.
    waited: usize,
    /// Everything was listed for a snapshot, and memory may be given back.
    listed: bool,
    /// How long the machine had slept when it was last looked.
    slept: Duration,
    /// What can't be watched, and why; and the same with the directories, as it was last logged.
    unwatched: BTreeMap<String, String>,
    unwatched_logged: BTreeMap<String, String>,
}

/// One that has ended, and of which the kernel has forgotten the rest.
fn unknown(id: ProcId) -> Process {
    Process {
        id,
        start: id.start(),
        parent: None,
        comm: String::new(),
        uid: None,
        exe: None,
        exe_deleted: false,
        exe_id: None,
        argv: Vec::new(),
        unit: None,
    }
}

/// The identity of each declared executable, for the engine and the trace. A missing file is left out: it may come.
pub fn exe_ids(config: &Config) -> BTreeMap<String, FileId> {
    let exes = config.services.iter().filter_map(|s| s.exe.as_ref());
    exes.filter_map(|e| Some((e.clone(), path::file_id(e.as_ref()).ok()?)))
        .collect()
}

/// Where the declared executables are: all of them as the host sees them.
fn declared_exes(config: &Config) -> impl Iterator<Item = Rooted> {
    let exes = config.services.iter().filter_map(|s| s.exe.as_ref());
    exes.map(|e| Rooted::host(e.as_ref()))
}

/// What the kernel must report for this configuration.
pub fn wanted(config: &Config, exes: &BTreeMap<String, FileId>) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.exes.extend(exes.values().map(|id| id.ino));
    for s in &config.services {
        wanted.units.extend(s.unit.clone());
        if let (Some(script), None) = (&s.script, &s.exe) {
            let programs = interpreter::of_script(script.as_ref());
            let ids = programs.iter().filter_map(|p| path::file_id(p).ok());
            wanted.exes.extend(ids.map(|id| id.ino));
        }
        for a in &s.listen {
            wanted.add_address(a);
        }
        if let Some(file) = &s.pid_file {
            wanted.add_file(file.as_ref());
        }
    }
    wanted
}

impl Runtime {
    /// The kernel's programs must be attached already: what happens from then on waits in the ring buffer.
    pub fn new(
        config: Config,
        exes: &BTreeMap<String, FileId>,
        mut kernel: Kernel,
        observer: Observer,
        trace: Option<trace::Writer>,
    ) -> Result<Self, RuntimeError> {
        let mut directories = DirectoryWatch::new().map_err(RuntimeError::Directories)?;
        let views = Views::new(&config);
        let paths = DeclaredPaths::new(&config, &views);
        directories.add_all(paths.all().cloned());
        directories.add_all(declared_exes(&config));
        kernel.want(&wanted(&config, exes))?;
        let heartbeats = Heartbeats::new(&config).map_err(RuntimeError::Heartbeats)?;
        let ring = kernel.ring().ok_or(RuntimeError::NoRing)?;
        Ok(Self {
            names: SocketNames::of(&config),
            engine: Engine::new(config.clone(), exes),
            config,
            kernel,
            ring,
            observer,
            closes: CloseWatch::new().map_err(RuntimeError::Closes)?,
            directories,
            files: FileWatch::new().map_err(RuntimeError::Files)?,
            heartbeats,
            views,
            paths,
            exes: exes.clone(),
            trace,
            trace_error: None,
            queue: VecDeque::new(),
            records: Vec::new(),
            settle: BTreeSet::new(),
            read_pid_files: BTreeSet::new(),
            looks: BTreeSet::new(),
            resync: None,
            mains_may_differ: true,
            follow_rounds: 0,
            count_losses_at: None,
            more: false,
            timings: Arc::default(),
            ring_bytes: 0,
            waited: 0,
            listed: false,
            slept: clock::slept(),
            unwatched: BTreeMap::new(),
            unwatched_logged: BTreeMap::new(),
        })
    }

    /// Where to note how long things take.
    pub fn measure(&mut self, timings: Arc<Timings>) {
        self.timings = timings;
    }

    /// Takes the first snapshot, and then what happened since the programs were attached.
    pub fn begin(&mut self, sink: &mut Sink<'_>) {
        self.views
            .guess(&self.config, || self.observer.selected(&self.config));
        for i in 0..self.config.services.len() {
            self.watch_paths(i);
        }
        self.follow_changers();
        let pid_files: Vec<PidFile> = self.paths.pid_files().map(|(file, _)| file.clone()).collect();
        for file in &pid_files {
            self.watch_pid_file(file);
        }
        self.take_over();
        self.resync = Some(SnapshotReason::Start);
        self.run(sink);
        self.drain(sink);
    }

    /// What an earlier daemon's programs have told since it ended. The snapshot that follows settles what they did not see.
    fn take_over(&mut self) {
        let Some(left) = self.kernel.taken_over() else {
            return;
        };
        // Parents before their children.
        let mut followed: Vec<Process> = self.whom_earlier_followed(left);
        followed.sort_by_key(|p| (p.id.start_ticks, p.id.pid));
        for process in followed {
            let known = left.members.get(&process.id);
            let declared = self.config.services.iter();
            let services = declared.filter(|s| known.is_some_and(|known| known.is_of(s)));
            let services = services.map(|s| s.name.clone()).collect();
            self.queue
                .push_back(observed(What::Followed { process, services }));
        }
        // First the losses: what an end meant may be among what is lost.
        for (source, count) in self.kernel.lost() {
            self.queue.push_back(observed(What::Lost { source, count }));
        }
        while self.queue.len() < QUEUE_LIMIT {
            let taken = self.take_edges();
            self.waited += taken;
            if taken < BATCH {
                break;
            }
        }
    }

    /// The living, and those that have ended since: their ends may be among what is told next.
    fn whom_earlier_followed(&self, left: &TakenOver) -> Vec<Process> {
        let live = |pid: &u32| process::read(*pid).ok().flatten();
        let mut all: BTreeMap<ProcId, Process> = left
            .supervised
            .iter()
            .filter_map(live)
            .map(|p| (p.id, p))
            .collect();
        for (id, known) in &left.members {
            let of_it = |p: &Process| p.id == *id;
            let past = || self.kernel.past(id.pid).map(|p| p.process).filter(of_it);
            let process = all
                .entry(*id)
                .or_insert_with(|| past().unwrap_or_else(|| unknown(*id)));
            // A child whose parent has ended is init's by now.
            if let Some(parent) = known.parent.filter(|p| left.members.contains_key(p)) {
                process.parent = Some(parent);
            }
        }
        all.into_values().collect()
    }

    /// How many records of an earlier daemon's programs had waited.
    pub fn waited(&self) -> usize {
        self.waited
    }

    /// What of the declared can't be watched, and why: it is tried again with each snapshot, and only those see its changes.
    pub fn unwatched(&self) -> BTreeMap<String, String> {
        let directories = self.directories.failures().iter();
        let mut all: BTreeMap<String, String> = directories
            .map(|(place, why)| (format!("changes in {place}"), why.clone()))
            .collect();
        all.extend(self.unwatched.clone());
        all
    }

    /// File descriptors whose readiness means [`Runtime::drain`].
    pub fn fds(&self) -> [BorrowedFd<'_>; 5] {
        use std::os::fd::AsFd;
        [
            self.ring.as_fd(),
            self.closes.as_fd(),
            self.directories.as_fd(),
            self.files.as_fd(),
            self.heartbeats.as_fd(),
        ]
    }

    pub fn deadline(&self) -> Option<Nanos> {
        if self.more {
            return Some(Nanos::ZERO);
        }
        let (engine, heartbeats) = (self.engine.deadline(), self.heartbeats.deadline());
        engine
            .into_iter()
            .chain(heartbeats)
            .chain(self.count_losses_at)
            .min()
    }

    pub fn mains(&self) -> Vec<Option<ProcId>> {
        self.engine.mains()
    }

    /// Tells what an earlier run of probe knew of a service. To be called before [`Self::begin`].
    pub fn remember(&mut self, service: &str, generation: u64, main: Option<ProcId>) {
        self.queue.push_back(observed(What::Remembered {
            service: service.to_owned(),
            generation,
            main,
        }));
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The time of [`Runtime::deadline`] has come.
    pub fn tick(&mut self, sink: &mut Sink<'_>) {
        let now = clock::now();
        if self.engine.deadline().is_some_and(|at| at <= now) {
            // What happened before the deadline is told before it passes.
            self.tell_level(now, What::Timer);
            self.run(sink);
        }
        if self.count_losses_at.is_some_and(|at| at <= now) {
            self.count_losses(sink);
        }
        // Active checks and long logs go by the clock.
        if self.more || self.heartbeats.deadline().is_some_and(|at| at <= now) {
            self.drain(sink);
        }
    }

    /// Takes an event of a source that is waited for elsewhere, behind the edges that came before it.
    pub fn tell(&mut self, event: Event, sink: &mut Sink<'_>) {
        self.take_all_edges();
        self.queue.push_back(event);
        self.run(sink);
    }

    /// Takes everything that the sources hold.
    pub fn drain(&mut self, sink: &mut Sink<'_>) {
        self.more = false;
        for round in 0.. {
            let taken = self.take_edges();
            self.run(sink);
            if taken < BATCH {
                return;
            }
            // In a storm that does not end, what was lost must be known all the same, and whoever drives this must get
            // to its signals.
            if self.count_losses_at.is_some_and(|at| at <= clock::now()) {
                self.count_losses(sink);
            }
            if round == DRAIN_ROUNDS {
                self.more = true;
                return;
            }
        }
    }

    /// Ends recording and says whether it is whole.
    pub fn finish(mut self) -> Result<(), trace::TraceError> {
        if let Some(e) = self.trace_error.take() {
            return Err(e);
        }
        self.trace.take().map_or(Ok(()), trace::Writer::finish)
    }
}

/// What probe noticed itself, now.
fn observed(what: What) -> Event {
    Event {
        at: clock::now(),
        time_source: TimeSource::Observed,
        what,
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
