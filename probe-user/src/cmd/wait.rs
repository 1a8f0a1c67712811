//! `probe wait`: returns as soon as a service is ready, or stopped.

use std::time::Duration;

use probe_user::{
    clock,
    wait::{Outcome, Wait},
};
use tokio::time::timeout;

use crate::cli::{self, Exit};

/// Exit codes beside 0.
const GAVE_UP: u8 = 1;
const TIMED_OUT: u8 = 124;

pub(crate) fn run(args: &cli::Wait) -> anyhow::Result<()> {
    let client = super::client(&args.reach)?;
    let began = clock::now();
    let mut wait = Wait::new(&args.service, args.wanted(), args.after_generation);
    let outcome = super::block_on(async {
        // A timer for a year and more is none.
        let limit = args.timeout.unwrap_or(Duration::MAX);
        match timeout(limit, wait.run(&client)).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Ok(Outcome::TimedOut),
        }
    })?;
    let waited = clock::now().since(began);
    let answer = wait.answer(outcome, u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
    let code = match outcome {
        Outcome::Reached => None,
        Outcome::GaveUp => Some(GAVE_UP),
        Outcome::TimedOut => Some(TIMED_OUT),
    };
    if args.json || code.is_none() {
        super::print(args.json, &answer, |out, _| {
            out.extend_from_slice(probe_user::report::plain(&answer.summary).as_bytes());
            out.push(b'\n');
            Ok(())
        })?;
    }
    match code {
        None => Ok(()),
        Some(code) if args.json => Err(Exit::silent(code)),
        Some(code) => Err(Exit::with(
            code,
            anyhow::anyhow!(probe_user::report::plain(&answer.summary)),
        )),
    }
}
