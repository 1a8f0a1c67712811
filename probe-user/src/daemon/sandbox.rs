//! What the daemon gives up once everything is set up: capabilities that only the set-up took, new privileges for ever, and
//! system calls that it never makes.
//!
//! The filter is a list of what is denied, not of what is allowed. Much of what probe does rarely (clean-up, SQLite's
//! recovery, the name service's plug-ins, another C library) no test passes through completely, and a system call that
//! was forgotten would make probe itself the failure. What is denied is what whoever had taken the daemon over would need: to
//! execute, to start processes, to reach into others, to change mounts, kernel, clock and identity.

use std::{collections::BTreeMap, fs, io};

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// What is kept, and why. `packaging/systemd/probe.service` says what else the set-up takes.
pub const KEPT: [(CapabilitySet, &str, &str); 8] = [
    (
        CapabilitySet::SYS_ADMIN,
        "SYS_ADMIN",
        "mark directories (fanotify), enter network name spaces, change maps and attach anew",
    ),
    (
        CapabilitySet::SYS_PTRACE,
        "SYS_PTRACE",
        "see descriptors and root directories of every user's processes",
    ),
    (
        CapabilitySet::DAC_READ_SEARCH,
        "DAC_READ_SEARCH",
        "look into every user's directories",
    ),
    (
        CapabilitySet::DAC_OVERRIDE,
        "DAC_OVERRIDE",
        "clean up in a dead daemon's directory",
    ),
    (
        CapabilitySet::FOWNER,
        "FOWNER",
        "clean up in a directory in which only owners remove files",
    ),
    (CapabilitySet::KILL, "KILL", "end what `singleton` and `heal` say"),
    (CapabilitySet::SETUID, "SETUID", "enter a user's bus as that user"),
    (
        CapabilitySet::CHOWN,
        "CHOWN",
        "give a socket that is made anew to its group",
    ),
];

/// Why the sandbox is not closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("{what}: {error}")]
    Kernel { what: &'static str, error: io::Error },
    #[error("thread {thread} has capabilities {found:#x}, expected no more than {kept:#x}")]
    Thread { thread: String, found: u64, kept: u64 },
    #[error("the filter of system calls cannot be made: {0}")]
    Filter(String),
}

fn kept() -> CapabilitySet {
    KEPT.iter().map(|(capability, ..)| *capability).collect()
}

/// Gives up, for the calling thread and those that it starts, what the set-up alone needs.
///
/// # Errors
/// Those of capset(2) and prctl(2).
fn reduce() -> io::Result<()> {
    let has = rustix::thread::capabilities(None)?;
    let left = has.permitted & kept();
    if has.permitted.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept()).iter() {
            // EINVAL: this kernel does not know it, so nobody can have it.
            _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    // ENOSYS and EINVAL: before 4.3 there is no such set.
    _ = rustix::thread::clear_ambient_capability_set();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: left,
            permitted: left,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// [`reduce`] for a thread that has begun before the sandbox is closed. What it could not give up, [`close`] finds.
pub fn reduce_this_thread() {
    if let Err(e) = reduce() {
        tracing::warn!("a thread keeps its capabilities: {e}");
    }
}

/// Closes the sandbox, for all threads and for ever. Each thread that is not started by the calling one must have called
/// [`reduce_this_thread`].
///
/// # Errors
/// When something was not given up. A kernel without filters is no error: the log says so.
pub(crate) fn close() -> Result<(), SandboxError> {
    let kernel = |what| move |error: io::Error| SandboxError::Kernel { what, error };
    reduce().map_err(kernel("capabilities cannot be given up"))?;
    for thread in fs::read_dir("/proc/self/task").map_err(kernel("/proc/self/task cannot be read"))? {
        let thread = thread.map_err(kernel("/proc/self/task cannot be read"))?;
        // One that ends meanwhile is no danger.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
            continue;
        };
        let permitted = capabilities(&status);
        if permitted & !kept().bits() != 0 {
            return Err(SandboxError::Thread {
                thread: status.lines().next().unwrap_or_default().to_owned(),
                found: permitted,
                kept: kept().bits(),
            });
        }
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|e| kernel("new privileges cannot be given up")(e.into()))?;
    let names: Vec<_> = KEPT.iter().map(|(_, name, _)| *name).collect();
    let names = names.join(", ");
    match filter() {
        Ok(()) => {
            tracing::info!(
                "the sandbox is closed: of the capabilities {names} are kept, nothing is executed any more"
            )
        }
        Err(Filter::Unsupported(why)) => {
            tracing::warn!("of the capabilities {names} are kept; system calls are not filtered: {why}")
        }
        Err(Filter::Wrong(why)) => return Err(SandboxError::Filter(why)),
    }
    Ok(())
}

fn capabilities(status: &str) -> u64 {
    let text = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    // What can't be read counts as everything.
    text.and_then(|t| u64::from_str_radix(t.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

enum Filter {
    Unsupported(String),
    Wrong(String),
}

impl From<seccompiler::BackendError> for Filter {
    fn from(e: seccompiler::BackendError) -> Self {
        Self::Wrong(e.to_string())
    }
}

impl From<seccompiler::Error> for Filter {
    fn from(e: seccompiler::Error) -> Self {
        match e {
            seccompiler::Error::Backend(e) => e.into(),
            e => Self::Unsupported(e.to_string()),
        }
    }
}

/// What the daemon never does after its set-up.
#[rustfmt::skip]
const DENIED: &[libc::c_long] = &[
    // Executing, and new processes: that is the spawner's. (clone: see below.)
    libc::SYS_execve, libc::SYS_execveat,
    // Reaching into processes, and memory that others see.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd, libc::SYS_userfaultfd, libc::SYS_migrate_pages, libc::SYS_move_pages,
    // Mounts and roots.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree, libc::SYS_move_mount,
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr, libc::SYS_unshare,
    // The kernel, the machine, its clock and its name.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_syslog, libc::SYS_perf_event_open,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup,
    // Identity. (A thread becomes a user with setresuid, to enter that user's bus.)
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresgid, libc::SYS_setgroups,
    libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setsid,
    // Keys, device files, and interfaces around all of this.
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_mknodat, libc::SYS_personality,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl, libc::SYS_memfd_secret,
];

/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_mknod,
    libc::SYS_kexec_file_load, libc::SYS_uselib, libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// The second set of numbers that 64-bit x86 can have: the same calls with this bit, and some with numbers of their own.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_OWN: [libc::c_long; 6] = [520, 521, 528, 539, 540, 545];

fn filter() -> Result<(), Filter> {
    let arch =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|e| Filter::Unsupported(e.to_string()))?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for number in DENIED.iter().chain(DENIED_HERE) {
        rules.insert(*number, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    {
        let numbers: Vec<_> = rules.keys().copied().collect();
        rules.extend(numbers.into_iter().map(|number| (X32 | number, Vec::new())));
        rules.extend(X32_OWN.map(|number| (X32 | number, Vec::new())));
        rules.insert(X32 | libc::SYS_clone, Vec::new());
        rules.insert(X32 | libc::SYS_clone3, Vec::new());
    }
    // clone(2) starts threads too.
    let thread = libc::CLONE_THREAD as u64;
    let no_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_thread])?]);
    let denied = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        arch,
    )?;
    // What clone3 is to do stands in memory, which no filter reads. "There is no such call" has the C library use clone.
    let absent = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )?;
    for filter in [absent, denied] {
        let program: seccompiler::BpfProgram = filter.try_into()?;
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_allows_what_is_kept_and_says_each_once() {
        let unit = include_str!("../../../packaging/systemd/probe.service");
        let allowed: Vec<_> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .flat_map(str::split_whitespace)
            .collect();
        for (_, name, reason) in KEPT {
            let count = allowed.iter().filter(|a| **a == format!("CAP_{name}")).count();
            assert_eq!(
                count, 1,
                "CAP_{name} ({reason}) stands {count} times in probe.service"
            );
        }
    }

    #[test]
    fn what_is_denied_is_denied_and_threads_still_begin() {
        // A filter is for ever: in a process of its own.
        let inside = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "daemon::sandbox::tests::inside",
                "--ignored",
                "--test-threads=1",
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by the test before it, in a process of its own"]
    fn inside() {
        let call = |number: libc::c_long, first: libc::c_long| {
            // SAFETY: no address is valid, so the kernel touches no memory; what would have an effect is denied.
            let result = unsafe { libc::syscall(number, first, -1_i64, -1_i64, -1_i64, -1_i64) };
            (result, io::Error::last_os_error().raw_os_error().unwrap_or(0))
        };
        let before = call(libc::SYS_execve, -1);
        assert_eq!(before, (-1, libc::EFAULT), "it is not denied yet");
        assert!(filter().is_ok(), "this kernel has no filters");
        // What must be among them, whoever changes the list.
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_move_mount,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_clock_settime,
            libc::SYS_setgroups,
            libc::SYS_keyctl,
            libc::SYS_mknodat,
            libc::SYS_io_uring_setup,
        ] {
            assert!(DENIED.contains(&number), "system call {number} is not denied");
        }
        for number in DENIED.iter().chain(DENIED_HERE) {
            // At the first that is not denied this ends: what comes later could have an effect.
            assert_eq!(call(*number, -1), (-1, libc::EPERM), "system call {number}");
        }
        #[cfg(target_arch = "x86_64")]
        for number in DENIED.iter().chain(&X32_OWN) {
            assert_eq!(
                call(X32 | number, -1),
                (-1, libc::EPERM),
                "system call {number} of x32"
            );
        }
        assert_eq!(
            call(libc::SYS_clone, 0),
            (-1, libc::EPERM),
            "a process, not a thread"
        );
        assert_eq!(call(libc::SYS_clone3, -1), (-1, libc::ENOSYS));
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        // What the daemon needs later gets through to the kernel.
        for number in [
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_fanotify_mark,
            libc::SYS_pidfd_send_signal,
        ] {
            assert_ne!(call(number, -1).1, libc::EPERM, "system call {number}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_everything() {
        assert_eq!(capabilities("Name:\tx\nCapPrm:\t0000000000000005\n"), 5);
        assert_eq!(capabilities("Name:\tx\n"), u64::MAX);
    }
}
