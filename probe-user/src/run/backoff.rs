//! The pause before a restart.

use std::time::Duration;

use crate::config::Backoff;

/// Grows with each failure in a row, up to its longest; half of it is chance, so that what fell together does not rise
/// together.
#[derive(Debug)]
pub struct Pauses {
    range: Backoff,
    failures: u32,
}

impl Pauses {
    pub fn new(range: Backoff, failures: u32) -> Self {
        Self { range, failures }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It was healthy: the next failure is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// After one more failure. `chance` is from 0 to 1.
    pub fn next(&mut self, chance: f64) -> Duration {
        let doublings = self.failures.min(31);
        self.failures = self.failures.saturating_add(1);
        let full = self
            .range
            .first
            .saturating_mul(1 << doublings)
            .min(self.range.longest);
        full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_longest_and_begin_anew() {
        let range = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        };
        let mut pauses = Pauses::new(range, 0);
        let seconds: Vec<u64> = (0..9).map(|_| pauses.next(1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pauses.failures(), 9);
        assert_eq!(pauses.next(0.0), Duration::from_secs(30), "half of it is chance");
        pauses.reset();
        assert_eq!(pauses.next(1.0), range.first);
        assert_eq!(Pauses::new(range, u32::MAX).next(1.0), range.longest);
    }
}
