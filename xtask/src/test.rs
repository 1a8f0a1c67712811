//! `cargo xtask test`: all tests, lane by lane. Continuous integration and people run the same.

mod lane;
pub(crate) mod needs;
mod tally;

use std::{fmt::Write as _, time::Duration};

use anyhow::bail;
use clap::ValueEnum as _;

use self::{lane::Lane, tally::Tally};
use crate::child;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these lanes, separated by commas
    #[arg(long, value_enum, value_name = "LANE", value_delimiter = ',')]
    only: Vec<Lane>,
    /// Also the lanes that take long, or judge what others publish: soak, deny, static, miri, systemd, arm64
    #[arg(long, conflicts_with_all = ["only", "filter"])]
    all: bool,
    /// Run the later lanes too when one fails
    #[arg(long)]
    keep_going: bool,
    /// Only tests whose names contain this; lanes without tests are left out
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// How one lane went.
struct Outcome {
    lane: Lane,
    result: Result<(), String>,
    tally: Tally,
    took: Duration,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut outcomes = Vec::new();
    let mut skipped = Vec::new();
    let mut stopped = false;
    for &lane in Lane::value_variants() {
        if !chosen(lane, args) {
            continue;
        }
        if stopped || child::interrupted() {
            skipped.push((lane, "an earlier lane failed".to_owned()));
            continue;
        }
        if let Some(reason) = lane.cannot_run() {
            println!("\n== {lane}: skipped: {reason}");
            skipped.push((lane, reason));
            continue;
        }
        println!("\n== {lane}");
        let started = child::now();
        let mut tally = Tally::default();
        let result = lane
            .run(args.filter.as_deref(), &mut tally)
            .map_err(|error| format!("{error:#}"));
        let outcome = Outcome {
            lane,
            result,
            tally,
            took: child::now() - started,
        };
        println!("{}", line(&outcome));
        stopped = outcome.result.is_err() && !args.keep_going;
        outcomes.push(outcome);
    }
    print!("{}", summary(&outcomes, &skipped));
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|o| o.result.is_err())
        .map(|o| o.lane.to_string())
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if let Some(filter) = &args.filter
        && outcomes.iter().any(|outcome| outcome.lane.has_tests())
        && outcomes.iter().all(|outcome| outcome.tally.ran() == 0)
    {
        bail!("no test has \"{filter}\" in its name");
    }
    Ok(())
}

fn chosen(lane: Lane, args: &Args) -> bool {
    if args.only.is_empty() {
        match args.filter {
            None => args.all || !lane.is_extra(),
            Some(_) => lane.is_quick() && lane.has_tests(),
        }
    } else {
        args.only.contains(&lane)
    }
}

fn line(outcome: &Outcome) -> String {
    let Outcome {
        lane,
        result,
        tally,
        took,
    } = outcome;
    let (word, reason) = match result {
        Ok(()) => ("ok", String::new()),
        Err(reason) => ("FAILED", format!("  {reason}")),
    };
    let tests = if lane.has_tests() {
        tally.to_string()
    } else {
        String::new()
    };
    format!(
        "{:<8} {word:<7} {:>7.1} s  {tests}{reason}",
        lane.to_string(),
        took.as_secs_f64()
    )
}

/// The table, and the one plain line that sums it up.
fn summary(outcomes: &[Outcome], skipped: &[(Lane, String)]) -> String {
    let mut text = String::from("\n== summary\n");
    let mut total = Tally::default();
    for outcome in outcomes {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(outcome));
        total.add(outcome.tally);
        // A lane can fail without a failing test: a warning, an object that differs, a crash, a time limit.
        if outcome.result.is_err() && outcome.tally.failed == 0 {
            total.failed += 1;
        }
    }
    for (lane, reason) in skipped {
        let _ = writeln!(text, "{:<8} skipped: {reason}", lane.to_string());
    }
    let _ = writeln!(text, "{} passed, {} failed", total.passed, total.failed);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lane: Lane, result: Result<(), &str>, passed: u64, failed: u64) -> Outcome {
        let tally = Tally {
            passed,
            failed,
            ignored: 0,
        };
        Outcome {
            lane,
            result: result.map_err(str::to_owned),
            tally,
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn the_last_line_sums_up_and_never_hides_a_failed_lane() {
        let good = [
            outcome(Lane::Format, Ok(()), 0, 0),
            outcome(Lane::Unit, Ok(()), 12, 0),
        ];
        assert_eq!(summary(&good, &[]).lines().last(), Some("12 passed, 0 failed"));

        let bad = [
            outcome(Lane::Unit, Err("one"), 11, 1),
            outcome(Lane::Ebpf, Err("differs"), 0, 0),
        ];
        let text = summary(&bad, &[(Lane::E2e, "needs root".to_owned())]);
        assert_eq!(text.lines().last(), Some("11 passed, 2 failed"));
        assert!(text.contains("e2e      skipped: needs root"), "{text}");
        assert!(
            text.contains("unit     FAILED      1.5 s  11 passed, 1 failed  one"),
            "{text}"
        );
    }

    #[test]
    fn a_filter_leaves_out_lanes_without_tests_unless_they_are_named() {
        let args = |only: &[Lane], filter: Option<&str>| Args {
            only: only.to_vec(),
            all: false,
            keep_going: false,
            filter: filter.map(str::to_owned),
        };
        let lanes = |args: Args| {
            Lane::value_variants()
                .iter()
                .copied()
                .filter(move |l| chosen(*l, &args))
                .collect()
        };
        let all: Vec<_> = lanes(Args {
            all: true,
            ..args(&[], None)
        });
        assert_eq!(all, Lane::value_variants());
        let usual: Vec<_> = lanes(args(&[], None));
        assert!(
            !usual.iter().any(|lane| lane.is_extra())
                && usual.ends_with(&[Lane::E2e, Lane::Soak, Lane::Daemons, Lane::Kernels])
        );
        let filtered: Vec<_> = lanes(args(&[], Some("redis")));
        assert_eq!(filtered, [Lane::Unit, Lane::Replay, Lane::E2e]);
        let named: Vec<_> = lanes(args(&[Lane::Format, Lane::E2e], Some("redis")));
        assert_eq!(named, [Lane::Format, Lane::E2e]);
    }
}
