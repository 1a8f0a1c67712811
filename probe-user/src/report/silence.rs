//! Silences, for people.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    escape,
    look::{Look, span},
    table::{Cell, table},
};
use crate::{
    api::types::{Silence, Silences},
    clock::Wall,
};

/// Writes what was agreed, as one line.
///
/// # Errors
/// None on a vector.
pub fn silence(out: &mut Vec<u8>, silence: &Silence, now: Wall) -> io::Result<()> {
    sentence(out, silence, now)
}

/// Writes a line a silence.
///
/// # Errors
/// None on a vector.
pub fn silences(out: &mut Vec<u8>, look: &Look, answer: &Silences, now: Wall) -> io::Result<()> {
    if answer.silences.is_empty() {
        out.extend_from_slice(b"no service is silenced\n");
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = answer
        .silences
        .iter()
        .map(|s| {
            vec![
                Cell::new(&s.id.to_string()),
                Cell::new(&s.service),
                Cell::maybe(left(s, now).map(span).as_deref()),
                Cell::maybe(s.by_uid.map(|u| u.to_string()).as_deref()),
                Cell::new(&s.reason),
            ]
        })
        .collect();
    table(out, look, &["ID", "SERVICE", "LEFT", "BY UID", "REASON"], &rows);
    Ok(())
}

pub(super) fn sentence(out: &mut Vec<u8>, s: &Silence, now: Wall) -> io::Result<()> {
    escape::text(out, &s.service)?;
    out.extend_from_slice(b" is silenced");
    if let Some(left) = left(s, now) {
        write!(out, " for {}", span(left))?;
    }
    write!(out, " (id {})", s.id)?;
    if let Some(uid) = s.by_uid {
        write!(out, " by uid {uid}")?;
    }
    out.extend_from_slice(b": ");
    escape::text(out, &s.reason)?;
    out.push(b'\n');
    Ok(())
}

/// How long it goes on. `None`: its end is no time.
fn left(s: &Silence, now: Wall) -> Option<Duration> {
    let until: Timestamp = s.until.parse().ok()?;
    let until = i64::try_from(until.as_nanosecond()).ok()?;
    Some(Wall(until).since(now))
}
