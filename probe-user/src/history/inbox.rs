//! What waits to be written. Taking something in never waits for the disk, and never needs more memory than the limits
//! allow: of lines the oldest go first, and are counted; of everything else only the newest state counts.

use std::collections::{BTreeMap, VecDeque};

use super::{Pending, Remembered, Row};
use crate::silence::Silence;

/// Lines, and bytes of them.
const LINES: usize = 32 * 1024;
const BYTES: usize = 16 << 20;
/// A longer line is not taken.
const LINE_BYTES: usize = 1 << 20;
/// Services, silences and hooks' notifications that wait, each.
const STATES: usize = 16 * 1024;
/// Lines of one transaction.
const BATCH: usize = 4096;

/// Newest states by their keys; `None`: it is no more.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) services: BTreeMap<String, Remembered>,
    pub(super) silences: BTreeMap<u64, Option<Silence>>,
    pub(super) pending: BTreeMap<String, Option<Pending>>,
    /// What was open is not watched any more.
    pub(super) abandon: bool,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            services,
            silences,
            pending,
            abandon,
        } = self;
        services.is_empty() && silences.is_empty() && pending.is_empty() && !abandon
    }

    /// Puts older changes back under those that came meanwhile.
    fn older(&mut self, older: Self) {
        for (k, v) in older.services {
            self.services.entry(k).or_insert(v);
        }
        for (k, v) in older.silences {
            self.silences.entry(k).or_insert(v);
        }
        for (k, v) in older.pending {
            self.pending.entry(k).or_insert(v);
        }
        self.abandon |= older.abandon;
    }
}

/// What is written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    /// Lines that are missing before them.
    pub(super) lost: u64,
    pub(super) changes: Changes,
    /// Everything up to here is written with it.
    pub(super) mark: u64,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    rows: VecDeque<Row>,
    bytes: usize,
    /// Lines that were dropped and not yet written as lost.
    lost: u64,
    changes: Changes,
    /// Counts what came in.
    mark: u64,
    /// Lines lost since the start.
    pub(super) lost_ever: u64,
}

impl Inbox {
    pub(super) fn push(&mut self, row: Row) {
        self.mark += 1;
        if row.json.len() > LINE_BYTES {
            self.lose(1);
            return;
        }
        self.bytes += row.bytes();
        self.rows.push_back(row);
        self.shrink();
    }

    pub(super) fn lose(&mut self, count: u64) {
        self.mark += 1;
        self.lost += count;
        self.lost_ever += count;
    }

    fn shrink(&mut self) {
        while self.rows.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.rows.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes();
            self.lost += 1;
            self.lost_ever += 1;
        }
    }

    /// Changes the state that waits, unless too much waits already.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Changes)) -> bool {
        let Changes {
            services,
            silences,
            pending,
            ..
        } = &self.changes;
        if services.len().max(silences.len()).max(pending.len()) >= STATES {
            return false;
        }
        self.mark += 1;
        change(&mut self.changes);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.lost == 0 && self.changes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    pub(super) fn take(&mut self) -> Batch {
        let count = self.rows.len().min(BATCH);
        let rows: Vec<Row> = self.rows.drain(..count).collect();
        self.bytes -= rows.iter().map(Row::bytes).sum::<usize>();
        if self.rows.is_empty() {
            // A storm's memory is given back.
            self.rows.shrink_to(BATCH);
        }
        Batch {
            rows,
            lost: std::mem::take(&mut self.lost),
            changes: std::mem::take(&mut self.changes),
            mark: if self.rows.is_empty() { self.mark } else { 0 },
        }
    }

    /// What could not be written waits again, before everything that came meanwhile.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.bytes += batch.rows.iter().map(Row::bytes).sum::<usize>();
        for row in batch.rows.into_iter().rev() {
            self.rows.push_front(row);
        }
        self.lost += batch.lost;
        self.changes.older(batch.changes);
        self.shrink();
    }
}
