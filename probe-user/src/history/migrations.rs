//! The tables. A newer probe only adds to them, so that an older one still works with what a newer one has left.

use rusqlite::{Connection, TransactionBehavior};

/// `application_id` of the file's header, for file(1): "prob".
const APPLICATION_ID: i32 = 0x7072_6f62;

/// Step n leads from version n to version n + 1. What was once released is never changed.
const STEPS: [&str; 1] = ["
    CREATE TABLE line (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        wall_ns INTEGER NOT NULL,
        type    TEXT NOT NULL,
        service TEXT,
        kind    TEXT,
        json    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX line_by_time ON line (wall_ns);
    CREATE INDEX line_by_service ON line (service, wall_ns);

    CREATE TABLE finding (
        id          TEXT PRIMARY KEY,
        service     TEXT NOT NULL,
        kind        TEXT NOT NULL,
        severity    TEXT NOT NULL,
        subject     TEXT NOT NULL,
        cause       TEXT NOT NULL,
        state       TEXT NOT NULL,
        opened_ns   INTEGER NOT NULL,
        changed_ns  INTEGER NOT NULL,
        resolved_ns INTEGER,
        summary     TEXT NOT NULL,
        resolution  TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX finding_by_change ON finding (changed_ns);

    CREATE TABLE service (
        name             TEXT PRIMARY KEY,
        generation       INTEGER NOT NULL,
        main_pid         INTEGER,
        main_start_ticks INTEGER,
        boot             TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE silence (
        id       INTEGER PRIMARY KEY,
        service  TEXT NOT NULL,
        since_ns INTEGER NOT NULL,
        until_ns INTEGER NOT NULL,
        reason   TEXT NOT NULL,
        uid      INTEGER
    ) STRICT;

    CREATE TABLE pending (
        key     TEXT PRIMARY KEY,
        due_ns  INTEGER NOT NULL,
        payload TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"];

pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Brings the tables up to date, all or nothing. Returns the version that a newer probe has left, if so.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<Option<i64>> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found >= VERSION {
        return Ok((found > VERSION).then_some(found));
    }
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    for sql in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        step.execute_batch(sql)?;
    }
    step.pragma_update(None, "user_version", VERSION)?;
    step.commit()?;
    Ok(None)
}
