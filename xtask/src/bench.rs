//! `cargo xtask bench`: measures probe beside what people use today. The measures themselves are a program of their own
//! (tests/bench), built with optimisation; this installs the other tools and runs it.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::ensure;
use nix::unistd::geteuid;

use crate::{apt, child, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these rows; all without names. `engine-hour`, which has no row: an hour of ten thousand services for the engine alone
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
    /// Write docs/benchmarks.md and its plots
    #[arg(long)]
    page: bool,
    /// Take what an earlier run wrote with --json instead of measuring: for the page alone
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Two programs with optimisation, on a machine that may have other things to do.
const BUILD: Duration = Duration::from_secs(3600);
const MEASURE: Duration = Duration::from_secs(1800);

/// Debian packages, and what they are measured for.
const PEERS: [(&str, &str); 9] = [
    ("lsof", "who holds a path"),
    ("psmisc", "fuser: who holds a path"),
    ("iproute2", "ss: who listens"),
    ("monit", "notices that a daemon is gone"),
    ("bpftrace", "reports exits, and the daemon's writes"),
    ("libbpf-tools", "exitsnoop, sigsnoop: print what a hook tells"),
    ("nginx-light", "throughput beside probe"),
    ("redis-server", "throughput beside probe"),
    ("redis-tools", "redis-benchmark makes the load"),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        geteuid().is_root(),
        "the measures load eBPF programs and need root: run them with `sudo`"
    );
    if args.names == [ENGINE_HOUR] {
        return engine_hour();
    }
    for (name, reason) in PEERS {
        if let Err(error) = apt::install(&[name]) {
            println!("skipped: {name} ({reason}) cannot be installed: {error:#}");
        }
    }
    let programs = ["--bin", "probe", "--bin", "probe-bench"];
    child::show(
        workspace::cargo()
            .args([
                "build",
                "--release",
                "--package",
                "probe-user",
                "--package",
                "probe-bench",
            ])
            .args(programs),
        BUILD,
    )?;
    let built = workspace::target_dir()?.join("release");
    let mut bench = Command::new(built.join("probe-bench"));
    bench
        .arg("measure")
        .args(&args.names)
        .env("PROBE_BIN", built.join("probe"));
    for (option, file) in [
        ("--json", &args.json),
        ("--baseline", &args.baseline),
        ("--from", &args.from),
    ] {
        if let Some(file) = file {
            bench.arg(option).arg(file);
        }
    }
    if args.short {
        bench.arg("--short");
    }
    if args.page {
        bench.arg("--page").arg(workspace::root().join("docs"));
    }
    child::show(&mut bench, MEASURE)
}

const ENGINE_HOUR: &str = "engine-hour";

/// It fails when the hour takes more time or memory than promised.
fn engine_hour() -> anyhow::Result<()> {
    child::show(
        workspace::cargo()
            .args([
                "test",
                "--release",
                "--package",
                "probe-user",
                "--test",
                "engine_scale",
            ])
            .args(["--", "--nocapture", "--test-threads=1", "--ignored"]),
        BUILD,
    )
}
