//! How answers look that are no stream: colours, and times as a person tells them.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};

pub(super) const RED: &str = "\x1b[1;31m";
pub(super) const YELLOW: &str = "\x1b[1;33m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const DIM: &str = "\x1b[2m";
pub(super) const PLAIN: &str = "\x1b[0m";

/// How an answer is shown to a person.
#[derive(Debug, Clone)]
pub struct Look {
    pub color: bool,
    /// For times of day.
    pub time_zone: TimeZone,
    /// Times have their day: they may be long ago.
    pub dates: bool,
}

impl Look {
    pub(super) fn paint(&self, out: &mut Vec<u8>, code: &str) {
        if self.color {
            out.extend_from_slice(code.as_bytes());
        }
    }

    /// The time of day, with the day where that may be another one.
    pub(super) fn time(&self, out: &mut Vec<u8>, at: Timestamp) -> io::Result<()> {
        let local = at.to_zoned(self.time_zone.clone());
        if self.dates {
            write!(out, "{} ", local.date())?;
        }
        write!(
            out,
            "{:02}:{:02}:{:02}.{:03}",
            local.hour(),
            local.minute(),
            local.second(),
            local.millisecond()
        )
    }

    pub(super) fn painted(&self, out: &mut Vec<u8>, code: &str, text: &str) {
        self.paint(out, code);
        // Never fails on a vector.
        _ = super::escape::text(out, text);
        self.paint(out, PLAIN);
    }
}

/// `3.2 s`, `5 min`, `3 h 12 min`, `4 d 2 h`: as exact as it matters.
pub fn span(d: Duration) -> String {
    let mut out = Vec::new();
    let s = d.as_secs();
    _ = match s {
        0..10 => write!(out, "{:.1} s", d.as_secs_f64()),
        10..120 => write!(out, "{s} s"),
        120..3600 => write!(out, "{} min", s / 60),
        3600..86_400 => write!(out, "{} h {} min", s / 3600, s % 3600 / 60),
        _ => write!(out, "{} d {} h", s / 86_400, s % 86_400 / 3600),
    };
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_exact_as_it_matters() {
        for (ms, text) in [
            (0, "0.0 s"),
            (3_240, "3.2 s"),
            (10_900, "10 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (3 * 3_600_000 + 12 * 60_000, "3 h 12 min"),
            (26 * 3_600_000, "1 d 2 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }
}
