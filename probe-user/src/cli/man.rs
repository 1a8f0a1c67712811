//! `probe man`.

use std::path::PathBuf;

use clap::Args;

/// Print the manual page, or write one of each command
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  probe man | man -l -
  probe man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write probe.1, probe-watch.1 and so on to this directory, which is made where there is none
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}
