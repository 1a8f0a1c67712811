//! `probe watch`, whose lines are shown as they come.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::child::{self, Group};

/// How long the programs may take to load.
const START: Duration = Duration::from_secs(15);
/// How long a finding may take. They come within milliseconds, except where a grace time must pass first.
const FINDING: Duration = Duration::from_secs(4);
/// How long is shown what else comes, for people to read.
const PAUSE: Duration = Duration::from_millis(1500);

pub(super) struct Watcher {
    child: Group,
    lines: Receiver<String>,
}

impl Watcher {
    /// Starts it and waits until it says what it watches.
    pub(super) fn start(probe: &Path, config: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(probe);
        // Its own limit too, in case we are killed.
        command.args(["watch", "--for", "60s", "--config"]).arg(config);
        println!("$ {}", child::describe(&command));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Group::spawn(&mut command)?;
        let stdout = child.0.stdout.take().context("probe has no standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let watcher = Self { child, lines };
        match watcher.line(child::now() + START)? {
            Some(line) => show(&line),
            None => bail!("probe said nothing within {} s", START.as_secs()),
        }
        Ok(watcher)
    }

    /// Shows what probe says until it has named all these findings and a pause has passed; returns those that it
    /// did not name in time.
    pub(super) fn expect(&mut self, findings: &[&'static str]) -> anyhow::Result<Vec<&'static str>> {
        let started = child::now();
        let mut unseen = findings.to_vec();
        loop {
            let until = started + if unseen.is_empty() { PAUSE } else { FINDING };
            match self.line(until)? {
                Some(line) => {
                    unseen.retain(|kind| !names(&line, kind));
                    show(&line);
                }
                None => return Ok(unseen),
            }
        }
    }

    /// The next line; `None` when none comes until then.
    fn line(&self, until: Instant) -> anyhow::Result<Option<String>> {
        match self
            .lines
            .recv_timeout(until.saturating_duration_since(child::now()))
        {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("probe ended: its own words are above"),
        }
    }

    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.child.stop();
        while let Ok(Some(line)) = self.line(child::now()) {
            show(&line);
        }
        self.child.finish().context("reap probe")?;
        Ok(())
    }
}

/// Whether a line reports a finding of this kind; one that resolves it does not.
fn names(line: &str, kind: &str) -> bool {
    !line.contains("RESOLVED")
        && line
            .split(|c: char| !c.is_alphanumeric() && c != '-')
            .any(|word| word == kind)
}

fn show(line: &str) {
    child::print(&format!("   {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_whole_words() {
        assert!(names(
            "12:00:01 demo CRITICAL stale-socket: no process holds it",
            "stale-socket"
        ));
        assert!(names("finding crashed", "crashed"));
        assert!(!names(
            "12:00:02 demo RESOLVED  stale-socket: listening again",
            "stale-socket"
        ));
        assert!(!names("stale-socket-x", "stale-socket"));
        assert!(!names("unhandled-signal-risk", "unhandled-signal"));
    }
}
