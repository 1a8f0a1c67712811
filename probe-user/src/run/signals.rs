//! Signals as data: those that are for the child, and the news of ended children.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal as NixSignal, pthread_sigmask},
    signalfd::{SfdFlags, SignalFd},
};

use crate::{event::ExitStatus, signal::Signal};

/// What is passed on. The rest is either for us (`CHLD`), not to be caught, or a fault of our own.
const PASSED_ON: [NixSignal; 8] = [
    NixSignal::SIGHUP,
    NixSignal::SIGINT,
    NixSignal::SIGQUIT,
    NixSignal::SIGTERM,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGWINCH,
    NixSignal::SIGCONT,
];

/// Blocked signals, read from a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    pub signal: Signal,
    /// The terminal sent it, so that the child got it too.
    pub by_terminal: bool,
}

impl Signals {
    /// Takes them for this thread, which must be the only one.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn take() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in PASSED_ON {
            set.add(signal);
        }
        set.add(NixSignal::SIGCHLD);
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        // A parent may have left it ignored, and then children would vanish without a trace.
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::signal(NixSignal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl)? };
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, before })
    }

    /// The mask that was there before, for the child.
    pub fn before(&self) -> SigSet {
        self.before
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What has come since, without that children have ended.
    pub fn drain(&self) -> Vec<Came> {
        let mut came = Vec::new();
        while let Ok(Some(info)) = self.fd.read_signal() {
            let signal = Signal(info.ssi_signo as i32);
            if signal != Signal::CHLD {
                came.push(Came {
                    signal,
                    by_terminal: info.ssi_code == libc::SI_KERNEL,
                });
            }
        }
        came
    }
}

/// Waits for every child that has ended; orphans come to us as well. Returns how `child` ended if it was among them.
pub fn reap(child: u32) -> Option<ExitStatus> {
    let mut found = None;
    loop {
        let mut status = 0;
        // nix knows no real-time signals, and would lose the end of whoever one of them ended.
        // SAFETY: the status is written to a local variable.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // No child, or none that has ended.
            ..=0 => return found,
            _ if u32::try_from(pid) == Ok(child) => found = Some(ExitStatus::from_wait(status as u32)),
            _ => {}
        }
    }
}

/// As a shell tells it: the code, or 128 and the signal.
pub fn exit_code(status: ExitStatus) -> Option<u8> {
    match status {
        ExitStatus::Code(code) => Some((code & 0xff) as u8),
        ExitStatus::Signal { signal, .. } => u8::try_from(128 + signal.0).ok(),
        ExitStatus::Unknown => None,
    }
}
