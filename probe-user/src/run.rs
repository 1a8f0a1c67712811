//! One instance of a service, started and kept running; the same run over its children's deaths and over our own.
//!
//! What must outlive us is in the database before it happens: a child is written down before it runs anything, so the next
//! of us finds it, takes it over, and never starts a second one.

pub mod backoff;
pub mod child;
pub mod log;
pub(crate) mod notify;
mod ready;
pub mod signals;
pub mod store;
mod words;

use std::{ffi::OsString, fs::File, io, path::PathBuf, time::Duration};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::prctl,
};
use sd_notify::NotifyState;

pub use self::words::Said;
use self::{
    backoff::Pauses,
    child::{Plan, SpawnError},
    log::{Keep, Log},
    notify::{Relay, Word},
    ready::Readiness,
    signals::{Signals, reap},
    store::{Command, Phase, Recorded, Restart, Row, Runs, StoreError},
};
use crate::{
    clock::{self, Nanos},
    config::{Backoff, Service},
    event::ExitStatus,
    lock::{Lock, LockError},
    reclaim::{self, Failure, stop_signal},
    signal::Signal,
    sources::{path, sock_diag::DiagError},
    tree::{End, Handle, Limits, OpenError, Tree, exit_status},
};

/// How long the parent of a child that we took over may take to wait for it; only then the kernel tells how it ended.
const REAPED_WITHIN: Duration = Duration::from_secs(5);
/// While a child starts: how soon it is asked for again whether it is ready, at first and at last.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_AT_LAST: Duration = Duration::from_millis(500);

/// What is run, and how.
#[derive(Debug)]
pub struct Options {
    pub service: Service,
    /// `None`: what was recorded.
    pub command: Option<Command>,
    pub reclaim: reclaim::Options,
    /// How long another `probe run` of this service is waited for.
    pub lock_within: Duration,
    pub keep: Keep,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    Child(ExitStatus),
    /// The time limit was over.
    Limit(End),
    /// As often as `give_up_after` says in a row.
    GaveUp(ExitStatus),
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Reclaim(#[from] Failure),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Process(#[from] OpenError),
    #[error(transparent)]
    Sockets(#[from] DiagError),
    #[error("{service} cannot start: {ways}")]
    CannotStart { service: String, ways: String },
    #[error("{service} has no run to resume")]
    NothingToResume { service: String },
    #[error(
        "process {pid} of an earlier run of {service} lives, and was another command; stop it first, or take it over with \
         `probe run --resume {service}`"
    )]
    OtherCommand { service: String, pid: u32 },
    #[error("{what}: {source}")]
    Own { what: &'static str, source: io::Error },
}

fn own(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::Own { what, source }
}

/// Runs a service until it is over: see [`Ended`]. The process must have one thread only.
///
/// # Errors
/// When it can't be started, or what it needs of us is not to be had. A restart policy outlasts what may pass.
pub fn run(options: &Options, say: &mut dyn FnMut(Said<'_>)) -> Result<Ended, RunError> {
    let _lock = Lock::take(
        &options.reclaim.locks(),
        &options.service.name,
        "run",
        options.lock_within,
    )?;
    // Whatever loses its parent below us becomes our child, instead of getting lost.
    prctl::set_child_subreaper(true).map_err(|e| own("cannot become the subreaper")(e.into()))?;
    let signals = Signals::take().map_err(own("cannot take signals"))?;
    let runs = Runs::open(&options.reclaim.state_dir)?;
    let (row, adopted) = open(options, &runs)?;
    let heal = options.service.heal.as_ref();
    let pauses = Pauses::new(heal.map_or(Backoff::default(), |h| h.backoff), row.failures);
    let relay = match row.command.notify {
        true => Some(
            Relay::bind(&options.reclaim.state_dir.join("notify"), &row.service)
                .map_err(own("no socket for the child's notifications"))?,
        ),
        false => None,
    };
    let log = Log::new(
        &options.reclaim.state_dir.join("logs"),
        &row.service,
        options.keep,
    );
    let mut supervisor = Supervisor {
        options,
        signals,
        runs,
        row,
        pauses,
        last_pause: Duration::ZERO,
        relay,
        log,
        readiness: Readiness::new()?,
        say,
    };
    supervisor.supervise(adopted)
}

/// The run that goes on, with the child that it still has, or a new run.
fn open(options: &Options, runs: &Runs) -> Result<(Row, Option<Handle>), RunError> {
    let service = &options.service.name;
    let known = runs.get(service)?.filter(|row| row.phase != Phase::Ended);
    let Some(mut row) = known else {
        let Some(command) = options.command.clone() else {
            return Err(RunError::NothingToResume {
                service: service.clone(),
            });
        };
        let row = Row {
            service: service.clone(),
            identity: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            command,
            phase: Phase::Starting,
            child: None,
            started: false,
            restart_count: 0,
            failures: 0,
            exit: None,
        };
        runs.put(&row)?;
        return Ok((row, None));
    };
    let child = Runs::adopt(&row)?;
    if let Some(wanted) = &options.command {
        if let Some(child) = &child
            && wanted.argv != row.command.argv
        {
            return Err(RunError::OtherCommand {
                service: service.clone(),
                pid: child.pid(),
            });
        }
        row.command = wanted.clone();
    }
    if row.phase == Phase::Starting
        && let Some(child) = &child
    {
        match has_begun(child)? {
            // We died between its start and the note of it.
            true => {
                count(&mut row);
                row.phase = Phase::Running;
            }
            // It was never let go, and ends by itself.
            false => return Ok((row, None)),
        }
    }
    runs.put(&row)?;
    Ok((row, child))
}

/// Whether a child has become its command. One that was not let go sees that nobody will, and ends.
fn has_begun(child: &Handle) -> Result<bool, RunError> {
    let ours = path::exe_id(std::process::id()).map_err(own("cannot read our own executable"))?;
    let until = clock::now() + REAPED_WITHIN;
    loop {
        let theirs = child.read(|_| path::exe_id(child.pid()).ok());
        match theirs {
            None if child.has_ended() => return Ok(false),
            Some(exe) if exe != ours => return Ok(true),
            _ if clock::now() >= until => return Ok(true),
            _ => {
                child.ends_within(Duration::from_millis(5));
            }
        }
    }
}

fn count(row: &mut Row) {
    if row.started {
        row.restart_count += 1;
    }
    row.started = true;
}

struct Supervisor<'a> {
    options: &'a Options,
    signals: Signals,
    runs: Runs,
    row: Row,
    pauses: Pauses,
    last_pause: Duration,
    relay: Option<Relay>,
    log: Log,
    readiness: Readiness,
    say: &'a mut dyn FnMut(Said<'_>),
}

/// A child that is watched.
struct Watched {
    handle: Handle,
    /// We are its parent, so its end is told to us.
    is_ours: bool,
    is_ready: bool,
    /// When it is asked for next whether it is ready, and how long after that.
    look: Option<(Nanos, Duration)>,
    since: Nanos,
    /// When a stop that was asked for must be over.
    stop_by: Option<Nanos>,
}

/// Why a child is not watched any more.
enum Outcome {
    Ended(ExitStatus),
    Limit(End),
    /// It did not become ready.
    NotReady,
}

impl Supervisor<'_> {
    fn supervise(&mut self, adopted: Option<Handle>) -> Result<Ended, RunError> {
        let mut next = match adopted {
            Some(handle) => {
                (self.say)(Said::Adopted {
                    process: handle.process(),
                    row: &self.row,
                });
                Some(self.watched(handle, false))
            }
            None if self.row.phase == Phase::Stopping && self.options.command.is_none() => {
                return self.over(Ended::Child(ExitStatus::Unknown));
            }
            None => None,
        };
        loop {
            let watched = match next.take() {
                Some(watched) => watched,
                None => match self.start_until_it_starts()? {
                    Ok(watched) => watched,
                    Err(ended) => return self.over(ended),
                },
            };
            if let Some(ended) = self.follow(watched)? {
                return self.over(ended);
            }
        }
    }

    /// Notes that nothing more will come of this run.
    fn over(&mut self, ended: Ended) -> Result<Ended, RunError> {
        self.row.phase = Phase::Ended;
        self.runs.put(&self.row)?;
        Ok(ended)
    }

    fn watched(&self, handle: Handle, is_ours: bool) -> Watched {
        let now = clock::now();
        let stop_by = (self.row.phase == Phase::Stopping).then(|| now + self.options.service.stop_within);
        Watched {
            look: (!self.options.service.listen.is_empty()).then_some((now + LOOK_FIRST, LOOK_FIRST)),
            is_ready: false,
            since: handle.process().start,
            handle,
            is_ours,
            stop_by,
        }
    }

    /// Tries for ever where the policy says so. The inner error: it is over before anything ran.
    fn start_until_it_starts(&mut self) -> Result<Result<Watched, Ended>, RunError> {
        loop {
            self.row.phase = Phase::Starting;
            self.runs.put(&self.row)?;
            let error = match self.start() {
                Ok(watched) => return Ok(Ok(watched)),
                Err(e) if self.row.command.restart == Restart::Never || !may_pass(&e) => {
                    self.over(Ended::Child(ExitStatus::Unknown))?;
                    return Err(e);
                }
                Err(e) => e,
            };
            (self.say)(Said::NotStarted(&error));
            if let Some(ended) = self.fail(ExitStatus::Unknown)? {
                return Ok(Err(ended));
            }
        }
    }

    fn start(&mut self) -> Result<Watched, RunError> {
        let (options, say) = (self.options, &mut *self.say);
        let outcome = reclaim::reclaim(&options.service, &options.reclaim, &mut |step| {
            say(Said::Step(&step))
        })?;
        if !outcome.can_start {
            return Err(RunError::CannotStart {
                service: outcome.service,
                ways: outcome.in_the_way.join("; "),
            });
        }
        let output: Option<File> = match self.row.command.inherit_output {
            true => None,
            false => Some(self.log.rotate().map_err(own("the log can't be written"))?),
        };
        let argv: Vec<OsString> = self.row.command.argv.iter().map(OsString::from).collect();
        let directory = self
            .row
            .command
            .directory
            .as_ref()
            .map(|d| PathBuf::from(OsString::from(d)));
        let relay = self.relay.as_ref().map(|r| r.path().as_os_str().to_owned());
        let plan = Plan {
            argv: &argv,
            directory: directory.as_deref(),
            output: output.as_ref(),
            // The manager's words are for us, and of us.
            environment: vec![("NOTIFY_SOCKET", relay), ("WATCHDOG_PID", None)],
            mask: self.signals.before(),
            on_our_end: None,
        };
        let (runs, row) = (&self.runs, &mut self.row);
        let handle = child::spawn(&plan, &mut |child| {
            row.child = Some(Recorded::of(child));
            row.phase = Phase::Starting;
            runs.put(row).map_err(|e| e.to_string())
        });
        let handle = handle.inspect_err(|_| {
            reap(0);
        })?;
        count(&mut self.row);
        self.row.phase = Phase::Running;
        self.row.exit = None;
        self.runs.put(&self.row)?;
        (self.say)(Said::Started {
            process: handle.process(),
            row: &self.row,
            log: output.as_ref().map(|_| self.log.path()),
        });
        Ok(self.watched(handle, true))
    }

    /// Watches a child to its end. `None`: it is to be started again.
    fn follow(&mut self, mut watched: Watched) -> Result<Option<Ended>, RunError> {
        if watched.look.is_none() && self.relay.is_none() {
            self.become_ready(&mut watched);
        }
        let stopped_before = self.row.phase == Phase::Stopping;
        let outcome = self.watch(&mut watched)?;
        let lived = clock::now().since(watched.since);
        let was_ready = watched.is_ready;
        let is_ours = watched.is_ours;
        let status = match outcome {
            Outcome::Limit(end) => return Ok(Some(Ended::Limit(end))),
            Outcome::NotReady => ExitStatus::Unknown,
            Outcome::Ended(status) => {
                (self.say)(Said::Ended {
                    process: watched.handle.process(),
                    status,
                });
                status
            }
        };
        self.row.exit = Some(words::status(status));
        if is_ours {
            self.end_rest()?;
        }
        if self.row.phase == Phase::Stopping {
            // The stop was asked of the one before us, and now somebody asks for a start.
            let starts_anew = stopped_before && self.options.command.is_some();
            return match starts_anew {
                true => Ok(None),
                false => Ok(Some(Ended::Child(status))),
            };
        }
        let is_clean =
            matches!(status, ExitStatus::Code(code) if self.options.service.clean_exit.contains(&code));
        match self.row.command.restart {
            Restart::Never => return Ok(Some(Ended::Child(status))),
            Restart::OnFailure if is_clean => return Ok(Some(Ended::Child(status))),
            Restart::OnFailure | Restart::Always => {}
        }
        if was_ready && lived >= self.last_pause.max(self.options.service.ready_within) {
            self.pauses.reset();
        }
        self.fail(status)
    }

    /// Waits until the next start. `Some`: there is none.
    fn fail(&mut self, status: ExitStatus) -> Result<Option<Ended>, RunError> {
        let pause = self.pauses.next(fastrand::f64());
        self.last_pause = pause;
        self.row.failures = self.pauses.failures();
        self.row.phase = Phase::Starting;
        self.runs.put(&self.row)?;
        let budget = self.options.service.heal.as_ref().and_then(|h| h.give_up_after);
        if budget.is_some_and(|budget| self.pauses.failures() >= budget) {
            return Ok(Some(Ended::GaveUp(status)));
        }
        (self.say)(Said::Pause(pause));
        let until = clock::now() + pause;
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(None, Some(left))?;
            reap(0);
            if self.signals.drain().iter().any(|c| self.is_stop(c.signal)) {
                return Ok(Some(Ended::Child(status)));
            }
        }
    }

    fn watch(&mut self, watched: &mut Watched) -> Result<Outcome, RunError> {
        let limit = self.row.command.limit.map(|limit| watched.since + limit);
        loop {
            let reaped = reap(watched.handle.pid());
            if let Some(status) = reaped.filter(|_| watched.is_ours) {
                return Ok(Outcome::Ended(status));
            }
            if !watched.is_ours && watched.handle.has_ended() {
                return Ok(Outcome::Ended(self.status_of_adopted(&watched.handle)?));
            }
            let now = clock::now();
            if limit.is_some_and(|limit| now >= limit) {
                self.stopping()?;
                return Ok(Outcome::Limit(
                    self.end_all(watched, self.options.service.stop_within)?,
                ));
            }
            if watched.stop_by.is_some_and(|by| now >= by) {
                // It was asked already.
                self.end_all(watched, Duration::ZERO)?;
                watched.stop_by = None;
                continue;
            }
            if let Some(outcome) = self.look(watched, now)? {
                return Ok(outcome);
            }
            let next = [limit, watched.stop_by, watched.look.map(|(at, _)| at)];
            let next = next.into_iter().flatten().min();
            self.wait(Some(&watched.handle), next.map(|at| at.since(now)))?;
            self.pass_on(watched)?;
        }
    }

    /// Whether it is ready, when that is due.
    fn look(&mut self, watched: &mut Watched, now: Nanos) -> Result<Option<Outcome>, RunError> {
        let Some((at, pause)) = watched.look.filter(|(at, _)| now >= *at) else {
            return Ok(None);
        };
        if self
            .readiness
            .is_ready(&self.options.service, watched.handle.id())
        {
            watched.look = None;
            self.become_ready(watched);
            return Ok(None);
        }
        let pause = (pause * 2).min(LOOK_AT_LAST);
        watched.look = Some((at.max(now) + pause, pause));
        let is_late = now >= watched.since + self.options.service.ready_within;
        if !is_late || watched.stop_by.is_some() {
            return Ok(None);
        }
        // Only where another start may help it is worth an end.
        watched.look = None;
        (self.say)(Said::NotReady(self.options.service.ready_within));
        if self.row.command.restart == Restart::Never || !watched.is_ours {
            return Ok(None);
        }
        self.end_all(watched, self.options.service.stop_within)?;
        Ok(Some(Outcome::NotReady))
    }

    fn become_ready(&mut self, watched: &mut Watched) {
        if !watched.is_ready {
            watched.is_ready = true;
            (self.say)(Said::Ready(clock::now().since(watched.since)));
            if self.relay.is_none() {
                // Nobody may be listening.
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
        }
    }

    /// Signals to the child, its words to the service manager.
    fn pass_on(&mut self, watched: &mut Watched) -> Result<(), RunError> {
        let words = self.relay.as_ref().map(Relay::pass_on).unwrap_or_default();
        if words.contains(&Word::Ready) {
            watched.look = None;
            self.become_ready(watched);
        }
        for came in self.signals.drain() {
            if self.is_stop(came.signal) {
                self.stopping()?;
                watched.look = None;
                let by = clock::now() + self.options.service.stop_within;
                watched.stop_by.get_or_insert(by);
            }
            if !came.by_terminal {
                // It may just have ended; that is seen next.
                let _ = watched.handle.send(came.signal);
            }
        }
        Ok(())
    }

    fn stopping(&mut self) -> Result<(), RunError> {
        if self.row.phase != Phase::Stopping {
            self.row.phase = Phase::Stopping;
            self.runs.put(&self.row)?;
            if self.relay.is_none() {
                let _ = sd_notify::notify(&[NotifyState::Stopping]);
            }
        }
        Ok(())
    }

    fn is_stop(&self, signal: Signal) -> bool {
        self.options.service.stop_signals.contains(&signal)
            || [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal)
    }

    fn end_all(&mut self, watched: &Watched, stop_within: Duration) -> Result<End, RunError> {
        let Some(again) = Handle::open_as(watched.handle.id())? else {
            return Ok(End::default());
        };
        let mut tree = Tree::new(vec![again]);
        tree.under = Handle::open(std::process::id())?;
        self.end(tree, stop_within)
    }

    /// What a child left behind below us would be in the way of the next one.
    fn end_rest(&mut self) -> Result<(), RunError> {
        let mut tree = Tree::new(Vec::new());
        tree.under = Handle::open(std::process::id())?;
        if tree.look()? {
            self.end(tree, self.options.service.stop_within)?;
        }
        reap(0);
        Ok(())
    }

    fn end(&mut self, mut tree: Tree, stop_within: Duration) -> Result<End, RunError> {
        let limits = Limits {
            signal: stop_signal(&self.options.service),
            stop_within,
            kill_within: self.options.reclaim.kill_within,
        };
        let say = &mut *self.say;
        let end = tree.end(&limits, &mut |note| say(Said::Note(note)))?;
        for left in &end.left {
            say(Said::LivesOn(left));
        }
        Ok(end)
    }

    /// The kernel keeps it for whoever holds a pidfd, once the parent has waited for the child.
    fn status_of_adopted(&self, handle: &Handle) -> Result<ExitStatus, RunError> {
        let until = clock::now() + REAPED_WITHIN;
        loop {
            match exit_status(handle.fd()) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if clock::now() < until => self.wait(None, Some(Duration::from_millis(20)))?,
                Ok(None) | Err(_) => return Ok(ExitStatus::Unknown),
            }
        }
    }

    /// For a signal, the child's end or its words; at most so long.
    fn wait(&self, child: Option<&Handle>, limit: Option<Duration>) -> Result<(), RunError> {
        let timeout = limit.map_or(PollTimeout::NONE, |limit| {
            let rounded = limit + Duration::from_nanos(999_999);
            PollTimeout::try_from(rounded).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.signals.fd(), PollFlags::POLLIN)];
        fds.extend(child.map(|c| PollFd::new(c.fd(), PollFlags::POLLIN)));
        let words = self.relay.as_ref().filter(|_| child.is_some());
        fds.extend(words.map(|r| PollFd::new(r.fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(e) => Err(own("cannot wait")(e.into())),
        }
    }
}

/// Whether another try may succeed.
fn may_pass(error: &RunError) -> bool {
    !matches!(
        error,
        RunError::Spawn(SpawnError::Exec { .. } | SpawnError::Empty | SpawnError::Keep(_))
            | RunError::Store(_)
    )
}
