//! `probe reclaim`.

use std::path::PathBuf;

use clap::Args;

/// Clean up safely before a service starts, and say whether it can start
#[derive(Debug, Args)]
#[command(after_help = "\
Removes stale socket files and a stale PID file. Live sockets are never removed. Processes are ended only where the service
declares `singleton` or `kill_other`: a predecessor with all that descends from it, and whoever holds its addresses.

Exit codes: 0 the service can start now, 1 it cannot (the last line says what is in the way), 2 wrong usage.

Examples:
  probe reclaim annad
  probe reclaim --dry-run annad                what would be done
  ExecStartPre=+/usr/bin/probe reclaim annad   in a unit file")]
pub(crate) struct Reclaim {
    /// A declared service
    pub(crate) service: String,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Believe a PID file that others than its owner and root may write to
    #[arg(long)]
    pub(crate) trust_pid_file: bool,

    /// How long to wait for another reclaim of the same service
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = probe_user::config::span::parse)]
    pub(crate) wait: std::time::Duration,

    /// How long to wait for processes after SIGKILL
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = probe_user::config::span::parse)]
    pub(crate) kill_within: std::time::Duration,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// One JSON object a line: the steps, and at the end the outcome
    #[arg(long)]
    pub(crate) json: bool,
}
