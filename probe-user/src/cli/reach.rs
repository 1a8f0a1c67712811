//! Where the daemon is asked.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "The daemon")]
pub(crate) struct Reach {
    /// Its socket, instead of the configuration's
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Configuration file, instead of /etc/probe: where its socket is, and how long it may take
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Of every command that asks the daemon.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 error, 2 wrong usage, 7 the daemon did not answer in time.";
