//! Which hooks there are, and what became of each on this machine.

use std::fmt;

use probe_abi::Offsets;

use super::{
    facts::{Availability, Facts},
    offsets::missing,
};

/// How a program gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// A raw tracepoint of this name.
    RawTracepoint(&'static str),
    /// A socket hook on the root of the unified cgroup hierarchy.
    Cgroup,
    /// A BPF iterator over objects of this kind.
    Iterator(&'static str),
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawTracepoint(name) => write!(f, "raw tracepoint {name}"),
            Self::Cgroup => f.write_str("cgroup socket hook"),
            Self::Iterator(kind) => write!(f, "iterator over {kind}"),
        }
    }
}

/// One program of the object, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program.
    pub name: &'static str,
    pub subject: &'static str,
    pub attach: Attach,
    /// Without it probe can't do its main job.
    pub required: bool,
    /// Fields of [`Offsets`] without which it has nothing to say.
    pub needs: &'static [&'static str],
    /// What can't be seen without it.
    pub gives: &'static str,
}

const IDENTITY: [&str; 5] = [
    "task_tgid",
    "task_start_boottime",
    "task_group_leader",
    "task_real_parent",
    "task_comm",
];

/// In the order of attachment: what ends a supervision comes before what begins one.
pub const HOOKS: [Hook; 11] = [
    Hook {
        name: "sched_process_exit",
        subject: "process",
        attach: Attach::RawTracepoint("sched_process_exit"),
        required: true,
        needs: &[
            "task_signal",
            "signal_live",
            "signal_flags",
            "signal_group_exit_code",
            "task_exit_code",
        ],
        gives: "the end of processes, and who the dead were",
    },
    Hook {
        name: "signal_generate",
        subject: "signal",
        attach: Attach::RawTracepoint("signal_generate"),
        required: true,
        needs: &["siginfo_code", "task_sighand", "sighand_action", "task_blocked"],
        gives: "signals and their senders",
    },
    Hook {
        name: "sched_process_fork",
        subject: "process",
        attach: Attach::RawTracepoint("sched_process_fork"),
        required: true,
        needs: &["task_pid"],
        gives: "children",
    },
    Hook {
        name: "sched_process_exec",
        subject: "process",
        attach: Attach::RawTracepoint("sched_process_exec"),
        required: true,
        needs: &["task_mm", "mm_exe_file", "file_f_inode", "inode_i_ino"],
        gives: "starts of declared programs",
    },
    Hook {
        name: "mark_victim",
        subject: "oom",
        attach: Attach::RawTracepoint("mark_victim"),
        required: false,
        needs: &[],
        gives: "victims of the OOM killer",
    },
    Hook {
        name: "inet_sock_set_state",
        subject: "inet_socket",
        attach: Attach::RawTracepoint("inet_sock_set_state"),
        required: false,
        needs: &["sock_num"],
        gives: "when TCP listeners begin and end",
    },
    Hook {
        name: "post_bind4",
        subject: "inet_socket",
        attach: Attach::Cgroup,
        required: false,
        needs: &[],
        gives: "when UDP sockets are bound (IPv4)",
    },
    Hook {
        name: "post_bind6",
        subject: "inet_socket",
        attach: Attach::Cgroup,
        required: false,
        needs: &[],
        gives: "when UDP sockets are bound (IPv6)",
    },
    Hook {
        name: "sock_release",
        subject: "inet_socket",
        attach: Attach::Cgroup,
        required: false,
        needs: &["sock_num"],
        gives: "when bound UDP sockets are closed",
    },
    Hook {
        name: "iter_task",
        subject: "snapshot",
        attach: Attach::Iterator("task"),
        required: false,
        needs: &["task_pid"],
        gives: "a fast list of processes",
    },
    Hook {
        name: "iter_task_file",
        subject: "snapshot",
        attach: Attach::Iterator("task_file"),
        required: false,
        needs: &["file_f_inode", "inode_i_ino", "inode_i_sb", "sb_s_magic"],
        gives: "a fast list of who holds a socket",
    },
];

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Attached,
    /// The kernel refused it; its words.
    Refused(String),
    /// Not even tried, and why.
    Skipped(String),
}

/// A hook and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub hook: &'static Hook,
    pub outcome: Outcome,
}

/// The outcome of every hook, in the order of [`HOOKS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub hooks: Vec<Planned>,
}

impl Plan {
    /// The name of the way in which events are captured.
    pub const TIER: &'static str = "tracepoint";

    pub fn is_attached(&self, hook: &str) -> bool {
        self.hooks
            .iter()
            .any(|p| p.hook.name == hook && p.outcome == Outcome::Attached)
    }

    /// Hooks that give nothing here, with the reason.
    pub fn without(&self) -> impl Iterator<Item = (&'static Hook, &str)> {
        self.hooks.iter().filter_map(|p| match &p.outcome {
            Outcome::Attached => None,
            Outcome::Refused(why) | Outcome::Skipped(why) => Some((p.hook, why.as_str())),
        })
    }
}

/// Why a hook need not be tried. `None`: try it. Only the attempt tells whether the kernel takes it: kernels differ in what
/// they refuse far more than in what they announce.
pub fn obstacle(hook: &Hook, facts: &Facts, offsets: &Offsets) -> Option<String> {
    let absent = missing(offsets, &[hook.needs, &IDENTITY].concat());
    if !absent.is_empty() {
        return Some(format!("this kernel has no {}", absent.join(", ")));
    }
    match hook.attach {
        Attach::Cgroup if facts.cgroup2.is_none() => Some(
            "cgroup v2 is not mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified"
                .to_owned(),
        ),
        Attach::Iterator(_) if facts.btf != Availability::Works => {
            Some("the kernel shows no type information".to_owned())
        }
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
            cgroup2: Some("/sys/fs/cgroup".into()),
            tracefs: None,
            bpffs: None,
        }
    }

    fn complete() -> Offsets {
        use zerocopy::FromBytes as _;
        Offsets::read_from_bytes(&[0; size_of::<Offsets>()]).unwrap()
    }

    #[test]
    fn a_complete_kernel_is_tried_with_everything() {
        for hook in &HOOKS {
            assert_eq!(obstacle(hook, &facts(), &complete()), None, "{}", hook.name);
        }
    }

    #[test]
    fn without_cgroup2_only_its_hooks_are_skipped() {
        let facts = Facts {
            cgroup2: None,
            ..facts()
        };
        let skipped: Vec<_> = HOOKS
            .iter()
            .filter(|h| obstacle(h, &facts, &complete()).is_some())
            .map(|h| h.name)
            .collect();
        assert_eq!(skipped, ["post_bind4", "post_bind6", "sock_release"]);
    }

    #[test]
    fn a_member_that_the_kernel_lacks_skips_what_needs_it_and_says_which() {
        let offsets = Offsets {
            sock_num: probe_abi::ABSENT,
            ..complete()
        };
        let reasons: Vec<_> = HOOKS
            .iter()
            .filter_map(|h| obstacle(h, &facts(), &offsets))
            .collect();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[0].contains("sock.__sk_common.skc_num"), "{}", reasons[0]);
    }

    #[test]
    fn every_need_is_a_field() {
        for need in HOOKS.iter().flat_map(|h| h.needs).chain(&IDENTITY) {
            assert!(Offsets::FIELDS.iter().any(|(field, ..)| field == need), "{need}");
        }
    }
}
