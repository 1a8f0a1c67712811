//! The command line.

use std::{path::PathBuf, str::FromStr};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::signal::Signal;

use super::heartbeat::Beat;

/// A daemon that behaves, or misbehaves, exactly as it is told.
#[derive(Debug, Parser)]
#[command(name = "faulty", version)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(super) enum Mode {
    /// Listen, write a PID file, say `ready pid=PID …`, then obey lines on standard input
    #[command(after_long_help = super::command::HELP)]
    Serve(Serve),
    /// Fork, exec, die of signals and leave socket files behind, over and over, until standard input ends
    Storm(Storm),
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Listen on this socket file
    #[arg(long, value_name = "PATH")]
    pub(super) unix: Vec<PathBuf>,
    /// Listen on this address; port 0 lets the kernel choose
    #[arg(long, value_name = "IP:PORT")]
    pub(super) tcp: Vec<String>,
    /// Bind this address; port 0 lets the kernel choose
    #[arg(long, value_name = "IP:PORT")]
    pub(super) udp: Vec<String>,
    /// Unlink the socket files first, whoever holds them
    #[arg(long)]
    pub(super) take_over: bool,
    /// Share TCP and UDP ports with others that do the same
    #[arg(long)]
    pub(super) reuse_port: bool,
    /// Change the root directory first
    #[arg(long, value_name = "DIR")]
    pub(super) chroot: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// What to do about a signal; without this its default action happens
    #[arg(long, value_name = "SIGNAL=REACTION", long_help = REACTIONS)]
    pub(super) on: Vec<On>,
    /// Show signs of life: touch=FILE, epoch=FILE (the second, written inside) log=FILE (a line),
    /// stderr= (the same), or notify= (to the service manager)
    #[arg(long, value_name = "WAY=FILE")]
    pub(super) beat: Option<Beat>,
    /// Fork twice and let the first process exit 0, before or after the sockets are bound
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "early")]
    pub(super) daemonize: Option<Daemonize>,
    /// A listener that a predecessor left open in this process (used by the command `exec`)
    #[arg(long, value_name = "ADDRESS=FD", hide = true)]
    pub(super) inherit: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Storm {
    /// Where to leave socket files
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Stop after this many processes instead of at the end of standard input
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Daemonize {
    /// Fork, then bind
    Early,
    /// Bind, then fork
    Late,
}

const REACTIONS: &str = "\
What to do about a signal; without this its default action happens. Reactions:
  exit:N     end at once with code N, leaving everything behind (exit0 is exit:0)
  clean      close the listeners, remove socket files and PID file, end with code 0
  unlink     remove the socket files, end with code 0 (unlink-and-exit is the same)
  slow:SECS  end with code 0, SECS seconds later
  catch      say `signal NAME` and go on (every caught signal is said)
  reraise    end by the signal's default action after having caught it
  ignore     SIG_IGN
  block      block it, for ever
  signalfd   block it and read it from a descriptor, then go on as for catch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct On {
    pub(super) signal: Signal,
    pub(super) reaction: Reaction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    Exit(i32),
    Clean,
    Unlink,
    Slow(u16),
    Catch,
    Reraise,
    Ignore,
    Block,
    SignalFd,
}

impl FromStr for On {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, reaction) = text.split_once('=').context("expected SIGNAL=REACTION")?;
        Ok(Self {
            signal: signal(name)?,
            reaction: reaction.parse()?,
        })
    }
}

impl FromStr for Reaction {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (word, number) = match text.split_once(':') {
            Some((word, number)) => (word, Some(number)),
            None => (text, None),
        };
        Ok(match (word, number) {
            ("exit0", None) => Self::Exit(0),
            ("exit", Some(n)) => Self::Exit(n.parse().context("exit code")?),
            ("clean", None) => Self::Clean,
            ("unlink" | "unlink-and-exit", None) => Self::Unlink,
            ("slow", Some(n)) => Self::Slow(n.parse().context("seconds")?),
            ("catch", None) => Self::Catch,
            ("reraise", None) => Self::Reraise,
            ("ignore", None) => Self::Ignore,
            ("block", None) => Self::Block,
            ("signalfd", None) => Self::SignalFd,
            _ => anyhow::bail!("unknown reaction {text:?}"),
        })
    }
}

/// From `TERM` or `SIGTERM`.
pub(super) fn signal(name: &str) -> anyhow::Result<Signal> {
    let full = if name.starts_with("SIG") {
        name.to_owned()
    } else {
        format!("SIG{name}")
    };
    full.parse().with_context(|| format!("unknown signal {name:?}"))
}
