//! One reader of the stream.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::Notify;

use super::{
    Filter, Line, Stream,
    kept::{Position, Want},
};
use crate::clock::Nanos;

/// Lines that a reader takes at once, and so holds on to while it is slow.
const BATCH: usize = 64;

/// Where a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what is said next.
    Now,
    /// With the oldest line that is kept.
    Oldest,
    /// With the first line that was said at this time or later, and is kept.
    At(Nanos),
    /// After the line of this number. Where the numbering has begun anew since (another epoch), with the oldest line.
    After { epoch: String, cursor: u64 },
}

/// What a reader is told next.
#[derive(Debug, Clone)]
pub enum Next {
    Line(Arc<Line>),
    /// So many lines that it wanted are gone, because it was too slow. Exact, but for a reader that began after a line
    /// that was no longer kept: then all lines count, wanted or not.
    Missed(u64),
    /// The stream was closed, and everything was read.
    End,
}

/// A reader. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    stream: Stream,
    reader: u64,
    want: Want,
    position: Position,
    missed: u64,
    ready: VecDeque<Arc<Line>>,
    /// What a loss that is about to be told comes before.
    missed_until: u64,
    cursor: u64,
    another_epoch: bool,
    notify: Arc<Notify>,
}

impl Subscription {
    pub(super) fn new(stream: Stream, start: Start, filter: Filter) -> Self {
        let mask = filter.mask();
        let services = (!filter.services.is_empty()).then(|| {
            let mut names = filter.services;
            names.push(String::new());
            names.sort_unstable();
            names.dedup();
            names
        });
        let want = Want { services, mask };
        let mut kept = stream.lock();
        let before_oldest = kept.oldest() - 1;
        let mut another_epoch = false;
        let mut missed = 0;
        let after = match start {
            Start::Now => kept.newest(),
            Start::Oldest => before_oldest,
            Start::At(at) => kept.last_before(at),
            Start::After { epoch, cursor } if *epoch == *stream.epoch => {
                missed = before_oldest.saturating_sub(cursor);
                cursor
            }
            Start::After { .. } => {
                another_epoch = true;
                before_oldest
            }
        };
        let position = kept.position(after, &want);
        let reader = kept.enter();
        drop(kept);
        Self {
            stream,
            reader,
            want,
            position,
            missed,
            ready: VecDeque::new(),
            missed_until: position.at,
            cursor: position.at,
            another_epoch,
            notify: Arc::new(Notify::new()),
        }
    }

    /// The reader wanted to go on with an epoch that is over: what was said there is not known here.
    pub fn is_of_another_epoch(&self) -> bool {
        self.another_epoch
    }

    /// After which line to begin again so that nothing is told twice and nothing is left out.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    pub fn epoch(&self) -> &str {
        &self.stream.epoch
    }

    /// Waits for what comes next. Nothing is lost when it is dropped while it waits.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.notify.notified().await;
        }
    }

    /// What comes next, if it is there already.
    pub fn try_next(&mut self) -> Option<Next> {
        if let Some(next) = self.pop() {
            return Some(next);
        }
        {
            let mut kept = self.stream.lock();
            self.missed = kept.missed(&mut self.position, &self.want);
            self.missed_until = self.position.at;
            self.ready
                .extend(kept.take(&mut self.position, &self.want, BATCH));
            if self.missed == 0 && self.ready.is_empty() {
                if kept.is_closed() {
                    return Some(Next::End);
                }
                kept.wait(self.reader, &self.want, &self.notify);
            }
        }
        self.pop()
    }

    fn pop(&mut self) -> Option<Next> {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            self.cursor = self.missed_until;
            return Some(Next::Missed(missed));
        }
        let line = self.ready.pop_front()?;
        self.cursor = line.cursor;
        Some(Next::Line(line))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stream.lock().leave(self.reader, &self.want);
    }
}
