//! Many children of one process.

use std::{io::Write, os::fd::OwnedFd};

use anyhow::Context;
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{ForkResult, fork, pause},
};

use super::child::{READY, until_told_to_end};

/// Forks children that each make something and keep it, says so when all have, and keeps them until it is told to end.
pub(crate) fn keep<T>(count: usize, make: impl Fn(usize) -> anyhow::Result<T>) -> anyhow::Result<()> {
    let (read, write) = nix::unistd::pipe()?;
    let mut write = Some(write);
    for n in 0..count {
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { .. } => {}
            ForkResult::Child => child(n, &make, write.take()),
        }
    }
    drop(write);
    // Each child closes its end when it has made what it makes; one that fails says why.
    let mut told = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(read), &mut told)?;
    anyhow::ensure!(told.is_empty(), "{}", String::from_utf8_lossy(&told));
    println!("{READY}");
    until_told_to_end();
    Ok(())
}

fn child<T>(n: usize, make: &impl Fn(usize) -> anyhow::Result<T>, write: Option<OwnedFd>) -> ! {
    _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let kept = make(n);
    if let (Err(e), Some(write)) = (&kept, &write) {
        _ = writeln!(
            std::fs::File::from(write.try_clone().expect("a descriptor")),
            "{n}: {e:#}"
        );
    }
    drop(write);
    loop {
        pause();
    }
}
