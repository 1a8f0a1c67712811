//! A daemon that forks children which end at once, while signals come.

use std::{os::unix::net::UnixListener, path::Path};

use anyhow::Context;
use nix::{
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        wait::waitpid,
    },
    unistd::{ForkResult, fork},
};

use super::child::{Load, READY, until_told_to_end};

/// It begins when this comes.
pub(crate) const BEGIN: rustix::process::Signal = rustix::process::Signal::USR2;

extern "C" fn caught(_: libc::c_int) {}

pub(super) fn play(path: &Path, forks: usize) -> anyhow::Result<()> {
    let _listener = UnixListener::bind(path)?;
    let action = SigAction::new(SigHandler::Handler(caught), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let begin = SigSet::from(Signal::SIGUSR2);
    begin.thread_block()?;
    println!("{READY}");
    begin.wait()?;
    for _ in 0..forks {
        // SAFETY: the child does nothing but end.
        match unsafe { fork() }.context("fork")? {
            // SAFETY: it ends at once.
            ForkResult::Child => unsafe { libc::_exit(0) },
            ForkResult::Parent { child } => waitpid(child, None).context("wait")?,
        };
    }
    println!("{DONE}");
    until_told_to_end();
    Ok(())
}

const DONE: &str = "done";

/// Whether it has forked all of its children.
pub(crate) fn is_done(load: &Load) -> bool {
    load.has_said(DONE)
}
