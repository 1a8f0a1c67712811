//! Hands what is said over to the history, and keeps the generations of services.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use super::{Remembered, Row, Store};
use crate::{
    engine::finding::EventKind,
    stream::{Line, Next, Said, Subscription},
};

/// Lines handed over at once.
const BATCH: usize = 512;
/// The engine is asked for the generations no more often than this.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);

/// Asks the engine.
pub trait Generations: Send + Sync {
    /// Generation and main process of every service. `None`: that cannot be known now.
    fn generations(&self) -> Pin<Box<dyn Future<Output = Option<BTreeMap<String, Remembered>>> + Send + '_>>;
}

/// Writes everything that `lines` tells, until its end. Never waits for the disk.
pub async fn run(mut lines: Subscription, store: Store, engine: impl Generations) {
    let mut kept = BTreeMap::new();
    let mut due = None;
    loop {
        let next = tokio::select! {
            next = lines.next() => next,
            () = sleep_until(due) => {
                due = None;
                remember(&store, &engine, &mut kept).await;
                continue;
            }
        };
        let mut rows = Vec::new();
        let mut next = Some(next);
        while let Some(n) = next {
            match n {
                Next::Line(line) => {
                    if due.is_none() && changes_generation(&line.said) {
                        due = Some(tokio::time::Instant::now() + REMEMBER_EVERY);
                    }
                    rows.push(Row::of(&line));
                }
                Next::Missed(count) => store.missed(count),
                Next::End => {
                    store.write(rows);
                    remember(&store, &engine, &mut kept).await;
                    return;
                }
            }
            next = (rows.len() < BATCH).then(|| lines.try_next()).flatten();
        }
        store.write(rows);
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn remember(store: &Store, engine: &impl Generations, kept: &mut BTreeMap<String, Remembered>) {
    let Some(now) = engine.generations().await else {
        return;
    };
    for (service, remembered) in &now {
        if remembered.generation > 0
            && kept.get(service) != Some(remembered)
            && let Err(e) = store.remember(service, *remembered)
        {
            tracing::warn!("the generation of {service} is not kept: {e}");
        }
    }
    *kept = now;
}

fn changes_generation(said: &Said) -> bool {
    matches!(said, Said::Event(shown) if matches!(
        shown.kind,
        EventKind::Exec | EventKind::Fork | EventKind::Exit | EventKind::Handover | EventKind::Ready | EventKind::Snapshot
    ))
}

impl Row {
    /// As it was said.
    pub fn of(line: &Line) -> Self {
        let at = crate::clock::Wall((line.at.0 as i64).saturating_add(line.wall_offset_ns));
        super::row::row(at, &line.said, line.json(), line.wall_offset_ns)
    }
}
