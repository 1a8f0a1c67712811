//! `probe wait`.

use std::time::Duration;

use clap::{ArgGroup, Args};
use probe_user::{config::span, wait::Wanted};

use super::reach::Reach;

/// Wait until a service is ready, or stopped
///
/// Ready means that its main process lives, that nobody has asked it to stop, and that it serves every declared address
/// itself: an old process that is draining does not count. It returns as soon as it is so, without asking again and again.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("wanted").required(true),
    after_help = "\
Exit codes: 0 it is so; 1 it will not be, because whoever restarts the service gave up, or another error; 2 wrong usage; 7 the
daemon did not answer in time; 124 the time is over.

Examples:
  probe wait annad --ready --timeout 30s
  n=$(probe status annad --json | jq '.services[0].generation')
  systemctl restart annad && probe wait annad --ready --after-generation $n --timeout 1m"
)]
pub(crate) struct Wait {
    pub(crate) service: String,

    /// Until it is ready
    #[arg(long, group = "wanted")]
    pub(crate) ready: bool,

    /// Until no process of it lives
    #[arg(long, group = "wanted")]
    pub(crate) stopped: bool,

    /// Only lives after this one count
    #[arg(long, value_name = "N")]
    pub(crate) after_generation: Option<u64>,

    /// How long to wait at most; the default is without end
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) timeout: Option<Duration>,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

impl Wait {
    pub(crate) fn wanted(&self) -> Wanted {
        match self.stopped {
            true => Wanted::Stopped,
            false => Wanted::Ready,
        }
    }
}
