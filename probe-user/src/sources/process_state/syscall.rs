//! The system call that a thread is in, from `/proc/PID/task/TID/syscall`.

use std::{
    fs::File,
    io::{self, Read},
};

/// What `syscall` says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// On a processor, or about to be.
    Running,
    /// Sleeps outside of a system call: a page fault.
    Outside,
    /// `first`: the first argument. `compat`: a 32-bit call, whose numbers are others.
    In { number: i64, first: u64, compat: bool },
    /// Not readable.
    Unknown,
}

/// What a thread in a system call waits for, as far as the call tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// This descriptor.
    Descriptor(i32),
    /// Several: poll, select, epoll, io_uring.
    Many,
    /// A futex, on which threads wait for each other.
    Threads,
    /// `rt_sigtimedwait`.
    Signals,
    Other,
}

/// proc(5): `running`, or the number (-1 outside of a call), six arguments, stack pointer and program counter.
pub(super) fn current(pid: u32, tid: u32) -> Call {
    match small_file(pid, tid, "syscall") {
        Ok(text) => parse(&text),
        Err(_) => Call::Unknown,
    }
}

pub(super) fn parse(text: &str) -> Call {
    let mut words = text.split_ascii_whitespace();
    let number: i64 = match words.next() {
        Some("running") => return Call::Running,
        Some(number) => match number.parse() {
            Ok(-1) => return Call::Outside,
            Ok(number) => number,
            Err(_) => return Call::Unknown,
        },
        None => return Call::Unknown,
    };
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok();
    let (Some(first), Some(stack)) = (words.next().and_then(hex), words.nth(5).and_then(hex)) else {
        return Call::Unknown;
    };
    Call::In {
        number,
        first,
        // A stack of a 64-bit program does not lie below 4 GiB.
        compat: cfg!(target_pointer_width = "64") && stack < 1 << 32,
    }
}

fn small_file(pid: u32, tid: u32, name: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/task/{tid}/{name}"))?
        .take(4096)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The name of the call, else of the kernel function that the thread sleeps in, else nothing.
pub(super) fn name(pid: u32, tid: u32, call: Call) -> Option<String> {
    if let Call::In {
        number,
        compat: false,
        ..
    } = call
        && let Some(name) = name_of(number)
    {
        return Some(name.to_owned());
    }
    let wchan = small_file(pid, tid, "wchan").ok();
    wchan.filter(|w| !w.is_empty() && w != "0").or(match call {
        Call::In {
            number,
            compat: false,
            ..
        } => Some(format!("system call {number}")),
        _ => None,
    })
}

impl Call {
    pub(super) fn wait(self) -> Wait {
        let Self::In {
            number,
            first,
            compat,
        } = self
        else {
            return Wait::Other;
        };
        if compat {
            // The same on 32-bit x86 and ARM: rt_sigtimedwait and its successor for 64-bit times.
            return if matches!(number, 177 | 421) {
                Wait::Signals
            } else {
                Wait::Other
            };
        }
        match name_of(number) {
            Some("rt_sigtimedwait") => Wait::Signals,
            Some("futex" | "futex_waitv") => Wait::Threads,
            Some(
                "poll" | "ppoll" | "select" | "pselect6" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2"
                | "io_uring_enter",
            ) => Wait::Many,
            Some(
                "connect" | "read" | "readv" | "recvfrom" | "recvmsg" | "recvmmsg" | "write" | "writev"
                | "sendto" | "sendmsg" | "sendmmsg" | "sendfile" | "close" | "shutdown",
            ) => Wait::Descriptor(first as i32),
            _ => Wait::Other,
        }
    }
}

/// Names by the numbers of the architecture that this is built for, which is the kernel's.
macro_rules! names {
    ($number:expr; $($call:ident)*) => {
        match $number {
            $(libc::$call => Some(stringify!($call)),)*
            _ => None,
        }
    };
}

/// Calls that can sleep for long; on files, on other processes, on the network.
fn name_of(number: i64) -> Option<&'static str> {
    let found = names! { number;
        SYS_accept SYS_accept4 SYS_bind SYS_brk SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_close SYS_close_range
        SYS_connect SYS_copy_file_range SYS_delete_module SYS_epoll_pwait SYS_epoll_pwait2 SYS_execve SYS_execveat
        SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod
        SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_finit_module SYS_flock
        SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_getdents64
        SYS_getrandom SYS_getxattr SYS_init_module SYS_io_getevents SYS_io_submit SYS_io_uring_enter SYS_ioctl
        SYS_lgetxattr SYS_linkat SYS_listen SYS_lseek SYS_madvise SYS_mkdirat SYS_mlock SYS_mlockall SYS_mmap
        SYS_mount SYS_mprotect SYS_mq_timedreceive SYS_mq_timedsend SYS_mremap SYS_msgrcv SYS_msgsnd SYS_msync
        SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_open_by_handle_at SYS_openat SYS_openat2
        SYS_pivot_root SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_pselect6 SYS_ptrace SYS_pwrite64
        SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg
        SYS_recvmsg SYS_renameat SYS_renameat2 SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_semop SYS_semtimedop
        SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setns SYS_setxattr SYS_shutdown SYS_splice SYS_statfs
        SYS_statx SYS_swapoff SYS_swapon SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_tee SYS_truncate
        SYS_umount2 SYS_unlinkat SYS_unshare SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
    };
    #[cfg(target_arch = "x86_64")]
    let found = found.or(names! { number;
        SYS_access SYS_chmod SYS_chown SYS_creat SYS_epoll_wait SYS_fork SYS_getdents SYS_lchown SYS_link
        SYS_lstat SYS_mkdir SYS_mknod SYS_open SYS_pause SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select
        SYS_stat SYS_symlink SYS_unlink SYS_utime SYS_utimes SYS_vfork
    });
    found.map(|name| name.strip_prefix("SYS_").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_waits_for_is_told_by_its_call() {
        let line = |n: libc::c_long| format!("{n} 0x7 0x1 0x2 0x3 0x4 0x5 0x7fffcb5a5998 0x7f3c8fe122ad\n");
        assert_eq!(parse(&line(libc::SYS_recvfrom)).wait(), Wait::Descriptor(7));
        assert_eq!(parse(&line(libc::SYS_epoll_pwait)).wait(), Wait::Many);
        assert_eq!(parse(&line(libc::SYS_rt_sigtimedwait)).wait(), Wait::Signals);
        assert_eq!(parse(&line(libc::SYS_futex)).wait(), Wait::Threads);
        assert_eq!(parse(&line(libc::SYS_nanosleep)).wait(), Wait::Other);
        let compat = parse("177 0x7 0x1 0x2 0x3 0x4 0x5 0xffcb5998 0xf7fe22ad");
        assert_eq!(compat.wait(), Wait::Signals);
        assert_eq!(parse("running\n"), Call::Running);
        assert_eq!(parse("-1 0x7fffcb5a5998 0x7f3c8fe122ad"), Call::Outside);
        for text in ["", "x", "1", "1 0x1", "1 y 0 0 0 0 0 0 0"] {
            assert_eq!(parse(text), Call::Unknown, "{text}");
        }
    }
}
