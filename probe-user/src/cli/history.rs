//! `probe history`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use probe_user::{
    config::span,
    report::{KindName, LineType},
};

/// Print past events and findings, the oldest first, from what the daemon has kept
///
/// It reads the database itself, so no daemon has to run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  probe history --since 2h --service annad
  probe history --since 7d --kind stale-socket,crashed
  probe history --json --since 1h --until 30m | jq -r .summary")]
pub(crate) struct History {
    /// Only services of these names; the default is all
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    pub(crate) service: Vec<String>,

    /// Only what is not longer ago, for example 2h; the default is all that is kept
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) since: Option<Duration>,

    /// Only what is longer ago
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) until: Option<Duration>,

    /// Only events and findings of these kinds, for example signal,stale-socket
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kind: Vec<KindName>,

    /// Only lines of these types: event, finding, lost
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub(crate) only: Vec<LineType>,

    /// The lines as they were said, a JSON object each
    #[arg(long)]
    pub(crate) json: bool,

    /// Directory of the history, instead of the configuration's `state_dir`
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
