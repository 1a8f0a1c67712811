//! `probe who`: who holds an address, and whether anybody is reached there.

use std::{
    fs,
    io::{self, Write},
    time::Duration,
};

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

/// The daemon sees what only root does, and is sooner. It must mean the same by the address: for root, who sees everything
/// anyway, it has to live in the same namespaces, and to answer at once.
fn by_daemon(args: &Who) -> Option<Answer> {
    if args.netns.is_some() || args.alone {
        return None;
    }
    let mut client = super::client(&args.reach).ok()?;
    if nix::unistd::geteuid().is_root() {
        client = client.only_where(lives_here).hurried(AT_ONCE);
    }
    let address = args.address.to_string();
    let path = query("/v1/who", &[("address", Some(&address))]);
    let answer = super::block_on(async { Ok(client.get(&path).await?) });
    answer.inspect_err(|e| tracing::debug!("{e:#}")).ok()
}

/// Longer than a search takes beside ten thousand processes.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Whether a process has the same root and the same namespaces of mounts and networks.
fn lives_here(pid: i32) -> bool {
    let is_same = |what: &&str| {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/{what}")).ok();
        let (own, theirs) = (of("self"), of(&pid.to_string()));
        own.is_some() && own == theirs
    };
    ["ns/mnt", "ns/net", "root"].iter().all(is_same)
}

fn code(state: State) -> u8 {
    match state {
        State::Live => 0,
        State::Stale | State::Orphaned | State::Bound | State::ShutDown | State::NotASocket => NOT_REACHED,
        State::Free => FREE,
        State::Unknown => UNKNOWN,
    }
}
