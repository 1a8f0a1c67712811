//! The faulty daemon of the end-to-end tests, as an actor.

use std::{
    io::{BufRead, BufReader},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::Stage;
use crate::child::{self, Group};

const LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Daemon {
    child: Group,
    /// It ends when this is closed, so nothing survives us.
    _stdin: ChildStdin,
}

impl Daemon {
    /// Starts one and waits until it listens. It takes over a socket file that is already there.
    pub(super) fn start(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new(&stage.faulty);
        command
            .arg("serve")
            .arg("--unix")
            .arg(stage.socket())
            .arg("--pid-file")
            .arg(stage.pid_file());
        // Stops without tidying up: by then the path may be a successor's.
        command.args(["--on", "TERM=exit:0"]);
        if stage.socket().exists() {
            command.arg("--take-over");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Group::spawn(&mut command)?;
        let stdin = child.0.stdin.take().context("the daemon has no standard input")?;
        let stdout = child
            .0
            .stdout
            .take()
            .context("the daemon has no standard output")?;
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Read on when nobody asks any more: the daemon must never wait for us.
                let _ = sender.send(line);
            }
        });
        let line = ready
            .recv_timeout(LIMIT)
            .context("the daemon did not get ready")?;
        ensure!(
            line.starts_with("ready "),
            "the daemon said \"{line}\" instead of ready"
        );
        Ok(Self { child, _stdin: stdin })
    }

    /// Sends a signal with `kill`, as an administrator does, and waits for the end.
    pub(super) fn end(self, signal: &str) -> anyhow::Result<()> {
        // The pid can't be another's: the child is not reaped yet.
        let pid = self.child.0.id().to_string();
        child::show(Command::new("kill").args([&format!("-{signal}"), &pid]), LIMIT)?;
        let deadline = child::now() + LIMIT;
        while !self.child.has_ended()? {
            if child::now() > deadline {
                bail!("the daemon outlived SIG{signal}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.finish().context("reap the daemon")?;
        Ok(())
    }
}
