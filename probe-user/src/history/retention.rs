//! Old lines go: by age, and by size.

use std::time::Duration;

use rusqlite::Connection;

use crate::{clock::Wall, config::Retention};

/// How often lines that are too old are looked for, while something is written at all.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// Tables, indexes and the newest lines have this much in any case.
const LEAST: u64 = 256 * 1024;

/// Bytes of lines after which the size is looked at. Indexes and half-full pages make less than twice as much of them, so
/// that the limit is kept in between.
pub(super) fn every_bytes(retention: Retention) -> u64 {
    (limit(retention) / 32).min(4 << 20)
}

fn limit(retention: Retention) -> u64 {
    retention.size.0.max(LEAST)
}

/// Bytes of the database that are in use.
pub(super) fn used(db: &Connection) -> rusqlite::Result<u64> {
    let value = |name| db.pragma_query_value(None, name, |r| r.get::<_, i64>(0));
    let pages = value("page_count")? - value("freelist_count")?;
    Ok(u64::try_from(pages * value("page_size")?).unwrap_or(0))
}

/// Deletes what is too old or too much, and gives the space back. Begins before the limit is reached, and goes on until a
/// quarter of it is free, so that this is seldom to be done. The write-ahead log takes up to 4 MiB more.
pub(super) fn trim(db: &mut Connection, retention: Retention, now: Wall) -> rusqlite::Result<()> {
    // Numbers follow the order of writing, times may not: a clock that was wrong for a while must not keep a line forever.
    let oldest = now - retention.age;
    let mut gone = db.execute("DELETE FROM line WHERE wall_ns < ?1", [oldest.0])?;
    gone += db.execute("DELETE FROM finding WHERE changed_ns < ?1", [oldest.0])?;
    let limit = limit(retention);
    if used(db)? > limit - limit / 8 {
        let goal = limit - limit / 4;
        loop {
            let (bytes, first, last) = (used(db)?, number(db, "MIN")?, number(db, "MAX")?);
            let (Some(first), Some(last)) = (first, last) else {
                break;
            };
            if bytes <= goal {
                break;
            }
            let share = (bytes - goal) as f64 / bytes as f64;
            let span = (last - first + 1) as f64;
            // At least one line; at most half a second's work at once.
            let count = ((span * share) as i64).clamp(1, 50_000);
            let up_to = first.saturating_add(count - 1);
            let t = db.transaction()?;
            let cut: Option<i64> =
                t.query_row("SELECT MAX(wall_ns) FROM line WHERE number <= ?1", [up_to], |r| {
                    r.get(0)
                })?;
            gone += t.execute("DELETE FROM line WHERE number <= ?1", [up_to])?;
            // Findings whose last line went with them; what is open stays.
            t.execute(
                "DELETE FROM finding WHERE changed_ns <= ?1 AND state IN ('resolved', 'unknown')",
                [cut.unwrap_or(i64::MIN)],
            )?;
            t.commit()?;
        }
    }
    if gone > 0 {
        let mut vacuum = db.prepare("PRAGMA incremental_vacuum")?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

fn number(db: &Connection, which: &str) -> rusqlite::Result<Option<i64>> {
    db.query_row(&format!("SELECT {which}(number) FROM line"), [], |r| r.get(0))
}
