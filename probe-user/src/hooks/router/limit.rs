//! How often something happened, and how often something may be told.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    clock::Nanos,
    config::After,
    engine::finding::{Finding, Kind},
};

/// `after`: for each service and kind, when findings opened.
#[derive(Debug)]
pub(super) struct Happened {
    after: After,
    times: BTreeMap<(String, Kind), VecDeque<Nanos>>,
}

impl Happened {
    pub(super) fn new(after: After) -> Self {
        Self {
            after,
            times: BTreeMap::new(),
        }
    }

    /// Counts one more. Once it is often enough, counting begins anew.
    pub(super) fn often_enough(&mut self, f: &Finding, now: Nanos) -> bool {
        if self.after.count <= 1 {
            return true;
        }
        let within = self.after.within;
        let times = self.times.entry((f.service.clone(), f.kind)).or_default();
        times.push_back(now);
        while times.front().is_some_and(|at| now.since(*at) > within) {
            times.pop_front();
        }
        let enough = times.len() >= self.after.count as usize;
        if enough {
            times.clear();
        }
        enough
    }
}

/// `at_most`.
#[derive(Debug)]
pub(super) struct Limit {
    count: usize,
    within: Duration,
    spent: VecDeque<Nanos>,
}

impl Limit {
    pub(super) fn new(at_most: After) -> Self {
        Self {
            count: at_most.count as usize,
            within: at_most.within,
            spent: VecDeque::new(),
        }
    }

    /// Takes one, or says when there is one again.
    pub(super) fn spend(&mut self, now: Nanos) -> Result<(), Nanos> {
        while self.spent.front().is_some_and(|at| now.since(*at) >= self.within) {
            self.spent.pop_front();
        }
        match self.spent.front() {
            Some(first) if self.spent.len() >= self.count => Err(*first + self.within),
            _ => {
                self.spent.push_back(now);
                Ok(())
            }
        }
    }
}
