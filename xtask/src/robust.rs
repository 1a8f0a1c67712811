//! `cargo xtask robust`: what survives probe's own end, losses of events and faults of the host. Runs the tests that show it
//! with the optimised program, and prints their rows as tables.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};

use crate::{child, test::needs, vm, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose names contain this
    filter: Option<String>,
    /// Also what only a machine of its own can be put through: its clock is set, it sleeps, systemd starts itself anew
    #[arg(long, conflicts_with = "filter")]
    machines: bool,
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

/// Unit tests that show one, and the rows that they are.
const UNITS: [(&str, [&str; 3]); 2] = [
    (
        "sources::sock_diag::tests::a_list_that_changed_under_the_reader_is_asked_for_again",
        [
            "netlink dump interrupted (NLM_F_DUMP_INTR)",
            "nothing, or an error after 5 times",
            "asked for again",
        ],
    ),
    (
        "sources::sock_diag::tests::an_overrun_of_the_reader_s_buffer_begins_the_list_anew",
        ["netlink's buffer overrun (ENOBUFS)", "nothing", "asked for again"],
    ),
];

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
    let units = match filter.is_empty() {
        true => units(),
        false => Ok(String::new()),
    };
    let mut text = fs::read_to_string(&rows).unwrap_or_default();
    text += units.as_deref().unwrap_or_default();
    let mut machines = Ok(());
    if args.machines {
        for args in machine() {
            let (rows, outcome) = vm::rows(&args);
            text += &format!("{}\n", rows.join("\n"));
            machines = machines.and(outcome);
        }
    }
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
    robust.and(elsewhere).and(units.map(drop)).and(machines)
}

/// Rows of the unit tests that pass.
fn units() -> anyhow::Result<String> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["test", "--package", "probe-user", "--lib", "--", "--exact"])
        .args(UNITS.map(|(test, _)| test));
    let mut text = String::new();
    let status = child::run(&mut cargo, LIMIT, |line| {
        child::print(line);
        for (test, cells) in UNITS {
            if line == format!("test {test} ... ok") {
                text += &format!("| faults | {} |\n", cells.join(" | "));
            }
        }
    })?;
    ensure!(status.success(), "{status}");
    Ok(text)
}

/// The tests of a machine.
fn machine() -> [vm::Args; 2] {
    let of = |filter: &str| vm::Args {
        filter: Some(filter.to_owned()),
        kernel: vec![vm::MACHINE_KERNEL],
        tier: vec![vm::Tier::Fentry],
        ..vm::Args::default()
    };
    let systemd = vm::Args {
        systemd: true,
        ..of("starts_itself_anew")
    };
    [of("a_machine_"), systemd]
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
