//! bind and listen through io_uring (from Linux 6.11).

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use io_uring::{IoUring, opcode, squeue, types::Fd};
use nix::{errno::Errno, sys::socket::SockaddrLike};

/// A ring with room for one operation at a time.
pub(super) struct Uring(IoUring);

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Uring")
    }
}

impl Uring {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(IoUring::new(1).context("io_uring_setup")?))
    }

    pub(super) fn bind(&mut self, fd: &OwnedFd, to: &dyn SockaddrLike) -> Result<()> {
        let entry = opcode::Bind::new(Fd(fd.as_raw_fd()), to.as_ptr().cast(), to.len()).build();
        // SAFETY: the address lives until `submit` returns, and then the operation has ended.
        unsafe { self.submit(&entry) }.context("bind through io_uring")
    }

    pub(super) fn listen(&mut self, fd: &OwnedFd, backlog: i32) -> Result<()> {
        let entry = opcode::Listen::new(Fd(fd.as_raw_fd()), backlog).build();
        // SAFETY: it points to nothing.
        unsafe { self.submit(&entry) }.context("listen through io_uring")
    }

    /// Waits for the end of the operation.
    ///
    /// # Safety
    /// What the entry points to must live as long as this runs.
    unsafe fn submit(&mut self, entry: &squeue::Entry) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.0.submission().push(entry) }.context("the ring is full")?;
        self.0.submit_and_wait(1).context("io_uring_enter")?;
        let done = self.0.completion().next().context("no completion")?;
        match done.result() {
            error @ ..0 => Err(Errno::from_raw(-error).into()),
            _ => Ok(()),
        }
    }
}
