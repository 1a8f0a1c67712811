//! What each command does: one file a command.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod history;
pub(crate) mod hook;
pub(crate) mod journal;
pub(crate) mod man;
pub(crate) mod reclaim;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod silence;
pub(crate) mod status;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod who;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
};

use jiff::tz::TimeZone;
use probe_user::{
    client::Client,
    config::{Probe, load},
    report::{self, Filter, Look, Options, Reporter},
};
use serde::Serialize;

use crate::cli::Reach;

/// Whether colours are welcome: <https://no-color.org>.
pub(crate) fn color(to: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let plain = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    to.is_terminal() && !refused && !plain
}

/// The time zone of this host, or the one that the environment asks for.
fn time_zone() -> TimeZone {
    const LOCAL: &str = "/etc/localtime";
    // By its name it is searched for among all six hundred, which takes longer than most questions to the daemon.
    let named = std::env::var_os("TZ").is_some();
    let file = if named { None } else { fs::read(LOCAL).ok() };
    file.and_then(|rules| TimeZone::tzif(LOCAL, &rules).ok())
        .unwrap_or_else(TimeZone::system)
}

/// Writes lines to stdout.
pub(crate) fn reporter(json: bool, filter: Filter, wall_offset_ns: i64, epoch: String) -> Reporter {
    let color = color(&io::stdout());
    Reporter::new(Options {
        json,
        color,
        wall_offset_ns,
        epoch,
        filter,
        time_zone: time_zone(),
    })
}

/// How answers for people look.
pub(crate) fn look() -> Look {
    Look {
        color: color(&io::stdout()),
        time_zone: time_zone(),
        dates: false,
    }
}

/// Prints an answer that is no stream.
pub(crate) fn print(
    json: bool,
    answer: &impl Serialize,
    human: impl FnOnce(&mut Vec<u8>, &Look) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    match json {
        true => report::json_line(&mut text, answer)?,
        false => human(&mut text, &look())?,
    }
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    Ok(out.flush()?)
}

/// Whom to ask, and how long.
pub(crate) fn client(reach: &Reach) -> anyhow::Result<Client> {
    let probe = probe_table(reach.config.as_deref())?;
    let socket = reach.socket.clone().unwrap_or_else(|| probe.socket.into());
    Ok(Client::new(socket, probe.timeouts))
}

/// The configuration's `[probe]` table. Without a file of its own a command goes on with the defaults where the one of the
/// daemon is wrong, or is not for everybody's eyes: it only wants to ask.
pub(crate) fn probe_table(file: Option<&Path>) -> anyhow::Result<Probe> {
    match load::load(file, Path::new(load::DIRECTORY)) {
        Ok(loaded) => Ok(loaded.map(|l| l.config.probe).unwrap_or_default()),
        Err(e) if file.is_some() => Err(e.into()),
        Err(e) => {
            tracing::debug!("{e}");
            Ok(Probe::default())
        }
    }
}

/// Runs to the end, with timers and sockets.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
