//! What a process has used, from `/proc`.

use std::{fs, time::Duration};

use anyhow::Context;
use probe_user::clock::{self, Nanos};

/// What all threads of a process have used until now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) at: Nanos,
    pub(crate) cpu: Duration,
    /// How often a thread was given the processor.
    pub(crate) switches: u64,
}

impl Used {
    /// From the scheduler, which counts nanoseconds.
    pub(crate) fn by(pid: u32) -> anyhow::Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?;
        let mut used = Self {
            at: clock::now(),
            cpu: Duration::ZERO,
            switches: 0,
        };
        for task in tasks.flatten() {
            // A thread that has just ended.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let mut words = text.split_whitespace().filter_map(|w| w.parse::<u64>().ok());
            used.cpu += Duration::from_nanos(words.next().unwrap_or(0));
            used.switches += words.nth(1).unwrap_or(0);
        }
        Ok(used)
    }

    /// Of one core, in percent, since `before`.
    pub(crate) fn percent_since(&self, before: &Self) -> f64 {
        let time = self.at.since(before.at).as_secs_f64();
        self.cpu.saturating_sub(before.cpu).as_secs_f64() / time * 100.0
    }
}

/// Bytes of the process that are in memory.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// How many processes there are.
pub(crate) fn count() -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|e| {
            e.file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        .count()
}

/// Gives the calling thread the lowest real-time priority, as the daemon's own thread has it.
pub(crate) fn prefer_this_thread() -> anyhow::Result<()> {
    let priority: libc::c_int = 1;
    // SAFETY: 0 is the calling thread, and the kernel reads one int at the address, during the call only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const priority,
        )
    };
    anyhow::ensure!(
        result == 0,
        "a real-time priority is refused: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
