//! Catching signals: a handler writes the number into a pipe, the main loop reads it there.

use std::{
    os::fd::{IntoRawFd, OwnedFd},
    sync::atomic::{AtomicI32, Ordering},
};

use anyhow::Result;
use nix::{
    fcntl::OFlag,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction},
    unistd::pipe2,
};

use super::options::{On, Reaction};

/// Write end of the pipe; a handler can reach nothing but a static.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn caught(signal: i32) {
    let byte = signal as u8;
    // SAFETY: write(2) is async-signal-safe, `byte` is one readable byte. A full pipe loses it: so would a pending signal.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
}

/// Installs the reactions. Returns the read end of the pipe.
pub(super) fn install(wanted: &[On]) -> Result<OwnedFd> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
    for on in wanted {
        match on.reaction {
            Reaction::Ignore => set(on.signal, SigHandler::SigIgn)?,
            Reaction::Block => SigSet::from(on.signal).thread_block()?,
            _ => set(on.signal, SigHandler::Handler(caught))?,
        }
    }
    Ok(read)
}

/// The signals caught since the last call.
pub(super) fn drain(pipe: &OwnedFd) -> Vec<Signal> {
    let mut bytes = [0; 256];
    let n = nix::unistd::read(pipe, &mut bytes).unwrap_or(0);
    bytes[..n]
        .iter()
        .filter_map(|b| Signal::try_from(i32::from(*b)).ok())
        .collect()
}

/// Ends this process by the default action of `signal`.
pub(super) fn die_of(signal: Signal) -> Result<()> {
    set(signal, SigHandler::SigDfl)?;
    SigSet::from(signal).thread_unblock()?;
    Ok(raise(signal)?)
}

fn set(signal: Signal, handler: SigHandler) -> Result<()> {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: `caught` touches only an atomic and write(2); nothing else in this process installs handlers.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
