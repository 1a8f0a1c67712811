//! A process in a role: told to end by the end of its standard input, and killed if that does not do.

use std::{
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What a role says when it is ready.
pub(crate) const READY: &str = "ready";

/// A process in a role. It has ended when this is dropped, and what it made with it.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    fd: OwnedFd,
    output: BufReader<ChildStdout>,
}

impl Load {
    /// Starts `exe`, this program or a copy of it, and waits until it is ready.
    pub(crate) fn start(exe: &Path, role: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(exe)
            .arg("role")
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {} {role:?}", exe.display()))?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let pid = Pid::from_raw(child.id().cast_signed()).context("a pid")?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        let mut load = Self { child, fd, output };
        load.expect(READY)
            .with_context(|| format!("{role:?} did not get ready"))?;
        Ok(load)
    }

    /// This program, in a role.
    pub(crate) fn own(role: &[&str]) -> anyhow::Result<Self> {
        Self::start(&std::env::current_exe()?, role)
    }

    pub(crate) fn expect(&mut self, what: &str) -> anyhow::Result<()> {
        let line = self.line()?;
        ensure!(line == what, "expected {what:?}, it said {line:?}");
        Ok(())
    }

    /// Whether a line has come; waits for nothing.
    pub(crate) fn has_spoken(&self) -> bool {
        let mut fds = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
        !self.output.buffer().is_empty() || poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }

    /// The next line.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Becomes readable when the process has ended.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Its children end with it: each has asked for SIGKILL at the end of its parent.
        _ = pidfd_send_signal(self.fd.as_fd(), Signal::KILL);
        _ = self.child.wait();
    }
}

/// What a role does when it has nothing to do.
pub(crate) fn until_told_to_end() {
    let mut rest = Vec::new();
    _ = std::io::stdin().read_to_end(&mut rest);
}
