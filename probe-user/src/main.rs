//! The command line of probe.

mod cli;
mod cmd;
mod log;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use probe_user::{client::ClientError, spawner};

use crate::cli::{Cli, Command, Exit};

/// Codes other than 0.
const ERROR: u8 = 1;
const USAGE: u8 = 2;
/// The daemon did not answer in time.
const LATE: u8 = 7;
/// UNKNOWN.
const CHECK_USAGE: u8 = 3;

fn main() -> ExitCode {
    // The daemon starts this executable so, and nobody else does.
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == spawner::NAME)
    {
        return match spawner::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(ERROR),
        };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if let Err(error) = log(&cli) {
        _ = writeln!(io::stderr(), "probe: the log cannot be written: {error}");
        return ExitCode::from(ERROR);
    }
    let result = match cli.command {
        Command::Watch(args) => cmd::watch::run(&args),
        Command::Daemon(args) => cmd::daemon::run(&args),
        Command::Status(args) => cmd::status::run(&args),
        Command::Who(args) => cmd::who::run(&args),
        Command::Check(args) => cmd::check::run(&args),
        Command::Wait(args) => cmd::wait::run(&args),
        Command::History(args) => cmd::history::run(&args),
        Command::Silence(args) => cmd::silence::run(&args),
        Command::Replay(args) => cmd::replay::run(&args),
        Command::Doctor(args) => cmd::doctor::run(&args),
        Command::Config(args) => cmd::config::run(&args),
        Command::Hook(args) => cmd::hook::run(&args),
        Command::Reclaim(args) => cmd::reclaim::run(&args),
        Command::Exec(args) => cmd::exec::run(&args),
        Command::Run(args) => cmd::run::run(&args),
        Command::Completions(args) => cmd::completions::run(&args),
        Command::Man(args) => cmd::man::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let own = error.downcast_ref::<Exit>();
            if let Some(Exit { code, error: None }) = own {
                return ExitCode::from(*code);
            }
            let late = error.downcast_ref::<ClientError>().and_then(ClientError::timeout);
            if let Some(phase) = late {
                _ = writeln!(io::stderr(), "WARN: timeout ({phase})");
            }
            let code = if late.is_some() {
                LATE
            } else if let Some(exit) = own {
                exit.code
            } else if error.is::<cli::UsageError>() {
                USAGE
            } else {
                ERROR
            };
            // Nothing can be done about a closed stderr.
            _ = writeln!(io::stderr(), "probe: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn log(cli: &Cli) -> io::Result<()> {
    match &cli.command {
        Command::Daemon(args) => log::of_daemon(args.log_format, cli.verbose),
        _ => {
            log::of_command(cli.verbose);
            Ok(())
        }
    }
}
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Help and version are what was asked for; everything else is one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        _ = error.print();
    } else {
        _ = writeln!(io::stderr(), "probe: {}", cli::one_line(&error.to_string()));
    }
    // For a monitoring system 2 is CRITICAL.
    let command = std::env::args_os()
        .skip(1)
        .find(|a| !a.as_encoded_bytes().starts_with(b"-"));
    let is_plugin = command.is_some_and(|c| c == "check");
    ExitCode::from(if is_plugin { CHECK_USAGE } else { USAGE })
}
