//! Hands what is said over to the history, and keeps the generations of services.

use std::{collections::BTreeMap, pin::Pin};

use super::{Remembered, Row, Store};
use crate::{
    clock::Wall,
    stream::{Line, Next, Subscription},
};

/// Lines handed over at once.
const BATCH: usize = 512;

/// Generations and main processes, as the engine counts them.
pub trait Lives: Send + Sync {
    /// Waits until some have changed; nothing is lost when it is dropped while it waits.
    fn changed(&self) -> Pin<Box<dyn Future<Output = BTreeMap<String, Remembered>> + Send + '_>>;

    /// Those that have changed since.
    fn take(&self) -> BTreeMap<String, Remembered>;
}

/// Writes everything that `lines` tells, until its end. Never waits for the disk.
pub async fn run(mut lines: Subscription, store: Store, lives: impl Lives) {
    loop {
        let next = tokio::select! {
            changed = lives.changed() => {
                remember(&store, changed);
                continue;
            }
            next = lines.next() => next,
        };
        let mut rows = Vec::new();
        let mut next = Some(next);
        while let Some(n) = next {
            match n {
                Next::Line(line) => rows.push(Row::of(&line)),
                Next::Missed(count) => store.missed(count),
                Next::End => {
                    store.write(rows);
                    remember(&store, lives.take());
                    return;
                }
            }
            next = (rows.len() < BATCH).then(|| lines.try_next()).flatten();
        }
        store.write(rows);
    }
}

fn remember(store: &Store, changed: BTreeMap<String, Remembered>) {
    for (service, remembered) in changed {
        if let Err(e) = store.remember(&service, remembered) {
            tracing::warn!("the generation of {service} is not kept: {e}");
        }
    }
}

impl Row {
    /// As it was said.
    pub fn of(line: &Line) -> Self {
        let at = Wall((line.at.0 as i64).saturating_add(line.wall_offset_ns));
        super::row::row(at, &line.said, line.json(), line.wall_offset_ns)
    }
}
