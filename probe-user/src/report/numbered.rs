//! Lines of the daemon's stream: those of the contract, with `cursor` and `epoch`, and events with their `summary`.

use std::io;

use jiff::tz::TimeZone;

use super::{Filter, Options, json};
use crate::stream::{Line, Said};

/// Appends the line as JSON, with the line feed.
pub(crate) fn numbered(out: &mut Vec<u8>, line: &Line) {
    // Only values that cannot be written as JSON would fail, and there are none.
    if let Err(e) = write(out, line) {
        tracing::error!("line {} cannot be written: {e}", line.cursor);
        out.clear();
        out.extend_from_slice(b"{}");
    }
    out.push(b'\n');
}

fn write(out: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    let options = Options {
        json: true,
        color: false,
        wall_offset_ns: line.wall_offset_ns,
        epoch: line.epoch().to_owned(),
        filter: Filter::default(),
        time_zone: TimeZone::UTC,
    };
    match &line.said {
        Said::Event(shown) => {
            json::event(out, &options, shown)?;
            json::append(out, "summary", &shown.summary)?;
        }
        Said::Action(action) => json::action(out, &options, action)?,
        Said::Finding(finding) => {
            json::finding(out, &options, finding)?;
            json::append(out, "epoch", line.epoch())?;
        }
        Said::Lost { source, count } => {
            json::lost(out, source, *count)?;
            json::append(out, "epoch", line.epoch())?;
        }
    }
    json::append(out, "cursor", &line.cursor)
}
