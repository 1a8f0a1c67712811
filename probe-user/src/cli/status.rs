//! `probe status`.

use clap::Args;

use super::reach::{EXIT_CODES, Reach};

/// Print how each service is, as the daemon knows it: a line a service, then what is wrong
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, after_long_help = format!("{EXIT_CODES}

Examples:
  probe status
  probe status annad
  probe status --json | jq -r '.services[] | select(.verdict != \"ok\").service'"))]
pub(crate) struct Status {
    /// Only services of these names; the default is all
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}
