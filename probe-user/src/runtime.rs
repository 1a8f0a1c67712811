//! Joins the sources with the engine: hands it what happened, does what it wants done, and looks where it wants to know.
//!
//! One thread owns all of this. Whoever drives it (`probe watch`, the daemon) waits on the file descriptors and on
//! [`Runtime::deadline`], and calls the method of the same name.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::BorrowedFd,
    time::Duration,
};

use crate::{
    address::{Address, Site},
    clock::{self, Nanos},
    config::Config,
    engine::{Effect, Engine},
    event::{
        Actor, AddressState, Event, FileId, PathChange, ProcId, Process, SnapshotReason, TimeSource, What,
    },
    kernel::{Kernel, MapsError, Ring, Wanted},
    sources::{
        close_watch::{CloseWatch, CloseWatchError, Closed},
        declared_paths::{Declared, DeclaredPaths, PidFile},
        directory_watch::{DirectoryEvent, DirectoryWatch},
        file_watch::{FileEvent, FileWatch},
        heartbeat::Heartbeats,
        interpreter,
        observer::Observer,
        path, pid_file, process, process_state,
        root::Rooted,
        socket_names::SocketNames,
        view::Views,
    },
    trace,
};

/// Ring-buffer records taken before the other sources are looked at again.
const BATCH: usize = 1024;
/// Batches after which a drain lets its driver look at something else.
const DRAIN_ROUNDS: usize = 32;
/// Events that may wait for the engine. In a storm that does not end, a level is told although more records wait.
const QUEUE_LIMIT: usize = 64 * BATCH;
/// How long after the last record the kernel's counters of losses are read. Reading them costs more than a record.
const COUNT_LOSSES_AFTER: Duration = Duration::from_millis(100);
/// Snapshots that one snapshot may lead to, each because it met processes that the kernel was not yet following.
const RESYNC_ROUNDS: usize = 8;
/// Looks that are repeated at once because a holder's descriptor was gone. One that lives in a thread's own table never
/// shows in `/proc/PID/fd`.
const FOLLOW_ROUNDS: usize = 64;

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
pub type Sink<'a> = dyn FnMut(&Effect) + 'a;

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
    /// How many of [`FOLLOW_ROUNDS`] are left.
    follow_rounds: usize,
    count_losses_at: Option<Nanos>,
    /// The last drain left records behind.
    more: bool,
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
            names: SocketNames::new(
                config
                    .services
                    .iter()
                    .flat_map(|s| &s.listen)
                    .filter_map(|a| a.path().map(std::path::Path::to_owned)),
            ),
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
            follow_rounds: 0,
            count_losses_at: None,
            more: false,
        })
    }

    /// Takes the first snapshot, and then what happened since the programs were attached.
    pub fn begin(&mut self, sink: &mut Sink<'_>) {
        self.views.guess(&self.config);
        for i in 0..self.config.services.len() {
            self.watch_paths(i);
        }
        let pid_files: Vec<PidFile> = self.paths.pid_files().map(|(file, _)| file.clone()).collect();
        for file in &pid_files {
            self.watch_pid_file(file);
        }
        self.resync = Some(SnapshotReason::Start);
        self.run(sink);
        self.drain(sink);
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

    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The time of [`Runtime::deadline`] has come.
    pub fn tick(&mut self, sink: &mut Sink<'_>) {
        let now = clock::now();
        if self.engine.deadline().is_some_and(|at| at <= now) {
            self.queue.push_back(observed(What::Timer));
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
        while self.take_edges() == BATCH && self.queue.len() < QUEUE_LIMIT {}
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

    /// Queues what the kernel and the file system have told, and gives the number of the kernel's records.
    fn take_edges(&mut self) -> usize {
        // Notifications carry no time. They are told before the first exit among the kernel's records, because that a
        // daemon removed its PID file before it exited must be known then, and after what came before that exit.
        let mut records = std::mem::take(&mut self.records);
        let names = &mut self.names;
        let taken = self.ring.drain(BATCH, |mut event, file| {
            if names.resolve(&mut event.what, file) {
                records.push(event);
            }
        });
        let exit = records.iter().position(|e| matches!(e.what, What::Exit { .. }));
        // What an end means can hang on what was lost before it.
        if exit.is_some() {
            for (source, count) in self.kernel.lost_records() {
                self.queue.push_back(observed(What::Lost { source, count }));
            }
        }
        for (i, mut event) in records.drain(..).enumerate() {
            if Some(i) == exit {
                self.take_notifications();
            }
            complete(&mut event);
            self.queue.push_back(event);
        }
        if exit.is_none() {
            self.take_notifications();
        }
        self.records = records;
        if taken > 0 && self.count_losses_at.is_none() {
            self.count_losses_at = Some(clock::now() + COUNT_LOSSES_AFTER);
        }
        taken
    }

    /// Queues a level behind every edge that happened before it was read: a level knows of children and exits that the
    /// ring buffer still holds.
    fn tell_level(&mut self, at: Nanos, what: What) {
        while self.take_edges() == BATCH && self.queue.len() < QUEUE_LIMIT {}
        self.queue.push_back(Event {
            at,
            time_source: TimeSource::Observed,
            what,
        });
    }

    /// Ends recording and says whether it is whole.
    pub fn finish(mut self) -> Result<(), trace::TraceError> {
        if let Some(e) = self.trace_error.take() {
            return Err(e);
        }
        self.trace.take().map_or(Ok(()), trace::Writer::finish)
    }

    fn count_losses(&mut self, sink: &mut Sink<'_>) {
        self.count_losses_at = None;
        for (source, count) in self.kernel.lost() {
            self.queue.push_back(observed(What::Lost { source, count }));
        }
        self.run(sink);
    }

    fn take_notifications(&mut self) {
        let (queue, kernel, paths) = (&mut self.queue, &self.kernel, &self.paths);
        let mut appeared = Vec::new();
        let mut exes_changed = false;
        let exes: BTreeSet<Rooted> = declared_exes(&self.config).collect();
        let is_exe = |path: &Rooted| exes.contains(path);
        self.directories.drain(|event| match event {
            DirectoryEvent::Name { path, change, pid } => {
                exes_changed |= is_exe(&path);
                let actor = match pid {
                    Some(pid) => who(kernel, pid),
                    None => changer(kernel, &path, change),
                };
                for declared in paths.at(&path) {
                    let actor = actor.clone();
                    queue.push_back(observed(match declared.clone() {
                        Declared::Socket(Site { address, of }) => What::Path {
                            address,
                            of,
                            change,
                            actor,
                        },
                        Declared::PidFile(PidFile { path, of }) => What::PidFilePath {
                            path,
                            of,
                            change,
                            actor,
                        },
                    }));
                }
            }
            DirectoryEvent::Appeared { path } => appeared.push(path),
            DirectoryEvent::Overflow => {
                queue.push_back(observed(What::Lost {
                    source: "directory notifications".into(),
                    count: 1,
                }));
            }
        });
        if !appeared.is_empty() {
            self.follow_changers();
        }
        for path in appeared {
            exes_changed |= is_exe(&path);
            for declared in self.paths.at(&path).cloned().collect::<Vec<_>>() {
                self.look_again(declared);
            }
        }
        if exes_changed {
            self.look_at_executables();
        }
        let mut lost = 0;
        let mut written = Vec::new();
        self.files.drain(|event| match event {
            FileEvent::Written(path) => written.push(path),
            FileEvent::Overflow => lost += 1,
        });
        for path in written {
            let pid_files = self.paths.at(&path).filter_map(|declared| match declared {
                Declared::PidFile(file) => Some(file.clone()),
                Declared::Socket(_) => None,
            });
            self.read_pid_files.extend(pid_files);
        }
        if lost > 0 {
            self.queue.push_back(observed(What::Lost {
                source: "file notifications".into(),
                count: lost,
            }));
        }
        let queue = &mut self.queue;
        self.heartbeats
            .drain(clock::now(), |what| queue.push_back(observed(what)));
        self.closes.drain(|closed| {
            queue.push_back(observed(match closed {
                Closed::Socket(inode) => What::SocketClosed { inode },
                Closed::Overflow => What::Lost {
                    source: "close notifications".into(),
                    count: 1,
                },
            }));
        });
    }

    /// Feeds the engine until nothing is left to do.
    fn run(&mut self, sink: &mut Sink<'_>) {
        let mut rounds = 0;
        self.follow_rounds = FOLLOW_ROUNDS;
        loop {
            while let Some(event) = self.queue.pop_front() {
                self.feed(event, sink);
            }
            self.follow_mains();
            if let Some(site) = self.settle.pop_first() {
                self.look_at(&site);
            } else if let Some(file) = self.read_pid_files.pop_first() {
                self.read_pid_file(&file);
            } else if let Some(id) = self.looks.pop_first() {
                let at = clock::now();
                let state = process_state::look(id);
                self.tell_level(at, What::Process(state));
            } else if let Some(reason) = self.resync.take() {
                rounds += 1;
                if rounds > RESYNC_ROUNDS {
                    tracing::warn!("processes keep appearing faster than they can be followed; going on");
                    return;
                }
                self.look_at_all(reason);
            } else {
                return;
            }
        }
    }

    fn feed(&mut self, event: Event, sink: &mut Sink<'_>) {
        let now = clock::now();
        if let Some(trace) = &mut self.trace
            && let Err(e) = trace.write(now, &event)
        {
            tracing::error!("recording stops: {e}");
            self.trace_error = Some(e);
            self.trace = None;
        }
        for effect in self.engine.apply(event, now) {
            match effect {
                Effect::Show(_) | Effect::Find(_) | Effect::Lost { .. } => sink(&effect),
                Effect::Settle(site) => {
                    self.settle.insert(site);
                }
                Effect::ReadPidFile(path, of) => {
                    self.read_pid_files.insert(PidFile { path, of });
                }
                Effect::Look(id) => {
                    self.looks.insert(id);
                }
                Effect::Supervise(id, start) => {
                    if let Err(e) = self.kernel.supervise(id, start) {
                        tracing::warn!("process {} cannot be followed: {e}", id.pid);
                        self.queue.push_back(observed(What::Lost {
                            source: "supervised".into(),
                            count: 1,
                        }));
                    }
                }
                Effect::Forget(id) => {
                    if let Err(e) = self.kernel.forget(id) {
                        tracing::warn!("process {} goes on being followed: {e}", id.pid);
                    }
                }
                Effect::Resync(reason) => {
                    // A snapshot that settles a loss settles everything else too.
                    if self.resync != Some(SnapshotReason::Loss) {
                        self.resync = Some(reason);
                    }
                }
            }
        }
    }

    /// Main processes that began or ended may have other roots and network namespaces than those before them.
    fn follow_mains(&mut self) {
        // Before the first snapshot nobody has joined anything.
        if self.resync == Some(SnapshotReason::Start) {
            return;
        }
        let changed = self.views.follow(self.engine.mains());
        for i in changed {
            self.watch_paths(i);
            self.settle.extend(self.views.sites(i));
            for declared in self.paths.of_service(i).to_vec() {
                self.look_again(declared);
            }
        }
    }

    /// The service's main process may have changed its root directory since its paths were looked at.
    fn refresh(&mut self, service: Option<usize>) {
        if let Some(i) = service
            && self.views.refresh(i)
        {
            self.watch_paths(i);
        }
    }

    /// Watches the paths of a service where they are now.
    fn watch_paths(&mut self, i: usize) {
        let moved = self.paths.update(i, self.views.service(i));
        for place in &moved.gone {
            self.directories.remove(place.clone());
            self.files.forget(place);
        }
        self.directories.add_all(moved.new);
        self.follow_changers();
    }

    /// Where a directory refuses fanotify, trampolines tell who changed a path in it.
    fn follow_changers(&mut self) {
        let mut paths = self.paths.all();
        let needed = paths.any(|path| self.directories.is_without_actor(path));
        drop(paths);
        self.kernel.follow_changers(needed);
    }

    fn look_again(&mut self, declared: Declared) {
        match declared {
            Declared::Socket(site) => {
                self.settle.insert(site);
            }
            Declared::PidFile(file) => {
                self.read_pid_files.insert(file);
            }
        }
    }

    fn watch_pid_file(&mut self, file: &PidFile) {
        let Some(owner) = self.paths.owner(file) else {
            return;
        };
        for place in self.views.service(owner).places(file.path.as_ref()) {
            if let Err(e) = self.files.watch(&place) {
                tracing::warn!("changes of {place} may be noticed late: {e}");
            }
        }
    }

    fn read_pid_file(&mut self, file: &PidFile) {
        let Some(owner) = self.paths.owner(file) else {
            return;
        };
        self.refresh(Some(owner));
        // Watched first: what is written after this reading is told.
        self.watch_pid_file(file);
        let at = clock::now();
        let view = self.views.service(owner);
        let state = pid_file::read(file.path.as_ref(), file.of.as_deref(), view);
        self.tell_level(at, What::PidFile(state));
    }

    fn look_at(&mut self, site: &Site) {
        self.refresh(self.views.owner(site));
        let at = clock::now();
        let state = self.observer.site(site, &self.views.of(site));
        self.follow_sockets(&state);
        self.tell_level(at, What::Address(state));
    }

    /// An upgrade puts another file under the path of an executable: the kernel must report what runs that one.
    fn look_at_executables(&mut self) {
        let now = exe_ids(&self.config);
        if now == self.exes {
            return;
        }
        if let Err(e) = self.kernel.want(&wanted(&self.config, &now)) {
            tracing::warn!("a replaced executable cannot be followed: {e}");
        }
        let paths: BTreeSet<String> = now.keys().chain(self.exes.keys()).cloned().collect();
        for path in paths {
            let id = now.get(&path).copied();
            if self.exes.get(&path).copied() != id {
                self.queue.push_back(observed(What::Executable { path, id }));
            }
        }
        self.exes = now;
    }

    fn look_at_all(&mut self, reason: SnapshotReason) {
        // A link to an executable may lead elsewhere without a change of the name itself.
        self.look_at_executables();
        let queue = &mut self.queue;
        self.heartbeats
            .initial(clock::now(), |what| queue.push_back(observed(what)));
        for i in 0..self.config.services.len() {
            self.refresh(Some(i));
        }
        let mut snapshot = self.observer.snapshot(&self.config, &self.views, reason);
        // Members stay members for as long as they live, whether or not a declaration still selects them.
        let listed: BTreeSet<ProcId> = snapshot.processes.iter().map(|p| p.id).collect();
        let others: Vec<Process> = self
            .engine
            .members()
            .filter(|id| !listed.contains(id))
            .filter_map(|id| process::read(id.pid).ok().flatten().filter(|p| p.id == id))
            .collect();
        snapshot.processes.extend(others);
        for state in &snapshot.addresses {
            self.follow_sockets(state);
        }
        let at = snapshot.began;
        self.tell_level(at, What::Snapshot(snapshot));
    }

    /// Watches for the last close of every live socket of a declared address.
    fn follow_sockets(&mut self, state: &AddressState) {
        for socket in &state.sockets {
            self.names.note(socket.inode, &state.address);
            match &state.address {
                // The kernel reports its end by the port.
                Address::Udp(_) => {}
                // That of a TCP listener too, but not where the kernel chose the port.
                Address::Tcp(_) | Address::Unix(_) | Address::Abstract(_) => {
                    let mut watched = socket.holders.is_empty();
                    for h in &socket.holders {
                        match self.closes.watch(socket.inode, h.process.pid, h.fd) {
                            Ok(()) => {
                                watched = true;
                                break;
                            }
                            // The descriptor is gone or another one by now; another holder's may serve, and if none
                            // does, the holders have changed: look again.
                            Err(CloseWatchError::AlreadyClosed { .. }) => {}
                            Err(e) => {
                                tracing::warn!(
                                    "the close of a socket of {} may be noticed late: {e}",
                                    state.address
                                );
                                watched = true;
                                break;
                            }
                        }
                    }
                    if !watched && self.follow_rounds > 0 {
                        self.follow_rounds -= 1;
                        self.settle.insert(state.site());
                    }
                }
            }
        }
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

/// Who did that to a path whose directory tells only that it happened.
fn changer(kernel: &Kernel, path: &Rooted, change: PathChange) -> Option<Actor> {
    let parent = path.parent();
    let directory = path::file_id_at(&parent.root, &parent.path).ok()?;
    let by = kernel.changer(directory, path.path.file_name()?, change)?;
    // The pid may be another process's by now.
    match who(kernel, by.id.pid) {
        Some(known) if known.id == by.id => Some(known),
        _ => Some(by),
    }
}

/// Who a pid is or was: the living from `/proc`, the dead from the kernel's memory of them.
fn who(kernel: &Kernel, pid: u32) -> Option<Actor> {
    let live = process::read(pid).ok().flatten();
    match live {
        Some(p) if p.exe.is_some() => Some(p),
        live => kernel.past(pid).map(|p| p.process).or(live),
    }
}

/// Adds what the kernel's record leaves out and `/proc` still tells.
fn complete(event: &mut Event) {
    match &mut event.what {
        What::Exec { process }
        | What::Fork { child: process }
        | What::Bind { process, .. }
        | What::Listen { process, .. } => {
            complete_process(process);
        }
        What::Signal(sent) => {
            if let Some(actor) = &mut sent.actor
                && actor.exe.is_none()
            {
                complete_process(actor);
            }
        }
        _ => {}
    }
}

/// A pid can be another process by now: then what `/proc` told is not about this one.
fn complete_process(p: &mut Process) {
    let before = p.clone();
    process::complete(p);
    if process::identity(p.id.pid) != Some(p.id) {
        *p = before;
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
