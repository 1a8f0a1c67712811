//! What the engine's thread measures itself by. It never waits for whoever reads this.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{
    histogram::{BUCKETS, Histogram, bucket},
    table::{Tables, labels},
};

/// A histogram that one thread writes and others read.
#[derive(Debug, Default)]
struct Timing {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Timing {
    fn observe(&self, d: Duration) {
        self.counts[bucket(d)].fetch_add(1, Relaxed);
        self.sum_ns
            .fetch_add(d.as_nanos().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> Histogram {
        let mut h = Histogram::default();
        for (to, from) in h.counts.iter_mut().zip(&self.counts) {
            *to = from.load(Relaxed);
        }
        h.sum = self.sum_ns.load(Relaxed) as f64 / 1e9;
        h
    }
}

#[derive(Debug, Default)]
pub struct Timings {
    apply: Timing,
    snapshot: Timing,
    ring_bytes: AtomicU64,
    ring_high_water: AtomicU64,
}

impl Timings {
    /// The engine took so long for an event.
    pub fn applied(&self, d: Duration) {
        self.apply.observe(d);
    }

    /// Reading everything declared took so long.
    pub fn snapshot(&self, d: Duration) {
        self.snapshot.observe(d);
    }

    /// So many bytes were taken from the ring buffer before it was empty: what came meanwhile included.
    pub fn ring(&self, waiting: u64, size: u64) {
        self.ring_high_water.fetch_max(waiting, Relaxed);
        self.ring_bytes.store(size, Relaxed);
    }

    pub(super) fn tell(&self, tables: &mut Tables) {
        use prometheus_client::registry::Unit::Bytes;
        let one = |h| [(labels([]), h)];
        tables.histogram(
            "engine_apply",
            "Time that the engine takes for one event.",
            one(self.apply.read()),
        );
        tables.histogram(
            "snapshot",
            "Time that reading the state of everything declared takes.",
            one(self.snapshot.read()),
        );
        let high = self.ring_high_water.load(Relaxed) as f64;
        tables.gauge(
            "ring_high_water",
            Some(Bytes),
            "The most bytes that were taken from the ring buffer before it was empty: at least what has waited there at once.",
            [(labels([]), high)],
        );
        tables.gauge(
            "ring_size",
            Some(Bytes),
            "Bytes that the ring buffer holds.",
            [(labels([]), self.ring_bytes.load(Relaxed) as f64)],
        );
    }
}
