//! Options of `probe daemon`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::TierChoice;

/// Run as the daemon that others ask: events, findings, hooks, history and metrics of the declared services
#[derive(Debug, Args)]
#[command(
    after_help = "Signals: TERM and INT stop it, HUP reads the configuration anew, USR1 has it log its own state.\n\
                        It is started by a service manager: it never goes into the background by itself."
)]
pub(crate) struct Daemon {
    /// Stay in the foreground, as it always does; for those who are used to say so
    #[arg(long)]
    pub(crate) foreground: bool,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Directory of probe.toml and probe.d, instead of /etc/probe
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "config")]
    pub(crate) config_dir: Option<PathBuf>,

    /// How the log looks; auto: the journal's own way under systemd, else text
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    /// Remove the programs and maps that an earlier daemon has left in the kernel, and end. No daemon may run
    #[arg(long)]
    pub(crate) uninstall: bool,

    /// How events are captured, in place of the configuration's `tier`
    #[arg(long, value_enum, default_value_t = TierChoice::Auto, value_name = "TIER")]
    pub(crate) tier: TierChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Auto,
    Text,
    Json,
    Journal,
}
