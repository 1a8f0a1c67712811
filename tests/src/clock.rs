//! Limits for everything that waits.

use std::{
    env,
    time::{Duration, Instant},
};

/// How long a test waits for anything before it fails. Far longer than anything should take, even on a busy machine:
/// where a time is a promise, the test checks the time that probe measured.
/// `$PROBE_TEST_PATIENCE` says otherwise, in seconds, where the machine is only emulated.
pub fn patience() -> Duration {
    let seconds = env::var("PROBE_TEST_PATIENCE").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Whether more patience was asked for.
pub(crate) fn is_emulated() -> bool {
    env::var_os("PROBE_TEST_PATIENCE").is_some()
}

/// A moment until which something must have happened.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "tests measure real time; only probe's own time comes from its clock"
)]
impl Deadline {
    pub fn after(d: Duration) -> Self {
        Self(Instant::now() + d)
    }

    /// What is left; `None` when it has passed.
    pub fn left(self) -> Option<Duration> {
        self.0
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
    }
}

/// Waits for a condition that nothing announces, looking every few milliseconds.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(patience(), what, condition);
}

/// The same, with a limit of its own: for programs that take long to begin.
#[track_caller]
pub fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::after(limit);
    while !condition() {
        assert!(deadline.left().is_some(), "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
