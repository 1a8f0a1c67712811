//! What this machine and this process offer, found out before anything is loaded.

use std::{fs, io, path::PathBuf};

use super::offsets::VMLINUX;

/// A capability, by number and name (capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    pub number: u32,
    pub name: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// Without it nothing can be loaded.
    pub required: bool,
}

const CAP_SYS_ADMIN: u32 = 21;

/// What probe uses. `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` too, as in the kernel.
pub const CAPABILITIES: [Capability; 6] = [
    Capability {
        number: 39,
        name: "CAP_BPF",
        why: "load eBPF programs",
        required: true,
    },
    Capability {
        number: 38,
        name: "CAP_PERFMON",
        why: "read kernel memory in eBPF programs",
        required: true,
    },
    Capability {
        number: 12,
        name: "CAP_NET_ADMIN",
        why: "attach to sockets of a cgroup",
        required: true,
    },
    Capability {
        number: 19,
        name: "CAP_SYS_PTRACE",
        why: "see the open files of other users' processes",
        required: false,
    },
    Capability {
        number: 2,
        name: "CAP_DAC_READ_SEARCH",
        why: "look into directories of other users",
        required: false,
    },
    Capability {
        number: CAP_SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        why: "learn who changes a directory (fanotify)",
        required: false,
    },
];

/// Whether a call to the kernel works at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    Works,
    /// The kernel was built without it.
    Absent,
    /// It is there, and refused to this process; the error.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As `uname -r`.
    pub release: String,
    /// Effective user id.
    pub uid: u32,
    /// Effective capabilities, bit n for capability n.
    pub capabilities: u64,
    pub bpf: Availability,
    /// Type information of the kernel.
    pub btf: Availability,
    /// Whether the kernel calls trampolines. It takes them also where it does not.
    pub trampolines: bool,
    /// Whether a task can be preempted inside of a tracepoint's programs: since 7.0 they are guarded by SRCU.
    pub preemptible_tracepoints: bool,
    /// Where the unified cgroup hierarchy is mounted.
    pub cgroup2: Option<PathBuf>,
    pub tracefs: Option<PathBuf>,
    pub bpffs: Option<PathBuf>,
}

impl Facts {
    pub fn gather() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim().to_owned();
        Self {
            preemptible_tracepoints: major(&release).is_some_and(|major| major >= 7),
            release,
            uid: rustix::process::geteuid().as_raw(),
            capabilities: effective_capabilities(&status).unwrap_or(0),
            bpf: bpf_system_call(),
            btf: match fs::File::open(VMLINUX) {
                Ok(_) => Availability::Works,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Availability::Absent,
                Err(e) => Availability::Refused(e.to_string()),
            },
            trampolines: trampolines_are_called(),
            cgroup2: mount_point(&mounts, "cgroup2"),
            tracefs: mount_point(&mounts, "tracefs"),
            bpffs: mount_point(&mounts, "bpf"),
        }
    }

    pub fn has(&self, capability: &Capability) -> bool {
        let bit = |n: u32| self.capabilities >> n & 1 == 1;
        bit(capability.number) || matches!(capability.name, "CAP_BPF" | "CAP_PERFMON") && bit(CAP_SYS_ADMIN)
    }

    /// The capabilities that this process lacks.
    pub fn missing_capabilities(&self) -> Vec<Capability> {
        CAPABILITIES.into_iter().filter(|c| !self.has(c)).collect()
    }
}

/// `kernel.ftrace_enabled`: while it is 0, kernels from 6.0 attach trampolines and never call them. A kernel without it has
/// them in its text.
pub(super) fn trampolines_are_called() -> bool {
    fs::read_to_string("/proc/sys/kernel/ftrace_enabled").map_or(true, |text| text.trim() != "0")
}

/// The `CapEff` line of `/proc/PID/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Where the first file system of a type is mounted (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str, file_system: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        if rest.split(' ').next()? != file_system {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        // A bind mount of a part of the hierarchy is not its root.
        let root = fields.next()?;
        if file_system == "cgroup2" && root != "/" && !root.starts_with("/..") {
            return None;
        }
        Some(PathBuf::from(unescape(fields.next()?)))
    })
}

/// Blanks stand as `\040` in mountinfo.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// Asks for a command that no kernel has: where the call exists, it says that the argument is invalid.
fn bpf_system_call() -> Availability {
    let mut attr = [0_u64; 16];
    // SAFETY: the kernel reads at most the given size from `attr`, and does nothing for an unknown command.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            i64::from(i32::MAX),
            attr.as_mut_ptr(),
            size_of_val(&attr),
        )
    };
    if done >= 0 {
        return Availability::Works;
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Availability::Absent,
        Some(libc::EPERM | libc::EACCES) => Availability::Refused(error.to_string()),
        _ => Availability::Works,
    }
}

/// Of a release as uname(2) gives it.
fn major(release: &str) -> Option<u32> {
    release.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:21 / /proc rw - proc proc rw
30 22 0:26 /sub /mnt/part rw - cgroup2 cgroup rw
31 22 0:26 / /sys/fs/cgroup/unified\\040x rw,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate
";

    #[test]
    fn the_unified_hierarchy_is_found_by_its_root() {
        assert_eq!(
            mount_point(MOUNTS, "cgroup2"),
            Some(PathBuf::from("/sys/fs/cgroup/unified x"))
        );
        assert_eq!(mount_point(MOUNTS, "bpf"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let mut facts = Facts::gather();
        facts.capabilities = effective_capabilities("Name:\tx\nCapEff:\t0000000000001000\n").unwrap();
        let names: Vec<_> = facts.missing_capabilities().iter().map(|c| c.name).collect();
        assert_eq!(
            names,
            [
                "CAP_BPF",
                "CAP_PERFMON",
                "CAP_SYS_PTRACE",
                "CAP_DAC_READ_SEARCH",
                "CAP_SYS_ADMIN"
            ]
        );
        facts.capabilities |= 1 << CAP_SYS_ADMIN;
        assert!(facts.missing_capabilities().iter().all(|c| !c.required));
    }

    #[test]
    fn this_machine_has_a_name() {
        let facts = Facts::gather();
        assert!(!facts.release.is_empty());
        assert_ne!(facts.bpf, Availability::Absent);
    }
}
