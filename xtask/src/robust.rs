//! `cargo xtask robust`: what survives probe's own end, losses of events and faults of the host. Runs the tests that show it
//! with the optimised program, and prints their rows as tables.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;

use crate::{child, test::needs, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// Mostly for the compiler.
const LIMIT: Duration = Duration::from_secs(1800);

/// The tables, by the first cell of their rows.
const TABLES: [(&str, &str, &str); 3] = [
    (
        "restart",
        "No gap across probe's own restart, crash and upgrade",
        "| what happens | what the next daemon tells | and so |",
    ),
    (
        "loss",
        "Losses settle",
        "| what happens | counted | verdicts unknown | in the end |",
    ),
    (
        "faults",
        "Faults of the host",
        "| fault | what is said meanwhile | when its cause is gone |",
    ),
];

/// Tests of others that show one of the faults.
const ELSEWHERE: [&str; 2] = ["a_damaged_history", "a_hook_that_hangs"];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    needs::packages()?;
    child::show(
        workspace::cargo().args(["build", "--release", "--package", "probe-user"]),
        LIMIT,
    )?;
    let target = workspace::target_dir()?;
    let rows = target.join("robust-rows");
    if rows.exists() {
        fs::remove_file(&rows).with_context(|| format!("remove {}", rows.display()))?;
    }
    let filter: Vec<&str> = args.filter.as_deref().into_iter().collect();
    let robust = test("robust", &filter, &target);
    let elsewhere = match filter.is_empty() {
        true => test("daemon", &ELSEWHERE, &target),
        false => Ok(()),
    };
    let text = fs::read_to_string(&rows).unwrap_or_default();
    for (name, title, head) in TABLES {
        let begin = format!("| {name} ");
        let mut of_it = text.lines().filter_map(|l| l.strip_prefix(&begin)).peekable();
        if of_it.peek().is_none() {
            continue;
        }
        println!("\n{title}\n\n{head}");
        println!("|{}", " --- |".repeat(head.matches('|').count() - 1));
        of_it.for_each(|row| println!("{row}"));
    }
    robust.and(elsewhere)
}

fn test(name: &str, filter: &[&str], target: &Path) -> anyhow::Result<()> {
    child::show(
        workspace::cargo()
            .args(["test", "--package", "probe-tests", "--test", name, "--"])
            .args(filter)
            .arg("--test-threads=1")
            .env("PROBE_BIN", target.join("release/probe"))
            .env("PROBE_TEST_TABLES", target.join("robust-rows")),
        LIMIT,
    )
}
