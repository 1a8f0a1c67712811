//! Which hooks there are, and what became of each on this machine.

use std::{collections::BTreeMap, fmt};

use probe_abi::{Offsets, SPARED_EXEC, SPARED_EXIT, SPARED_FORK};

use super::{
    facts::{Availability, Facts},
    features::Lack,
    offsets::missing,
};

/// How a program gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// At the entry of a kernel function.
    FEntry(&'static str),
    /// At the return of a kernel function.
    FExit(&'static str),
    /// A raw tracepoint of this name.
    RawTracepoint(&'static str),
    /// A socket hook on the root of the unified cgroup hierarchy.
    Cgroup,
    /// A BPF iterator over objects of this kind.
    Iterator(&'static str),
    /// At the return of a kernel function, but only while [`super::Kernel::follow_changers`] asks for it.
    OnDemand(&'static str),
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FEntry(function) => write!(f, "entry of {function}"),
            Self::FExit(function) => write!(f, "return of {function}"),
            Self::RawTracepoint(name) => write!(f, "raw tracepoint {name}"),
            Self::Cgroup => f.write_str("cgroup socket hook"),
            Self::Iterator(kind) => write!(f, "iterator over {kind}"),
            Self::OnDemand(function) => write!(f, "return of {function}, on demand"),
        }
    }
}

impl Attach {
    pub const fn tier(self) -> Tier {
        match self {
            Self::FEntry(_) | Self::FExit(_) | Self::OnDemand(_) => Tier::Fentry,
            Self::RawTracepoint(_) | Self::Cgroup | Self::Iterator(_) => Tier::Tracepoint,
        }
    }
}

/// The way in which events are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Whatever is not captured at kernel functions.
    Tracepoint,
    /// At kernel functions, by BTF trampolines.
    Fentry,
}

impl Tier {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
        }
    }
}

/// One program of the object that can do what a hook is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidate {
    pub program: &'static str,
    pub attach: Attach,
    /// Fields of [`Offsets`] without which it has nothing to say.
    pub needs: &'static [&'static str],
}

/// Something that is to be learnt from the kernel, and the ways to learn it.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: &'static str,
    pub subject: &'static str,
    /// Without it probe can't do its main job.
    pub required: bool,
    /// What can't be seen without it.
    pub gives: &'static str,
    /// The best first. A program that another hook has attached already serves both.
    pub candidates: &'static [Candidate],
}

impl Hook {
    /// Whether it has a way in this tier.
    pub fn has(&self, tier: Tier) -> bool {
        self.candidates.iter().any(|c| c.attach.tier() == tier)
    }
}

pub(super) const IDENTITY: [&str; 5] = [
    "task_tgid",
    "task_start_boottime",
    "task_group_leader",
    "task_real_parent",
    "task_comm",
];

/// In the order of attachment: what ends a supervision comes before what begins one.
pub const HOOKS: [Hook; 18] = [
    Hook {
        name: "sched_process_exit",
        subject: "process",
        required: true,
        gives: "the end of processes, and who the dead were",
        candidates: &[Candidate {
            program: "sched_process_exit",
            attach: Attach::RawTracepoint("sched_process_exit"),
            needs: &[
                "task_signal",
                "signal_live",
                "signal_flags",
                "signal_group_exit_code",
                "task_exit_code",
            ],
        }],
    },
    Hook {
        name: "signal_generate",
        subject: "signal",
        required: true,
        gives: "signals and their senders",
        candidates: &[Candidate {
            program: "signal_generate",
            attach: Attach::RawTracepoint("signal_generate"),
            needs: &["siginfo_code", "task_sighand", "sighand_action", "task_blocked"],
        }],
    },
    Hook {
        name: "sched_process_fork",
        subject: "process",
        required: true,
        gives: "children",
        candidates: &[Candidate {
            program: "sched_process_fork",
            attach: Attach::RawTracepoint("sched_process_fork"),
            needs: &["task_pid"],
        }],
    },
    Hook {
        name: "sched_process_exec",
        subject: "process",
        required: true,
        gives: "starts of declared programs",
        candidates: &[Candidate {
            program: "sched_process_exec",
            attach: Attach::RawTracepoint("sched_process_exec"),
            needs: &["task_mm", "mm_exe_file", "file_f_inode", "inode_i_ino"],
        }],
    },
    Hook {
        name: "mark_victim",
        subject: "oom",
        required: false,
        gives: "victims of the OOM killer",
        candidates: &[Candidate {
            program: "mark_victim",
            attach: Attach::RawTracepoint("mark_victim"),
            needs: &[],
        }],
    },
    Hook {
        name: "unix_bind",
        subject: "unix_socket",
        required: false,
        gives: "binds of UNIX sockets, and those that fail",
        candidates: &[Candidate {
            program: "fexit_unix_bind",
            attach: Attach::FExit("unix_bind"),
            needs: &[
                "socket_sk",
                "unix_sock_addr",
                "unix_address_len",
                "unix_address_name",
            ],
        }],
    },
    Hook {
        name: "unix_listen",
        subject: "unix_socket",
        required: false,
        gives: "when UNIX sockets begin to listen",
        candidates: &[Candidate {
            program: "fexit_unix_listen",
            attach: Attach::FExit("unix_listen"),
            needs: &[
                "socket_sk",
                "unix_sock_addr",
                "unix_address_len",
                "unix_address_name",
            ],
        }],
    },
    Hook {
        name: "unix_shutdown",
        subject: "unix_socket",
        required: false,
        gives: "when UNIX listeners are shut down",
        candidates: &[Candidate {
            program: "fexit_unix_shutdown",
            attach: Attach::FExit("unix_shutdown"),
            needs: &[
                "socket_sk",
                "sock_state",
                "sock_type",
                "unix_sock_addr",
                "unix_address_len",
                "unix_address_name",
            ],
        }],
    },
    Hook {
        name: "unix_release",
        subject: "unix_socket",
        required: false,
        gives: "when UNIX listeners are closed, by whomever",
        candidates: &[Candidate {
            program: "fentry_unix_release",
            attach: Attach::FEntry("unix_release"),
            needs: &[
                "socket_sk",
                "sock_state",
                "sock_type",
                "unix_sock_addr",
                "unix_address_len",
                "unix_address_name",
            ],
        }],
    },
    Hook {
        name: "inet_unlisten",
        subject: "inet_socket",
        required: false,
        gives: "when TCP listeners end, by close or by shutdown",
        candidates: &[Candidate {
            program: "inet_sock_set_state",
            attach: Attach::RawTracepoint("inet_sock_set_state"),
            needs: &["sock_num"],
        }],
    },
    Hook {
        name: "inet_listen",
        subject: "inet_socket",
        required: false,
        gives: "when TCP listeners begin",
        candidates: &[
            Candidate {
                program: "fexit_inet_listen",
                attach: Attach::FExit("inet_listen"),
                needs: &["socket_sk", "sock_num", "sock_protocol"],
            },
            Candidate {
                program: "inet_sock_set_state",
                attach: Attach::RawTracepoint("inet_sock_set_state"),
                needs: &["sock_num"],
            },
        ],
    },
    Hook {
        name: "inet_bind",
        subject: "inet_socket",
        required: false,
        gives: "when UDP sockets are bound, and at kernel functions also TCP and what fails (IPv4)",
        candidates: &[
            Candidate {
                program: "fexit_inet_bind",
                attach: Attach::FExit("inet_bind"),
                needs: &["socket_sk", "sock_num", "sock_protocol"],
            },
            Candidate {
                program: "post_bind4",
                attach: Attach::Cgroup,
                needs: &[],
            },
        ],
    },
    Hook {
        name: "inet6_bind",
        subject: "inet_socket",
        required: false,
        gives: "when UDP sockets are bound, and at kernel functions also TCP and what fails (IPv6)",
        candidates: &[
            Candidate {
                program: "fexit_inet6_bind",
                attach: Attach::FExit("inet6_bind"),
                needs: &["socket_sk", "sock_num", "sock_protocol"],
            },
            Candidate {
                program: "post_bind6",
                attach: Attach::Cgroup,
                needs: &[],
            },
        ],
    },
    Hook {
        name: "inet_release",
        subject: "inet_socket",
        required: false,
        gives: "when bound UDP sockets are closed",
        candidates: &[
            Candidate {
                program: "fentry_inet_release",
                attach: Attach::FEntry("inet_release"),
                needs: &["socket_sk", "sock_num", "sock_protocol"],
            },
            Candidate {
                program: "sock_release",
                attach: Attach::Cgroup,
                needs: &["sock_num"],
            },
        ],
    },
    Hook {
        name: "inode_unlink",
        subject: "path",
        required: false,
        gives: "who removed a declared name, while its directory refuses fanotify",
        candidates: &[Candidate {
            program: "fexit_inode_unlink",
            attach: Attach::OnDemand("security_inode_unlink"),
            needs: &["dentry_d_name", "inode_i_ino", "inode_i_sb", "sb_s_dev"],
        }],
    },
    Hook {
        name: "inode_rename",
        subject: "path",
        required: false,
        gives: "who renamed a declared name, while its directory refuses fanotify",
        candidates: &[Candidate {
            program: "fexit_inode_rename",
            attach: Attach::OnDemand("security_inode_rename"),
            needs: &["dentry_d_name", "inode_i_ino", "inode_i_sb", "sb_s_dev"],
        }],
    },
    Hook {
        name: "iter_task",
        subject: "snapshot",
        required: false,
        gives: "a fast list of processes",
        candidates: &[Candidate {
            program: "iter_task",
            attach: Attach::Iterator("task"),
            needs: &["task_pid"],
        }],
    },
    Hook {
        name: "iter_task_file",
        subject: "snapshot",
        required: false,
        gives: "a fast list of who holds a socket",
        candidates: &[Candidate {
            program: "iter_task_file",
            attach: Attach::Iterator("task_file"),
            needs: &["file_f_inode", "inode_i_ino", "inode_i_sb", "sb_s_magic"],
        }],
    },
];

/// Of each hook that has any.
pub const SPARES_EACH: usize = 2;

/// More copies of programs, on the same tracepoint. Where a task can be preempted inside of a tracepoint's programs, the
/// kernel's guard against recursion keeps the first from everything else on that CPU, and a spare does it. The second is for
/// what happens while a task is preempted inside of the first spare.
///
/// The other programs run with preemption off (signals), or seldom (sockets): what these miss is counted.
pub const SPARES: [Candidate; 3 * SPARES_EACH] = [
    spare("sched_process_exit_spare_1", "sched_process_exit"),
    spare("sched_process_exit_spare_2", "sched_process_exit"),
    spare("sched_process_fork_spare_1", "sched_process_fork"),
    spare("sched_process_fork_spare_2", "sched_process_fork"),
    spare("sched_process_exec_spare_1", "sched_process_exec"),
    spare("sched_process_exec_spare_2", "sched_process_exec"),
];

const fn spare(program: &'static str, tracepoint: &'static str) -> Candidate {
    Candidate {
        program,
        attach: Attach::RawTracepoint(tracepoint),
        needs: &[],
    }
}

/// Where the programs count how often a hook's first one and all of its spares were being run at once.
pub fn spared_slot(program: &str) -> Option<u32> {
    Some(match program {
        "sched_process_exit" => SPARED_EXIT,
        "sched_process_fork" => SPARED_FORK,
        "sched_process_exec" => SPARED_EXEC,
        _ => return None,
    })
}

/// The spares of a program that is attached in this way, where this machine needs them.
pub fn spares_of(candidate: &Candidate, facts: &Facts) -> impl Iterator<Item = &'static Candidate> {
    let needed = facts.preemptible_tracepoints;
    let attach = candidate.attach;
    SPARES.iter().filter(move |s| needed && s.attach == attach)
}

/// A way that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub candidate: &'static Candidate,
    /// The kernel's words where it was tried.
    pub reason: String,
}

/// A hook, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub hook: &'static Hook,
    /// The way that is attached.
    pub attached: Option<&'static Candidate>,
    /// Better ways than the one attached, and all where none is.
    pub refused: Vec<Refusal>,
}

impl Planned {
    /// Why the best way is not attached.
    pub fn reason(&self) -> Option<String> {
        let reasons: Vec<String> = self
            .refused
            .iter()
            .map(|r| match self.hook.candidates.len() {
                1 => r.reason.clone(),
                _ => format!("{}: {}", r.candidate.attach, r.reason),
            })
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    pub fn tier(&self) -> Option<Tier> {
        self.attached.map(|c| c.attach.tier())
    }
}

/// What became of every hook, in the order of [`HOOKS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub hooks: Vec<Planned>,
    /// What no hook tells here, because this kernel lacks members of its structures.
    pub lacks: Vec<Lack>,
    /// Those of [`SPARES`] that are attached.
    pub spares: Vec<&'static Candidate>,
}

impl Plan {
    /// Whether this program is attached.
    pub fn is_attached(&self, program: &str) -> bool {
        self.hooks
            .iter()
            .any(|p| p.attached.is_some_and(|c| c.program == program))
    }

    /// Whether any hook is in this tier.
    pub fn uses(&self, tier: Tier) -> bool {
        self.hooks.iter().any(|p| p.tier() == Some(tier))
    }

    /// How a hook is captured. `None`: not at all.
    pub fn tier_of(&self, hook: &str) -> Option<Tier> {
        self.hooks.iter().find(|p| p.hook.name == hook)?.tier()
    }

    /// The tier of each subject, by name: fentry where every hook of it that could be in that tier is.
    pub fn tiers(&self) -> BTreeMap<String, String> {
        let subjects = ["unix_socket", "inet_socket", "signal", "process"];
        let tier = |subject: &str| {
            let mut able = self
                .hooks
                .iter()
                .filter(|p| p.hook.subject == subject && p.hook.has(Tier::Fentry))
                .peekable();
            let all = able.peek().is_some() && able.all(|p| p.tier() == Some(Tier::Fentry));
            if all { Tier::Fentry } else { Tier::Tracepoint }
        };
        subjects
            .into_iter()
            .map(|s| (s.to_owned(), tier(s).name().to_owned()))
            .collect()
    }

    /// Programs with an attached spare, and that, for each spare.
    pub fn spared(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let first = |spare: &Candidate| {
            let attached = self.hooks.iter().filter_map(|p| p.attached);
            attached.into_iter().find(|c| c.attach == spare.attach)
        };
        self.spares
            .iter()
            .filter_map(move |spare| Some((first(spare)?.program, spare.program)))
    }

    /// Hooks that give nothing here, with the reason.
    pub fn without(&self) -> impl Iterator<Item = (&'static Hook, String)> {
        self.hooks
            .iter()
            .filter(|p| p.attached.is_none())
            .map(|p| (p.hook, p.reason().unwrap_or_default()))
    }
}

/// Whether a way is to be tried where the tier is `wanted` (`None`: any). A hook that has only one tier is always in that.
pub fn is_asked_for(hook: &Hook, candidate: &Candidate, wanted: Option<Tier>) -> bool {
    match wanted {
        None => true,
        Some(Tier::Tracepoint) => candidate.attach.tier() == Tier::Tracepoint,
        Some(Tier::Fentry) => candidate.attach.tier() == Tier::Fentry || !hook.has(Tier::Fentry),
    }
}

/// Why a way need not be tried. `None`: try it. Only the attempt tells whether the kernel takes it: kernels differ in what
/// they refuse far more than in what they announce.
pub fn obstacle(candidate: &Candidate, facts: &Facts, offsets: &Offsets) -> Option<String> {
    let absent = missing(offsets, &[candidate.needs, &IDENTITY].concat());
    if !absent.is_empty() {
        return Some(format!("this kernel has no {}", absent.join(", ")));
    }
    match candidate.attach {
        Attach::Cgroup if facts.cgroup2.is_none() => Some(
            "cgroup v2 is not mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified"
                .to_owned(),
        ),
        Attach::FEntry(_) | Attach::FExit(_) | Attach::OnDemand(_) | Attach::Iterator(_)
            if facts.btf != Availability::Works =>
        {
            Some("the kernel shows no type information".to_owned())
        }
        Attach::FEntry(_) | Attach::FExit(_) | Attach::OnDemand(_) if !facts.trampolines => Some(
            "kernel.ftrace_enabled is 0, so that the kernel would never call it; set it with: sysctl \
             kernel.ftrace_enabled=1"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            release: "6.1.0".into(),
            uid: 0,
            capabilities: u64::MAX,
            bpf: Availability::Works,
            btf: Availability::Works,
            trampolines: true,
            preemptible_tracepoints: false,
            cgroup2: Some("/sys/fs/cgroup".into()),
            tracefs: None,
            bpffs: None,
        }
    }

    fn complete() -> Offsets {
        use zerocopy::FromBytes as _;
        Offsets::read_from_bytes(&[0; size_of::<Offsets>()]).unwrap()
    }

    fn candidates() -> impl Iterator<Item = (&'static Hook, &'static Candidate)> {
        HOOKS
            .iter()
            .flat_map(|h| h.candidates.iter().map(move |c| (h, c)))
    }

    #[test]
    fn a_complete_kernel_is_tried_with_everything() {
        for (_, candidate) in candidates() {
            assert_eq!(
                obstacle(candidate, &facts(), &complete()),
                None,
                "{}",
                candidate.program
            );
        }
    }

    #[test]
    fn without_cgroup2_only_its_programs_are_skipped() {
        let facts = Facts {
            cgroup2: None,
            ..facts()
        };
        let skipped: Vec<_> = candidates()
            .filter(|(_, c)| obstacle(c, &facts, &complete()).is_some())
            .map(|(_, c)| c.program)
            .collect();
        assert_eq!(skipped, ["post_bind4", "post_bind6", "sock_release"]);
    }

    #[test]
    fn trampolines_that_would_never_be_called_are_not_attached() {
        let facts = Facts {
            trampolines: false,
            ..facts()
        };
        for (_, candidate) in candidates() {
            let why = obstacle(candidate, &facts, &complete());
            let is_trampoline = candidate.attach.tier() == Tier::Fentry;
            assert_eq!(why.is_some(), is_trampoline, "{}", candidate.program);
        }
    }

    #[test]
    fn a_member_that_the_kernel_lacks_skips_what_needs_it_and_says_which() {
        let offsets = Offsets {
            unix_address_len: probe_abi::ABSENT,
            ..complete()
        };
        let reasons: Vec<_> = candidates()
            .filter_map(|(_, c)| obstacle(c, &facts(), &offsets))
            .collect();
        assert_eq!(reasons.len(), 4);
        assert!(reasons[0].contains("unix_address.len"), "{}", reasons[0]);
    }

    #[test]
    fn every_need_is_a_field() {
        for need in candidates().flat_map(|(_, c)| c.needs).chain(&IDENTITY) {
            assert!(Offsets::FIELDS.iter().any(|(field, ..)| field == need), "{need}");
        }
    }

    #[test]
    fn kernel_functions_come_first_and_a_tier_can_be_forced() {
        for hook in &HOOKS {
            assert!(
                hook.candidates
                    .is_sorted_by_key(|c| c.attach.tier() == Tier::Tracepoint)
            );
            assert!(
                hook.candidates
                    .iter()
                    .any(|c| is_asked_for(hook, c, Some(Tier::Fentry))),
                "{} has a way in the fentry tier",
                hook.name
            );
        }
        let required = HOOKS.iter().filter(|h| h.required);
        assert!(
            required
                .flat_map(|h| h.candidates)
                .all(|c| c.attach.tier() == Tier::Tracepoint),
            "where trampolines are refused, probe still starts"
        );
    }

    #[test]
    fn spares_are_for_a_program_of_a_hook_and_only_where_they_are_needed() {
        for spare in &SPARES {
            let (_, first) = candidates().find(|(_, c)| c.attach == spare.attach).unwrap();
            assert!(spare.program.starts_with(&format!("{}_spare_", first.program)));
            assert!(spared_slot(first.program).is_some());
            assert_eq!(spares_of(first, &facts()).count(), 0);
            let facts = Facts {
                preemptible_tracepoints: true,
                ..facts()
            };
            assert!(spares_of(first, &facts).any(|s| s == spare));
        }
    }

    #[test]
    fn a_subject_is_in_a_tier_when_all_of_it_is() {
        let planned = |hook: &'static Hook, tier| Planned {
            hook,
            attached: hook.candidates.iter().find(|c| c.attach.tier() == tier),
            refused: Vec::new(),
        };
        let all = |tier| Plan {
            hooks: HOOKS.iter().map(|h| planned(h, tier)).collect(),
            lacks: Vec::new(),
            spares: Vec::new(),
        };
        assert_eq!(all(Tier::Tracepoint).tiers()["inet_socket"], "tracepoint");
        let mut plan = all(Tier::Fentry);
        assert_eq!(plan.tiers()["inet_socket"], "fentry");
        assert_eq!(plan.tiers()["unix_socket"], "fentry");
        assert_eq!(plan.tiers()["signal"], "tracepoint");
        for p in &mut plan.hooks {
            if p.hook.name == "unix_release" {
                p.attached = None;
            }
        }
        assert_eq!(plan.tiers()["unix_socket"], "tracepoint");
    }
}
