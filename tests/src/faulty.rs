//! `faulty`: a daemon that behaves, or misbehaves, exactly as it is told.
//!
//! It is told what to do on its command line and then by lines on its standard input, and answers each line with one on its
//! standard output when the thing is done (`ok …` or `error …`), so that whoever drives it never has to sleep. The end of
//! its standard input ends it, so nothing is left behind by a test that died.
//!
//! One thread only: it forks.

mod command;
mod heartbeat;
mod lifecycle;
mod memory;
mod options;
mod peer;
mod serve;
mod signals;
mod sockets;
mod storm;
mod uring;

use clap::Parser;

use options::{Cli, Mode};

pub fn main() -> anyhow::Result<()> {
    match Cli::parse().mode {
        Mode::Serve(options) => serve::run(&options),
        Mode::Storm(options) => storm::run(&options),
    }
}

/// Says a line to whoever drives this process. Nobody listening is no error: the end of standard input follows.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
