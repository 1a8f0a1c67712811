//! Small pieces of work for the kernel: nanoseconds for one.

use std::{
    fs::File,
    io::Read,
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use nix::{
    sys::{
        signal::{Signal, kill as send},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork as make},
};
use probe_tests::Sandbox;
use probe_user::clock;

use crate::{load::child::Load, peer::nanos, stats::Samples};

/// What the pieces need.
pub(super) struct Place {
    zero: File,
    aside: PathBuf,
    beside: PathBuf,
    stranger: Load,
}

impl Place {
    /// `sandbox`: where sockets are declared; `aside`: where none is.
    pub(super) fn new(sandbox: &Sandbox, aside: &Sandbox) -> anyhow::Result<Self> {
        Ok(Self {
            zero: File::open("/dev/zero")?,
            aside: aside.path("undeclared.sock"),
            beside: sandbox.path("undeclared.sock"),
            stranger: Load::own(&["bystanders", "0", "0"])?,
        })
    }
}

/// The median of some batches.
fn batches(batches: usize, of: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut samples = Samples::default();
    for _ in 0..batches {
        let began = clock::now();
        for _ in 0..of {
            work()?;
        }
        samples.push(nanos(clock::now().since(began)) / of as f64);
    }
    Ok(samples.median())
}

pub(super) fn getpid(_: &Place) -> anyhow::Result<f64> {
    batches(20, 10_000, || {
        // SAFETY: it takes nothing and touches nothing.
        unsafe { libc::syscall(libc::SYS_getpid) };
        Ok(())
    })
}

pub(super) fn read(place: &Place) -> anyhow::Result<f64> {
    let mut byte = [0];
    batches(20, 10_000, || Ok((&place.zero).read_exact(&mut byte)?))
}

pub(super) fn close(place: &Place) -> anyhow::Result<f64> {
    let fd = place.zero.as_raw_fd();
    batches(20, 5_000, || {
        // SAFETY: the new descriptor is closed at once and nobody else knows it.
        unsafe { libc::close(libc::dup(fd)) };
        Ok(())
    })
}

pub(super) fn unix_aside(place: &Place) -> anyhow::Result<f64> {
    unix(&place.aside)
}

pub(super) fn unix_beside(place: &Place) -> anyhow::Result<f64> {
    unix(&place.beside)
}

fn unix(socket: &Path) -> anyhow::Result<f64> {
    batches(20, 200, || {
        let listener = UnixListener::bind(socket)?;
        drop(listener);
        Ok(std::fs::remove_file(socket)?)
    })
}

/// The default action of SIGWINCH is nothing, so what is measured is the sending.
pub(super) fn kill(place: &Place) -> anyhow::Result<f64> {
    let pid = Pid::from_raw(place.stranger.pid().cast_signed());
    batches(20, 5_000, || Ok(send(pid, Signal::SIGWINCH)?))
}

pub(super) fn fork(_: &Place) -> anyhow::Result<f64> {
    batches(20, 20, || {
        // SAFETY: the child does nothing but end.
        match unsafe { make() }? {
            // SAFETY: it ends at once.
            ForkResult::Child => unsafe { libc::_exit(0) },
            ForkResult::Parent { child } => waitpid(child, None).map(drop).context("wait"),
        }
    })
}

pub(super) fn exec(_: &Place) -> anyhow::Result<f64> {
    batches(20, 5, || {
        Command::new("/bin/true").status()?;
        Ok(())
    })
}
