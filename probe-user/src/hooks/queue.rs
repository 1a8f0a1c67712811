//! What waits to be sent by one hook, bounded, and kept over a restart of probe. It is told at least once: what was being
//! sent when probe ended is sent again.

use std::collections::VecDeque;

use super::{
    notification::{Notification, State},
    pending::{Change, Entry},
    router::Kept,
};

/// No more than this waits; the oldest goes first.
pub(super) const MAX_WAITING: usize = 256;

const WAITING: &str = "waiting/";
const TOLD: &str = "told/";

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<(u64, Notification)>,
    next: u64,
    changes: Vec<Change>,
    dropped: u64,
}

/// What of earlier entries could not be read.
#[derive(Debug, Default)]
pub(super) struct Unreadable(pub(super) Vec<String>);

impl Queue {
    /// From what was kept. Entries are sorted by key.
    pub(super) fn load(entries: &[Entry]) -> (Self, Vec<Kept>, Unreadable) {
        let mut queue = Self::default();
        let (mut told, mut unreadable) = (Vec::new(), Unreadable::default());
        for entry in entries {
            let bad = if let Some(number) = entry.key.strip_prefix(WAITING) {
                match (number.parse::<u64>(), serde_json::from_str(&entry.body)) {
                    (Ok(number), Ok(n)) => {
                        queue.next = queue.next.max(number + 1);
                        queue.waiting.push_back((number, n));
                        None
                    }
                    (Err(e), _) => Some(e.to_string()),
                    (_, Err(e)) => Some(e.to_string()),
                }
            } else {
                match serde_json::from_str(&entry.body) {
                    Ok(kept) => {
                        told.push(kept);
                        None
                    }
                    Err(e) => Some(e.to_string()),
                }
            };
            if let Some(why) = bad {
                unreadable.0.push(format!("{}: {why}", entry.key));
                queue.changes.push(Change::Remove {
                    key: entry.key.clone(),
                });
            }
        }
        queue.waiting.retain(|(_, n)| !n.alerts.is_empty());
        queue.waiting.make_contiguous().sort_by_key(|(number, _)| *number);
        (queue, told, unreadable)
    }

    pub(super) fn push(&mut self, n: Notification) {
        if n.state == State::Repeated {
            // Of what is told again only the newest says how it is.
            self.waiting.retain(|(_, w)| w.state != State::Repeated);
        }
        while self.waiting.len() >= MAX_WAITING {
            if let Some((number, old)) = self.waiting.pop_front() {
                self.dropped += 1;
                self.forget(number, &old);
            }
        }
        let number = self.next;
        self.next += 1;
        if n.state != State::Repeated
            && let Ok(body) = serde_json::to_string(&n)
        {
            self.changes.push(Change::Put {
                key: key(number),
                body,
            });
        }
        self.waiting.push_back((number, n));
    }

    pub(super) fn first(&self) -> Option<(u64, &Notification)> {
        self.waiting.front().map(|(number, n)| (*number, n))
    }

    /// It was told, or never will be.
    pub(super) fn done(&mut self, number: u64) {
        if let Some(at) = self.waiting.iter().position(|(n, _)| *n == number)
            && let Some((number, n)) = self.waiting.remove(at)
        {
            self.forget(number, &n);
        }
    }

    fn forget(&mut self, number: u64, n: &Notification) {
        if n.state != State::Repeated {
            self.changes.push(Change::Remove { key: key(number) });
        }
    }

    /// What was told, to be kept beside it.
    pub(super) fn keep_told(&mut self, changed: Vec<(String, Option<Kept>)>) {
        for (cause, kept) in changed {
            let key = format!("{TOLD}{cause}");
            self.changes.push(match kept.map(|k| serde_json::to_string(&k)) {
                Some(Ok(body)) => Change::Put { key, body },
                _ => Change::Remove { key },
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

/// Sorts as the numbers do.
fn key(number: u64) -> String {
    format!("{WAITING}{number:020}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{
        pending::{InMemory, Pending},
        testing::notification,
    };

    #[test]
    fn what_waits_survives_in_order_and_what_was_told_does_not_come_again() {
        let store = InMemory::default();
        let mut queue = Queue::default();
        for n in 0..12 {
            queue.push(notification(&n.to_string()));
        }
        let (first, _) = queue.first().unwrap();
        queue.done(first);
        store.change("page", &queue.take_changes()).unwrap();
        let (mut queue, told, bad) = Queue::load(&store.load().unwrap());
        assert!(told.is_empty() && bad.0.is_empty());
        let mut seen = Vec::new();
        while let Some((number, n)) = queue.first() {
            seen.push(n.main().finding.summary.clone());
            queue.done(number);
        }
        let expected: Vec<String> = (1..12).map(|n| n.to_string()).collect();
        assert_eq!(seen, expected);
        store.change("page", &queue.take_changes()).unwrap();
        assert_eq!(store.load().unwrap(), []);
        assert_eq!(queue.next, 12, "a number is not used again");
    }

    #[test]
    fn it_is_bounded_and_says_what_it_dropped() {
        let mut queue = Queue::default();
        for n in 0..MAX_WAITING + 3 {
            queue.push(notification(&n.to_string()));
        }
        assert_eq!((queue.len(), queue.take_dropped()), (MAX_WAITING, 3));
        assert_eq!(queue.first().unwrap().1.main().finding.summary, "3");
    }

    #[test]
    fn what_is_told_again_is_not_kept_and_not_piled_up() {
        let mut queue = Queue::default();
        for n in 0..3 {
            queue.push(Notification {
                state: State::Repeated,
                ..notification(&n.to_string())
            });
        }
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.first().unwrap().1.main().finding.summary, "2");
        assert_eq!(queue.take_changes(), []);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_removed() {
        let entry = |key: &str, body: &str| Entry {
            hook: "page".into(),
            key: key.into(),
            body: body.into(),
        };
        let entries = [entry("told/c", "{}"), entry("waiting/00000000000000000007", "?")];
        let (mut queue, told, bad) = Queue::load(&entries);
        assert!(told.is_empty() && queue.first().is_none());
        assert_eq!(bad.0.len(), 2);
        assert_eq!(queue.take_changes().len(), 2);
    }
}
