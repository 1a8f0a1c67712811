//! The commands and options that exist.

mod check;
mod completions;
pub(crate) mod daemon;
mod declare;
mod exec;
mod history;
pub(crate) mod hook;
mod man;
mod reach;
mod reclaim;
mod run;
mod silence;
mod status;
mod wait;
mod who;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use probe_user::{
    address::Address,
    config::span,
    kernel::Tier,
    report::{Filter, KindName, LineType},
};

pub(crate) use self::{
    check::Check,
    completions::{Completions, Shell},
    exec::Exec,
    history::History,
    man::Man,
    reach::Reach,
    reclaim::Reclaim,
    run::{RestartChoice, Run},
    silence::Silence,
    status::Status,
    wait::Wait,
    who::Who,
};

/// Tells what is wrong with the daemons on this host, at once and with evidence.
#[derive(Debug, Parser)]
#[command(
    name = "probe",
    version,
    after_help = "Exit codes: 0 success, 1 error, 2 wrong usage, 7 the daemon did not answer in time; further ones where a command \
                  says so.\n\
                  Without a configuration in /etc/probe, probe watches every listening socket and every PID file it finds."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more on stderr about what probe does; repeat for more still
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Watch(Watch),
    Daemon(daemon::Daemon),
    Status(Status),
    Who(Who),
    Check(Check),
    Wait(Wait),
    History(History),
    Silence(Silence),
    Replay(Replay),
    Doctor(Doctor),
    Config(Config),
    Hook(hook::Hook),
    Reclaim(Reclaim),
    Exec(Exec),
    Run(Run),
    Completions(Completions),
    Man(Man),
}

/// Print events and findings as they happen
///
/// As the daemon tells them, also over its restarts: what could not be told is told as lost. Without a daemon, or with an
/// option that declares, discovers, records or loads something, it loads the eBPF programs itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  probe watch                                      what the daemon watches, else everything that listens here
  probe watch --since 10m annad                    from ten minutes ago on
  probe watch --unix /run/redis/redis.sock --pid-file /run/redis/redis.pid
  probe watch --tcp 127.0.0.1:8080 --exe /usr/local/bin/annad
  probe watch --json --only finding --for 10m redis
  probe watch --record /tmp/redis.jsonl redis      then: probe replay /tmp/redis.jsonl")]
pub(crate) struct Watch {
    /// Only services of these names; the default is all
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,

    /// Begin with what the daemon has said since then, for example 10m
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) since: Option<Duration>,

    /// The daemon's socket, instead of the configuration's
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Also watch what listens here and every PID file under /run (the default when nothing is declared)
    #[arg(long)]
    pub(crate) discover: bool,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) declared: Declared,

    #[command(flatten)]
    pub(crate) lines: Lines,

    /// Stop after this time, for example 30s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = span::parse)]
    pub(crate) duration: Option<Duration>,

    /// Record everything that was observed to this file, for `probe replay`; it tells arguments of processes
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,

    /// How events are captured: fentry (kernel functions), tracepoint, or auto: the best that the kernel takes
    #[arg(long, value_enum, default_value_t = TierChoice::Auto, value_name = "TIER")]
    pub(crate) tier: TierChoice,

    /// Have the eBPF programs log to stderr
    #[arg(long, value_name = "LEVEL")]
    pub(crate) bpf_log: Option<BpfLog>,
}

/// Together these declare one service, named after the executable, else the PID file, else the address.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Declare a service")]
pub(crate) struct Declared {
    /// Path of its socket, or @NAME of an abstract one
    #[arg(long, value_name = "PATH", value_parser = declare::unix)]
    pub(crate) unix: Vec<Address>,

    /// TCP address that it listens on
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = declare::tcp)]
    pub(crate) tcp: Vec<Address>,

    /// UDP address that it is bound to
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = declare::udp)]
    pub(crate) udp: Vec<Address>,

    /// A process of it that runs now
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,

    /// Its PID file
    #[arg(long, value_name = "FILE", value_parser = declare::path)]
    pub(crate) pid_file: Option<String>,

    /// Its executable
    #[arg(long, value_name = "PATH", value_parser = declare::path)]
    pub(crate) exe: Option<String>,
}

/// Which lines, and how they look.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Lines {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Only lines of these types: watching, event, finding, lost
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub(crate) only: Vec<LineType>,

    /// Only events and findings of these kinds, for example signal,stale-socket
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kind: Vec<KindName>,
}

impl Lines {
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            only: self.only.clone(),
            kinds: self.kind.clone(),
        }
    }
}

/// Feed a recording to the engine and print what it says: findings, unless --only or --kind ask for more
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  probe replay /tmp/redis.jsonl
  probe replay --only event,finding /tmp/redis.jsonl")]
pub(crate) struct Replay {
    /// What `probe watch --record` wrote
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) lines: Lines,
}

/// Print what this kernel offers, how each hook is attached and why, and what cannot be seen
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How events are captured: fentry (kernel functions), tracepoint, or auto: the best that the kernel takes
    #[arg(long, value_enum, default_value_t = TierChoice::Auto, value_name = "TIER")]
    pub(crate) tier: TierChoice,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Validate and print the configuration
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,

    /// Configuration file, instead of /etc/probe
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell everything that is wrong with it
    Check,
    /// Print it with every default filled in
    Show,
    /// Print a starter file from what runs here
    Discover,
    /// Print its JSON schema, for editors, or the reference of every key
    Schema {
        /// json: the schema; markdown and man: the reference
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: SchemaFormat,
    },
}

/// How the keys of the configuration are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SchemaFormat {
    #[default]
    Json,
    Markdown,
    Man,
}

/// From which level on the eBPF programs log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BpfLog {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The tier that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TierChoice {
    #[default]
    Auto,
    Fentry,
    Tracepoint,
}

impl TierChoice {
    pub(crate) fn wanted(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(Tier::Fentry),
            Self::Tracepoint => Some(Tier::Tracepoint),
        }
    }
}

/// Options that each make sense and together do not: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// An end with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{}", .error.as_ref().map(|e| format!("{e:#}")).unwrap_or_default())]
pub(crate) struct Exit {
    pub(crate) code: u8,
    /// `None`: nothing is said.
    pub(crate) error: Option<anyhow::Error>,
}

impl Exit {
    pub(crate) fn with(code: u8, error: anyhow::Error) -> anyhow::Error {
        Self {
            code,
            error: Some(error),
        }
        .into()
    }

    pub(crate) fn silent(code: u8) -> anyhow::Error {
        Self { code, error: None }.into()
    }
}

/// clap's message without its heading, its usage and its empty lines.
pub(crate) fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let told = lines.take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information"));
    let mut line = String::new();
    for part in told.filter(|l| !l.is_empty()) {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(part.strip_prefix("tip: ").unwrap_or(part));
    }
    line
}

#[cfg(test)]
mod tests;
