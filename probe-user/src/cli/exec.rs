//! `probe exec`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use probe_user::config::span;

/// Run a command with a time limit; when it is over, nothing of it is left
#[derive(Debug, Args)]
#[command(after_help = "\
The limit is --limit, else $PROBE_LIMIT, else that of the command's name in [limits], else none. When it is over, the command
and everything that it started get TERM, and after the grace KILL.

Exit codes: the command's own, 128 + N when signal N ended it, 124 when the limit did, 125 for errors of probe's own, 126 when
the command cannot be run, 127 when there is none of that name.

Examples:
  probe exec --limit 2m -- git fetch
  PROBE_LIMIT=300s probe exec -- ./test.sh")]
pub(crate) struct Exec {
    /// How long it may take, for example 90s
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) limit: Option<Duration>,

    /// From TERM to KILL
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = span::parse)]
    pub(crate) grace: Duration,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) argv: Vec<OsString>,
}
