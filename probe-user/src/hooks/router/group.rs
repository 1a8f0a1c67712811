//! Findings of one cause.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Nanos,
    config::HookState,
    engine::finding::{Finding, FindingState, Severity},
    hooks::{
        notification::{Alert, State},
        pending::Silences,
        rule::gave_up,
    },
};

#[derive(Debug, Default)]
pub(super) struct Group {
    /// By the finding's id.
    pub(super) members: BTreeMap<String, Member>,
    /// The worst that was told. `None`: nothing was.
    pub(super) told: Option<Told>,
    pub(super) due: Option<Nanos>,
    pub(super) held: Option<Held>,
}

/// What holds a group back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Silence,
    Limit,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) alert: Alert,
    pub(super) told: Option<Told>,
    /// From before a restart of probe, and not found again yet.
    pub(super) inherited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) severity: Severity,
    pub(super) gave_up: bool,
}

/// A notification in the making: what it says, which of the hook's `states` it falls under, and of what.
pub(super) type Step = (State, HookState, Vec<Alert>);

impl Group {
    /// No later than this.
    pub(super) fn wake(&mut self, at: Nanos) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(super) fn is_over(&self) -> bool {
        self.members.values().all(|m| m.alert.ended_ns.is_some())
    }

    fn worst(&self) -> Option<Told> {
        let each = self.members.values().map(|m| m.told_now());
        each.reduce(|a, b| Told {
            severity: a.severity.max(b.severity),
            gave_up: a.gave_up || b.gave_up,
        })
    }

    /// Whether it is worse than what was told.
    pub(super) fn escalates(&self) -> bool {
        match (self.told, self.worst()) {
            (Some(told), Some(now)) => now.severity > told.severity || now.gave_up && !told.gave_up,
            _ => false,
        }
    }

    /// Until when all of it is silenced. `None`: some of it is not.
    pub(super) fn silenced_until(&self, silences: &dyn Silences) -> Option<Nanos> {
        let until = self
            .members
            .values()
            .map(|m| silences.until(&m.alert.finding.service));
        until.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// For a receiver that is told of the group as one.
    pub(super) fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let as_open = |g: &Self| g.members.values().map(Member::as_open).collect();
        if self.told.is_none() {
            steps.push((State::Opened, HookState::Opened, as_open(self)));
        } else if self.escalates() {
            steps.push((State::Escalated, HookState::Escalated, as_open(self)));
        }
        if !steps.is_empty() {
            self.told = self.worst();
        }
        if self.is_over() {
            let all = self.members.values().map(|m| m.alert.clone()).collect();
            steps.push((State::Resolved, HookState::Resolved, all));
        }
        for member in self.members.values_mut() {
            member.told = Some(member.told_now());
        }
        steps
    }

    /// For a receiver that is told of every finding. `opens`: some were not told yet.
    pub(super) fn each_steps(&mut self, opens: bool, wall_ns: i64) -> Vec<Step> {
        let (mut open, mut over) = (Vec::new(), Vec::new());
        for member in self.members.values_mut() {
            if member.is_fresh() {
                // The receiver knows alerts by their labels, and the severity is one of them.
                if let Some(told) = member
                    .told
                    .filter(|t| t.severity != member.alert.finding.severity)
                {
                    let mut was = member.alert.clone();
                    was.finding.severity = told.severity;
                    was.ended_ns = was.ended_ns.or(Some(wall_ns));
                    over.push(was);
                }
                open.push(member.as_open());
            }
            member.told = Some(member.told_now());
            if member.alert.ended_ns.is_some() {
                over.push(member.alert.clone());
            }
        }
        self.members.retain(|_, m| m.alert.ended_ns.is_none());
        self.told = Some(self.worst().or(self.told).unwrap_or(Told {
            severity: Severity::Warning,
            gave_up: false,
        }));
        let opened = if opens {
            (State::Opened, HookState::Opened, open)
        } else {
            (State::Escalated, HookState::Escalated, open)
        };
        let resolved = (State::Resolved, HookState::Resolved, over);
        [opened, resolved]
            .into_iter()
            .filter(|(_, _, alerts)| !alerts.is_empty())
            .collect()
    }
}

impl Member {
    fn told_now(&self) -> Told {
        Told {
            severity: self.alert.finding.severity,
            gave_up: gave_up(&self.alert.finding),
        }
    }

    /// As it was when it opened, also when it is over by now.
    fn as_open(&self) -> Alert {
        let mut alert = self.alert.clone();
        if alert.ended_ns.take().is_some() {
            alert.finding.state = FindingState::Opened;
            alert.finding.resolution = None;
        }
        alert
    }
}

impl Alert {
    /// Whether it is the same as a finding with another id: probe was started again, and found it again.
    pub(super) fn is_about(&self, f: &Finding) -> bool {
        let known = &self.finding;
        known.service == f.service && known.kind == f.kind && known.subject == f.subject
    }
}

/// A group that was told and is open, over a restart of probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    cause: String,
    told: Told,
    members: Vec<KeptMember>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptMember {
    alert: Alert,
    told: Option<Told>,
}

impl Kept {
    pub(super) fn of(cause: &str, group: &Group) -> Option<Self> {
        let told = group.told?;
        let members = group.members.values().map(|m| KeptMember {
            alert: m.alert.clone(),
            told: m.told,
        });
        Some(Self {
            cause: cause.to_owned(),
            told,
            members: members.collect(),
        })
    }

    pub(super) fn into_group(self) -> Option<(String, Group)> {
        let members: BTreeMap<String, Member> = self
            .members
            .into_iter()
            .map(|m| {
                let member = Member {
                    told: m.told,
                    inherited: m.alert.ended_ns.is_none(),
                    alert: m.alert,
                };
                (member.alert.finding.id.clone(), member)
            })
            .collect();
        let group = Group {
            members,
            told: Some(self.told),
            ..Group::default()
        };
        (!group.is_over()).then_some((self.cause, group))
    }
}
