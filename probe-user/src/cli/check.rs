//! `probe check`.

use std::path::PathBuf;

use clap::Args;

/// Look once and give a verdict, as a monitoring plugin
///
/// Needs no daemon. Looks a second time, up to 5 s later, only where something seems wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; wrong usage, a wrong configuration and what could not be \
seen are 3.

Examples:
  probe check                                      everything that is declared, else what runs here
  probe check annad
  probe check --json | jq '.services[] | select(.status != \"ok\")'"
)]
pub(crate) struct Check {
    /// Only services of these names; the default is all
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
