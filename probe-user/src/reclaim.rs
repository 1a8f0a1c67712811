//! Clean-up before a start: what is left of the last run is removed, what lives is ended where that was asked for, and
//! nothing else is touched.
//!
//! The order is fixed: the PID file is read, predecessors are ended, then strangers at the addresses, then stale sockets
//! and the stale PID file are removed, and at last everything is looked at again. Only that last look decides whether the
//! service can start.

pub(crate) mod guard;
mod pid_file;
mod place;
mod socket_file;
mod step;
pub(crate) mod survey;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::step::{Act, Outcome, Step};
use self::{
    guard::Guard,
    pid_file::PidFile,
    place::{Place, Refusal, Removal},
    socket_file::Found,
    step::name,
    survey::{Instance, Stranger, Survey},
};
use crate::{
    config::{Probe, Service},
    event::{AddressState, PathState, PidFileContent, ProcId},
    lock::{Lock, LockError, state_dir},
    signal::Signal,
    sources::{
        observer::Observer,
        process,
        root::{Root, Rooted},
        sock_diag::DiagError,
        view::View,
    },
    tree::{Handle, Limits, Note, OpenError, Tree},
};

/// What a reclaim may do, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where locks lie.
    pub state_dir: PathBuf,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Believe a PID file that others than its owner and root may write to.
    pub trust_pid_file: bool,
    /// How long another reclaim of the same service is waited for.
    pub lock_within: Duration,
    /// How long SIGKILL may take.
    pub kill_within: Duration,
}

impl Options {
    /// With the state directory of this configuration, or the user's own.
    pub fn new(probe: &Probe) -> Self {
        Self {
            state_dir: state_dir(probe.state_dir.as_ref()),
            dry_run: false,
            trust_pid_file: false,
            lock_within: Duration::from_secs(30),
            kill_within: Duration::from_secs(5),
        }
    }

    /// The directory of locks.
    pub fn locks(&self) -> PathBuf {
        self.state_dir.join("locks")
    }
}

/// Why nothing can be said about a service. What was done before was told step by step.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the kernel's sockets can't be read: {0}")]
    Sockets(#[from] DiagError),
    #[error("the processes can't be listed: {0}")]
    Processes(io::Error),
    #[error(transparent)]
    Process(#[from] OpenError),
    #[error("this process is not in /proc: is that of another pid namespace?")]
    Me,
}

/// Cleans up for a start of `service`, and tells whether it can start now. Blocks: for another reclaim of the service, for
/// processes that end.
///
/// `say` is given each step when it is done; a dry run's when it would be.
///
/// # Errors
/// When the service is locked for too long, or what there is can't be read. Nothing that was found is believed then.
pub fn reclaim(service: &Service, options: &Options, say: &mut dyn FnMut(Step)) -> Result<Outcome, Failure> {
    let _lock = Lock::take(&options.locks(), &service.name, "reclaim", options.lock_within)?;
    let guard = Guard::new().ok_or(Failure::Me)?;
    let mut work = Work {
        service,
        options,
        say,
        guard,
        observer: Observer::new(None)?,
        outcome: Outcome {
            service: service.name.clone(),
            dry_run: options.dry_run,
            ..Outcome::default()
        },
        gone: BTreeSet::new(),
        stuck: Vec::new(),
    };
    work.run()?;
    let mut outcome = work.outcome;
    outcome.can_start = outcome.in_the_way.is_empty();
    Ok(outcome)
}

/// Makes way for a socket of our own, whose last owner was killed.
///
/// # Errors
/// What is there instead.
pub(crate) fn clear_own(path: &Path) -> Result<(), String> {
    let Some(place) = Place::open(&Rooted::host(path)).map_err(|e| e.to_string())? else {
        return Ok(());
    };
    match socket_file::look(&place) {
        Found::Absent => Ok(()),
        Found::Stale(file) => match socket_file::remove(&place, &file) {
            Removal::Removed | Removal::Gone => Ok(()),
            Removal::Changed(why) | Removal::Failed(why) => Err(why),
        },
        Found::Live => Err("somebody listens there".into()),
        Found::Other(what) => Err(format!("it is a {what}")),
        Found::Unknown(why) => Err(why),
    }
}

struct Work<'a> {
    service: &'a Service,
    options: &'a Options,
    say: &'a mut dyn FnMut(Step),
    guard: Guard,
    observer: Observer,
    outcome: Outcome,
    /// Who has been ended, or would have been.
    gone: BTreeSet<ProcId>,
    /// Who could not be ended, and why.
    stuck: Vec<(ProcId, String)>,
}

impl Work<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let view = survey::view(self.service);
        let mut pid_file = self.open_pid_file(&view);
        let survey = Survey::take(
            self.service,
            &self.guard,
            &mut self.observer,
            view,
            pid_file.as_ref(),
            self.options.trust_pid_file,
        )?;
        self.tell_pid_file(pid_file.as_ref(), &survey);
        for doubtful in &survey.doubtful {
            let act = if doubtful.refused { Act::Refuse } else { Act::Leave };
            self.say(
                act,
                name(&doubtful.process),
                Some(doubtful.process.id.pid),
                doubtful.why.clone(),
            );
        }
        let places = self.places(&survey);
        let Survey {
            instances,
            strangers,
            mut view,
            ..
        } = survey;
        let mut kept = self.end_instances(instances)?;
        self.end_strangers(strangers)?;
        for (address, at) in &places {
            self.clear(address, at);
        }
        if let Some(file) = &mut pid_file {
            self.remove_pid_file(file, &kept)?;
        }
        kept.retain(|i| !i.handle.has_ended());
        // Who made the names mean something else may have been ended.
        if view
            .process
            .is_some_and(|id| process::identity(id.pid) != Some(id))
        {
            view.process = None;
            view.refresh();
        }
        self.verify(&kept, &view)
    }

    fn say(&mut self, act: Act, subject: String, pid: Option<u32>, reason: String) {
        (self.say)(Step {
            service: self.service.name.clone(),
            act,
            subject,
            pid,
            reason,
            dry_run: self.options.dry_run,
        });
    }

    // The PID file.

    fn open_pid_file(&mut self, view: &View) -> Option<PidFile> {
        let path = self.service.pid_file.as_deref()?;
        for at in view.places(path.as_ref()) {
            let place = match Place::open(&at) {
                Ok(Some(place)) => place,
                Ok(None) => continue,
                Err(refusal) => {
                    self.say(Act::Refuse, path.to_owned(), None, refusal.to_string());
                    continue;
                }
            };
            match PidFile::open(place) {
                Ok(Some(file)) => return Some(file),
                Ok(None) => {}
                Err(why) => self.say(Act::Refuse, path.to_owned(), None, why),
            }
        }
        None
    }

    fn tell_pid_file(&mut self, file: Option<&PidFile>, survey: &Survey) {
        let (Some(path), Some(file)) = (self.service.pid_file.clone(), file) else {
            return;
        };
        let says = match (&file.content, &survey.named) {
            (PidFileContent::Pid(pid), Some(named)) => format!("it says {pid}, and {}", named.says),
            (PidFileContent::Pid(pid), None) => format!("it says {pid}"),
            (PidFileContent::Empty, _) => "it is empty".into(),
            (PidFileContent::Garbage(text), _) => format!("it says {text:?}, which is no pid"),
            (PidFileContent::Absent | PidFileContent::Unreadable(_), _) => return,
        };
        let pid = survey.named.as_ref().map(|n| n.pid);
        self.say(Act::Found, path, pid, says);
    }

    /// `kept`: instances that live on.
    fn remove_pid_file(&mut self, file: &mut PidFile, kept: &[Instance]) -> Result<(), Failure> {
        let Some(path) = self.service.pid_file.clone() else {
            return Ok(());
        };
        if let Some(why) = file.distrust().filter(|_| !self.options.trust_pid_file) {
            self.say(Act::Refuse, path, None, why);
            return Ok(());
        }
        let reason = match file.content {
            PidFileContent::Pid(pid) => {
                if kept
                    .iter()
                    .any(|i| i.handle.pid() == pid && !i.handle.has_ended())
                {
                    return Ok(());
                }
                // Asked again: who has this pid now?
                match Handle::open(pid)?.filter(|h| !self.gone.contains(&h.id())) {
                    None => format!("it says {pid}, and no process has this pid"),
                    Some(h) => match self.is_nobody_s(file, &h) {
                        Some(why) => format!("it says {pid}, which is {}: {why}", name(h.process())),
                        None => {
                            let why = format!(
                                "it says {pid}, which is {} and may be the service",
                                name(h.process())
                            );
                            self.say(Act::Leave, path, Some(pid), why);
                            return Ok(());
                        }
                    },
                }
            }
            PidFileContent::Empty if file.age() < self.service.ready_within => {
                self.say(
                    Act::Leave,
                    path,
                    None,
                    "it is empty: whoever made it may be about to write".into(),
                );
                return Ok(());
            }
            PidFileContent::Empty => "it is empty, and has been for longer than a start takes".into(),
            PidFileContent::Garbage(_) => {
                self.say(
                    Act::Leave,
                    path,
                    None,
                    "what stands in it is no pid, so it may be no PID file".into(),
                );
                return Ok(());
            }
            PidFileContent::Absent | PidFileContent::Unreadable(_) => return Ok(()),
        };
        if file.is_locked() {
            self.say(Act::Leave, path, None, "somebody has locked it".into());
        } else if self.options.dry_run {
            self.outcome.removed.push(path.clone());
            self.say(Act::Remove, path, None, reason);
        } else {
            let removal = file.remove();
            self.tell_removal(path, reason, removal);
        }
        Ok(())
    }

    /// Why the process that has the number is not the service.
    fn is_nobody_s(&self, file: &PidFile, h: &Handle) -> Option<String> {
        let p = h.process();
        if let Some(mistake) = self.guard.mistake(p) {
            return (!mistake.is_starter()).then(|| mistake.says().into());
        }
        if !self.service.has_selector() {
            return file.is_about(p).err();
        }
        let exe_id = self.service.exe.as_deref();
        let exe_id = exe_id.and_then(|e| crate::sources::path::file_id(e.as_ref()).ok());
        let is_ours = crate::engine::membership::selects(self.service, exe_id, p);
        (!is_ours).then(|| "another program".into())
    }

    // Processes.

    /// Ends what may be ended, all at once. Returns the instances that live on, or would.
    fn end_instances(&mut self, instances: Vec<Instance>) -> Result<Vec<Instance>, Failure> {
        let (singleton, kill_other) = (self.service.singleton, self.service.kill_other);
        let mut kept = Vec::new();
        let mut tree = Tree::new(Vec::new());
        tree.spared = self.guard.spared();
        let mut because = BTreeMap::new();
        for instance in instances {
            if !(singleton || kill_other && instance.blocks) {
                let p = instance.handle.process();
                let why = format!(
                    "{}, and neither `singleton` nor `kill_other` lets it be ended",
                    instance.because
                );
                self.say(Act::Leave, name(p), Some(p.id.pid), why);
                kept.push(instance);
                continue;
            }
            let why = if singleton { "`singleton`" } else { "`kill_other`" };
            because.insert(
                instance.handle.id(),
                format!("{why} is set, and {}", instance.because),
            );
            if let Some(cgroup) = instance.cgroup {
                if cgroup.contains("/proc/self") {
                    tree.spared
                        .extend(started_with_us(&cgroup.pids().unwrap_or_default()));
                }
                // A unit has one.
                tree.cgroup = Some(cgroup);
            }
            tree.roots.push(instance.handle);
        }
        if !tree.roots.is_empty() {
            self.end(tree, &because)?;
        }
        Ok(kept)
    }

    fn end_strangers(&mut self, strangers: Vec<Stranger>) -> Result<(), Failure> {
        for Stranger {
            handle,
            address,
            mistake,
        } in strangers
        {
            // An instance's descendant may have ended with it.
            if handle.has_ended() || self.gone.contains(&handle.id()) {
                continue;
            }
            let (who, id, pid) = (name(handle.process()), handle.id(), Some(handle.pid()));
            match mistake {
                Some(mistake) => self.say(
                    Act::Refuse,
                    who,
                    pid,
                    format!("it holds {address}, but {}", mistake.says()),
                ),
                None if self.service.singleton || self.service.kill_other => {
                    let mut tree = Tree::new(vec![handle]);
                    tree.alone = true;
                    let why = if self.service.singleton {
                        "`singleton`"
                    } else {
                        "`kill_other`"
                    };
                    let because = format!("{why} is set, and it holds {address}");
                    self.end(tree, &BTreeMap::from([(id, because)]))?;
                }
                None => {
                    let why = format!(
                        "it holds {address}, and neither `singleton` nor `kill_other` lets it be ended"
                    );
                    self.say(Act::Leave, who, pid, why);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, mut tree: Tree, because: &BTreeMap<ProcId, String>) -> Result<(), Failure> {
        tree.look()?;
        let members: Vec<(ProcId, String)> = tree.processes().map(|p| (p.id, name(p))).collect();
        for (id, who) in &members {
            let why = because.get(id).cloned();
            let why = why.unwrap_or_else(|| "it belongs to the one above".into());
            self.say(Act::End, who.clone(), Some(id.pid), why);
        }
        if self.options.dry_run {
            self.gone.extend(members.into_iter().map(|(id, _)| id));
            return Ok(());
        }
        let limits = Limits {
            signal: stop_signal(self.service),
            stop_within: self.service.stop_within,
            kill_within: self.options.kill_within,
        };
        let (service, say) = (&self.service.name, &mut *self.say);
        let end = tree.end(&limits, &mut |note| say(step_of(service, &limits, note)))?;
        self.outcome.ended += end.ended;
        self.outcome.killed += end.killed;
        for left in end.left {
            let why = format!("it lives on after SIGKILL: {}", left.why);
            self.say(
                Act::Fail,
                name(&left.process),
                Some(left.process.id.pid),
                why.clone(),
            );
            self.stuck.push((
                left.process.id,
                format!("{} lives on: {}", name(&left.process), left.why),
            ));
        }
        self.gone.extend(members.into_iter().map(|(id, _)| id));
        for (id, _) in &self.stuck {
            self.gone.remove(id);
        }
        Ok(())
    }

    // Sockets.

    /// Where the declared socket files are, before anybody is ended through whose root they are seen.
    fn places(&self, survey: &Survey) -> Vec<(String, Rooted)> {
        let paths = self.service.listen.iter().filter_map(|a| Some((a, a.path()?)));
        paths
            .flat_map(|(address, path)| {
                let places = survey.view.places(path).into_iter();
                places.map(move |at| (address.to_string(), at))
            })
            .collect()
    }

    fn clear(&mut self, address: &str, at: &Rooted) {
        let place = match Place::open(at) {
            Ok(Some(place)) => place,
            Ok(None) => return,
            Err(refusal @ (Refusal::Link { .. } | Refusal::Directory { .. })) => {
                return self.say(Act::Refuse, address.to_owned(), None, refusal.to_string());
            }
            // What only the process saw that has ended.
            Err(Refusal::Open(e)) if matches!(at.root, Root::Process(_)) => {
                return self.say(
                    Act::Leave,
                    address.to_owned(),
                    None,
                    format!("its root directory is gone: {e}"),
                );
            }
            Err(e @ Refusal::Open(_)) => return self.say(Act::Fail, address.to_owned(), None, e.to_string()),
        };
        if !self.options.dry_run
            && let Some(removal) = socket_file::recover(&place)
        {
            let why = "an earlier reclaim was interrupted".to_owned();
            self.tell_removal(format!("{address} (moved aside)"), why, removal);
        }
        match socket_file::look(&place) {
            Found::Absent | Found::Live => {}
            Found::Other(what) => {
                self.say(
                    Act::Refuse,
                    address.to_owned(),
                    None,
                    format!("it is no socket but a {what}"),
                );
            }
            Found::Unknown(why) => self.say(Act::Leave, address.to_owned(), None, why),
            Found::Stale(file) => {
                let reason = "no socket is bound to it".to_owned();
                if self.options.dry_run {
                    self.outcome.removed.push(address.to_owned());
                    self.say(Act::Remove, address.to_owned(), None, reason);
                } else {
                    let removal = socket_file::remove(&place, &file);
                    self.tell_removal(address.to_owned(), reason, removal);
                }
            }
        }
    }

    fn tell_removal(&mut self, what: String, reason: String, removal: Removal) {
        match removal {
            Removal::Removed => {
                self.outcome.removed.push(what.clone());
                self.say(Act::Remove, what, None, reason);
            }
            Removal::Gone => self.say(
                Act::Found,
                what,
                None,
                "somebody else has removed it meanwhile".into(),
            ),
            Removal::Changed(why) => self.say(Act::Leave, what, None, why),
            Removal::Failed(why) => self.say(Act::Fail, what, None, why),
        }
    }

    // The end.

    fn verify(&mut self, kept: &[Instance], view: &View) -> Result<(), Failure> {
        let mut ways = Vec::new();
        let living: Vec<&Instance> = kept.iter().filter(|i| !i.handle.has_ended()).collect();
        let room = (self.service.max_instances as usize).saturating_sub(living.len());
        if room == 0 {
            for i in &living {
                ways.push(format!("{} lives, and {}", name(i.handle.process()), i.because));
            }
        }
        ways.extend(self.stuck.iter().map(|(_, why)| why.clone()));
        for state in survey::addresses(&mut self.observer, self.service, view) {
            self.verify_address(&state, room > 0, &living, &mut ways)?;
        }
        ways.dedup();
        self.outcome.in_the_way = ways;
        Ok(())
    }

    fn verify_address(
        &self,
        state: &AddressState,
        may_share: bool,
        living: &[&Instance],
        ways: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let address = &state.address;
        if let Some(e) = &state.error {
            ways.push(format!("{address} is unknown: {e}"));
            return Ok(());
        }
        let is_path = address.path().is_some();
        let mut is_held = false;
        for socket in survey::blocking(state) {
            is_held = true;
            let holders = survey::holders(socket)?;
            if holders.is_empty() && !self.options.dry_run {
                ways.push(format!("{address} is bound, and nobody was found who holds it"));
            }
            for h in &holders {
                // One who lives on was told already.
                let is_told = living.iter().any(|i| i.handle.id() == h.id())
                    || self.stuck.iter().any(|s| s.0 == h.id());
                let is_starter = self.guard.mistake(h.process()).is_some_and(|m| m.is_starter());
                let shares = may_share && !is_path && is_told;
                if !is_starter && !shares && !self.gone.contains(&h.id()) && (!is_told || may_share) {
                    ways.push(format!("{} holds {address}", name(h.process())));
                }
            }
        }
        match &state.path {
            None | Some(PathState::Absent) => {}
            Some(PathState::Unknown(e)) => ways.push(format!("{address} is unknown: {e}")),
            Some(PathState::Other(what)) => ways.push(format!("{address} is no socket but a {what}")),
            Some(PathState::Socket(_)) if is_held => {}
            Some(PathState::Socket(_)) => {
                let planned = self.options.dry_run && self.outcome.removed.contains(&address.to_string());
                if !planned {
                    ways.push(format!("{address} is a stale socket that was not removed"));
                }
            }
        }
        Ok(())
    }
}

/// What asks a process of this service to end.
pub(crate) fn stop_signal(service: &Service) -> Signal {
    match service.stop_signals.first() {
        Some(first) if !service.stop_signals.contains(&Signal::TERM) => *first,
        _ => Signal::TERM,
    }
}

/// Those of these pids that the service manager started for the same command as us.
fn started_with_us(pids: &[u32]) -> BTreeSet<ProcId> {
    let ours = nix::unistd::getsid(None).ok();
    let session =
        |pid: u32| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?))).ok();
    let pids = pids.iter().copied();
    pids.filter(|pid| ours.is_some() && session(*pid) == ours)
        .filter_map(process::identity)
        .collect()
}

fn step_of(service: &str, limits: &Limits, note: Note<'_>) -> Step {
    let (act, subject, pid, reason) = match note {
        Note::Sent { process, signal } => {
            let reason = match signal {
                Signal::KILL => format!(
                    "it has not ended within {}",
                    humantime::format_duration(limits.stop_within)
                ),
                _ => format!("it may take {}", humantime::format_duration(limits.stop_within)),
            };
            (
                Act::Signal { signal },
                name(process),
                Some(process.id.pid),
                reason,
            )
        }
        Note::Cgroup(cgroup) => {
            let reason = format!(
                "it has not ended within {}",
                humantime::format_duration(limits.stop_within)
            );
            (Act::KillGroup, cgroup.path().to_owned(), None, reason)
        }
        Note::Ended(process) => (Act::Ended, name(process), Some(process.id.pid), String::new()),
        Note::Failed { process, error } => {
            let subject = process.map_or_else(|| "the control group".to_owned(), name);
            (Act::Fail, subject, process.map(|p| p.id.pid), error.to_string())
        }
    };
    Step {
        service: service.to_owned(),
        act,
        subject,
        pid,
        reason,
        dry_run: false,
    }
}

/// The service of this name in a configuration.
pub fn find<'a>(services: &'a [Service], name: &str) -> Result<&'a Service, NotDeclared> {
    services.iter().find(|s| s.name == name).ok_or_else(|| {
        let names: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
        NotDeclared {
            name: name.to_owned(),
            hint: match crate::config::load::nearest(name, &names) {
                Some(near) => format!("; did you mean {near:?}?"),
                None if names.is_empty() => format!(
                    "; nothing is declared in {}, and only what is declared can be reclaimed",
                    Path::new(crate::config::load::DIRECTORY).display()
                ),
                None => format!("; declared are {}", names.join(", ")),
            },
        }
    })
}

#[derive(Debug, thiserror::Error)]
#[error("no service {name:?} is declared{hint}")]
pub struct NotDeclared {
    name: String,
    hint: String,
}
