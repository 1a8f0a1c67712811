//! Processes by pidfd: whatever a test started is gone when the test is.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::clock::patience;

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Proc {
    name: String,
    pid: u32,
    fd: OwnedFd,
    /// `None`: not our child, for example a daemon that went into the background.
    child: Option<Child>,
}

impl Proc {
    /// Starts a child.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run {name}: {e}"));
        let pid = child.id();
        let fd = open(pid).unwrap_or_else(|e| panic!("cannot open process {pid} ({name}): {e}"));
        Self {
            name,
            pid,
            fd,
            child: Some(child),
        }
    }

    /// Takes care of a process that is not our child. Whoever calls knows that the pid still means it.
    pub fn adopt(name: &str, pid: u32) -> Self {
        let fd = open(pid).unwrap_or_else(|e| panic!("cannot open process {pid} ({name}): {e}"));
        Self {
            name: name.to_owned(),
            pid,
            fd,
            child: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn child(&mut self) -> &mut Child {
        self.child
            .as_mut()
            .expect("a process that was started, not adopted")
    }

    pub fn signal(&self, signal: Signal) {
        if let Err(e) = pidfd_send_signal(&self.fd, signal) {
            assert_eq!(
                e,
                rustix::io::Errno::SRCH,
                "cannot signal {} ({})",
                self.name,
                self.pid
            );
        }
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        !ended(&self.fd, Duration::ZERO)
    }

    /// Whether it ends within the time that a test waits.
    pub(crate) fn ends_in_time(&self) -> bool {
        ended(&self.fd, patience())
    }

    /// Waits for the end of a process, ours or not.
    #[track_caller]
    pub fn wait_gone(&self) {
        self.wait_gone_within(patience());
    }

    #[track_caller]
    fn wait_gone_within(&self, limit: Duration) {
        assert!(
            ended(&self.fd, limit),
            "{} ({}) still runs after {limit:?}",
            self.name,
            self.pid
        );
    }

    /// Waits for the end of a child.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(patience())
    }

    /// Likewise, for one that does more than one thing.
    #[track_caller]
    pub fn wait_within(&mut self, limit: Duration) -> ExitStatus {
        self.wait_gone_within(limit);
        self.child().wait().expect("reap a child")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.fd, Signal::KILL);
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        } else {
            ended(&self.fd, patience());
        }
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A pidfd is readable once its process has ended.
fn ended(fd: &OwnedFd, within: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(within).expect("a short time");
    poll(&mut fds, timeout).expect("poll a pidfd") > 0
}

/// Sends a signal the way a person would: by a `kill` process, which has ended when this returns. Its pid is returned.
#[track_caller]
pub fn kill(signal: &str, target: u32) -> u32 {
    let mut killer = Proc::spawn(
        Command::new(kill_program())
            .arg(format!("-{signal}"))
            .arg(target.to_string()),
    );
    let status = killer.wait();
    assert!(status.success(), "kill -{signal} {target}: {status}");
    killer.pid()
}

/// `kill` of procps, not a shell's builtin.
pub(crate) fn kill_program() -> &'static Path {
    Path::new("/usr/bin/kill")
}

/// The living children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// The state letter of `/proc/PID/stat`.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// For messages: how a child ended.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}
