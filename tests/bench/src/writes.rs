//! When the daemon writes to its clients, as the kernel sees it: what a watcher's own waking up does not belong to.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::Context;
use probe_user::clock::Nanos;
use rustix::process::{Pid, Signal};

/// bpftrace at the system call that the API writes with.
#[derive(Debug)]
pub(crate) struct Writes {
    child: Child,
    times: Receiver<String>,
}

const BEGUN: &str = "begun";

impl Writes {
    pub(crate) fn of(daemon: u32) -> anyhow::Result<Self> {
        // `nsecs` is the boot clock, where the kernel has it.
        let program = format!(
            "BEGIN {{ printf(\"{BEGUN}\\n\"); }} tracepoint:syscalls:sys_enter_writev /pid == {daemon} && comm == \"probe-api\"/ \
             {{ printf(\"%llu\\n\", nsecs); }}"
        );
        let mut child = Command::new("bpftrace")
            .args(["-B", "line", "-e", &program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start bpftrace")?;
        let output = child.stdout.take().context("no output")?;
        let (tell, times) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let writes = Self { child, times };
        loop {
            let line = writes.times.recv_timeout(Duration::from_secs(20));
            if line.context("bpftrace does not begin")? == BEGUN {
                return Ok(writes);
            }
        }
    }

    /// All of them, in the order of time.
    pub(crate) fn end(mut self) -> anyhow::Result<Vec<Nanos>> {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        // It reads one processor's after the other's.
        let mut all: Vec<Nanos> = self
            .times
            .iter()
            .filter_map(|l| Some(Nanos(l.parse().ok()?)))
            .collect();
        all.sort_unstable();
        Ok(all)
    }
}

/// The last one between these times: what was read at `until` had been written by it, and before it may lie those of other lines,
/// of the signal for example.
pub(crate) fn between(writes: &[Nanos], from: Nanos, until: Nanos) -> Option<Nanos> {
    let later = writes.partition_point(|at| *at <= until);
    let last = later.checked_sub(1).and_then(|at| writes.get(at));
    last.copied().filter(|at| *at >= from)
}

impl Drop for Writes {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
