//! `probe who`: who holds an address, and whether anybody is reached there.

use std::{
    fs,
    io::{self, Write},
    os::fd::AsRawFd,
    path::Path,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, sockopt};

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
        if !lives_here(client.socket())? {
            return None;
        }
        client = client.hurried(AT_ONCE);
    }
    let address = args.address.to_string();
    let path = query("/v1/who", &[("address", Some(&address))]);
    let answer = super::block_on(async { Ok(client.get(&path).await?) });
    answer.inspect_err(|e| tracing::debug!("{e:#}")).ok()
}

/// Longer than a search takes beside ten thousand processes.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Whether whoever listens there has the same root and the same namespaces of mounts and networks.
fn lives_here(socket: &Path) -> Option<bool> {
    // A connect to a UNIX socket waits only where the queue is full; a daemon that hangs so far is none to be asked.
    let stream = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .ok()?;
    nix::sys::socket::connect(stream.as_raw_fd(), &UnixAddr::new(socket).ok()?).ok()?;
    let pid = getsockopt(&stream, sockopt::PeerCredentials).ok()?.pid();
    let same = |what: &str| {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/{what}")).ok();
        let (own, theirs) = (of("self"), of(&pid.to_string()));
        own.is_some() && own == theirs
    };
    Some(["ns/mnt", "ns/net", "root"].iter().all(|what| same(what)))
}

fn code(state: State) -> u8 {
    match state {
        State::Live => 0,
        State::Stale | State::Orphaned | State::Bound | State::ShutDown | State::NotASocket => NOT_REACHED,
        State::Free => FREE,
        State::Unknown => UNKNOWN,
    }
}
