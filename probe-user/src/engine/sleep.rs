//! When the machine slept. The boot clock went on, and no daemon could do anything.

use std::time::Duration;

use crate::clock::Nanos;

/// More are not needed for what goes by minutes.
const KEPT: usize = 16;

/// From when to when; in their order.
#[derive(Debug, Default)]
pub(super) struct Sleeps(Vec<(Nanos, Nanos)>);

impl Sleeps {
    /// It has slept for so long, and is awake now.
    pub(super) fn note(&mut self, now: Nanos, slept: Duration) {
        let began = Nanos(
            now.0
                .saturating_sub(u64::try_from(slept.as_nanos()).unwrap_or(u64::MAX)),
        );
        self.0.push((began, now));
        if self.0.len() > KEPT {
            self.0.remove(0);
        }
    }

    /// When the machine has been awake for so long since then.
    pub(super) fn awake(&self, since: Nanos, within: Duration) -> Nanos {
        let mut at = since + within;
        for (began, ended) in &self.0 {
            if since < *ended && *began < at {
                at = at + ended.since((*began).max(since));
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Nanos {
        Nanos(n * 1_000_000_000)
    }

    #[test]
    fn time_asleep_does_not_count() {
        let mut sleeps = Sleeps::default();
        let within = Duration::from_secs(10);
        assert_eq!(sleeps.awake(seconds(100), within), seconds(110));
        sleeps.note(seconds(125), Duration::from_secs(20));
        sleeps.note(seconds(140), Duration::from_secs(10));
        // 5 s awake, 20 asleep, 5 awake.
        assert_eq!(sleeps.awake(seconds(100), within), seconds(130));
        // 1 s, 20 asleep, 5, 10 asleep, 4.
        assert_eq!(sleeps.awake(seconds(104), within), seconds(144));
        // It was over before.
        assert_eq!(sleeps.awake(seconds(90), within), seconds(100));
        assert_eq!(sleeps.awake(seconds(140), within), seconds(150));
        // Told of while it slept.
        assert_eq!(sleeps.awake(seconds(120), within), seconds(145));
    }
}
