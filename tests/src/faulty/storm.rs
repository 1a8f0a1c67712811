//! Processes that have nothing to do with anybody: they fork, exec, die of signals, leave socket files and listen.

use std::{ffi::CString, io::Read, os::fd::AsFd, path::Path};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, wait::waitpid},
    unistd::execv,
};

use super::{
    lifecycle::{fork_here, leave},
    options::Storm,
    say, signals,
    sockets::Sockets,
};

pub(super) fn run(options: &Storm) -> Result<()> {
    say(&format!("ready pid={}", std::process::id()));
    let mut n = 0;
    while options.count.is_none_or(|count| n < count) && !input_ended() {
        match fork_here()? {
            Some(child) => drop(waitpid(child, None)),
            None => live_and_die(n, &options.dir),
        }
        n += 1;
    }
    say(&format!("ok {n}"));
    Ok(())
}

fn live_and_die(n: u64, dir: &Path) -> ! {
    let mut sockets = Sockets::new(false);
    match n % 8 {
        0 => drop(execv(c"/bin/true", &[CString::from(c"true")])),
        1 => drop(signals::die_of(Signal::SIGUSR1)),
        2 => drop(signals::die_of(Signal::SIGKILL)),
        3 => drop(sockets.listen("tcp:127.0.0.1:0")),
        4 => drop(sockets.listen(&format!(
            "unix:{}/storm-{}.sock",
            dir.display(),
            std::process::id()
        ))),
        5 => leave(3),
        _ => {}
    }
    leave(0)
}

fn input_ended() -> bool {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) | Err(_) => false,
        Ok(_) => matches!(stdin.lock().read(&mut [0; 64]), Ok(0) | Err(_)),
    }
}
