//! Turns conditions into findings with a life: opened, updated, resolved.

use std::collections::BTreeMap;

use crate::{
    clock::Nanos,
    event::{Actor, ProcId},
};

use super::{
    Effect, Engine,
    addresses::Place,
    finding::{Finding, FindingState, Kind, Severity},
    rules,
};

/// What makes two conditions the same finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) subject: String,
    /// Tells apart findings about one subject, for example two ends of the same service.
    pub(super) detail: String,
}

/// Something that is wrong now.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) key: Key,
    /// When its cause happened.
    pub(super) at: Nanos,
    /// Groups what one cause led to.
    pub(super) cause: String,
    pub(super) actor: Option<Actor>,
    pub(super) summary: String,
    pub(super) evidence: Vec<u64>,
    /// Where it is not what the kind says.
    pub(super) severity: Option<Severity>,
}

/// A finding that was opened and not yet resolved.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) condition: Condition,
    pub(super) id: String,
}

/// What a rule says of a service: conditions, and when to ask again although nothing happens.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) conditions: Vec<Condition>,
    pub(super) again: Option<Nanos>,
    /// The rule can say more once these processes have been looked at.
    pub(super) looks: Vec<ProcId>,
}

impl Verdict {
    pub(super) fn again_at(&mut self, at: Nanos) {
        self.again = Some(self.again.map_or(at, |a| a.min(at)));
    }
}

impl Engine {
    /// Judges every service that something happened to. Nothing is judged before the first snapshot and while events
    /// are missing: a verdict that can't be known is no verdict.
    pub(super) fn judge(&mut self) {
        self.judge_blind();
        if !self.joined || self.blind.is_some() {
            return;
        }
        for s in std::mem::take(&mut self.touched) {
            if self.services[s].over {
                continue;
            }
            self.tell_ready(s);
            let verdict = rules::judge(self, s);
            self.turn(s, verdict.conditions);
            for id in verdict.looks {
                self.look(id);
            }
            if let Some(at) = verdict.again {
                self.wake(s, at.max(self.now));
            }
        }
    }

    fn turn(&mut self, s: usize, conditions: Vec<Condition>) {
        if conditions.is_empty() && self.services[s].open.is_empty() {
            return;
        }
        let name = self.services[s].decl.name.clone();
        let mut holding: BTreeMap<Key, Condition> =
            conditions.into_iter().map(|c| (c.key.clone(), c)).collect();
        let mut open = std::mem::take(&mut self.services[s].open);
        let mut still = BTreeMap::new();
        let mut out = Vec::new();
        for (key, mut o) in std::mem::take(&mut open) {
            match holding.remove(&key) {
                Some(c) => {
                    let changed = c.summary != o.condition.summary
                        || c.severity != o.condition.severity
                        || c.actor.as_ref().map(|a| a.id) != o.condition.actor.as_ref().map(|a| a.id);
                    // When and why it opened stays, whatever more becomes known.
                    o.condition = Condition {
                        at: o.condition.at,
                        cause: o.condition.cause.clone(),
                        ..c
                    };
                    if changed {
                        out.push(self.finding(&name, &o.condition, &o.id, FindingState::Updated, None));
                    }
                    still.insert(key, o);
                }
                None => {
                    let why = rules::resolution(self, s, &o.condition);
                    out.push(self.finding(&name, &o.condition, &o.id, FindingState::Resolved, Some(why)));
                }
            }
        }
        for (key, condition) in holding {
            let id = digest(&[
                &name,
                key.kind.name(),
                &key.subject,
                &key.detail,
                &condition.at.0.to_string(),
            ]);
            out.push(self.finding(&name, &condition, &id, FindingState::Opened, None));
            still.insert(key, Open { condition, id });
        }
        self.services[s].open = still;
        self.effects
            .extend(out.into_iter().map(|f| Effect::Find(Box::new(f))));
    }

    pub(super) fn finding(
        &self,
        service: &str,
        c: &Condition,
        id: &str,
        state: FindingState,
        resolution: Option<String>,
    ) -> Finding {
        Finding {
            id: id.to_owned(),
            state,
            kind: c.key.kind,
            service: service.to_owned(),
            severity: c.severity.unwrap_or(c.key.kind.severity()),
            subject: c.key.subject.clone(),
            cause: digest(&[&c.cause]),
            at: c.at,
            detected_after_ns: self.now.since(c.at).as_nanos().try_into().unwrap_or(u64::MAX),
            actor: c.actor.clone(),
            summary: c.summary.clone(),
            resolution,
            evidence: c.evidence.clone(),
            facts: self
                .by_name
                .get(service)
                .map(|s| rules::facts(self, *s, c))
                .unwrap_or_default(),
        }
    }

    /// `blind` is about probe itself, so it stands outside the services.
    fn judge_blind(&mut self) {
        let lost = self.blind.as_ref().map(|b| {
            let parts: Vec<String> = b.sources.iter().map(|(s, n)| format!("{n} from {s}")).collect();
            (
                b.since,
                format!(
                    "events were lost ({}); verdicts are unknown until a snapshot has settled them",
                    parts.join(", ")
                ),
            )
        });
        let summary = match (lost, self.overflowed()) {
            (Some((at, lost)), Some((since, over))) => Some((at.min(since), format!("{lost}; {over}"))),
            (lost, over) => lost.or(over),
        };
        match (summary, self.blind_open.take()) {
            (Some((at, summary)), None) => {
                let key = Key {
                    kind: Kind::Blind,
                    subject: "probe".into(),
                    detail: String::new(),
                };
                let cause = format!("blind {}", at.0);
                let condition = Condition {
                    key,
                    at,
                    cause,
                    actor: None,
                    summary,
                    evidence: Vec::new(),
                    severity: None,
                };
                let id = digest(&["probe", "blind", &at.0.to_string()]);
                let f = self.finding("probe", &condition, &id, FindingState::Opened, None);
                self.effects.push(Effect::Find(Box::new(f)));
                self.blind_open = Some(Open { condition, id });
            }
            (Some((_, summary)), Some(mut open)) => {
                if open.condition.summary != summary {
                    open.condition.summary = summary;
                    let f = self.finding("probe", &open.condition, &open.id, FindingState::Updated, None);
                    self.effects.push(Effect::Find(Box::new(f)));
                }
                self.blind_open = Some(open);
            }
            (None, Some(open)) => {
                let why = Some("a snapshot has settled what was lost".to_owned());
                let f = self.finding("probe", &open.condition, &open.id, FindingState::Resolved, why);
                self.effects.push(Effect::Find(Box::new(f)));
            }
            (None, None) => {}
        }
    }

    /// Says once in each generation that every declared address is served.
    fn tell_ready(&mut self, s: usize) {
        let service = &self.services[s];
        let Some(main) = service
            .main_member()
            .filter(|_| !service.ready && service.generation > 0)
        else {
            return;
        };
        // A predecessor that is still draining serves for itself.
        let own = |holder: &ProcId| {
            let Some(member) = service.members.get(holder) else {
                return true;
            };
            let is_main = service
                .main
                .as_ref()
                .is_some_and(|m| m.instance == member.instance);
            let asked = service
                .instances
                .get(&member.instance)
                .is_some_and(|i| !i.asked.is_empty());
            is_main || service.decl.max_instances > 1 && !asked
        };
        let served = |a: &Place| {
            self.addresses.get(*a).is_some_and(|l| {
                l.serving().any(|e| {
                    let mut holders = e.socket.holders.iter().map(|h| &h.process).peekable();
                    holders.peek().is_none() || holders.any(own)
                })
            })
        };
        if !service.places.iter().all(served) {
            return;
        }
        let (process, generation) = (main.process.clone(), service.generation);
        self.services[s].ready = true;
        let summary = format!(
            "{} is ready, generation {generation}",
            super::show::describe(&process)
        );
        let facts = serde_json::json!({ "generation": generation, "restart_count": generation - 1 });
        self.show(
            s,
            super::finding::EventKind::Ready,
            None,
            Some(&process),
            None,
            facts,
            summary,
        );
    }
}

/// FNV-1a, 64 bits: short, the same on every machine and in every version.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for b in parts.iter().flat_map(|p| p.bytes().chain([0])) {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{h:016x}")
}
