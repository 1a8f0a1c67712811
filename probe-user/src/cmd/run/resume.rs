//! Every run that was not over: each is kept by a `probe run` of its own.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::Context;
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::SignalFd,
    wait::{WaitPidFlag, WaitStatus, waitpid},
};
use probe_user::{config::Config, reclaim::Options, run::store::Runs};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::{
    cli::{Exit, Run},
    cmd::exec::OWN_ERROR,
};

pub(super) fn all(args: &Run, config: &Config) -> anyhow::Result<()> {
    let own = |e: anyhow::Error| Exit::with(OWN_ERROR, e);
    let failed = keep(args, config).map_err(own)?;
    match failed {
        None => Ok(()),
        Some(code) => Err(Exit::silent(code)),
    }
}

/// The first exit code that was not 0.
fn keep(args: &Run, config: &Config) -> anyhow::Result<Option<u8>> {
    let options = Options::new(&config.probe);
    let rows = Runs::open(&options.state_dir)?.unfinished()?;
    // Before anybody is started, so that no end is missed.
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        set.add(signal);
    }
    let before = set
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .context("cannot block signals")?;
    let signals = SignalFd::new(&set).context("cannot take signals")?;
    let mut keepers = Vec::new();
    for row in &rows {
        let mut command = Command::new("/proc/self/exe");
        command.args(["run", "--resume"]).arg(&row.service);
        command.args(["--keep-logs", &args.keep_logs.to_string()]);
        let size = OsString::from(args.keep_log_size.to_string());
        command.arg("--keep-log-size").arg(size);
        if let Some(config) = &args.config {
            command.arg("--config").arg(config);
        }
        // Whatever it runs would start with them blocked, too, and never hear that it is to stop.
        // SAFETY: sigprocmask is async-signal-safe, and the closure touches nothing else.
        unsafe {
            command.pre_exec(move || Ok(before.thread_set_mask()?));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot resume {}", row.service))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Not waited for yet, so the pid is still the child's.
        let fd = pidfd_open(pid.context("a child without a pid")?, PidfdFlags::empty())?;
        keepers.push((child.id(), fd));
    }
    let mut failed = None;
    while !keepers.is_empty() {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, code) = match status {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, code) => (pid, code),
                WaitStatus::Signaled(pid, signal, _) => (pid, 128 + signal as i32),
                _ => continue,
            };
            keepers.retain(|(id, _)| i32::try_from(*id) != Ok(pid.as_raw()));
            if code != 0 {
                failed = failed.or(Some((code & 0xff) as u8));
            }
        }
        if keepers.is_empty() {
            break;
        }
        let Some(info) = signals.read_signal()? else {
            continue;
        };
        if info.ssi_signo != libc::SIGCHLD as u32
            && let Some(signal) = rustix::process::Signal::from_named_raw(info.ssi_signo as i32)
        {
            for (_, fd) in &keepers {
                // Whoever has just ended needs none.
                let _ = pidfd_send_signal(fd, signal);
            }
        }
    }
    Ok(failed)
}
