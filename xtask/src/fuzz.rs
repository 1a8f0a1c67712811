//! `cargo xtask fuzz`: LLVM's fuzzer on everything that reads bytes of others. The corpora in `fuzz/corpus` are where it begins;
//! what it finds goes there too, and `cargo test -p probe-user fuzz` reads them ever after.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use crate::{child, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each runs
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    lasts: Duration,
}

/// Optimised, and instrumented, with everything that it links.
const BUILD: Duration = Duration::from_secs(3600);
/// One input takes microseconds; one that takes so long is a finding.
const ONE_INPUT_SECONDS: u32 = 25;
/// So is one that takes so much memory.
const MEMORY_MB: u32 = 2048;
/// Longer inputs mostly take longer.
const LONGEST: u32 = 64 * 1024;

/// What has LLVM count which edges are taken and what is compared with what: the passes that cargo-fuzz asks for too.
const FLAGS: [&str; 9] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=4",
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let all = targets()?;
    for target in &args.targets {
        ensure!(
            all.contains(target),
            "there is no target {target}, only {}",
            all.join(", ")
        );
    }
    let chosen = if args.targets.is_empty() {
        &all
    } else {
        &args.targets
    };
    let programs = build(chosen)?;
    let mut table = vec![format!(
        "{:<14} {:>12} {:>10}  result",
        "target", "executions", "seconds"
    )];
    let mut found = Vec::new();
    for target in chosen {
        let began = child::now();
        let (executions, artifact) = one(target, &programs.join(target), args.lasts)?;
        let took = (child::now() - began).as_secs();
        let result = artifact.map_or_else(|| "nothing found".to_owned(), |path| path.display().to_string());
        if result != "nothing found" {
            found.push(result.clone());
        }
        table.push(format!("{target:<14} {executions:>12} {took:>10}  {result}"));
        if child::interrupted() {
            break;
        }
    }
    println!("\n{}", table.join("\n"));
    if !found.is_empty() {
        bail!(
            "found: {}; mend it, and keep the input in the corpus",
            found.join(", ")
        );
    }
    Ok(())
}

/// A corpus is a target.
fn targets() -> anyhow::Result<Vec<String>> {
    let corpora = workspace::root().join("fuzz/corpus");
    let entries = fs::read_dir(&corpora).with_context(|| format!("read {}", corpora.display()))?;
    let mut names: Vec<_> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Where the programs are.
fn build(targets: &[String]) -> anyhow::Result<PathBuf> {
    let host = host()?;
    let directory = workspace::target_dir()?.join("fuzz");
    let mut cargo = workspace::cargo();
    // With `--target`, the flags do not reach build scripts and macros. Link-time optimisation would undo the passes' work.
    cargo
        .args([
            "build",
            "--release",
            "--package",
            "probe-fuzz",
            "--features",
            "programs",
        ])
        .args([
            "--target",
            &host,
            "--config",
            "profile.release.lto=false",
            "--target-dir",
        ])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    for target in targets {
        cargo.args(["--bin", target]);
    }
    child::show(&mut cargo, BUILD)?;
    Ok(directory.join(host).join("release"))
}

fn host() -> anyhow::Result<String> {
    let text = child::capture(Command::new("rustc").arg("-vV"), Duration::from_secs(60))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not name its host")
}

/// Runs one. How often it was called, and what was found.
fn one(target: &str, program: &Path, lasts: Duration) -> anyhow::Result<(u64, Option<PathBuf>)> {
    let work = workspace::target_dir()?.join("fuzz/work").join(target);
    fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let corpus = workspace::root().join("fuzz/corpus").join(target);
    let mut fuzzer = Command::new(program);
    fuzzer
        .arg(format!("-max_total_time={}", lasts.as_secs()))
        .arg(format!("-timeout={ONE_INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/found-", corpus.display()))
        // The first directory gets what is new.
        .args([&work, &corpus]);
    println!("$ {}", child::describe(&fuzzer));
    let (mut executions, mut artifact) = (0, None);
    let status = child::run(&mut fuzzer, lasts + Duration::from_secs(300), |line| {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            executions = count.trim().parse().unwrap_or(0);
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            artifact = Some(PathBuf::from(path.trim()));
        }
        // What it does each second is of no interest; what it found is.
        if !line.starts_with('#') && !line.starts_with("NEW_FUNC") {
            child::print(line);
        }
    })?;
    ensure!(
        status.success() || artifact.is_some(),
        "{target}: {status}, and no input was kept"
    );
    Ok((executions, artifact))
}

/// `90s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{text:?} is no duration such as 90s, 5m or 1h")),
    };
    let number: u32 = number.parse().map_err(|e| format!("{text:?}: {e}"))?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("5").is_err() && duration("m").is_err() && duration("").is_err());
    }
}
