use std::time::Duration;

use super::*;
use crate::hooks::testing::finding;

/// A plan, a clock that only the test moves, and what was wished.
struct World {
    plan: Plan,
    now: Nanos,
    silenced: Option<Nanos>,
    blind: bool,
    n: u32,
}

/// An attempt, and when: seconds since the start.
fn act(attempt: u32, at: f64) -> String {
    format!("{attempt} at {at:.1}")
}

const START: Nanos = Nanos(1_000_000_000_000);

impl World {
    fn new(heal: &str) -> Self {
        let text = format!(
            "name = \"d\"\nheal = {{ restart = [\"/bin/true\"], {heal} }}\nkeep_instance = \"oldest\""
        );
        let service: Service = toml::from_str(&text).unwrap();
        Self {
            plan: Plan::new(&service, || 0.5).unwrap(),
            now: START,
            silenced: None,
            blind: false,
            n: 0,
        }
    }

    fn open(&mut self, kind: Kind) -> Finding {
        self.n += 1;
        let f = finding(&self.n.to_string(), kind, "c", self.now);
        self.plan.take(&f, self.now);
        f
    }

    fn tell(&mut self, f: &Finding, state: FindingState) {
        let f = Finding { state, ..f.clone() };
        self.plan.take(&f, self.now);
    }

    /// Lets time pass; every order is carried out at once and does not help.
    fn pass(&mut self, seconds: u64) -> Vec<String> {
        let mut out = Vec::new();
        for wish in self.wishes(seconds) {
            out.push(wish);
        }
        out
    }

    fn wishes(&mut self, seconds: u64) -> Vec<String> {
        let end = self.now + Duration::from_secs(seconds);
        let mut out = Vec::new();
        loop {
            while let Some(wish) = self.plan.due(self.silenced, self.blind, self.now) {
                let at = self.now.since(START).as_secs_f64();
                out.push(match wish {
                    Wish::Act(order) => {
                        self.plan.done(self.now);
                        act(order.attempt, at)
                    }
                    Wish::GiveUp(n) => format!("gave up after {n} at {at:.1}"),
                    Wish::TryAgain => format!("again at {at:.1}"),
                });
            }
            match self.plan.deadline(self.blind).filter(|at| *at <= end) {
                Some(at) => {
                    assert!(
                        at > self.now,
                        "a deadline that brings nothing: nobody would ever sleep"
                    );
                    self.now = at;
                }
                None => break,
            }
        }
        self.now = end;
        out
    }
}

#[test]
fn attempts_come_with_growing_pauses() {
    let mut w = World::new("backoff = \"1s..8s\"");
    let f = w.open(Kind::StaleSocket);
    assert_eq!(
        w.pass(30),
        [act(1, 1.0), act(2, 3.0), act(3, 7.0), act(4, 15.0), act(5, 23.0)]
    );
    w.tell(&f, FindingState::Resolved);
    assert_eq!(w.pass(7), [] as [String; 0]);
    // Not well for long enough: still in a row.
    let f = w.open(Kind::StaleSocket);
    assert_eq!(w.pass(8), [act(6, 45.0)]);
    w.tell(&f, FindingState::Resolved);
    w.pass(9);
    w.open(Kind::StaleSocket);
    assert_eq!(w.pass(1), [act(1, 55.0)]);
}

#[test]
fn what_is_over_before_the_pause_is_left_alone() {
    let mut w = World::new("backoff = \"5s..8s\"");
    let f = w.open(Kind::StaleSocket);
    assert_eq!(w.pass(4), [] as [String; 0]);
    w.tell(&f, FindingState::Resolved);
    assert_eq!(w.pass(60), [] as [String; 0]);
    assert_eq!(w.plan.deadline(false), None);
}

#[test]
fn only_some_findings_are_acted_on() {
    for kind in Kind::ALL {
        let mut w = World::new("backoff = \"1s..2s\"");
        w.open(kind);
        assert_eq!(w.pass(1).len(), usize::from(KINDS.contains(&kind)), "{kind:?}");
    }
    // A network outage is no hung daemon.
    let mut w = World::new("backoff = \"1s..2s\"");
    let mut f = finding("1", Kind::StaleHeartbeat, "c", w.now);
    f.severity = Severity::Warning;
    w.plan.take(&f, w.now);
    assert_eq!(w.pass(60), [] as [String; 0]);
    // Nobody said which one stays.
    let mut w = World::new("backoff = \"1s..2s\"");
    w.plan.keep = KeepInstance::Report;
    w.open(Kind::DuplicateInstance);
    assert_eq!(w.pass(60), [] as [String; 0]);
}

#[test]
fn the_budget_ends_it_until_somebody_else_has_brought_it_up() {
    let mut w = World::new("backoff = \"1s..4s\", give_up_after = 3");
    let f = w.open(Kind::StaleSocket);
    let told = w.pass(3600);
    assert_eq!(
        told,
        [
            act(1, 1.0),
            act(2, 3.0),
            act(3, 7.0),
            "gave up after 3 at 11.0".into()
        ]
    );
    // Gone is not up.
    w.tell(&f, FindingState::Resolved);
    assert_eq!(w.pass(3600), [] as [String; 0]);
    let mut gave_up = w.open(Kind::CrashLoop);
    gave_up.facts.insert("gave_up".into(), true.into());
    w.tell(&gave_up, FindingState::Updated);
    assert_eq!(w.pass(3600), [] as [String; 0]);
    w.plan.ready(w.now);
    let at = w.now.since(START).as_secs_f64() + 4.0;
    assert_eq!(w.pass(60), [format!("again at {at:.1}")]);
    w.tell(&gave_up, FindingState::Resolved);
    w.open(Kind::StaleSocket);
    assert_eq!(w.pass(1).len(), 1);
}

#[test]
fn without_a_budget_it_never_gives_up() {
    let mut w = World::new("backoff = \"1s..10s\"");
    w.open(Kind::AcceptStall);
    let told = w.pass(24 * 3600);
    assert!(
        told.len() > 8000 && told.iter().all(|t| !t.contains("gave up")),
        "{}",
        told.len()
    );
}

#[test]
fn a_crash_loop_is_acted_on_only_when_it_goes_on() {
    let mut w = World::new("backoff = \"1s..4s\"");
    let f = w.open(Kind::CrashLoop);
    assert_eq!(
        w.pass(50),
        [act(1, 1.0)],
        "it stays open although the restart helped"
    );
    w.tell(&f, FindingState::Updated);
    assert_eq!(w.pass(5).len(), 1);
}

#[test]
fn nothing_is_done_under_a_silence_or_without_knowing() {
    let mut w = World::new("backoff = \"1s..4s\"");
    w.silenced = Some(w.now + Duration::from_secs(60));
    w.open(Kind::StaleSocket);
    assert_eq!(w.pass(59), [] as [String; 0]);
    assert_eq!(w.pass(1), [act(1, 60.0)]);

    let mut w = World::new("backoff = \"1s..4s\"");
    w.blind = true;
    w.open(Kind::StaleSocket);
    assert_eq!(w.pass(60), [] as [String; 0]);
    assert_eq!(w.plan.deadline(true), None);
    w.blind = false;
    assert_eq!(w.pass(0), [act(1, 60.0)]);

    // A silence that is taken back.
    let mut w = World::new("backoff = \"1s..4s\"");
    w.silenced = Some(w.now + Duration::from_secs(3600));
    w.open(Kind::StaleSocket);
    w.pass(10);
    w.silenced = None;
    w.plan.silences_changed(w.now);
    assert_eq!(w.pass(2), [act(1, 11.0)]);
}

#[test]
fn never_two_at_once_and_what_cannot_be_done_now_is_done_later() {
    let mut w = World::new("backoff = \"1s..4s\", give_up_after = 1");
    w.open(Kind::StaleSocket);
    w.now = w.now + Duration::from_secs(1);
    assert!(matches!(w.plan.due(None, false, w.now), Some(Wish::Act(_))));
    w.open(Kind::AcceptStall);
    assert_eq!(w.pass(60), [] as [String; 0], "one is out");
    assert_eq!(w.plan.deadline(false), None);
    // The unit was just being restarted: that is no attempt.
    w.plan.postpone(w.now);
    let at = w.now.since(START).as_secs_f64();
    let told = w.pass(10);
    assert_eq!(told[0], act(1, at + 1.0), "{told:?}");
    assert!(told[1].starts_with("gave up after 1"), "{told:?}");
}

#[test]
fn duplicates_come_first() {
    let mut w = World::new("backoff = \"1s..4s\"");
    w.open(Kind::StaleSocket);
    w.now = w.now + Duration::from_millis(10);
    w.open(Kind::DuplicateInstance);
    w.now = w.now + Duration::from_secs(1);
    match w.plan.due(None, false, w.now) {
        Some(Wish::Act(order)) => assert_eq!(order.finding.kind, Kind::DuplicateInstance),
        other => panic!("{other:?}"),
    }
}
