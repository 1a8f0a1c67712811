//! Telling it, again and again until it is told, or has become too old.

use std::time::Duration;

use super::{
    backoff::Pauses,
    notification::{Notification, State},
    sender::{Attempt, Retry, Sender},
    status::Board,
};
use crate::clock::{self, Nanos};

/// Between attempts.
const PAUSES: Pauses = Pauses {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

/// Where nothing is declared.
pub(super) const RETRY_FOR: Duration = Duration::from_secs(15 * 60);

/// How it went, and how many attempts it took.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) attempt: Attempt,
    pub(super) attempts: u32,
    pub(super) took: Duration,
}

/// Tries until it succeeds, can't succeed, or `retry_for` is over since it was decided.
pub(super) async fn deliver(sender: Sender, n: Notification, retry_for: Duration, board: Board) -> Delivered {
    let began = clock::now();
    let mut attempts = 0;
    loop {
        let attempt = sender.send(&n).await;
        attempts += 1;
        let took = clock::now().since(began);
        let pause = match attempt.retry {
            // What is told again is told anew soon anyway.
            Retry::Never => None,
            _ if n.state == State::Repeated => None,
            Retry::Later => Some(PAUSES.jittered(attempts, fastrand::f64())),
            Retry::After(pause) => Some(pause.max(PAUSES.jittered(attempts, fastrand::f64()))),
        };
        let left = retry_for.checked_sub(age(&n, clock::now()));
        match (pause, left) {
            (Some(pause), Some(left)) if pause < left => {
                board.change(|s| {
                    s.failed_attempts = attempts;
                });
                tracing::info!(
                    "attempt {attempts} failed, another one in {pause:.1?}: {}",
                    attempt.detail
                );
                tokio::time::sleep(pause).await;
            }
            _ => {
                return Delivered {
                    attempt,
                    attempts,
                    took,
                };
            }
        }
    }
}

/// How long ago it was decided. A clock that was set back makes it younger, not older.
fn age(n: &Notification, now: Nanos) -> Duration {
    let wall = i64::try_from(now.0)
        .unwrap_or(i64::MAX)
        .saturating_add(clock::wall_offset());
    Duration::from_nanos(u64::try_from(wall.saturating_sub(n.made_ns)).unwrap_or(0))
}
