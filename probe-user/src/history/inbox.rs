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
/// Lines that are moved and dropped together, so that nobody who hands over waits while thousands are moved.
const CHUNK: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks of one transaction.
const BATCH: usize = 16;

/// Lines in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    rows: Vec<Row>,
    bytes: usize,
}

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
    pub(super) chunks: Vec<Chunk>,
    /// Lines that are missing before them.
    pub(super) lost: u64,
    pub(super) changes: Changes,
    /// Everything up to here is written with it.
    pub(super) mark: u64,
}

impl Batch {
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.chunks.iter().flat_map(|c| &c.rows)
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|c| c.rows.len()).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    chunks: VecDeque<Chunk>,
    count: usize,
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
        let bytes = row.bytes();
        let fits = |c: &Chunk| c.rows.len() < CHUNK && c.bytes + bytes <= CHUNK_BYTES;
        if !self.chunks.back().is_some_and(fits) {
            self.chunks.push_back(Chunk::default());
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.rows.push(row);
            chunk.bytes += bytes;
            self.count += 1;
            self.bytes += bytes;
        }
        self.shrink();
    }

    pub(super) fn lose(&mut self, count: u64) {
        self.mark += 1;
        self.lost += count;
        self.lost_ever += count;
    }

    fn shrink(&mut self) {
        while self.count > LINES || self.bytes > BYTES {
            let Some(oldest) = self.pop() else { return };
            self.lost += oldest.rows.len() as u64;
            self.lost_ever += oldest.rows.len() as u64;
        }
    }

    fn pop(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.count -= chunk.rows.len();
        self.bytes -= chunk.bytes;
        Some(chunk)
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
        self.chunks.is_empty() && self.lost == 0 && self.changes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    pub(super) fn take(&mut self) -> Batch {
        let mut chunks = Vec::with_capacity(BATCH);
        while chunks.len() < BATCH
            && let Some(chunk) = self.pop()
        {
            chunks.push(chunk);
        }
        Batch {
            chunks,
            lost: std::mem::take(&mut self.lost),
            changes: std::mem::take(&mut self.changes),
            mark: if self.chunks.is_empty() { self.mark } else { 0 },
        }
    }

    /// What could not be written waits again, before everything that came meanwhile.
    pub(super) fn put_back(&mut self, batch: Batch) {
        for chunk in batch.chunks.into_iter().rev() {
            self.count += chunk.rows.len();
            self.bytes += chunk.bytes;
            self.chunks.push_front(chunk);
        }
        self.lost += batch.lost;
        self.changes.older(batch.changes);
        self.shrink();
    }
}
