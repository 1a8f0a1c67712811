//! What the kernel tells of a process by its pidfd alone.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::event::ExitStatus;

/// `PIDFS_MAGIC` of `include/uapi/linux/magic.h`.
const PIDFS_MAGIC: u64 = 0x5049_4446;
/// `PIDFD_INFO_EXIT` of `include/uapi/linux/pidfd.h`.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`, of the first size that it had.
const GET_INFO: libc::c_ulong = 0xc040_ff0b;

/// `struct pidfd_info` as of Linux 6.13, which later ones only add to.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// The number that no other process has or had since boot: the inode number of the pidfd, where those have inodes of
/// their own (Linux 6.9).
pub fn inode(fd: BorrowedFd<'_>) -> Option<u64> {
    let is_pidfs = rustix::fs::fstatfs(fd).is_ok_and(|f| f.f_type as u64 == PIDFS_MAGIC);
    let stat = rustix::fs::fstat(fd).ok().filter(|_| is_pidfs)?;
    Some(stat.st_ino)
}

/// How the process behind a pidfd ended, also one that was no child of ours (Linux 6.15). `None`: its parent has not
/// waited for it yet.
///
/// # Errors
/// `ENOTTY` and `EINVAL` where the kernel does not tell.
pub fn exit_status(fd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let mut info = Info {
        mask: INFO_EXIT,
        ..Info::default()
    };
    // SAFETY: `info` is as large as the request says, and lives throughout the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    if result == 0 {
        let told = info.mask & INFO_EXIT != 0;
        return Ok(told.then(|| ExitStatus::from_wait(info.exit_code as u32)));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // What the kernel keeps of an ended process is its end; before that is read, nothing.
        Some(libc::ESRCH) => Ok(None),
        _ => Err(error),
    }
}
