//! What is asked of the history.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, types::Value};

use super::{Pending, Remembered};
use crate::{
    clock::{self, Wall},
    event::ProcId,
    silence::Silence,
};

/// Records of one answer, unless fewer are asked for.
pub const PAGE: usize = 10_000;
/// Bytes of one answer.
const PAGE_BYTES: usize = 8 << 20;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(4);

/// Which lines; everything by default, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    pub since: Option<Wall>,
    /// Up to, and not, this moment.
    pub until: Option<Wall>,
    /// Names of services; empty: all, and what is about none.
    pub services: Vec<String>,
    /// Kinds of events and findings; empty: all.
    pub kinds: Vec<String>,
    /// `event`, `finding`, `lost`, `action`; empty: all.
    pub types: Vec<String>,
    /// Only what comes behind this record: the last one of the page before.
    pub after: Option<u64>,
    /// At most so many; [`PAGE`] at most.
    pub limit: Option<usize>,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts up, and stays the same for as long as the record is kept.
    pub number: u64,
    pub at: Wall,
    /// The line by the JSON contract, as it was said.
    pub json: String,
}

/// Some of the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    pub records: Vec<Record>,
    /// More follow: ask again with `after`.
    pub more: bool,
}

/// The life of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    pub id: String,
    pub service: String,
    pub kind: String,
    pub severity: String,
    pub subject: String,
    pub cause: String,
    /// `opened`, `updated`, `resolved`, or `unknown`: probe ended before it did.
    pub state: String,
    pub opened: Wall,
    pub changed: Wall,
    pub resolved: Option<Wall>,
    pub summary: String,
    pub resolution: Option<String>,
}

/// A condition of a query, with its values.
struct Where(String, Vec<Value>);

impl Where {
    fn new() -> Self {
        Self("1".to_owned(), Vec::new())
    }

    fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.0.push_str(" AND ");
        self.0.push_str(sql);
        self.1.push(value.into());
    }

    fn one_of(&mut self, column: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let marks = vec!["?"; values.len()].join(", ");
        self.0.push_str(&format!(" AND {column} IN ({marks})"));
        self.1.extend(values.iter().map(|v| Value::Text(v.clone())));
    }
}

pub(super) fn lines(db: &Connection, query: &Query) -> rusqlite::Result<Page> {
    let mut w = Where::new();
    if let Some(after) = query.after {
        w.and("number > ?", i64::try_from(after).unwrap_or(i64::MAX));
    }
    if let Some(since) = query.since {
        w.and("wall_ns >= ?", since.0);
    }
    if let Some(until) = query.until {
        w.and("wall_ns < ?", until.0);
    }
    w.one_of("service", &query.services);
    w.one_of("kind", &query.kinds);
    w.one_of("type", &query.types);
    let limit = query.limit.unwrap_or(PAGE).min(PAGE);
    let mut statement = db.prepare(&format!(
        "SELECT number, wall_ns, json FROM line WHERE {} ORDER BY number LIMIT {}",
        w.0,
        limit + 1
    ))?;
    let mut rows = statement.query(rusqlite::params_from_iter(w.1))?;
    let mut page = Page::default();
    let mut bytes = 0;
    let end = clock::now() + LIMIT;
    while let Some(row) = rows.next()? {
        if page.records.len() == limit || bytes > PAGE_BYTES || clock::now() > end {
            page.more = true;
            break;
        }
        let record = Record {
            number: row.get::<_, i64>(0)? as u64,
            at: Wall(row.get(1)?),
            json: row.get(2)?,
        };
        bytes += record.json.len();
        page.records.push(record);
    }
    Ok(page)
}

pub(super) fn lives(db: &Connection, query: &Query) -> rusqlite::Result<Vec<Life>> {
    let mut w = Where::new();
    if let Some(since) = query.since {
        w.and("changed_ns >= ?", since.0);
    }
    if let Some(until) = query.until {
        w.and("opened_ns < ?", until.0);
    }
    w.one_of("service", &query.services);
    w.one_of("kind", &query.kinds);
    let mut statement = db.prepare(&format!(
        "SELECT id, service, kind, severity, subject, cause, state, opened_ns, changed_ns, resolved_ns, summary, resolution
         FROM finding WHERE {} ORDER BY opened_ns, id LIMIT {}",
        w.0,
        query.limit.unwrap_or(PAGE).min(PAGE)
    ))?;
    let life = |r: &Row<'_>| {
        Ok(Life {
            id: r.get(0)?,
            service: r.get(1)?,
            kind: r.get(2)?,
            severity: r.get(3)?,
            subject: r.get(4)?,
            cause: r.get(5)?,
            state: r.get(6)?,
            opened: Wall(r.get(7)?),
            changed: Wall(r.get(8)?),
            resolved: r.get::<_, Option<i64>>(9)?.map(Wall),
            summary: r.get(10)?,
            resolution: r.get(11)?,
        })
    };
    statement
        .query_map(rusqlite::params_from_iter(w.1), life)?
        .collect()
}

/// Generations by service. A main process of another boot is none any more.
pub(super) fn remembered(db: &Connection, boot: &str) -> rusqlite::Result<Vec<(String, Remembered)>> {
    let mut statement =
        db.prepare("SELECT name, generation, main_pid, main_start_ticks, boot FROM service")?;
    let row = |r: &Row<'_>| {
        let main = r.get::<_, Option<u32>>(2)?.zip(r.get::<_, Option<i64>>(3)?);
        let same = r.get::<_, String>(4)? == boot;
        let remembered = Remembered {
            generation: r.get::<_, i64>(1)? as u64,
            main: main.filter(|_| same).map(|(pid, start)| ProcId {
                pid,
                start_ticks: start as u64,
            }),
        };
        Ok((r.get(0)?, remembered))
    };
    statement.query_map([], row)?.collect()
}

pub(super) fn silences(db: &Connection) -> rusqlite::Result<Vec<Silence>> {
    let mut statement = db.prepare("SELECT id, service, since_ns, until_ns, reason, uid FROM silence")?;
    let row = |r: &Row<'_>| {
        Ok(Silence {
            id: r.get::<_, i64>(0)? as u64,
            service: r.get(1)?,
            since: Wall(r.get(2)?),
            until: Wall(r.get(3)?),
            reason: r.get(4)?,
            uid: r.get(5)?,
        })
    };
    statement.query_map([], row)?.collect()
}

pub(super) fn pending(db: &Connection) -> rusqlite::Result<Vec<Pending>> {
    let mut statement = db.prepare("SELECT key, due_ns, payload FROM pending ORDER BY due_ns, key")?;
    let row = |r: &Row<'_>| {
        Ok(Pending {
            key: r.get(0)?,
            due: Wall(r.get(1)?),
            payload: r.get(2)?,
        })
    };
    statement.query_map([], row)?.collect()
}

/// When the oldest line that is kept was said.
pub(super) fn oldest(db: &Connection) -> rusqlite::Result<Option<Wall>> {
    db.query_row("SELECT wall_ns FROM line ORDER BY number LIMIT 1", [], |r| {
        r.get(0)
    })
    .optional()
    .map(|at| at.map(Wall))
}
