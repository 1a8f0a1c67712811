//! What the engine knows of a service: members, instances, generations, how things ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    address::Address,
    clock::Nanos,
    config::Service,
    event::{Actor, Disposition, ExitStatus, PidFileState, ProcId, ProcessState, SignalResult, UnitJob},
    signal::Signal,
};

use super::{addresses::Place, family::Family, verdict::Open};

/// Signals remembered for a living member: enough for a sender, its repetition and what it led to.
pub(super) const SIGNALS_KEPT: usize = 8;
/// Deaths remembered until a successor shows that they are over.
pub(super) const DEATHS_KEPT: usize = 16;

/// Events were lost; nothing is judged until a snapshot has settled the truth.
#[derive(Debug)]
pub(super) struct Blind {
    pub(super) since: Nanos,
    /// When the newest loss was told.
    pub(super) last: Nanos,
    pub(super) sources: BTreeMap<String, u64>,
}

/// A signal as it was sent.
#[derive(Debug, Clone)]
pub(super) struct SignalFact {
    pub(super) signal: Signal,
    pub(super) at: Nanos,
    pub(super) seq: u64,
    pub(super) result: SignalResult,
    pub(super) disposition: Disposition,
    pub(super) fault_addr: Option<u64>,
    pub(super) actor: Option<Actor>,
}

/// How somebody asked a process to stop.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Signal {
        signal: Signal,
        disposition: Disposition,
    },
    /// systemd has a job for its unit. `waiting`: for others, and the unit is not being stopped yet.
    Job { job: UnitJob, waiting: bool },
}

/// Somebody asked a process to stop.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) how: Ask,
    pub(super) at: Nanos,
    pub(super) seq: u64,
    /// `None`: the kernel itself, or a job.
    pub(super) actor: Option<Actor>,
}

impl Asked {
    pub(super) fn by_job(&self) -> bool {
        matches!(self.how, Ask::Job { .. })
    }

    /// What happened since, in nanoseconds after the request; `null` for what has not happened (yet).
    pub(super) fn timeline(
        &self,
        listeners_closed: Option<Nanos>,
        ended: Option<(Nanos, ExitStatus)>,
    ) -> serde_json::Value {
        let after = |at: Nanos| u64::try_from(at.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let (signal, disposition) = match &self.how {
            Ask::Signal { signal, disposition } => (Some(*signal), Some(*disposition)),
            Ask::Job { .. } => (None, None),
        };
        serde_json::json!({
            "asked_boot_ns": self.at,
            "asked": self.words(),
            "signal": signal,
            "disposition": disposition,
            "listeners_closed_after_ns": listeners_closed.map(after),
            "ended_after_ns": ended.map(|(at, _)| after(at)),
            "status": ended.map(|(_, status)| status),
        })
    }

    /// `with TERM by kill (990)`, `by systemd's stop job 812`.
    pub(super) fn words(&self) -> String {
        match &self.how {
            Ask::Signal { signal, .. } => {
                let by = self
                    .actor
                    .as_deref()
                    .map_or("the kernel".to_owned(), super::show::describe);
                format!("with {signal} by {by}")
            }
            Ask::Job { job, .. } => format!("by systemd's {} job {}", job.kind, job.id),
        }
    }
}

/// A living process of the service.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) process: Actor,
    pub(super) instance: u32,
    /// When what the engine met it by happened.
    pub(super) joined: Nanos,
    /// When its parent ended, if that was a member.
    pub(super) orphaned: Nanos,
    /// The last exec of its own that was told.
    pub(super) exec_at: Option<Nanos>,
    pub(super) asked: Option<Asked>,
    /// Stop signals from outside, whether or not it was known then that they asked the service.
    pub(super) heard: VecDeque<Asked>,
    pub(super) signals: VecDeque<SignalFact>,
    /// The signal that stopped it, until it is continued.
    pub(super) stopped: Option<SignalFact>,
    /// How it was when it was last looked at.
    pub(super) seen: Option<(ProcessState, Nanos)>,
    /// A look was asked for and not answered.
    pub(super) looking: bool,
    /// The last time that it ignored a signal, until it catches that one.
    pub(super) ignored: BTreeMap<Signal, SignalFact>,
    /// The OOM killer chose it: resident bytes, event.
    pub(super) oom: Option<(Option<u64>, u64, Nanos)>,
    /// It has held a declared address at some time.
    pub(super) held_address: bool,
    /// It has removed its PID file or a socket path of the service.
    pub(super) cleaned_up: bool,
}

/// A root member and its living descendants; survivors stay one instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) root: Actor,
    pub(super) living: BTreeSet<ProcId>,
    /// Since when it counts: it holds a declared address, or the PID file or the unit names it, or it has lived long
    /// enough where a service declares neither. A tool run of the same executable never gets here.
    pub(super) qualified: Option<Nanos>,
    /// `--pid` names one of its members, or one has held a declared address or written the PID file: it is to count.
    pub(super) evident: bool,
    /// One of its members is in the unit.
    pub(super) of_unit: bool,
    /// Living members that were asked to stop, by the event.
    pub(super) asked: BTreeSet<(u64, ProcId)>,
    /// The event that made it one.
    pub(super) seq: u64,
}

/// The process that the service is.
#[derive(Debug, Clone)]
pub(super) struct Main {
    pub(super) id: ProcId,
    pub(super) instance: u32,
    pub(super) began: Nanos,
    /// When it was found to be the main process.
    pub(super) chosen: Nanos,
}

/// A main process that lived when another one took its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) id: ProcId,
    /// As long as it was the main process.
    pub(super) until: Nanos,
    pub(super) generation: u64,
    /// The next one came to count then. Otherwise that one had counted before, and this one lost what had made it the main
    /// process: perhaps by the end of which only the kernel tells when it was.
    pub(super) replaced: bool,
}

/// What an end of the main process means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    /// Somebody asked it to stop.
    Asked,
    /// It stopped itself in good order.
    Clean,
    /// It ended and others of its instance go on.
    Handover,
    Crash,
    /// Nobody saw how.
    Unseen,
}

/// The end of a member.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) process: Actor,
    pub(super) status: ExitStatus,
    /// When it exited.
    pub(super) at: Nanos,
    pub(super) seq: u64,
    pub(super) was_main: bool,
    /// Its instance.
    pub(super) instance: u32,
    /// The service's generation then.
    pub(super) generation: u64,
    pub(super) kind: EndKind,
    pub(super) asked: Option<Asked>,
    /// The signal that killed it.
    pub(super) killer: Option<SignalFact>,
    pub(super) oom: Option<(Option<u64>, u64, Nanos)>,
    /// When the last of the service's listeners was closed between the request to stop and this end.
    pub(super) listeners_closed: Option<Nanos>,
    /// Another member ended it with a stop signal: how a daemon's parts stop each other.
    pub(super) stopped_by_own: bool,
    /// The PID file had named another instance before, as was only read afterwards: it was not the main process any more.
    pub(super) named_instead: bool,
    /// Inodes of the sockets of the service that it had open as it exited with code 0: until they were looked at it is not known whether
    /// somebody else holds them.
    pub(super) unsettled: Vec<u64>,
    /// It had bound an address that nobody had looked at since, and others of its instance live: they may have inherited it.
    pub(super) unread: bool,
}

impl End {
    /// The stop that led here, with durations since it was asked for. `None`: nobody asked.
    pub(super) fn stop_timeline(&self) -> Option<serde_json::Value> {
        let asked = self.asked.as_ref()?;
        Some(asked.timeline(self.listeners_closed, Some((self.at, self.status))))
    }

    /// When what ended it began: the killing signal where there was one.
    pub(super) fn cause_at(&self) -> Nanos {
        self.killer.as_ref().map_or(self.at, |k| k.at)
    }

    pub(super) fn actor(&self) -> Option<Actor> {
        self.killer.as_ref().and_then(|k| k.actor.clone())
    }

    /// Groups everything that this end led to.
    pub(super) fn cause(&self) -> String {
        format!("end {} {}", self.process.id.pid, self.process.id.start_ticks)
    }

    pub(super) fn evidence(&self) -> Vec<u64> {
        let mut seqs: Vec<u64> = [
            self.asked.as_ref().map(|a| a.seq),
            self.killer.as_ref().map(|k| k.seq),
        ]
        .into_iter()
        .flatten()
        .chain(self.oom.map(|(_, seq, _)| seq))
        .chain([self.seq])
        .collect();
        seqs.sort_unstable();
        seqs.dedup();
        seqs
    }

    /// Nobody has to be told that what it left behind is dead.
    pub(super) fn explains_leftovers(&self) -> bool {
        matches!(self.kind, EndKind::Asked | EndKind::Clean)
    }
}

#[derive(Debug)]
pub(super) struct ServiceState {
    pub(super) decl: Service,
    /// The declared addresses, in the order of the declaration.
    pub(super) places: Vec<Place>,
    /// Boxed, as are other large things in maps that hold few: a map has room for eleven at least.
    pub(super) members: BTreeMap<ProcId, Box<Member>>,
    pub(super) family: Family,
    /// There was more of it than may be remembered: it is not judged until a snapshot fits.
    pub(super) over: bool,
    pub(super) instances: BTreeMap<u32, Box<Instance>>,
    pub(super) next_instance: u32,
    pub(super) main: Option<Main>,
    pub(super) main_before: Option<Before>,
    /// Lives of the main process so far.
    pub(super) generation: u64,
    /// The main process of `generation` as an earlier run of probe knew it, until one begins to count here.
    pub(super) remembered: Option<ProcId>,
    /// The instance that the current generation belongs to, also after its main process ended.
    pub(super) generation_instance: Option<u32>,
    /// All declared addresses have been served in this generation.
    pub(super) ready: bool,
    /// How the last main process ended.
    pub(super) last_end: Option<End>,
    /// Unasked ends of main processes, as many as make a crash loop.
    pub(super) crashes: VecDeque<End>,
    /// Ends of members that are findings of their own.
    pub(super) deaths: VecDeque<End>,
    /// Ends of other members that held a declared address or were named by the PID file.
    pub(super) holder_ends: VecDeque<End>,
    pub(super) pid_file: Option<(PidFileState, Nanos, u64)>,
    /// When something was done to the PID file's name, until the file is read.
    pub(super) pid_file_touched: Option<Nanos>,
    /// What systemd last said of its unit.
    pub(super) unit: Option<super::unit::Seen>,
    /// probe's own healing has stopped trying.
    pub(super) gave_up: Option<super::heal::GaveUp>,
    /// Ends of processes of the unit, until systemd says whether they were the main one.
    pub(super) unconfirmed: VecDeque<End>,
    /// Ends of main processes that had not shown that they count.
    pub(super) uncounted: VecDeque<End>,
    /// Who made the PID file or renamed another one to its name.
    pub(super) pid_file_writers: VecDeque<ProcId>,
    /// Ends of those, until the file is read, and the stop signals that they were sent.
    pub(super) unread: VecDeque<(End, VecDeque<Asked>)>,
    /// The last sign of life, and its event.
    pub(super) beat: Option<(Nanos, u64)>,
    /// It was seen without any member; stays so until an instance counts.
    pub(super) down: Option<(Nanos, u64)>,
    /// Binds that failed, of processes that live and have not bound the address since.
    pub(super) refused: BTreeMap<Address, RefusedBind>,
    pub(super) open: BTreeMap<super::verdict::Key, Open>,
}

/// A bind that failed.
#[derive(Debug)]
pub(super) struct RefusedBind {
    pub(super) process: Actor,
    pub(super) errno: i32,
    pub(super) at: Nanos,
    pub(super) seq: u64,
}

impl ServiceState {
    pub(super) fn new(decl: Service, places: Vec<Place>) -> Self {
        Self {
            decl,
            places,
            members: BTreeMap::new(),
            family: Family::default(),
            over: false,
            instances: BTreeMap::new(),
            next_instance: 0,
            main: None,
            main_before: None,
            generation: 0,
            remembered: None,
            generation_instance: None,
            ready: false,
            last_end: None,
            crashes: VecDeque::new(),
            deaths: VecDeque::new(),
            holder_ends: VecDeque::new(),
            pid_file: None,
            pid_file_touched: None,
            unit: None,
            gave_up: None,
            unconfirmed: VecDeque::new(),
            uncounted: VecDeque::new(),
            pid_file_writers: VecDeque::new(),
            unread: VecDeque::new(),
            beat: None,
            down: None,
            refused: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// Living instances that count.
    pub(super) fn qualified(&self) -> impl Iterator<Item = (u32, &Instance)> {
        self.instances
            .iter()
            .filter(|(_, i)| i.qualified.is_some())
            .map(|(n, i)| (*n, &**i))
    }

    pub(super) fn main_member(&self) -> Option<&Member> {
        self.member(&self.main.as_ref()?.id)
    }

    pub(super) fn member(&self, id: &ProcId) -> Option<&Member> {
        self.members.get(id).map(Box::as_ref)
    }

    /// A stop was asked of the main process's instance and is not over.
    pub(super) fn stopping(&self) -> Option<&Asked> {
        let main = self.main.as_ref()?;
        self.instance_asked(main.instance)
    }

    /// The first who asked this instance's root or the main process to stop.
    pub(super) fn instance_asked(&self, instance: u32) -> Option<&Asked> {
        let (_, id) = self.instances.get(&instance)?.asked.first()?;
        self.members.get(id)?.asked.as_ref()
    }

    /// The end of the main process that the present one only outlives: it was a worker of that life, or a session. Not whom the
    /// PID file named before that end: it had taken over.
    pub(super) fn outlived(&self) -> Option<&End> {
        let main = self.main_member()?;
        self.last_end.as_ref().filter(|e| {
            e.kind != EndKind::Handover
                && e.generation == self.generation
                && main.process.start <= e.at
                && !self.was_named_instead(e)
        })
    }

    /// The process to name when an instance is meant: the oldest living one without a living parent in it.
    pub(super) fn lead<'a>(&'a self, instance: &'a Instance) -> &'a Actor {
        let lead = self.family.roots().find(|id| instance.living.contains(id));
        lead.and_then(|id| self.members.get(&id))
            .map_or(&instance.root, |m| &m.process)
    }

    /// Members whose parent is no living member.
    pub(super) fn is_root(&self, m: &Member) -> bool {
        self.family.is_root(&m.process)
    }

    /// Whether the last main process ended as it was asked to, and nothing has taken its place.
    pub(super) fn stopped_as_asked(&self) -> bool {
        let none = || self.qualified().next().is_none();
        self.last_end
            .as_ref()
            .is_some_and(|e| e.explains_leftovers() && (none() || self.outlived().is_some()))
    }
}

/// The newest are kept.
pub(super) fn keep<T>(ends: &mut VecDeque<T>, end: T) {
    if ends.len() == DEATHS_KEPT {
        ends.pop_front();
    }
    ends.push_back(end);
}
