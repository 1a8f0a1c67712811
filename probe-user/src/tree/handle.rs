//! A process that cannot become another one.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{Links, inode};
use crate::{
    event::{ProcId, Process},
    signal::Signal,
    sources::process,
};

/// Why a process could not be taken hold of.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no pidfd for process {pid}: {source}")]
    Open { pid: u32, source: io::Error },
    #[error("process {pid} cannot be read: {source}")]
    Read { pid: u32, source: io::Error },
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// The process had ended; nobody got it.
    Ended,
}

/// A pidfd, and what was read of its process while that lived.
#[derive(Debug)]
pub struct Handle {
    process: Process,
    fd: OwnedFd,
}

impl Handle {
    /// The process that has this pid. `None`: no live process has.
    ///
    /// # Errors
    /// Without a descriptor to spare, or when `/proc` can't be read.
    pub fn open(pid: u32) -> Result<Option<Self>, OpenError> {
        let Some(fd) = open(pid)? else { return Ok(None) };
        let process = process::read(pid).map_err(|source| OpenError::Read { pid, source })?;
        // Read of the process behind the descriptor only where that has not ended since.
        Ok(process
            .filter(|_| !ended(fd.as_fd(), Duration::ZERO))
            .map(|process| Self { process, fd }))
    }

    /// The process that was met as `id`. `None`: it has ended.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_as(id: ProcId) -> Result<Option<Self>, OpenError> {
        Ok(Self::open(id.pid)?.filter(|h| h.process.id == id))
    }

    /// A child of the process `parent`, without reading more of it than its place in the tree. `None`: the pid is no
    /// child of that process.
    pub(super) fn open_child(
        pid: u32,
        parent: BorrowedFd<'_>,
        parent_pid: u32,
    ) -> Result<Option<Self>, OpenError> {
        let Some(fd) = open(pid)? else { return Ok(None) };
        let links = Links::read(pid);
        let is_child = links.is_some_and(|l| l.parent == parent_pid);
        // Both alive after the reading: so the one was the other's child.
        if !is_child || ended(fd.as_fd(), Duration::ZERO) || ended(parent, Duration::ZERO) {
            return Ok(None);
        }
        let process = process::read(pid).map_err(|source| OpenError::Read { pid, source })?;
        Ok(process
            .filter(|_| !ended(fd.as_fd(), Duration::ZERO))
            .map(|process| Self { process, fd }))
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn id(&self) -> ProcId {
        self.process.id
    }

    pub fn pid(&self) -> u32 {
        self.process.id.pid
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The number that the kernel gave to this process and to no other since boot, where it has one (Linux 6.9).
    pub fn inode(&self) -> Option<u64> {
        inode(self.fd())
    }

    /// Whether all its threads have ended; a zombie has.
    pub fn has_ended(&self) -> bool {
        ended(self.fd(), Duration::ZERO)
    }

    /// Waits for its end. `false`: it did not come in time.
    pub fn ends_within(&self, limit: Duration) -> bool {
        ended(self.fd(), limit)
    }

    /// # Errors
    /// `EPERM`, above all.
    pub fn send(&self, signal: Signal) -> io::Result<Sent> {
        send(self.fd(), signal)
    }

    /// What `/proc` tells of it by `read`, which is given its directory. `None`: it had ended by then.
    pub fn read<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let told = read(&format!("/proc/{}", self.pid()));
        told.filter(|_| !self.has_ended())
    }

    /// Whether one of its descriptors leads to this socket now.
    pub fn holds_socket(&self, inode: u64) -> bool {
        let target = format!("socket:[{inode}]");
        let holds = |directory: &str| {
            let Ok(entries) = fs::read_dir(directory) else {
                return false;
            };
            entries
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == target.as_str()))
        };
        self.read(|proc| {
            // The first thread's descriptors are gone once it has ended, while others go on.
            let threads = || {
                fs::read_dir(format!("{proc}/task"))
                    .into_iter()
                    .flatten()
                    .flatten()
            };
            let held = holds(&format!("{proc}/fd"))
                || threads().any(|t| holds(&format!("{}/fd", t.path().display())));
            Some(held)
        })
        .unwrap_or(false)
    }
}

/// Waits until one of these has ended, at most so long. Without any it waits that long.
pub fn wait<'a>(fds: impl IntoIterator<Item = BorrowedFd<'a>>, limit: Duration) {
    let mut fds: Vec<PollFd<'_>> = fds
        .into_iter()
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    // An interrupted wait is a short one; the caller looks again.
    let _ = poll(&mut fds, timeout(limit));
}

pub(super) fn ended(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let limit = crate::clock::now() + limit;
    loop {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout(limit.since(crate::clock::now()))) {
            Ok(n) => return n > 0,
            Err(nix::Error::EINTR) => {}
            // The descriptor is open: memory is short. Not ended is what harms nobody.
            Err(_) => return false,
        }
    }
}

fn send(fd: BorrowedFd<'_>, signal: Signal) -> io::Result<Sent> {
    // SAFETY: the descriptor is open, and no information is passed. rustix knows no real-time signals.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            signal.0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        return Ok(Sent::Yes);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(Sent::Ended),
        _ => Err(error),
    }
}

/// Rounded up, so that the time has passed when poll returns.
fn timeout(limit: Duration) -> PollTimeout {
    let rounded = limit + Duration::from_nanos(999_999);
    PollTimeout::try_from(rounded).unwrap_or(PollTimeout::MAX)
}

fn open(pid: u32) -> Result<Option<OwnedFd>, OpenError> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        // A thread's id is no process's (EINVAL, since 6.9 ENOENT).
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(e) => Err(OpenError::Open {
            pid,
            source: e.into(),
        }),
    }
}
