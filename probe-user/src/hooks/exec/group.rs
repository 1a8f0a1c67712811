//! A process group whose leader is our child.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{Child, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Pid, PidfdFlags, Signal as Kill, kill_process_group, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use super::End;
use crate::signal::Signal;

/// Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    /// `None`: reaped, so its number may be another's.
    leader: Option<Child>,
    pid: Pid,
    ended: Ended,
}

#[derive(Debug)]
enum Ended {
    Opened(Option<OwnedFd>),
    Watched(AsyncFd<OwnedFd>),
}

impl Group {
    /// Takes a child that leads a process group of its own.
    ///
    /// # Errors
    /// Those of `pidfd_open`; the group is killed then.
    pub(crate) fn of(leader: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&leader);
        let mut group = Self {
            leader: Some(leader),
            pid,
            ended: Ended::Opened(None),
        };
        // The child can't be reaped by anybody else, so the number means it.
        group.ended = Ended::Opened(Some(pidfd_open(pid, PidfdFlags::empty())?));
        Ok(group)
    }

    /// Has the runtime tell of the leader's end.
    ///
    /// # Errors
    /// Those of epoll.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        if let Ended::Opened(fd) = &mut self.ended
            && let Some(fd) = fd.take()
        {
            // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, and it is dropped with the `AsyncFd`.
            let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            self.ended = Ended::Watched(watched.map_err(io::Error::from)?);
        }
        Ok(())
    }

    /// Returns once the leader has ended. It is not reaped by that.
    pub(crate) async fn ended(&self) {
        match &self.ended {
            // A pidfd stays readable.
            Ended::Watched(fd) if fd.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// Asks everybody in the group to end. Who was stopped can't, so it goes on.
    pub(super) fn terminate(&self) {
        self.signal(Kill::TERM);
        self.signal(Kill::CONT);
    }

    pub(super) fn kill(&self) {
        self.signal(Kill::KILL);
    }

    fn signal(&self, signal: Kill) {
        if self.leader.is_some() {
            // ESRCH: everybody is gone.
            _ = kill_process_group(self.pid, signal);
        }
    }

    /// How the leader ended. From here on the group's number means nothing.
    pub(super) fn reap(&mut self) -> Option<End> {
        let status = self.leader.take()?.wait().ok()?;
        Some(end(status))
    }

    /// Not even SIGKILL has ended it: something in the kernel holds it. A thread reaps it whenever that lets go.
    pub(super) fn leave_to_a_thread(mut self, stuck: &Arc<AtomicBool>) {
        if let Some(leader) = self.leader.take() {
            stuck.store(true, Ordering::Release);
            let stuck = Arc::clone(stuck);
            reap_later(leader, move || stuck.store(false, Ordering::Release));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        if let Some(leader) = self.leader.take() {
            reap_later(leader, || {});
        }
    }
}

/// Without a thread it stays a zombie until probe ends: its number stays taken, and nothing worse happens.
fn reap_later(mut leader: Child, then: impl FnOnce() + Send + 'static) {
    _ = thread::Builder::new().name("probe-reap".into()).spawn(move || {
        _ = leader.wait();
        then();
    });
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Killed(Signal(signal)),
        (None, None) => End::Exited(-1),
    }
}
