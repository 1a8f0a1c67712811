//! Durations by length.

use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from what a record takes to what a person waits.
pub(super) const BOUNDS_US: [u64; 16] = [
    10,
    50,
    100,
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

/// The last one has no upper bound.
pub(super) const BUCKETS: usize = BOUNDS_US.len() + 1;

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Histogram {
    /// Not cumulative.
    pub(super) counts: [u64; BUCKETS],
    /// Seconds.
    pub(super) sum: f64,
}

/// Which bucket a duration belongs to.
pub(super) fn bucket(d: Duration) -> usize {
    let us = d.as_nanos().div_ceil(1000);
    BOUNDS_US.partition_point(|bound| u128::from(*bound) < us)
}

impl Histogram {
    pub(super) fn observe(&mut self, d: Duration) {
        self.counts[bucket(d)] += 1;
        self.sum += d.as_secs_f64();
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds in seconds with the counts between them.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
        bounds.chain([f64::INFINITY]).zip(self.counts).collect()
    }
}
