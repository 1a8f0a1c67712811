//! A file as a sign of life: when it was written, or the epoch second that stands in it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
};

use rustix::fs::{Mode, OFlags, Stat};

use crate::clock::{self, Nanos};

/// A larger file holds no number, so only its time counts.
const CONTENT_BYTES: u64 = 4096;
/// How far a beat may lie in the future: clocks are read one after the other, and rounded.
const AHEAD: i128 = NANOS;
const NANOS: i128 = 1_000_000_000;

/// The newer of a regular file's modification time and the epoch seconds in it. `None`: neither is a time that has come.
///
/// # Errors
/// When it can't be read.
pub(super) fn beat(file: &impl AsFd, now: Nanos) -> io::Result<Option<Nanos>> {
    let stat = rustix::fs::fstat(file)?;
    let modified = to_boot(wall(&stat), now);
    if !(1..=CONTENT_BYTES as i64).contains(&stat.st_size) {
        return Ok(modified);
    }
    let mut content = Vec::with_capacity(64);
    open(file)?.take(CONTENT_BYTES).read_to_end(&mut content)?;
    let told = epoch(&content).and_then(|wall| to_boot(wall, now));
    Ok(modified.max(told))
}

/// Opens a file that is known to be regular, by its descriptor: its name may lead to a FIFO by now.
pub(super) fn open(file: &impl AsFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// When it was modified, in nanoseconds since the epoch.
pub(super) fn wall(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * NANOS + i128::from(stat.st_mtime_nsec)
}

/// From nanoseconds since the epoch to the boot clock, 0 for before boot. `None` for the future.
pub(super) fn to_boot(wall: i128, now: Nanos) -> Option<Nanos> {
    not_ahead(clock::when(wall), now)
}

fn not_ahead(boot: i128, now: Nanos) -> Option<Nanos> {
    if boot > i128::from(now.0) + AHEAD {
        return None;
    }
    Some(Nanos(u64::try_from(boot.max(0)).ok()?.min(now.0)))
}

/// A plain number of seconds, with or without a fraction, and white space around it; in nanoseconds.
fn epoch(content: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(content).ok()?.trim();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| (1..=18).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    let nanos: i128 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(seconds.parse::<i128>().ok()? * NANOS + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_a_time() {
        for (text, time) in [
            ("1763800000", Some(1_763_800_000 * NANOS)),
            (" 1763800000\n", Some(1_763_800_000 * NANOS)),
            ("1763800000.5", Some(1_763_800_000_500_000_000)),
            ("1763800000.0000000019", Some(1_763_800_000_000_000_001)),
            ("1763800000.123456789123", Some(1_763_800_000_123_456_789)),
            ("", None),
            (".", None),
            ("1.", None),
            (".5", None),
            ("-1", None),
            ("+1", None),
            ("1e9", None),
            ("1763800000 alive", None),
            ("17638000001763800000", None),
        ] {
            assert_eq!(epoch(text.as_bytes()), time, "{text:?}");
        }
    }

    #[test]
    fn no_beat_lies_in_the_future() {
        let now = Nanos(10_000_000_000);
        assert_eq!(not_ahead(2 * NANOS, now), Some(Nanos(2_000_000_000)));
        assert_eq!(not_ahead(-NANOS, now), Some(Nanos::ZERO));
        assert_eq!(not_ahead(11 * NANOS, now), Some(now));
        assert_eq!(not_ahead(11 * NANOS + 1, now), None);
        assert_eq!(not_ahead(i128::from(u64::MAX) * NANOS, now), None);
    }
}
