//! Decides what one hook is told, and when: routing, grouping, de-duplication, `after`, the rate limit, silences.
//!
//! It is pure: findings and the time go in, notifications come out, and [`Router::deadline`] says when to ask again.
//!
//! - Findings of one cause are one notification, told `group_wait` after the first of them. One that comes later is told
//!   only when it is worse than what was told. The end is told when all of them are resolved.
//! - Each opening is told once, however often it is reported, and also over a restart of probe: what was told is kept, and
//!   what is found again is recognised by service, kind and subject.
//! - What the rate limit or a silence holds back is told later, if it is still true then.

mod group;
mod limit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use self::group::Kept;
use self::{
    group::{Group, Held, Member},
    limit::{Happened, Limit},
};
use super::{
    notification::{Alert, Notification, State},
    pending::Silences,
    rule::{Rule, gave_up},
};
use crate::{
    clock::Nanos,
    config::HookState,
    engine::finding::{Finding, FindingState},
};

/// No hook follows more findings at a time; more are counted and not told.
pub const MAX_FINDINGS: usize = 4096;

/// What was decided, for the one who looks at the hook's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decided {
    /// Was over before the rate limit let it pass.
    pub limited: u64,
    /// Was over before the silence was.
    pub silenced: u64,
    /// More findings than can be followed.
    pub overflow: u64,
}

#[derive(Debug)]
pub struct Router {
    rule: Rule,
    wall_offset_ns: i64,
    groups: BTreeMap<String, Group>,
    /// The cause of each finding that is followed. `None`: it has not happened often enough.
    followed: BTreeMap<String, Option<String>>,
    happened: Happened,
    limit: Limit,
    /// Suppressed since the last notification.
    suppressed: u64,
    decided: Decided,
    next_repeat: Option<Nanos>,
    /// Causes whose group is to be kept anew.
    changed: BTreeSet<String>,
}

impl Router {
    /// `wall_offset_ns`: what makes a boot-clock time a wall-clock time.
    pub fn new(rule: Rule, wall_offset_ns: i64) -> Self {
        Self {
            happened: Happened::new(rule.after),
            limit: Limit::new(rule.at_most),
            rule,
            wall_offset_ns,
            groups: BTreeMap::new(),
            followed: BTreeMap::new(),
            suppressed: 0,
            decided: Decided::default(),
            next_repeat: None,
            changed: BTreeSet::new(),
        }
    }

    /// What was told before probe was started again, and was open then.
    pub fn inherit(&mut self, kept: Vec<Kept>, now: Nanos) {
        for kept in kept {
            let Some((cause, group)) = kept.into_group() else {
                continue;
            };
            for id in group.members.keys() {
                self.followed.insert(id.clone(), Some(cause.clone()));
            }
            self.groups.insert(cause, group);
        }
        self.plan_repeat(now);
    }

    /// A finding took a turn.
    pub fn take(&mut self, f: &Finding, now: Nanos) {
        if f.state == FindingState::Resolved {
            self.resolved(f, now);
            return;
        }
        if let Some(known) = self.followed.get(&f.id) {
            if let Some(cause) = known.clone() {
                self.update(&cause, f, now);
            }
            return;
        }
        if !self.rule.matches(f) || self.adopt(f, now) {
            return;
        }
        if self.followed.len() >= MAX_FINDINGS {
            self.decided.overflow += 1;
            return;
        }
        if !self.happened.often_enough(f, now) {
            self.followed.insert(f.id.clone(), None);
            return;
        }
        self.follow(f, now);
    }

    /// Every finding that is open now: for a start, and after lines were missed. What is not among them is over.
    pub fn resync(&mut self, open: &[Finding], now: Nanos) {
        for f in open {
            self.take(f, now);
        }
        let still: BTreeSet<&str> = open.iter().map(|f| f.id.as_str()).collect();
        let members = self.groups.values().flat_map(|g| g.members.values());
        let over: Vec<Finding> = members
            .map(|m| &m.alert)
            .filter(|a| a.ended_ns.is_none() && !still.contains(a.finding.id.as_str()))
            .map(|a| Finding {
                state: FindingState::Resolved,
                resolution: Some("it was looked for again, and not found".to_owned()),
                ..a.finding.clone()
            })
            .collect();
        for f in &over {
            self.resolved(f, now);
        }
        self.followed
            .retain(|id, cause| cause.is_some() || still.contains(id.as_str()));
    }

    /// What is to be told now, in order.
    pub fn due(&mut self, silences: &dyn Silences, now: Nanos) -> Vec<Notification> {
        let mut due: Vec<(Nanos, String)> = self
            .groups
            .iter()
            .filter_map(|(cause, g)| Some((g.due.filter(|at| *at <= now)?, cause.clone())))
            .collect();
        due.sort_unstable();
        let mut out = Vec::new();
        for (_, cause) in due {
            if let Some(mut group) = self.groups.remove(&cause) {
                group.due = None;
                if self.turn(&cause, &mut group, silences, now, &mut out) {
                    self.groups.insert(cause, group);
                } else {
                    for id in group.members.keys() {
                        self.followed.remove(id);
                    }
                }
            }
        }
        self.repeat(silences, now, &mut out);
        out
    }

    /// When to ask [`Router::due`] again although no finding came.
    pub fn deadline(&self) -> Option<Nanos> {
        let groups = self.groups.values().filter_map(|g| g.due);
        groups.chain(self.next_repeat).min()
    }

    /// Something about silences has changed.
    pub fn silences_changed(&mut self, now: Nanos) {
        for group in self.groups.values_mut().filter(|g| g.held.is_some()) {
            group.due = Some(now);
        }
    }

    pub fn decided(&self) -> Decided {
        self.decided
    }

    /// Groups that were told and are open, as far as they have changed; `None`: not any more.
    pub fn take_changed(&mut self) -> Vec<(String, Option<Kept>)> {
        let changed = std::mem::take(&mut self.changed);
        let kept = |cause: &String| self.groups.get(cause).and_then(|g| Kept::of(cause, g));
        changed
            .into_iter()
            .map(|cause| {
                let kept = kept(&cause);
                (cause, kept)
            })
            .collect()
    }

    fn follow(&mut self, f: &Finding, now: Nanos) {
        let each = self.rule.each;
        let due = now + self.rule.group_wait;
        let member = Member::new(f, self.wall_offset_ns);
        self.followed.insert(f.id.clone(), Some(f.cause.clone()));
        let group = self.groups.entry(f.cause.clone()).or_default();
        let is_new = group.members.is_empty();
        group.members.insert(f.id.clone(), member);
        if is_new || each {
            group.wake(due);
        } else if group.escalates() {
            group.wake(now);
        }
        if group.told.is_some() {
            self.changed.insert(f.cause.clone());
        }
    }

    fn update(&mut self, cause: &str, f: &Finding, now: Nanos) {
        let Some(group) = self.groups.get_mut(cause) else {
            return;
        };
        let Some(member) = group.members.get_mut(&f.id) else {
            return;
        };
        member.alert.finding = f.clone();
        member.alert.ended_ns = None;
        let fresh = member.is_fresh();
        if group.told.is_some() {
            if self.rule.each && fresh || group.escalates() {
                group.wake(now);
            }
            self.changed.insert(cause.to_owned());
        }
    }

    /// Recognises what was told before a restart of probe.
    fn adopt(&mut self, f: &Finding, now: Nanos) -> bool {
        let found = self.groups.iter().find_map(|(cause, g)| {
            let same = g.members.iter().find(|(_, m)| m.inherited && m.alert.is_about(f));
            same.map(|(id, _)| (cause.clone(), id.clone()))
        });
        let Some((cause, id)) = found else { return false };
        self.followed.remove(&id);
        self.followed.insert(f.id.clone(), Some(cause.clone()));
        if let Some(group) = self.groups.get_mut(&cause)
            && let Some(mut member) = group.members.remove(&id)
        {
            member.inherited = false;
            member.alert.wall_offset_ns = self.wall_offset_ns;
            group.members.insert(f.id.clone(), member);
        }
        self.update(&cause, f, now);
        true
    }

    fn resolved(&mut self, f: &Finding, now: Nanos) {
        let cause = match self.followed.get(&f.id) {
            Some(Some(cause)) => cause.clone(),
            Some(None) => {
                self.followed.remove(&f.id);
                return;
            }
            None => return,
        };
        let each = self.rule.each;
        let (due, wall) = (now + self.rule.group_wait, self.wall(now));
        let Some(group) = self.groups.get_mut(&cause) else {
            return;
        };
        if let Some(member) = group.members.get_mut(&f.id) {
            member.alert.finding = f.clone();
            member.alert.ended_ns = Some(wall);
        }
        if group.told.is_some() {
            if group.is_over() {
                group.wake(now);
            } else if each {
                group.wake(due);
            }
            self.changed.insert(cause);
        }
    }

    /// What a group whose time has come is told as. Returns whether it is to be followed on.
    fn turn(
        &mut self,
        cause: &str,
        group: &mut Group,
        silences: &dyn Silences,
        now: Nanos,
        out: &mut Vec<Notification>,
    ) -> bool {
        if let Some(until) = group.silenced_until(silences).filter(|until| *until > now) {
            if group.told.is_none() && group.is_over() {
                self.decided.silenced += 1;
                return false;
            }
            group.held = Some(Held::Silence);
            group.wake(until);
            return true;
        }
        let held = group
            .held
            .take()
            .filter(|_| group.told.is_none() && group.is_over());
        match held {
            Some(Held::Silence) => {
                self.decided.silenced += 1;
                return false;
            }
            Some(Held::Limit) => {
                self.decided.limited += 1;
                self.suppressed += 1;
                return false;
            }
            None => {}
        }
        let opens = match group.told {
            None => true,
            Some(_) => self.rule.each && group.members.values().any(|m| m.told.is_none()),
        };
        if opens
            && self.rule.tells(HookState::Opened)
            && let Err(free) = self.limit.spend(now)
        {
            group.held = Some(Held::Limit);
            group.wake(free);
            return true;
        }
        self.changed.insert(cause.to_owned());
        let steps = if self.rule.each {
            let steps = group.each_steps(opens, self.wall(now));
            self.followed
                .retain(|id, of| of.as_deref() != Some(cause) || group.members.contains_key(id));
            steps
        } else {
            group.steps()
        };
        for (state, told_as, mut alerts) in steps {
            if self.rule.each && state == State::Resolved {
                // Told as over, it would end for the receiver what looks the same and goes on.
                let others = self
                    .groups
                    .values()
                    .chain([&*group])
                    .flat_map(|g| g.members.values());
                let open: Vec<&Alert> = others
                    .map(|m| &m.alert)
                    .filter(|a| a.ended_ns.is_none())
                    .collect();
                alerts.retain(|a| {
                    let same =
                        |o: &&&Alert| o.is_about(&a.finding) && o.finding.severity == a.finding.severity;
                    !open.iter().any(|o| same(&o))
                });
            }
            if !alerts.is_empty() && self.rule.tells(told_as) {
                out.push(self.notification(state, cause, alerts, now));
            }
        }
        self.plan_repeat(now);
        !group.is_over()
    }

    fn notification(&mut self, state: State, cause: &str, alerts: Vec<Alert>, now: Nanos) -> Notification {
        let mut n = Notification {
            state,
            cause: cause.to_owned(),
            alerts,
            made_ns: self.wall(now),
            suppressed: std::mem::take(&mut self.suppressed),
        };
        n.sort();
        n
    }

    /// Nanoseconds since the Unix epoch.
    fn wall(&self, at: Nanos) -> i64 {
        let at = i64::try_from(at.0).unwrap_or(i64::MAX);
        at.saturating_add(self.wall_offset_ns)
    }

    fn plan_repeat(&mut self, now: Nanos) {
        if let Some(every) = self.rule.resend_every {
            let open = self.groups.values().any(|g| g.told.is_some() && !g.is_over());
            if self.next_repeat.is_none() && open {
                self.next_repeat = Some(now + every);
            }
        }
    }

    /// Tells again what is open, to a receiver that forgets.
    fn repeat(&mut self, silences: &dyn Silences, now: Nanos, out: &mut Vec<Notification>) {
        if self.next_repeat.is_some_and(|at| at <= now) {
            self.next_repeat = None;
            let silent = |a: &Alert| {
                let until = silences.until(&a.finding.service);
                until.is_some_and(|until| until > now)
            };
            let open: Vec<Alert> = self
                .groups
                .values()
                .flat_map(|g| g.members.values())
                .filter(|m| m.told.is_some() && m.alert.ended_ns.is_none() && !silent(&m.alert))
                .map(|m| m.alert.clone())
                .collect();
            if !open.is_empty() {
                let cause = open[0].finding.cause.clone();
                out.push(self.notification(State::Repeated, &cause, open, now));
            }
        }
        self.plan_repeat(now);
    }
}

impl Member {
    fn new(f: &Finding, wall_offset_ns: i64) -> Self {
        let started = i64::try_from(f.at.0).unwrap_or(i64::MAX);
        Self {
            alert: Alert {
                finding: f.clone(),
                wall_offset_ns,
                started_ns: started.saturating_add(wall_offset_ns),
                ended_ns: None,
            },
            told: None,
            inherited: false,
        }
    }

    /// Whether it is not as it was told.
    fn is_fresh(&self) -> bool {
        let f = &self.alert.finding;
        self.told
            .is_none_or(|t| t.severity != f.severity || gave_up(f) && !t.gave_up)
    }
}
