//! The command line of probe.

mod cli;
mod cmd;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

/// Codes other than 0.
const ERROR: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log(cli.verbose);
    let result = match cli.command {
        Command::Watch(args) => cmd::watch::run(&args),
        Command::Replay(args) => cmd::replay::run(&args),
        Command::Doctor(args) => cmd::doctor::run(&args),
        Command::Config(args) => cmd::config::run(&args),
        Command::Reclaim(args) => cmd::reclaim::run(&args),
        Command::Exec(args) => cmd::exec::run(&args),
        Command::Run(args) => cmd::run::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let own = error.downcast_ref::<cli::Exit>();
            if let Some(cli::Exit { code, error: None }) = own {
                return ExitCode::from(*code);
            }
            let code = if let Some(exit) = own {
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

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// To stderr, because stdout belongs to what was asked for. `RUST_LOG` counts for more than `-v`.
fn log(verbose: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter)
        .with_ansi(cmd::color(&io::stderr()))
        .with_target(verbose > 1)
        .without_time()
        .init();
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
    ExitCode::from(USAGE)
}
