//! One transaction: lines, turns of findings, newest states.

use std::collections::BTreeMap;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Pending, Remembered, Row, inbox::Batch, row::state_name};
use crate::{clock::Wall, engine::finding::FindingState, silence::Silence};

/// Writes all of it or nothing.
pub(super) fn batch(db: &mut Connection, batch: &Batch, now: Wall) -> rusqlite::Result<()> {
    // What somebody asked for outlives a power failure; of lines the last ones may go with it.
    let synchronous = if batch.changes.is_empty() {
        "NORMAL"
    } else {
        "FULL"
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    let t = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if batch.changes.abandon {
        t.execute(
            "UPDATE finding SET state = 'unknown', changed_ns = ?1, resolution = 'probe did not watch any more'
             WHERE state IN ('opened', 'updated')",
            [now.0],
        )?;
    }
    if batch.lost > 0 {
        lines(&t, [&Row::lost(now, batch.lost)])?;
    }
    lines(&t, batch.rows())?;
    turns(&t, batch.rows())?;
    let changes = &batch.changes;
    if !changes.is_empty() {
        services(&t, &changes.services)?;
        silences(&t, &changes.silences)?;
        pending(&t, &changes.pending)?;
    }
    t.commit()
}

fn lines<'a>(t: &Connection, rows: impl IntoIterator<Item = &'a Row>) -> rusqlite::Result<()> {
    let mut insert =
        t.prepare("INSERT INTO line (wall_ns, type, service, kind, json) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for row in rows {
        insert.execute(params![
            row.at.0,
            row.r#type.name(),
            row.service,
            row.kind,
            row.json
        ])?;
    }
    Ok(())
}

fn turns<'a>(t: &Connection, rows: impl Iterator<Item = &'a Row>) -> rusqlite::Result<()> {
    let mut upsert = t.prepare(
        "INSERT INTO finding (id, service, kind, severity, subject, cause, state, opened_ns, changed_ns, resolved_ns,
                              summary, resolution)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (id) DO UPDATE SET severity = ?4, state = ?7, changed_ns = ?9, resolved_ns = ?10, summary = ?11,
                                        resolution = ?12",
    )?;
    for row in rows {
        let (Some(turn), Some(service), Some(kind)) = (&row.turn, &row.service, &row.kind) else {
            continue;
        };
        let resolved = (turn.state == FindingState::Resolved).then_some(row.at.0);
        upsert.execute(params![
            turn.id,
            service,
            kind,
            turn.severity,
            turn.subject,
            turn.cause,
            state_name(turn.state),
            turn.opened.0,
            row.at.0,
            resolved,
            turn.summary,
            turn.resolution
        ])?;
    }
    Ok(())
}

fn services(t: &Connection, services: &BTreeMap<String, Remembered>) -> rusqlite::Result<()> {
    // Generations are only ever counted up: whoever could not read them at the start does not set them back.
    let mut upsert = t.prepare(
        "INSERT INTO service (name, generation, main_pid, main_start_ticks, boot) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) DO UPDATE SET generation = ?2, main_pid = ?3, main_start_ticks = ?4, boot = ?5
         WHERE ?2 >= generation",
    )?;
    for (name, r) in services {
        upsert.execute(params![
            name,
            r.generation as i64,
            r.main.map(|m| m.pid),
            r.main.map(|m| m.start_ticks as i64),
            super::boot()
        ])?;
    }
    Ok(())
}

fn silences(t: &Connection, silences: &BTreeMap<u64, Option<Silence>>) -> rusqlite::Result<()> {
    let mut put = t.prepare(
        "INSERT OR REPLACE INTO silence (id, service, since_ns, until_ns, reason, uid) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut remove = t.prepare("DELETE FROM silence WHERE id = ?1")?;
    for (id, silence) in silences {
        let id = *id as i64;
        match silence {
            Some(s) => put.execute(params![id, s.service, s.since.0, s.until.0, s.reason, s.uid])?,
            None => remove.execute([id])?,
        };
    }
    Ok(())
}

fn pending(t: &Connection, pending: &BTreeMap<String, Option<Pending>>) -> rusqlite::Result<()> {
    let mut put = t.prepare("INSERT OR REPLACE INTO pending (key, due_ns, payload) VALUES (?1, ?2, ?3)")?;
    let mut remove = t.prepare("DELETE FROM pending WHERE key = ?1")?;
    for (key, pending) in pending {
        match pending {
            Some(p) => put.execute(params![key, p.due.0, p.payload])?,
            None => remove.execute([key])?,
        };
    }
    Ok(())
}
