//! Pauses between attempts that grow, with jitter so that many do not try at the same moment.

use std::time::Duration;

/// Doubles from `first` to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    pub first: Duration,
    pub longest: Duration,
}

impl Pauses {
    /// The pause after `failed` attempts in a row (at least one), without jitter.
    pub fn after(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(32);
        self.first
            .saturating_mul(1 << doublings.min(31))
            .min(self.longest)
    }

    /// The same, up to a quarter shorter or longer. `random` is at least 0 and below 1.
    pub fn jittered(&self, failed: u32, random: f64) -> Duration {
        self.after(failed).mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = Pauses {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        };
        let all: Vec<u64> = (0..9).map(|n| pauses.after(n).as_secs()).collect();
        assert_eq!(all, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.after(u32::MAX), pauses.longest);
        assert_eq!(pauses.jittered(3, 0.0), Duration::from_secs(3));
        assert_eq!(pauses.jittered(3, 1.0), Duration::from_secs(5));
        let no_overflow = Pauses {
            first: Duration::MAX,
            longest: Duration::MAX,
        };
        assert_eq!(no_overflow.after(40), Duration::MAX);
    }
}
