//! `probe who`: who holds an address, and whether anybody is reached there.

use std::io::{self, Write};

use probe_user::{
    client::query,
    report,
    who::{self, Answer, Options, State},
};

use crate::cli::{Exit, Who};

/// Exit codes beside 0, for live.
const NOT_REACHED: u8 = 3;
const FREE: u8 = 4;
const UNKNOWN: u8 = 5;

pub(crate) fn run(args: &Who) -> anyhow::Result<()> {
    let answer = match by_daemon(args) {
        Some(answer) => answer,
        None => {
            let options = Options {
                netns: args.netns.clone().unwrap_or_default(),
            };
            who::look(&args.address, &options)?
        }
    };
    let mut line = Vec::new();
    if args.json {
        report::json_line(&mut line, &answer)?;
    } else {
        report::who(&mut line, &super::look(), &answer)?;
    }
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    match code(answer.state) {
        0 => Ok(()),
        code => Err(Exit::silent(code)),
    }
}

/// The daemon sees what only root does. Whoever is root needs nobody, least of all a daemon that may hang.
fn by_daemon(args: &Who) -> Option<Answer> {
    if args.netns.is_some() || nix::unistd::geteuid().is_root() {
        return None;
    }
    let client = super::client(&args.reach).ok()?;
    let address = args.address.to_string();
    let path = query("/v1/who", &[("address", Some(&address))]);
    let answer = super::block_on(async { Ok(client.get(&path).await?) });
    answer.inspect_err(|e| tracing::debug!("{e:#}")).ok()
}

fn code(state: State) -> u8 {
    match state {
        State::Live => 0,
        State::Stale | State::Orphaned | State::Bound | State::ShutDown | State::NotASocket => NOT_REACHED,
        State::Free => FREE,
        State::Unknown => UNKNOWN,
    }
}
