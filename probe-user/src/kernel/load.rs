//! Loading the object and attaching its programs.

use std::{fs, path::Path, str::FromStr, thread};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Endianness,
    programs::{
        CgroupAttachMode, CgroupSock, FEntry, FExit, Iter, Program, ProgramError, RawTracePoint,
        links::FdLink,
    },
};
use aya_obj::Object;
use probe_abi::Offsets;

use super::{
    btf::{self, BtfError},
    facts::{Availability, Facts},
    features::lacks,
    maps::{MapsError, Wanted},
    offsets::{VMLINUX, offsets, settings},
    pins::{PinError, PinOptions, Pins},
    plan::{Attach, Candidate, HOOKS, Plan, Planned, Refusal, Tier, is_asked_for, obstacle, spares_of},
    vmlinux::Vmlinux,
};

/// The programs, as built by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/probe-ebpf.o");

/// Lines of the verifier's log that an error shows: the last ones say why.
const LOG_LINES: usize = 4;

/// What the programs log, for those who work on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log level, expected error, warn, info, debug or trace")]
pub struct LogLevelError(String);

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(LogLevelError(text.to_owned())),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// `None`: the verifier removes every log line, and they cost nothing.
    pub bpf_log: Option<LogLevel>,
    /// Only this tier, wherever a hook has a way in it. `None`: the best way that the kernel takes.
    pub tier: Option<Tier>,
    /// Rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// `None`: everything ends with this process.
    pub pins: Option<PinOptions>,
    /// What will be asked for first: the maps get room for twice as much at least.
    pub wanted: Wanted,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            bpf_log: None,
            tier: None,
            ring_bytes: 4 << 20,
            pins: None,
            wanted: Wanted::default(),
        }
    }
}

/// Why nothing could be loaded. One line, which says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("this needs {}: run it as root, or give it these capabilities", .missing.join(", "))]
    NotPermitted { missing: Vec<&'static str> },
    #[error(
        "this kernel ({release}) has no bpf system call: probe needs Linux 5.10 or later with CONFIG_BPF_SYSCALL=y"
    )]
    NoBpf { release: String },
    #[error(
        "the bpf system call is refused to this process ({reason}): a container or sandbox forbids it, run probe on the host \
         or allow bpf there"
    )]
    BpfRefused { reason: String },
    #[error(
        "{VMLINUX} can't be read ({reason}): probe needs a kernel with CONFIG_DEBUG_INFO_BTF=y, as the large distributions \
         build it"
    )]
    NoBtf { reason: String },
    #[error("{VMLINUX} is damaged: {0}")]
    DamagedBtf(#[from] BtfError),
    #[error("the kernel refused the eBPF object: {}", chain(.0))]
    // Not a source: the whole chain is said already.
    Object(Box<EbpfError>),
    #[error("the hook {hook} ({attach}), without which probe sees nothing, was refused: {reason}")]
    Hook {
        hook: &'static str,
        attach: Attach,
        reason: String,
    },
    #[error(
        "the {tier} tier was asked for, and the hook {hook} can't be attached in it ({reason}): leave the choice to probe with \
         --tier auto"
    )]
    Tier {
        tier: &'static str,
        hook: &'static str,
        reason: String,
    },
    #[error(transparent)]
    Maps(#[from] MapsError),
    #[error("the log of the eBPF programs can't be read: {0}")]
    Log(String),
}

/// What the kernel must offer before anything is tried.
fn preconditions(facts: &Facts) -> Result<(), LoadError> {
    if facts.bpf == Availability::Absent {
        return Err(LoadError::NoBpf {
            release: facts.release.clone(),
        });
    }
    let missing: Vec<_> = facts
        .missing_capabilities()
        .iter()
        .filter(|c| c.required)
        .map(|c| c.name)
        .collect();
    if !missing.is_empty() {
        return Err(LoadError::NotPermitted { missing });
    }
    if let Availability::Refused(reason) = &facts.bpf {
        return Err(LoadError::BpfRefused {
            reason: reason.clone(),
        });
    }
    Ok(())
}

/// What was loaded, or found in the kernel.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) plan: Plan,
    /// Of what is attached and not pinned.
    pub(super) links: Vec<FdLink>,
    pub(super) pins: Option<Pins>,
    /// Why nothing is pinned although it was asked for.
    pub(super) not_pinned: Option<PinError>,
    /// Programs that were not attached while no daemon ran, although others were.
    pub(super) reattached: Vec<&'static str>,
}

/// The maps that get another size than the object says.
fn sizes(options: &LoadOptions) -> Result<Vec<(&'static str, u32)>, LoadError> {
    let object = Object::parse(OBJECT).map_err(|e| LoadError::Object(Box::new(e.into())))?;
    let given = |map: &str| object.maps.get(map).map_or(u32::MAX, aya_obj::Map::max_entries);
    let mut sizes: Vec<_> = options.wanted.rooms().into_iter().collect();
    sizes.retain(|(map, entries)| *entries > given(map));
    sizes.push(("EVENTS", options.ring_bytes));
    Ok(sizes)
}

/// Opens what is pinned. What keeps it from being used is no reason not to watch.
fn pins(options: &LoadOptions, sizes: &[(&'static str, u32)]) -> (Option<Pins>, Option<PinError>) {
    let Some(wanted) = &options.pins else {
        return (None, None);
    };
    let tier = options.tier.map_or("auto", Tier::name);
    let sized: String = sizes
        .iter()
        .map(|(map, entries)| format!("{map} {entries}\n"))
        .collect();
    let settings = [
        tier.as_bytes(),
        sized.as_bytes(),
        &[options.bpf_log.map_or(0, |l| l as u8)],
    ];
    match Pins::open(wanted, OBJECT, &settings, sizes) {
        Ok(pins) => (pins, None),
        Err(error) => (None, Some(error)),
    }
}

/// Loads the object and every program that this kernel takes, and attaches them; or goes on with those that are attached.
pub(super) fn load(options: &LoadOptions, facts: &Facts) -> Result<Loaded, LoadError> {
    preconditions(facts)?;
    let sizes = sizes(options)?;
    let (mut pins, mut not_pinned) = pins(options, &sizes);
    let blob = Vmlinux::open().map_err(|e| LoadError::NoBtf {
        reason: e.to_string(),
    })?;
    // Each takes some 15 ms, and the loader reads the types by itself first: replaced, that copy is freed before the
    // programs are loaded.
    let (mut loader, layout, types) = thread::scope(|scope| {
        let types = scope.spawn(|| Btf::parse(&blob, Endianness::default()));
        let layout = btf::Btf::parse(&blob).map(|types| (offsets(&types), settings(&types)));
        let loader = EbpfLoader::new();
        (loader, layout, types.join())
    });
    drop(blob);
    let (offsets, mut settings) = layout?;
    settings.spares = u32::from(facts.preemptible_tracepoints);
    let types = types.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let types = types.map_err(|e| LoadError::Object(Box::new(e.into())))?;
    raise_memlock();
    let level = options.bpf_log.map_or(0, |l| l as u8);
    loader
        .btf(Some(&types))
        .override_global("OFFSETS", &offsets, true)
        .override_global("SETTINGS", &settings, true)
        .override_global(aya_log::LEVEL, &level, false);
    for (map, entries) in &sizes {
        loader.map_max_entries(map, *entries);
    }
    for (map, path) in pins.iter().flat_map(Pins::map_paths) {
        loader.map_pin_path(map, path);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|e| LoadError::Object(Box::new(e)))?;
    if let Some(Err(error)) = pins.as_mut().map(Pins::hold_maps) {
        (pins, not_pinned) = (None, Some(error));
    }
    let mut attacher = Attacher {
        ebpf: &mut ebpf,
        cgroup: facts.cgroup2.as_deref(),
        types: &types,
        pins: pins.as_mut(),
        links: Vec::new(),
        reattached: Vec::new(),
    };
    let plan = attach_all(&mut attacher, facts, &offsets, options.tier)?;
    let (links, reattached) = (attacher.links, attacher.reattached);
    drop(loader);
    drop(types);
    give_back_memory();
    Ok(Loaded {
        ebpf,
        plan,
        links,
        pins,
        not_pinned,
        reattached,
    })
}

/// Gives what was freed back to the kernel, which the allocator would keep: the kernel's types take some 20 MB while they are
/// looked at, and so does a long list of processes.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The same, where it is worth the time.
pub(crate) fn give_back_much_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes no pointers, and may be called at any time from any thread.
        let free = unsafe { libc::mallinfo2() }.fordblks;
        if free > MUCH {
            give_back_memory();
        }
    }
}

/// Bytes that are free and kept.
#[cfg(target_env = "gnu")]
const MUCH: usize = 4 << 20;

fn attach_all(
    attacher: &mut Attacher<'_>,
    facts: &Facts,
    offsets: &Offsets,
    tier: Option<Tier>,
) -> Result<Plan, LoadError> {
    let mut plan = Plan {
        hooks: Vec::new(),
        lacks: lacks(offsets),
        spares: Vec::new(),
    };
    for hook in &HOOKS {
        let mut planned = Planned {
            hook,
            attached: None,
            refused: Vec::new(),
        };
        for candidate in hook.candidates.iter().filter(|c| is_asked_for(hook, c, tier)) {
            let tried = match obstacle(candidate, facts, offsets) {
                Some(why) => Err(why),
                None if plan.is_attached(candidate.program) => Ok(()),
                None => attacher.attach(candidate).map_err(|e| reason(&e)),
            };
            match tried {
                Ok(()) => {
                    let verified = attacher
                        .ebpf
                        .program(candidate.program)
                        .and_then(|p| p.info().ok()?.verified_instruction_count());
                    tracing::debug!(hook = hook.name, by = %candidate.attach, verified, "hook is attached");
                    planned.attached = Some(candidate);
                    for spare in spares_of(candidate, facts) {
                        match attacher.attach(spare) {
                            Ok(()) => plan.spares.push(spare),
                            Err(e) => tracing::warn!(
                                "{} can't be attached, and the hook {} misses more events: {}",
                                spare.program,
                                hook.name,
                                reason(&e)
                            ),
                        }
                    }
                    break;
                }
                Err(reason) => {
                    tracing::debug!(hook = hook.name, by = %candidate.attach, %reason, "hook is not attached");
                    planned.refused.push(Refusal { candidate, reason });
                }
            }
        }
        if planned.attached.is_none() {
            let reason = planned.reason().unwrap_or_default();
            if hook.required {
                return Err(LoadError::Hook {
                    hook: hook.name,
                    attach: hook.candidates[0].attach,
                    reason,
                });
            }
            if tier == Some(Tier::Fentry) && hook.has(Tier::Fentry) {
                return Err(LoadError::Tier {
                    tier: Tier::Fentry.name(),
                    hook: hook.name,
                    reason,
                });
            }
            if planned.refused.is_empty() {
                // Nothing of it is in the tier that was asked for.
                planned
                    .refused
                    .extend(hook.candidates.iter().map(|candidate| Refusal {
                        candidate,
                        reason: format!(
                            "the {} tier has no hook for it",
                            tier.map_or("chosen", Tier::name)
                        ),
                    }));
            }
        }
        plan.hooks.push(planned);
    }
    Ok(plan)
}

struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    cgroup: Option<&'a Path>,
    types: &'a Btf,
    pins: Option<&'a mut Pins>,
    links: Vec<FdLink>,
    reattached: Vec<&'static str>,
}

impl Attacher<'_> {
    /// Iterators and what is only asked for on demand are not left attached.
    fn attach(&mut self, candidate: &'static Candidate) -> Result<(), ProgramError> {
        let name = candidate.program;
        if let Attach::OnDemand(_) | Attach::Iterator(_) = candidate.attach {
            self.load(candidate)?;
            // Whether it can be attached is known only from doing so.
            return self.link(candidate).map(drop);
        }
        if self.pins.as_deref_mut().is_some_and(|pins| pins.adopt_link(name)) {
            return Ok(());
        }
        self.load(candidate)?;
        let link = self.link(candidate)?;
        let Some(pins) = self.pins.as_deref_mut() else {
            self.links.push(link);
            return Ok(());
        };
        if pins.adopted() {
            self.reattached.push(name);
        }
        if let Err(why) = pins.pin_link(name, link) {
            tracing::debug!(name, why, "the kernel does not pin this link");
            let link = self.link(candidate)?;
            if let Some(pins) = self.pins.as_deref_mut() {
                pins.hold_link(name, link, why);
            }
        }
        Ok(())
    }

    fn program<'p, P>(&'p mut self, name: &str) -> Result<&'p mut P, ProgramError>
    where
        &'p mut P: TryFrom<&'p mut Program, Error = ProgramError>,
    {
        self.ebpf
            .program_mut(name)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()
    }

    fn load(&mut self, candidate: &Candidate) -> Result<(), ProgramError> {
        let (types, name) = (self.types, candidate.program);
        match candidate.attach {
            Attach::FEntry(function) => self.program::<FEntry>(name)?.load(function, types),
            Attach::FExit(function) | Attach::OnDemand(function) => {
                self.program::<FExit>(name)?.load(function, types)
            }
            Attach::RawTracepoint(_) => self.program::<RawTracePoint>(name)?.load(),
            Attach::Cgroup => self.program::<CgroupSock>(name)?.load(),
            Attach::Iterator(kind) => self.program::<Iter>(name)?.load(kind, types),
        }
    }

    /// Attached for as long as the link lives.
    fn link(&mut self, candidate: &Candidate) -> Result<FdLink, ProgramError> {
        let name = candidate.program;
        Ok(match candidate.attach {
            Attach::FEntry(_) => {
                let program = self.program::<FEntry>(name)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::FExit(_) | Attach::OnDemand(_) => {
                let program = self.program::<FExit>(name)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::RawTracepoint(tracepoint) => {
                let program = self.program::<RawTracePoint>(name)?;
                let id = program.attach(tracepoint)?;
                program.take_link(id)?.into()
            }
            Attach::Cgroup => {
                let root = self.cgroup.unwrap_or_else(|| Path::new("/sys/fs/cgroup"));
                let root = fs::File::open(root).map_err(ProgramError::IOError)?;
                let program = self.program::<CgroupSock>(name)?;
                // A link never replaces or excludes other programs; the flag for several is refused with one.
                let id = program.attach(root, CgroupAttachMode::Single)?;
                FdLink::try_from(program.take_link(id)?).map_err(invalid)?
            }
            Attach::Iterator(_) => {
                let program = self.program::<Iter>(name)?;
                let id = program.attach()?;
                FdLink::try_from(program.take_link(id)?).map_err(invalid)?
            }
        })
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

/// One line: the error, and the end of what the verifier said.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => match last_words(&verifier_log.to_string()) {
            Some(words) => format!("{io_error}; the verifier says: {words}"),
            None => io_error.to_string(),
        },
        other => chain(other),
    }
}

/// The last lines of a verifier log, in one.
fn last_words(log: &str) -> Option<String> {
    let lines: Vec<_> = log
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !is_statistic(l))
        .collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
    (!end.is_empty()).then(|| end.join(" | "))
}

/// What the verifier prints after its verdict.
fn is_statistic(line: &str) -> bool {
    ["processed ", "verification time", "stack depth"]
        .iter()
        .any(|s| line.starts_with(s))
}

/// An error with its causes, in one line, each part once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Kernels before 5.11 charge maps to this limit. Where it can't be raised, creating a map says so.
fn raise_memlock() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(
        Resource::Memlock,
        Rlimit {
            current: None,
            maximum: None,
        },
    ) {
        tracing::debug!(%error, "RLIMIT_MEMLOCK can't be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            release: "5.4.0".into(),
            uid: 1000,
            capabilities: u64::MAX,
            bpf: Availability::Works,
            btf: Availability::Works,
            trampolines: true,
            preemptible_tracepoints: false,
            cgroup2: None,
            tracefs: None,
            bpffs: None,
        }
    }

    #[test]
    fn what_is_missing_is_one_line_that_says_what_to_do() {
        let line = |facts: Facts| preconditions(&facts).unwrap_err().to_string();
        assert_eq!(
            line(Facts {
                capabilities: 1 << 38,
                ..facts()
            }),
            "this needs CAP_BPF, CAP_NET_ADMIN: run it as root, or give it these capabilities"
        );
        assert!(
            line(Facts {
                bpf: Availability::Absent,
                ..facts()
            })
            .contains("CONFIG_BPF_SYSCALL=y")
        );
        let refused = Availability::Refused("Operation not permitted".into());
        assert!(
            line(Facts {
                bpf: refused.clone(),
                ..facts()
            })
            .contains("sandbox")
        );
        // Without capabilities the call is refused too: name those, not the sandbox.
        assert!(
            line(Facts {
                bpf: refused,
                capabilities: 0,
                ..facts()
            })
            .contains("CAP_BPF")
        );
    }

    #[test]
    fn a_refusal_by_the_verifier_shows_the_end_of_its_log() {
        let log = "func#0 @0\n0: R1=ctx()\n\n1: (85) call unknown#999\ninvalid func unknown#999\nprocessed 2 insns\n";
        assert_eq!(
            last_words(log).as_deref(),
            Some("func#0 @0 | 0: R1=ctx() | 1: (85) call unknown#999 | invalid func unknown#999")
        );
        assert_eq!(
            last_words("\n"),
            None,
            "the kernel refused before the verifier began"
        );
    }

    #[test]
    fn levels_have_names() {
        assert_eq!("debug".parse(), Ok(LogLevel::Debug));
        assert!(
            "loud"
                .parse::<LogLevel>()
                .unwrap_err()
                .to_string()
                .contains("expected error")
        );
    }
}
