//! What each command does: one file a command.

pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod hook;
pub(crate) mod journal;
pub(crate) mod reclaim;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod watch;
pub(crate) mod who;

use std::io::{self, IsTerminal};

use jiff::tz::TimeZone;
use probe_user::report::{Filter, Options, Reporter};

/// Whether colours are welcome: <https://no-color.org>.
pub(crate) fn color(to: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let plain = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    to.is_terminal() && !refused && !plain
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
        time_zone: TimeZone::system(),
    })
}
