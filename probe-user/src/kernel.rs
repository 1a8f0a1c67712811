//! The kernel side: loads the eBPF programs, tells them what is wanted, and reads what they report.

pub mod btf;
pub mod decode;
pub mod facts;
pub mod features;
mod iterators;
mod load;
mod maps;
pub mod members;
pub mod offsets;
pub mod pins;
pub mod plan;
mod ring;
mod task_files;
mod vmlinux;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsStr,
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    Btf, Ebpf,
    maps::RingBuf,
    programs::{FExit, Program, ProgramError, fexit::FExitLinkId, links::FdLink},
};
use aya_log::EbpfLogger;

use probe_abi::CONTROL_INET_LISTEN;
pub use probe_abi::PortKey;

pub(crate) use self::load::{give_back_memory, give_back_much_memory};
use self::members::Membership;
pub use self::{
    facts::Facts,
    iterators::Iterators,
    load::{LoadError, LoadOptions, LogLevel, LogLevelError},
    maps::{MapsError, PastProcess, Wanted},
    pins::{PinError, PinOptions, Predecessor},
    plan::{Plan, Tier},
    ring::Ring,
    task_files::{HeldUnix, TaskFiles, TaskFilesError},
};
use crate::{
    clock::Nanos,
    event::{FileId, PathChange, ProcId, Process},
};

/// The loaded and attached programs. Dropped together with its [`Iterators`], everything is detached.
pub struct Kernel {
    ebpf: Arc<Mutex<Ebpf>>,
    facts: Facts,
    plan: Plan,
    maps: maps::Maps,
    ring: Option<Ring>,
    iterators: Option<Iterators>,
    log: Option<BpfLog>,
    undecoded: Arc<AtomicU64>,
    reported_undecoded: u64,
    reported_misses: BTreeMap<String, u64>,
    /// Whether and how [`Self::follow_changers`] is attached.
    changers: Vec<(&'static str, FExitLinkId)>,
    /// Of programs that end with this process.
    _links: Vec<FdLink>,
    pins: Option<pins::Pins>,
    /// Programs whose links are pinned, by name.
    pinned: Vec<(&'static str, OwnedFd)>,
    is_pinned: bool,
    why_not_pinned: Option<String>,
    taken_over: Option<TakenOver>,
    /// What was lost while no daemon ran, beyond what the counters tell.
    lost_before: Vec<(String, u64)>,
}

/// What an earlier daemon had left in the kernel.
#[derive(Debug, Default)]
pub struct TakenOver {
    /// Its programs and maps go on as they were.
    pub adopted: bool,
    /// Generations of another build, drained and removed.
    pub predecessors: Vec<Predecessor>,
    /// Programs that were not attached in between.
    pub reattached: Vec<&'static str>,
    /// Why what was there could not be gone on with.
    pub unfit: Option<String>,
    /// Pids that the programs have followed.
    pub supervised: BTreeSet<u32>,
    /// What was known of those that belonged to a service, also of those that have ended meanwhile.
    pub members: BTreeMap<ProcId, Membership>,
}

/// Whether what is attached outlives this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pinned {
    /// Where it is pinned. `None`: it is not.
    pub directory: Option<PathBuf>,
    /// Why it is not, or not all of it.
    pub why_not: Option<String>,
}

/// Programs of [`Kernel::follow_changers`], and where they are attached.
const CHANGERS: [(&str, &str); 2] = [
    ("fexit_inode_unlink", "security_inode_unlink"),
    ("fexit_inode_rename", "security_inode_rename"),
];

impl Kernel {
    /// Loads and attaches every hook that this kernel takes; [`Self::plan`] tells which. Nothing is reported before
    /// [`Self::want`] or [`Self::supervise`] asks for something.
    ///
    /// # Errors
    /// If a hook without which probe sees nothing can't be attached, or if nothing can be loaded at all.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        let facts = Facts::gather();
        let load::Loaded {
            mut ebpf,
            plan,
            links,
            mut pins,
            not_pinned,
            reattached,
        } = load::load(options, &facts)?;
        let mut maps = maps::Maps::take(&mut ebpf)?;
        // Until now both told of the same listeners; nobody has declared any yet.
        maps.control(CONTROL_INET_LISTEN, plan.is_attached("fexit_inet_listen"))?;
        let mut why_not_pinned = not_pinned.map(|e| e.to_string());
        let mut taken_over = None;
        let (mut inherited, mut since, mut lost_before) = (VecDeque::new(), Nanos::ZERO, Vec::new());
        let mut pinned = Vec::new();
        if let Some(held) = &mut pins {
            let mut predecessors = match held.predecessors(&mut maps) {
                Ok(predecessors) => predecessors,
                Err(error) => {
                    why_not_pinned = Some(error.to_string());
                    Vec::new()
                }
            };
            for left in &mut predecessors {
                inherited.extend(std::mem::take(&mut left.records));
                since = since.max(left.until);
                lost_before.append(&mut left.lost);
                if left.unreadable > 0 {
                    lost_before.push(("upgrade".to_owned(), left.unreadable));
                }
            }
            lost_before.extend(
                reattached
                    .iter()
                    .map(|program| (format!("detached:{program}"), 1)),
            );
            if held.unfit().is_some() {
                lost_before.push(("pins".to_owned(), 1));
            }
            pinned = held.programs();
            if let Err(error) = held.tidy() {
                why_not_pinned = Some(error.to_string());
            }
            if held.adopted() || !predecessors.is_empty() || held.unfit().is_some() {
                taken_over = Some(TakenOver {
                    adopted: held.adopted(),
                    predecessors,
                    reattached,
                    unfit: held.unfit().map(ToString::to_string),
                    supervised: maps.supervised(),
                    members: maps.members(),
                });
            }
            let unpinned: Vec<String> = held
                .unpinned()
                .map(|(program, why)| format!("{program}: {why}"))
                .collect();
            if held.keeps() && !unpinned.is_empty() {
                why_not_pinned = Some(unpinned.join("; "));
            }
        }
        let mut reported_misses = BTreeMap::new();
        if taken_over.as_ref().is_some_and(|t| t.adopted) {
            let told =
                |(name, _): &(&'static str, _)| ((*name).to_owned(), maps.told(&format!("recursion:{name}")));
            reported_misses.extend(pinned.iter().map(told));
        }
        let wanted = maps::WantedInodes::take(&mut ebpf)?;
        let events = ebpf.take_map("EVENTS").ok_or(MapsError::Absent("EVENTS"))?;
        let buffer = RingBuf::try_from(events).map_err(|source| MapsError::Refused {
            map: "EVENTS",
            source,
        })?;
        let log = match options.bpf_log {
            None => None,
            Some(_) => Some(BpfLog(
                EbpfLogger::init(&mut ebpf).map_err(|e| LoadError::Log(e.to_string()))?,
            )),
        };
        let ebpf = Arc::new(Mutex::new(ebpf));
        let undecoded = Arc::new(AtomicU64::new(0));
        let iterators =
            (plan.is_attached("iter_task") && plan.is_attached("iter_task_file")).then(|| Iterators {
                ebpf: Arc::clone(&ebpf),
                wanted,
                files: TaskFiles::default(),
            });
        Ok(Self {
            reported_misses,
            changers: Vec::new(),
            _links: links,
            pins,
            pinned,
            is_pinned: true,
            why_not_pinned,
            taken_over,
            lost_before,
            reported_undecoded: 0,
            ring: Some(Ring {
                buffer,
                undecoded: Arc::clone(&undecoded),
                size: options.ring_bytes,
                inherited,
                since,
            }),
            ebpf,
            facts,
            plan,
            maps,
            iterators,
            log,
            undecoded,
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What an earlier daemon had left in the kernel. `None`: nothing.
    pub fn taken_over(&self) -> Option<&TakenOver> {
        self.taken_over.as_ref()
    }

    /// Whether what is attached outlives this process.
    pub fn pinned(&self) -> Pinned {
        let kept = self.pins.as_ref().filter(|p| p.keeps() && self.is_pinned);
        Pinned {
            directory: kept.map(|p| p.path().to_owned()),
            why_not: self.why_not_pinned.clone(),
        }
    }

    /// Looks whether everything is still pinned, and pins it anew where it is not: bpffs can be unmounted.
    pub fn renew_pins(&mut self) {
        let Some(pins) = self.pins.as_mut().filter(|p| p.keeps()) else {
            return;
        };
        match pins.renew() {
            Ok(renewed) => {
                if renewed {
                    tracing::warn!("everything is pinned anew in {}", pins.path().display());
                }
                if !std::mem::replace(&mut self.is_pinned, true) {
                    self.why_not_pinned = None;
                }
            }
            Err(error) => {
                if std::mem::replace(&mut self.is_pinned, false) {
                    tracing::warn!("a restart of probe would not see what happens meanwhile: {error}");
                }
                self.why_not_pinned = Some(error.to_string());
            }
        }
    }

    /// `None` where the kernel does not take them, and after the first call.
    pub fn iterators(&mut self) -> Option<Iterators> {
        self.iterators.take()
    }

    /// The events. `None` after the first call: a ring has one reader.
    pub fn ring(&mut self) -> Option<Ring> {
        self.ring.take()
    }

    /// What the programs log. `None` where [`LoadOptions::bpf_log`] did not ask for it, and after the first call.
    pub fn log(&mut self) -> Option<BpfLog> {
        self.log.take()
    }

    /// The part of [`Self::lost`] that costs little to ask for: records and processes that found no room.
    pub fn lost_records(&mut self) -> Vec<(String, u64)> {
        self.maps.lost()
    }

    /// What was lost since the last call, as (source, count): records that found no room (`ring:KIND`), processes that
    /// found no room in the map (`supervised`), runs that the kernel skipped (`recursion:HOOK`), records that could not be
    /// decoded (`decode`), and trampolines that are not called any more because somebody set kernel.ftrace_enabled to 0
    /// (`trampolines`).
    pub fn lost(&mut self) -> Vec<(String, u64)> {
        let mut lost = std::mem::take(&mut self.lost_before);
        lost.extend(self.maps.lost());
        let undecoded = self.undecoded.load(Ordering::Relaxed);
        if undecoded > self.reported_undecoded {
            lost.push(("decode".to_owned(), undecoded - self.reported_undecoded));
            self.reported_undecoded = undecoded;
        }
        if self.plan.uses(Tier::Fentry) {
            let called = facts::trampolines_are_called();
            if std::mem::replace(&mut self.facts.trampolines, called) && !called {
                lost.push(("trampolines".to_owned(), 1));
            }
        }
        for (name, now) in self.recursion_misses() {
            let before = self.reported_misses.insert(name.clone(), now).unwrap_or(0);
            if now > before {
                let source = format!("recursion:{name}");
                self.maps.tell(&source, now);
                if self.was_crowded(&name) {
                    lost.push((source, now - before));
                }
            }
        }
        lost
    }

    /// Whether the programs of a hook can all have been skipped at once since this last said so. Asked after
    /// [`Self::recursion_misses`]: what happens in between is found the next time.
    fn was_crowded(&mut self, program: &str) -> bool {
        // Fewer are never all counted.
        if self.plan.spared().filter(|(first, _)| *first == program).count() < plan::SPARES_EACH {
            return true;
        }
        let Some(slot) = plan::spared_slot(program) else {
            return true;
        };
        let now = self.maps.crowded(slot);
        let source = format!("crowded:{program}");
        let before = self.maps.told(&source);
        if now > before {
            self.maps.tell(&source, now);
        }
        now > before
    }

    /// How often the kernel's guard against recursion skipped a program, since load. From 5.12.
    ///
    /// What a program with spares missed is lost only where these missed it too: never more often than the one of them that
    /// missed least, and only where they were all being run at once ([`Self::was_crowded`]).
    fn recursion_misses(&self) -> BTreeMap<String, u64> {
        let ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let misses = |fd: BorrowedFd<'_>| {
            let fd = fd.as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines()
                .find_map(|l| l.strip_prefix("recursion_misses:"))?
                .trim()
                .parse()
                .ok()
        };
        let loaded = |program: &Program| misses(program.fd().ok()?.as_fd());
        let mut all: BTreeMap<String, u64> = ebpf
            .programs()
            .filter_map(|(name, program)| Some((name.to_owned(), loaded(program)?)))
            .chain(
                self.pinned
                    .iter()
                    .filter_map(|(name, fd)| Some(((*name).to_owned(), misses(fd.as_fd())?))),
            )
            .collect();
        for (first, spare) in self.plan.spared() {
            if let Some(by_spare) = all.remove(spare)
                && let Some(by_first) = all.get_mut(first)
            {
                *by_first = (*by_first).min(by_spare);
            }
        }
        all
    }

    /// Reports everything about this process and the children that it makes from now on, until it ends. Insert a process
    /// before its living descendants, and look for new ones until there are none: they can fork in between.
    ///
    /// # Errors
    /// If the map is full (32768 processes).
    pub fn supervise(&mut self, id: ProcId, start: Nanos) -> Result<(), MapsError> {
        self.maps.supervise(id, start)
    }

    /// Keeps for the next daemon what a process belongs to, until it is to be forgotten.
    ///
    /// # Errors
    /// If the map is full (32768 processes).
    pub fn keep_member(&mut self, id: ProcId, membership: Membership) -> Result<(), MapsError> {
        self.maps.keep_member(id, membership)
    }

    /// Ends [`Self::supervise`] and [`Self::keep_member`].
    ///
    /// # Errors
    /// If the kernel refuses it; a process that is not supervised is no error.
    pub fn forget(&mut self, id: ProcId) -> Result<(), MapsError> {
        self.maps.forget(id)
    }

    /// Replaces what is wanted.
    ///
    /// # Errors
    /// If there is more than the maps have room for: 1024 executables, 1024 units, 4096 ports.
    pub fn want(&mut self, wanted: &Wanted) -> Result<(), MapsError> {
        self.maps.want(wanted)
    }

    /// From now on, or not any more, the kernel remembers who removes or renames a wanted name. That costs every unlink and
    /// every rename of the host, so it is for directories that refuse fanotify only. `false`: this kernel or tier does not
    /// have it.
    pub fn follow_changers(&mut self, on: bool) -> bool {
        if !CHANGERS.iter().all(|(program, _)| self.plan.is_attached(program)) {
            return false;
        }
        if on != self.changers.is_empty() {
            return true;
        }
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, link) in self.changers.drain(..) {
            drop(fexit(&mut ebpf, name).map(|p| p.detach(link)));
        }
        if on {
            for (name, function) in CHANGERS {
                match fexit(&mut ebpf, name).map(|program| attach_again(program, function)) {
                    Some(Ok(link)) => self.changers.push((name, link)),
                    refused => tracing::warn!(name, ?refused, "who changes a path stays unknown"),
                }
            }
        }
        true
    }

    /// Who did this to a name of a directory last, while [`Self::follow_changers`] was on.
    pub fn changer(&self, directory: FileId, name: &OsStr, change: PathChange) -> Option<Process> {
        self.maps.changer(directory, name, change)
    }

    /// Who a process was that has ended, as far back as the last 16384 ends.
    pub fn past(&self, pid: u32) -> Option<PastProcess> {
        self.maps.past(pid)
    }

    /// How many records the programs have written since load.
    pub fn records(&self) -> u64 {
        self.maps.records()
    }
}

fn fexit<'a>(ebpf: &'a mut Ebpf, name: &str) -> Option<&'a mut FExit> {
    ebpf.program_mut(name)?.try_into().ok()
}

/// Attaches a program that was detached. 5.10 does that only with one that was loaded anew, 6.1 with any.
fn attach_again(program: &mut FExit, function: &str) -> Result<FExitLinkId, ProgramError> {
    match program.attach() {
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
            program.unload()?;
            program.load(function, &Btf::from_sys_fs()?)?;
            program.attach()
        }
        attached => attached,
    }
}

/// The lines that the programs log, readable when there are some.
pub struct BpfLog(EbpfLogger<&'static dyn log::Log>);

impl BpfLog {
    /// Hands all lines to the process's logger.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for BpfLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for BpfLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_can_live_in_other_threads() {
        fn is_send<T: Send + 'static>() {}
        is_send::<Kernel>();
        is_send::<Ring>();
        is_send::<Iterators>();
        is_send::<BpfLog>();
        is_send::<LoadError>();
    }
}
