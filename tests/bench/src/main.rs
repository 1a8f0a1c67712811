//! Measures probe beside what people use today. `cargo xtask bench` builds this, installs the other tools, and runs it.
//!
//! A measure fills a row: figures, ratios to the other tools that were measured in turn with it, and what was aimed at. One
//! that fails is reported, and the others go on.

mod baseline;
mod bpf;

mod limits;
mod load;
mod machine;
mod measure;
mod netlink;
mod page;
mod peer;
mod plot;
mod process;
mod row;
mod snoop;
mod stats;
mod watcher;
mod writes;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::{
    load::Role,
    machine::Machine,
    row::{Run, VERSION},
};

#[derive(Debug, Parser)]
#[command(name = "probe-bench", about = "Measures probe beside what people use today")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and write down what was found
    Measure(Args),
    /// Be part of the load that a measure needs
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Debug, clap::Args)]
struct Args {
    /// Only these rows; all without names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Measure with a tenth of the samples: to see whether it works, not how well
    #[arg(long)]
    short: bool,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with what an earlier run wrote with --json, and fail where something got worse by more than the noise
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the page and its plots into this directory
    #[arg(long, value_name = "DIR")]
    page: Option<PathBuf>,
    /// Take what an earlier run wrote with --json instead of measuring: for the page alone
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Measure(args) => run(&args),
        Command::Role { role } => role.play().map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: a measure failed, or something got worse.
fn run(args: &Args) -> anyhow::Result<bool> {
    let run = match &args.from {
        Some(file) => read(file)?,
        None => Run {
            v: VERSION,
            machine: Machine::read(),
            rows: measure::all(&args.names, args.short)?,
        },
    };
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&run)?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(directory) = &args.page {
        page::write(&run, directory)?;
    }
    page::print(&run);
    let mut well = run.rows.iter().all(|row| row.error.is_none());
    if let Some(file) = &args.baseline {
        let worse = baseline::worse(&read(file)?, &run);
        match worse.is_empty() {
            true => println!("nothing got worse by more than the noise"),
            false => well = false,
        }
        for line in worse {
            println!("worse: {line}");
        }
    }
    Ok(well)
}

fn read(file: &PathBuf) -> anyhow::Result<Run> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let run: Run = serde_json::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    anyhow::ensure!(
        run.v == VERSION,
        "{} is of version {}, this reads {VERSION}: measure anew",
        file.display(),
        run.v
    );
    Ok(run)
}
