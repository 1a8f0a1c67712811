//! `probe run`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use probe_user::config::{Size, span};

/// Run a single instance of a service: clean up, start, restart, and go on after probe's own death
#[derive(Debug, Args)]
#[command(after_help = "\
Takes the lock of the service, reclaims, starts the command, and waits until it serves the declared addresses. Signals are passed
on; a stop signal ends the run, after `stop_within` by KILL. The command must stay in the foreground. It writes its output itself
to a log in the state directory, which is rotated at each start. When `probe run` is killed and started again, it takes over the
command that still runs.

Exit codes: the command's own, 128 + N when signal N ended it, 124 when the limit did, 125 for errors of probe's own and for ends
that nobody saw, 126 when the command cannot be run, 127 when there is none of that name.

Examples:
  probe run annad -- /usr/local/bin/annad --foreground
  probe run --restart on-failure --limit 1h job -- ./job.sh
  probe run --resume               every run that was not over, after a reboot")]
pub(crate) struct Run {
    /// The service; one that is declared is reclaimed, and waited for until it is ready
    #[arg(required_unless_present = "resume")]
    pub(crate) service: Option<String>,

    /// How long the command may take, from its start
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) limit: Option<Duration>,

    /// When to start it again
    #[arg(long, value_enum, default_value_t = RestartChoice::Never, value_name = "WHEN")]
    pub(crate) restart: RestartChoice,

    /// Go on with what was recorded: of this service, or of every run that was not over
    #[arg(long, conflicts_with_all = ["argv", "restart", "limit", "notify", "inherit_output"])]
    pub(crate) resume: bool,

    /// Pass on what the command tells the service manager (sd_notify), which also says when it is ready
    #[arg(long)]
    pub(crate) notify: bool,

    /// The command writes where probe does, instead of to a log
    #[arg(long)]
    pub(crate) inherit_output: bool,

    /// How many earlier logs are kept
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) keep_logs: u32,

    /// How much of earlier logs is kept
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub(crate) keep_log_size: Size,

    /// How long to wait for another `probe run` of the service
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = span::parse)]
    pub(crate) wait: Duration,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The command and its arguments
    #[arg(last = true, required_unless_present = "resume", value_name = "CMD")]
    pub(crate) argv: Vec<OsString>,
}

/// When a command that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartChoice {
    Never,
    /// Unless it ended with a code of `clean_exit`
    OnFailure,
    Always,
}
