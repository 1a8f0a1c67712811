//! A daemon that forks children which end at once, while signals come.

use std::{os::unix::net::UnixListener, path::Path, time::Duration};

use anyhow::Context;
use nix::{
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        wait::waitpid,
    },
    unistd::{ForkResult, fork},
};
use probe_user::clock;

use super::child::{Load, READY, until_told_to_end};

/// It begins when this comes.
pub(crate) const BEGIN: rustix::process::Signal = rustix::process::Signal::USR2;

extern "C" fn caught(_: libc::c_int) {}

pub(super) fn play(path: &Path, seconds: u64) -> anyhow::Result<()> {
    let _listener = UnixListener::bind(path)?;
    let action = SigAction::new(SigHandler::Handler(caught), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let begin = SigSet::from(Signal::SIGUSR2);
    begin.thread_block()?;
    println!("{READY}");
    begin.wait()?;
    let end = clock::now() + Duration::from_secs(seconds);
    let mut forks = 0_u64;
    while clock::now() < end {
        // SAFETY: the child does nothing but end.
        match unsafe { fork() }.context("fork")? {
            // SAFETY: it ends at once.
            ForkResult::Child => unsafe { libc::_exit(0) },
            ForkResult::Parent { child } => waitpid(child, None).context("wait")?,
        };
        forks += 1;
    }
    println!("{forks}");
    until_told_to_end();
    Ok(())
}

/// Whether its time is over.
pub(crate) fn is_done(load: &Load) -> bool {
    load.has_spoken()
}
