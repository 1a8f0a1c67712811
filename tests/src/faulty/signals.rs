//! Catching signals: a handler writes the number into a pipe, the main loop reads it there.

use std::{
    os::fd::{IntoRawFd, OwnedFd},
    sync::atomic::{AtomicI32, Ordering},
};

use anyhow::Result;
use nix::{
    fcntl::OFlag,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction},
        signalfd::{SfdFlags, SignalFd},
    },
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

/// Where caught signals come from.
pub(super) struct Caught {
    /// Read end of the handlers' pipe.
    pub(super) pipe: OwnedFd,
    pub(super) signal_fd: SignalFd,
}

/// Installs the reactions.
pub(super) fn install(wanted: &[On]) -> Result<Caught> {
    let mut by_descriptor = SigSet::empty();
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
    for on in wanted {
        match on.reaction {
            Reaction::Ignore => set(on.signal, SigHandler::SigIgn)?,
            Reaction::Block => SigSet::from(on.signal).thread_block()?,
            Reaction::SignalFd => {
                SigSet::from(on.signal).thread_block()?;
                by_descriptor.add(on.signal);
            }
            _ => set(on.signal, SigHandler::Handler(caught))?,
        }
    }
    let signal_fd = SignalFd::with_flags(&by_descriptor, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(Caught {
        pipe: read,
        signal_fd,
    })
}

impl Caught {
    /// The signals caught since the last call.
    pub(super) fn drain(&self) -> Vec<Signal> {
        let mut bytes = [0; 256];
        let n = nix::unistd::read(&self.pipe, &mut bytes).unwrap_or(0);
        let mut numbers: Vec<i32> = bytes[..n].iter().map(|b| i32::from(*b)).collect();
        while let Ok(Some(info)) = self.signal_fd.read_signal() {
            numbers.push(info.ssi_signo as i32);
        }
        numbers
            .into_iter()
            .filter_map(|n| Signal::try_from(n).ok())
            .collect()
    }
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
