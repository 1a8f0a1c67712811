//! The lines that are kept, which of them each service's readers want, and how many of each sort were ever said and are
//! gone: from the latter follows what a reader that fell behind has missed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{
    Figures, Line,
    sort::{self, SORTS, Sort},
};
use crate::clock::Nanos;

/// What is kept of a stream; the oldest go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub lines: usize,
    /// An estimate that includes the JSON of each line.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lines: 1 << 16,
            bytes: 96 << 20,
        }
    }
}

/// Lines ever said, and those of them that are gone, by sort.
#[derive(Debug)]
struct Counts {
    said: [u64; SORTS],
    gone: [u64; SORTS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            said: [0; SORTS],
            gone: [0; SORTS],
        }
    }
}

fn sum(counts: &[u64; SORTS], mask: u64) -> u64 {
    let wanted = counts.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1);
    wanted.map(|(_, count)| count).sum()
}

#[derive(Debug, Default)]
struct OfService {
    /// Its lines that are kept: number and sort.
    lines: VecDeque<(u64, Sort)>,
    counts: Counts,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    mask: u64,
    notify: Arc<Notify>,
}

/// What a reader wants, ready to be looked up.
#[derive(Debug)]
pub(super) struct Want {
    /// `None`: every service. Else with the empty name, under which stands what concerns everybody.
    pub(super) services: Option<Vec<String>>,
    pub(super) mask: u64,
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The number of the last line that it has passed, wanted or not.
    pub(super) at: u64,
    /// How many that it wants were said until then.
    pub(super) passed: u64,
}

#[derive(Debug)]
pub(super) struct Kept {
    limits: Limits,
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    newest: u64,
    total: Counts,
    services: BTreeMap<String, OfService>,
    /// Readers of every service.
    waiting: BTreeMap<u64, Waiting>,
    awake: Vec<Arc<Notify>>,
    gone: Vec<Arc<Line>>,
    closed: bool,
    next_reader: u64,
    readers: usize,
}

impl Kept {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lines: VecDeque::new(),
            bytes: 0,
            newest: 0,
            total: Counts::default(),
            services: BTreeMap::new(),
            waiting: BTreeMap::new(),
            awake: Vec::new(),
            gone: Vec::new(),
            closed: false,
            next_reader: 0,
            readers: 0,
        }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// The number of the oldest line that is kept, or of the next one where none is.
    pub(super) fn oldest(&self) -> u64 {
        self.lines.front().map_or(self.newest + 1, |line| line.cursor)
    }

    /// The number of the last line that was said before `at`, of those that are kept.
    pub(super) fn last_before(&self, at: Nanos) -> u64 {
        let before = self.lines.partition_point(|line| line.at < at);
        self.oldest() - 1 + before as u64
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            lines: self.lines.len(),
            bytes: self.bytes,
            oldest: self.oldest(),
            newest: self.newest,
            readers: self.readers,
        }
    }

    pub(super) fn push(&mut self, sort: Sort, mut line: Line) {
        self.newest += 1;
        line.cursor = self.newest;
        self.bytes += line.cost;
        self.total.said[sort.0] += 1;
        let name = sort::service_of(&line.said);
        if !self.services.contains_key(name) {
            self.services.insert(name.to_owned(), OfService::default());
        }
        if let Some(of) = self.services.get_mut(name) {
            of.counts.said[sort.0] += 1;
            of.lines.push_back((line.cursor, sort));
            wake(&mut of.waiting, sort, &mut self.awake);
        }
        wake(&mut self.waiting, sort, &mut self.awake);
        self.lines.push_back(Arc::new(line));
        while self.lines.len() > 1 && (self.lines.len() > self.limits.lines || self.bytes > self.limits.bytes)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(line) = self.lines.pop_front() else {
            return;
        };
        self.bytes -= line.cost;
        let sort = Sort::of(&line.said);
        self.total.gone[sort.0] += 1;
        if let Some(of) = self.services.get_mut(sort::service_of(&line.said)) {
            of.counts.gone[sort.0] += 1;
            of.lines.pop_front();
        }
        self.gone.push(line);
    }

    /// Whom a line has come for since the last time.
    pub(super) fn take_awake(&mut self) -> Vec<Arc<Notify>> {
        std::mem::take(&mut self.awake)
    }

    /// What is no longer kept.
    pub(super) fn take_gone(&mut self) -> Vec<Arc<Line>> {
        std::mem::take(&mut self.gone)
    }

    pub(super) fn close(&mut self) -> Vec<Arc<Notify>> {
        self.closed = true;
        let mut all = std::mem::take(&mut self.waiting);
        for of in self.services.values_mut() {
            all.append(&mut of.waiting);
        }
        all.into_values().map(|w| w.notify).collect()
    }

    pub(super) fn enter(&mut self) -> u64 {
        self.next_reader += 1;
        self.readers += 1;
        self.next_reader
    }

    pub(super) fn leave(&mut self, reader: u64, want: &Want) {
        self.readers -= 1;
        match &want.services {
            None => {
                self.waiting.remove(&reader);
            }
            Some(names) => {
                for name in names {
                    if let Some(of) = self.services.get_mut(name) {
                        of.waiting.remove(&reader);
                    }
                }
            }
        }
    }

    /// The reader has nothing left to read.
    pub(super) fn wait(&mut self, reader: u64, want: &Want, notify: &Arc<Notify>) {
        let waiting = || Waiting {
            mask: want.mask,
            notify: notify.clone(),
        };
        match &want.services {
            None => {
                self.waiting.insert(reader, waiting());
            }
            Some(names) => {
                for name in names {
                    let of = self.services.entry(name.clone()).or_default();
                    of.waiting.insert(reader, waiting());
                }
            }
        }
    }

    /// Where a reader stands that begins after the line of this number, which is kept or has just gone.
    pub(super) fn position(&self, after: u64, want: &Want) -> Position {
        let mut at = Position {
            at: after.clamp(self.oldest() - 1, self.newest),
            passed: 0,
        };
        // All that were said, without those that it has before itself.
        let before_it: usize = match &want.services {
            None => {
                let lines = self.lines.iter().rev().take_while(|l| l.cursor > at.at);
                lines.filter(|l| wanted(want, Sort::of(&l.said))).count()
            }
            Some(names) => {
                let services = names.iter().filter_map(|n| self.services.get(n));
                let lines = services.flat_map(|of| of.lines.iter().rev().take_while(|(c, _)| *c > at.at));
                lines.filter(|(_, sort)| wanted(want, *sort)).count()
            }
        };
        at.passed = self.count(want, |c| &c.said) - before_it as u64;
        at
    }

    /// How many lines that the reader wants went before it came to them. It goes on with the oldest that is kept.
    pub(super) fn missed(&self, at: &mut Position, want: &Want) -> u64 {
        let oldest = self.oldest();
        if at.at + 1 >= oldest {
            return 0;
        }
        let gone = self.count(want, |c| &c.gone);
        let missed = gone.saturating_sub(at.passed);
        *at = Position {
            at: oldest - 1,
            passed: gone,
        };
        missed
    }

    /// The next lines that the reader wants, at most `max`.
    pub(super) fn take(&self, at: &mut Position, want: &Want, max: usize) -> Vec<Arc<Line>> {
        let oldest = self.oldest();
        let line = |cursor: u64| self.lines.get(usize::try_from(cursor.checked_sub(oldest)?).ok()?);
        let taken: Vec<Arc<Line>> = match &want.services {
            None => {
                let from = usize::try_from((at.at + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
                let lines = self.lines.iter().skip(from);
                lines
                    .filter(|l| wanted(want, Sort::of(&l.said)))
                    .take(max)
                    .cloned()
                    .collect()
            }
            Some(names) => {
                let mut cursors: Vec<u64> = Vec::new();
                for of in names.iter().filter_map(|n| self.services.get(n)) {
                    let from = of.lines.partition_point(|(c, _)| *c <= at.at);
                    let lines = of.lines.iter().skip(from);
                    let mine = lines.filter(|(_, sort)| wanted(want, *sort)).map(|(c, _)| *c);
                    cursors.extend(mine.take(max));
                }
                cursors.sort_unstable();
                cursors.truncate(max);
                cursors.into_iter().filter_map(line).cloned().collect()
            }
        };
        at.at = match taken.last() {
            Some(last) if taken.len() == max => last.cursor,
            _ => self.newest,
        };
        at.passed += taken.len() as u64;
        taken
    }

    fn count(&self, want: &Want, which: impl Fn(&Counts) -> &[u64; SORTS]) -> u64 {
        match &want.services {
            None => sum(which(&self.total), want.mask),
            Some(names) => {
                let services = names.iter().filter_map(|n| self.services.get(n));
                services.map(|of| sum(which(&of.counts), want.mask)).sum()
            }
        }
    }
}

fn wanted(want: &Want, sort: Sort) -> bool {
    want.mask >> sort.0 & 1 == 1
}

fn wake(waiting: &mut BTreeMap<u64, Waiting>, sort: Sort, awake: &mut Vec<Arc<Notify>>) {
    if waiting.is_empty() {
        return;
    }
    waiting.retain(|_, w| {
        let stays = w.mask >> sort.0 & 1 == 0;
        if !stays {
            awake.push(w.notify.clone());
        }
        stays
    });
}
