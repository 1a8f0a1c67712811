//! The tools that print what one hook tells: no verdict, but as soon as a reader can have it.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use probe_user::clock::{self, Nanos};
use rustix::process::{Pid, Signal};

use crate::process;

/// A line, and when it had been read.
type Line = (Nanos, String);

/// One of them, whose lines are read.
#[derive(Debug)]
pub(crate) struct Snoop {
    pub(crate) name: &'static str,
    child: Child,
    lines: Receiver<Line>,
}

/// Name, command, and in which column of a line the process stands that ended.
const ALL: [(&str, &[&str], usize); 3] = [
    ("exitsnoop", &["exitsnoop"], 1),
    ("sigsnoop", &["sigsnoop", "-s", "9"], 4),
    (
        "bpftrace",
        &[
            "bpftrace",
            "-B",
            "line",
            "-e",
            "BEGIN { printf(\"begun\\n\"); } tracepoint:sched:sched_process_exit /pid == tid/ { printf(\"exit %d\\n\", pid); }",
        ],
        1,
    ),
];

const PATIENCE: Duration = Duration::from_secs(10);

/// What has no part in a measure of ends.
const OTHERS: &str =
    "bindsnoop and solisten tell of binds and listens, of which no end is one, and need kprobes";

/// Those that run here, and why others don't.
pub(crate) fn all() -> anyhow::Result<(Vec<Snoop>, Vec<String>)> {
    let (mut running, mut skipped) = (Vec::new(), vec![OTHERS.to_owned()]);
    for (name, command, _) in ALL {
        if !crate::peer::is_there(name) {
            skipped.push(format!("{name} is not installed"));
            continue;
        }
        match Snoop::start(name, command)? {
            Ok(snoop) => running.push(snoop),
            Err(why) => skipped.push(format!("{name} does not run on this kernel: {why}")),
        }
    }
    Ok((running, skipped))
}

impl Snoop {
    /// `Err` inside: it has ended, with these words.
    fn start(name: &'static str, command: &[&str]) -> anyhow::Result<Result<Self, String>> {
        // Into a pipe they would write only when a page is full.
        let mut child = Command::new("stdbuf")
            .arg("-oL")
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let output = child.stdout.take().context("no output")?;
        let mut errors = child.stderr.take().context("no errors")?;
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            _ = process::prefer_this_thread();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send((clock::now(), line)).is_err() {
                    return;
                }
            }
        });
        // The first line is a head, or says that it has begun.
        match lines.recv_timeout(PATIENCE) {
            Ok(_) => {
                // Its errors would stop it once their pipe is full.
                thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
                Ok(Ok(Self { name, child, lines }))
            }
            Err(RecvTimeoutError::Disconnected) => {
                child.wait()?;
                let mut said = String::new();
                errors.read_to_string(&mut said)?;
                let last = said.lines().rfind(|l| !l.trim().is_empty());
                Ok(Err(last.unwrap_or("it says nothing").trim().to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                bail!("{name} does not begin within {PATIENCE:?}")
            }
        }
    }

    /// When it told of this process.
    pub(crate) fn told_of(&self, pid: u32) -> anyhow::Result<Nanos> {
        let pid = pid.to_string();
        let column = ALL
            .iter()
            .find(|(name, ..)| *name == self.name)
            .map_or(0, |a| a.2);
        loop {
            let (at, line) = self
                .lines
                .recv_timeout(PATIENCE)
                .with_context(|| format!("{} has not told of process {pid}", self.name))?;
            if line.split_whitespace().nth(column) == Some(&pid) {
                return Ok(at);
            }
        }
    }
}

impl Drop for Snoop {
    fn drop(&mut self) {
        _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT);
        _ = self.child.wait();
    }
}
