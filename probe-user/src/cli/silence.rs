//! `probe silence`.

use std::time::Duration;

use clap::{ArgGroup, Args};
use probe_user::config::span;

use super::reach::Reach;

/// Let hooks and healing of a service rest for a while: maintenance
///
/// Its findings still open and show. A silence survives a restart of the daemon, and ends by itself.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true),
    after_help = "\
Exit codes: 0 success, 1 error, 2 wrong usage, 7 the daemon did not answer in time. Only root may begin and end silences.

Examples:
  probe silence annad --for 2h --reason \"moving the disk\"
  probe silence --list
  probe silence --end 1764306000000000"
)]
pub(crate) struct Silence {
    /// The service that is to be silenced
    #[arg(group = "what", requires_all = ["duration", "reason"])]
    pub(crate) service: Option<String>,

    /// How long, for example 2h; a year at most
    #[arg(long = "for", id = "duration", value_name = "DURATION", value_parser = span::parse, requires = "service")]
    pub(crate) duration: Option<Duration>,

    /// Why: it is shown to whoever wonders
    #[arg(long, value_name = "TEXT", requires = "service")]
    pub(crate) reason: Option<String>,

    /// Print the silences that there are
    #[arg(long, group = "what")]
    pub(crate) list: bool,

    /// End the silence of this id
    #[arg(long, value_name = "ID", group = "what")]
    pub(crate) end: Option<u64>,

    /// JSON: an object a silence; with --list one object with all
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}
