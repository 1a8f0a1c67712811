//! `probe reclaim`: clean-up before a start.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::bail;
use probe_user::{
    config::load,
    reclaim::{self, Options, Outcome, Step},
    report::plain,
};
use serde::Serialize;

use super::journal::Journal;
use crate::cli::Reclaim;

pub(crate) fn run(args: &Reclaim) -> anyhow::Result<()> {
    let config = load::load(args.config.as_deref(), Path::new(load::DIRECTORY))?
        .map(|l| l.config)
        .unwrap_or_default();
    let service = reclaim::find(&config.services, &args.service)?;
    let options = Options {
        dry_run: args.dry_run,
        trust_pid_file: args.trust_pid_file,
        lock_within: args.wait,
        kill_within: args.kill_within,
        ..Options::new(&config.probe)
    };
    let mut lines = Lines::new(args.json);
    let outcome = reclaim::reclaim(service, &options, &mut |step| lines.step(&step))?;
    lines.outcome(&outcome)?;
    if outcome.can_start {
        return Ok(());
    }
    let could = if args.dry_run { "could not" } else { "cannot" };
    bail!(
        "{} {could} start: {}",
        outcome.service,
        plain(&outcome.in_the_way.join("; "))
    )
}

/// Steps on stdout, and in the journal where stdout does not lead there already.
pub(crate) struct Lines {
    json: bool,
    journal: Option<Journal>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    v: u32,
    r#type: &'static str,
    #[serde(flatten)]
    what: &'a T,
}

impl Lines {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            journal: Journal::open(),
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        if let Some(journal) = &self.journal {
            journal.step(step);
        }
        let text = if self.json {
            json("step", step)
        } else {
            format!("{}: {}", plain(&step.service), plain(&step.to_string()))
        };
        // What is done does not depend on who reads of it.
        _ = writeln!(io::stdout(), "{text}");
    }

    fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        if self.json {
            return writeln!(io::stdout(), "{}", json("reclaim", outcome));
        }
        if outcome.can_start {
            let could = if outcome.dry_run { "could" } else { "can" };
            writeln!(io::stdout(), "{}: it {could} start", plain(&outcome.service))?;
        }
        Ok(())
    }
}

fn json<T: Serialize>(r#type: &'static str, what: &T) -> String {
    let line = Line { v: 1, r#type, what };
    // Nothing in these types can fail.
    serde_json::to_string(&line).unwrap_or_default()
}
