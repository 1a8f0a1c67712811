//! Helpers of the tests that use real sockets and files.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::clock;

/// A directory of one test, removed with everything in it.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        Self::under(&std::env::temp_dir(), name)
    }

    pub(crate) fn under(parent: &Path, name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("probe-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until a condition holds; panics after ten seconds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = clock::now() + Duration::from_secs(10);
    while !holds() {
        assert!(clock::now() < limit, "waited ten seconds in vain: {what}");
        std::thread::yield_now();
    }
}

/// A forked child without an exec: it shares every descriptor. Killed and reaped when dropped.
pub(crate) struct Child(nix::unistd::Pid);

impl Child {
    /// `work` runs in the child, which must not allocate much: other threads may have held locks at the fork.
    pub(crate) fn fork(work: impl FnOnce()) -> Self {
        // SAFETY: the child only runs `work` and ends by _exit; glibc keeps its allocator usable after a fork.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => Self(child),
            nix::unistd::ForkResult::Child => {
                work();
                // SAFETY: ends this process at once, as is meant.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Forks a child that sets something up, keeps it, and waits to be killed. Returns once it is set up.
    pub(crate) fn holding<T>(setup: impl FnOnce() -> T) -> Self {
        use std::io::{Read, Write};
        let (mut ready, mut tell) = std::io::pipe().unwrap();
        let child = Self::fork(move || {
            let _kept = setup();
            let _ = tell.write_all(b"!");
            loop {
                std::thread::park();
            }
        });
        ready.read_exact(&mut [0]).unwrap();
        child
    }

    /// Runs `work` in a forked child, and tells whether it came to its end there. What it asserts goes to standard error.
    pub(crate) fn succeeds(work: impl FnOnce()) -> bool {
        let child = Self::fork(|| {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                // SAFETY: ends this process at once, as is meant.
                unsafe { libc::_exit(1) }
            }
        });
        let status = nix::sys::wait::waitpid(child.0, None).unwrap();
        std::mem::forget(child);
        matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.as_raw() as u32
    }

    /// Waits for its own end.
    pub(crate) fn wait(self) -> u32 {
        let pid = self.0;
        nix::sys::wait::waitpid(pid, None).unwrap();
        std::mem::forget(self);
        pid.as_raw() as u32
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.0, None);
    }
}

/// A started command, killed and reaped when dropped, also by a failing test.
pub(crate) struct KillOnDrop(pub(crate) std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A forked child has copies of all descriptors, also of those that other tests have just opened. Tests that fork, and
/// tests that rely on a close being the last one, run one after the other.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
