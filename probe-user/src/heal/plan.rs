//! Decides when probe acts on a service, from its findings and the time alone.
//!
//! It acts on an open finding after a pause that doubles with every attempt in a row. Attempts are in a row until nothing
//! has been wrong for as long as the longest pause. After `give_up_after` of them it stops trying, until somebody else has
//! brought the service up and nothing has been wrong for that long.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::{
    clock::Nanos,
    config::{Heal, KeepInstance, Service},
    engine::finding::{Finding, FindingState, Kind, Severity},
    hooks::{backoff::Pauses, rule::gave_up},
};

/// What probe may act on.
pub const KINDS: [Kind; 5] = [
    Kind::StaleSocket,
    Kind::DuplicateInstance,
    Kind::CrashLoop,
    Kind::StaleHeartbeat,
    Kind::AcceptStall,
];

/// What is to be done about a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// The order is out until [`Plan::done`], [`Plan::postpone`] or [`Plan::drop_order`].
    Act(Box<Order>),
    /// The budget is spent; how many attempts that were.
    GiveUp(u32),
    /// Somebody else has brought it up: there is a budget again.
    TryAgain,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// From 1.
    pub attempt: u32,
    /// What led to it.
    pub finding: Finding,
}

/// One service that heals.
#[derive(Debug)]
pub struct Plan {
    heal: Heal,
    keep: KeepInstance,
    open: BTreeMap<String, Wrong>,
    attempts: u32,
    /// When to act.
    next: Option<Nanos>,
    /// An order is out.
    acting: bool,
    /// When the last order was carried out.
    acted: Option<Nanos>,
    /// How often in a row an order could not be carried out.
    postponed: u32,
    gave_up: bool,
    /// Since nothing is wrong any more.
    well: Option<Nanos>,
    /// It was ready since probe gave up.
    ready: bool,
    /// At least 0 and below 1.
    random: fn() -> f64,
}

#[derive(Debug)]
struct Wrong {
    finding: Finding,
    /// When it was last heard of.
    told: Nanos,
}

impl Plan {
    /// `None`: nothing is declared for it.
    pub fn new(service: &Service, random: fn() -> f64) -> Option<Self> {
        let heal = service.heal.clone()?;
        Some(Self {
            heal,
            keep: service.keep_instance,
            open: BTreeMap::new(),
            attempts: 0,
            next: None,
            acting: false,
            acted: None,
            postponed: 0,
            gave_up: false,
            well: None,
            ready: false,
            random,
        })
    }

    /// A finding of the service took a turn.
    pub fn take(&mut self, f: &Finding, now: Nanos) {
        if f.state == FindingState::Resolved {
            self.open.remove(&f.id);
        } else if KINDS.contains(&f.kind) {
            let wrong = Wrong {
                finding: f.clone(),
                told: now,
            };
            self.open.insert(f.id.clone(), wrong);
        }
        self.plan(now);
    }

    /// Every finding of it that is open now, after some were missed.
    pub fn resync(&mut self, open: &[Finding], now: Nanos) {
        self.open.retain(|id, _| open.iter().any(|f| f.id == *id));
        for f in open {
            if !self.open.contains_key(&f.id) {
                self.take(f, now);
            }
        }
        self.plan(now);
    }

    /// All its addresses are served.
    pub fn ready(&mut self, now: Nanos) {
        self.ready = true;
        self.plan(now);
    }

    /// What is to be done now. `silenced`: until when nothing may be. `blind`: events were lost, so what is open need not be
    /// true.
    pub fn due(&mut self, silenced: Option<Nanos>, blind: bool, now: Nanos) -> Option<Wish> {
        if self.acting {
            return None;
        }
        if self.well_at().is_some_and(|at| at <= now) {
            self.well = None;
            self.attempts = 0;
            if std::mem::take(&mut self.gave_up) {
                return Some(Wish::TryAgain);
            }
        }
        if blind || self.next.is_none_or(|at| at > now) {
            return None;
        }
        let finding = self.worst()?.clone();
        if let Some(until) = silenced.filter(|until| *until > now) {
            self.next = Some(until);
            return None;
        }
        self.next = None;
        if self.heal.give_up_after.is_some_and(|n| self.attempts >= n) {
            self.gave_up = true;
            self.ready = false;
            self.plan(now);
            return Some(Wish::GiveUp(self.attempts));
        }
        self.attempts += 1;
        self.acting = true;
        Some(Wish::Act(Box::new(Order {
            attempt: self.attempts,
            finding,
        })))
    }

    /// When to ask [`Plan::due`] again although nothing happened.
    pub fn deadline(&self, blind: bool) -> Option<Nanos> {
        if self.acting {
            return None;
        }
        let next = self.next.filter(|_| !blind);
        next.into_iter().chain(self.well_at()).min()
    }

    /// The silences have changed.
    pub fn silences_changed(&mut self, now: Nanos) {
        if let Some(next) = &mut self.next {
            // No sooner than the pause wants it: a silence that has ended is a new beginning.
            *next = (*next).min(now + self.heal.backoff.first);
        }
    }

    /// The order was carried out, well or not.
    pub fn done(&mut self, now: Nanos) {
        self.acting = false;
        self.acted = Some(now);
        self.postponed = 0;
        self.plan(now);
    }

    /// The order could not be carried out now: it is given again a little later.
    pub fn postpone(&mut self, now: Nanos) {
        self.acting = false;
        self.attempts = self.attempts.saturating_sub(1);
        self.postponed = self.postponed.saturating_add(1);
        self.next = Some(now + self.pause(self.postponed));
        self.plan(now);
    }

    /// There was nothing to be done: what it was about is over, or the service runs.
    pub fn drop_order(&mut self, now: Nanos) {
        self.attempts = self.attempts.saturating_sub(1);
        self.done(now);
    }

    /// It is not known whose order ended early: whoever has one out gets it again.
    pub fn abandon(&mut self, now: Nanos) {
        if self.acting {
            self.postpone(now);
        }
    }

    fn plan(&mut self, now: Nanos) {
        if self.worst().is_some() {
            self.well = None;
            if self.next.is_none() && !self.acting && !self.gave_up {
                self.next = Some(now + self.pause(self.attempts + 1));
            }
            return;
        }
        self.next = None;
        let counts = self.attempts > 0 || self.gave_up;
        // That nothing is heard of a service that was given up says nothing: it may just not run.
        if self.well.is_none() && counts && (!self.gave_up || self.ready) {
            self.well = Some(now);
        }
    }

    /// When it will have been well for long enough.
    fn well_at(&self) -> Option<Nanos> {
        Some(self.well? + self.heal.backoff.longest)
    }

    fn pause(&self, attempt: u32) -> std::time::Duration {
        let pauses = Pauses {
            first: self.heal.backoff.first,
            longest: self.heal.backoff.longest,
        };
        pauses.jittered(attempt, (self.random)())
    }

    /// What to act on: duplicates before everything else, because starting another one helps nobody then.
    fn worst(&self) -> Option<&Finding> {
        let actionable = self.open.values().filter(|w| self.is_actionable(w));
        let order = |w: &&Wrong| {
            let f = &w.finding;
            let place = KINDS.iter().position(|k| *k == f.kind);
            (f.kind != Kind::DuplicateInstance, f.at, place, f.id.clone())
        };
        actionable.min_by_key(order).map(|w| &w.finding)
    }

    fn is_actionable(&self, w: &Wrong) -> bool {
        let f = &w.finding;
        match f.kind {
            // Which one stays must be declared.
            Kind::DuplicateInstance => self.keep != KeepInstance::Report,
            // It stays open for a while after the last end: only what was heard since the last attempt counts. That probe
            // gave up is no news to it.
            Kind::CrashLoop => self.acted.is_none_or(|at| w.told > at) && !(self.gave_up && gave_up(f)),
            // A process that only waits for the network is none to be restarted.
            _ => f.severity == Severity::Critical,
        }
    }
}
