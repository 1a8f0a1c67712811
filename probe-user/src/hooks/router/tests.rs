use std::time::Duration;

use super::*;
use crate::{
    config::{After, Config},
    engine::finding::{Kind, Severity},
    hooks::{
        pending::NoSilences,
        testing::{Silenced, finding},
    },
};

const WALL: i64 = 1_700_000_000_000_000_000;

/// A router, a clock that only the test moves, and what was told.
struct World {
    router: Router,
    now: Nanos,
    silences: Silenced,
}

impl World {
    fn new(hook: &str) -> Self {
        let text = format!("[[hook]]\nexec = [\"/bin/true\"]\n{hook}");
        let text = if hook.contains("webhook") {
            text.replace("exec = [\"/bin/true\"]\n", "")
        } else {
            text
        };
        let config: Config = toml::from_str(&text).unwrap();
        Self {
            router: Router::new(Rule::from(&config.hooks[0]), WALL),
            now: Nanos(1_000_000_000_000),
            silences: Silenced::default(),
        }
    }

    /// Lets time pass; asks at each deadline, as the hook's task does. Returns what was told meanwhile.
    fn pass(&mut self, d: Duration) -> Vec<String> {
        let end = self.now + d;
        let mut told = self.due();
        while let Some(at) = self.router.deadline().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline in the past: nobody would ever sleep");
            self.now = at;
            told.extend(self.due());
        }
        self.now = end;
        told
    }

    fn due(&mut self) -> Vec<String> {
        let due = self.router.due(&self.silences, self.now);
        due.iter().map(words).collect()
    }

    fn open(&mut self, id: &str, kind: Kind, cause: &str) -> Finding {
        let f = finding(id, kind, cause, self.now);
        self.router.take(&f, self.now);
        f
    }

    fn update(&mut self, f: &Finding, change: impl FnOnce(&mut Finding)) {
        let mut f = Finding {
            state: FindingState::Updated,
            ..f.clone()
        };
        change(&mut f);
        self.router.take(&f, self.now);
    }

    fn resolve(&mut self, f: &Finding) {
        let f = Finding {
            state: FindingState::Resolved,
            resolution: Some("it runs".into()),
            ..f.clone()
        };
        self.router.take(&f, self.now);
    }
}

/// `opened crashed+stale-socket`.
fn words(n: &Notification) -> String {
    let kinds: Vec<&str> = n.alerts.iter().map(|a| a.finding.kind.name()).collect();
    format!("{} {}", n.state.name(), kinds.join("+"))
}

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn give_up(f: &mut Finding) {
    f.facts.insert("gave_up".into(), true.into());
}

#[test]
fn findings_of_one_cause_are_one_notification() {
    let mut w = World::new("severity = \"warning\"");
    let socket = w.open("1", Kind::StaleSocket, "kill");
    let crash = w.open("2", Kind::Crashed, "kill");
    assert!(w.pass(Duration::from_millis(999)).is_empty(), "more may come");
    let file = w.open("3", Kind::StalePidFile, "kill");
    let other = w.open("4", Kind::SlowStop, "stop");
    assert_eq!(
        w.pass(Duration::from_millis(1)),
        ["opened crashed+stale-socket+stale-pid-file"]
    );
    assert_eq!(w.pass(s(9)), ["opened slow-stop"]);
    // What comes later and is no worse is part of the same.
    let late = w.open("5", Kind::NotListening, "kill");
    assert!(w.pass(s(9)).is_empty());
    for f in [&socket, &crash, &file, &other] {
        w.resolve(f);
    }
    assert_eq!(w.pass(s(9)), ["resolved slow-stop"]);
    w.resolve(&late);
    assert_eq!(
        w.pass(s(9)),
        ["resolved crashed+stale-socket+not-listening+stale-pid-file"]
    );
    assert_eq!(w.router.deadline(), None);
    assert!(w.router.followed.is_empty() && w.router.groups.is_empty());
}

#[test]
fn each_opening_is_told_once() {
    let mut w = World::new("on = [\"stale-socket\"]");
    let f = w.open("1", Kind::StaleSocket, "c");
    w.open("1", Kind::StaleSocket, "c");
    assert_eq!(w.pass(s(2)), ["opened stale-socket"]);
    w.open("1", Kind::StaleSocket, "c");
    w.update(&f, |f| f.summary = "other words".into());
    assert!(w.pass(s(100)).is_empty());
    w.resolve(&f);
    w.resolve(&f);
    assert_eq!(w.pass(s(2)), ["resolved stale-socket"]);
    w.open("2", Kind::StaleSocket, "d");
    assert_eq!(w.pass(s(2)), ["opened stale-socket"]);
}

#[test]
fn what_is_over_at_once_is_told_all_the_same() {
    let mut w = World::new("on = [\"crashed\"]");
    let f = w.open("1", Kind::Crashed, "c");
    w.now = w.now + Duration::from_millis(100);
    w.resolve(&f);
    let due = w.pass(s(2));
    assert_eq!(due, ["opened crashed", "resolved crashed"]);
}

#[test]
fn routing_is_by_kind_severity_and_service() {
    let told = |hook: &str| {
        let mut w = World::new(hook);
        w.open("1", Kind::StaleSocket, "a");
        w.open("2", Kind::SlowStop, "b");
        let mut f = finding("3", Kind::Crashed, "c", w.now);
        f.service = "redis".into();
        w.router.take(&f, w.now);
        w.pass(s(2))
    };
    assert_eq!(told("on = [\"slow-stop\"]"), ["opened slow-stop"]);
    assert_eq!(
        told("severity = \"critical\""),
        ["opened stale-socket", "opened crashed"]
    );
    assert_eq!(told("severity = \"warning\"").len(), 3);
    assert_eq!(
        told("severity = \"critical\"\nservices = [\"redis\"]"),
        ["opened crashed"]
    );
    assert_eq!(
        told("on = [\"slow-stop\"]\nseverity = \"critical\"").len(),
        3,
        "a kind is told besides what the severity lets through"
    );
}

#[test]
fn what_becomes_worse_is_told_again() {
    let mut w = World::new("severity = \"warning\"");
    let mut f = finding("1", Kind::StaleHeartbeat, "c", w.now);
    f.severity = Severity::Warning;
    w.router.take(&f, w.now);
    assert_eq!(w.pass(s(2)), ["opened stale-heartbeat"]);
    w.update(&f, |f| f.severity = Severity::Critical);
    assert_eq!(w.pass(s(2)), ["escalated stale-heartbeat"]);
    w.update(&f, |f| f.severity = Severity::Warning);
    w.update(&f, |f| f.severity = Severity::Critical);
    assert!(w.pass(s(2)).is_empty(), "no worse than what was told");
    w.resolve(&f);
    assert_eq!(w.pass(s(2)), ["resolved stale-heartbeat"]);

    // It becomes bad enough only then.
    let mut w = World::new("severity = \"critical\"");
    w.router.take(&f, w.now);
    assert!(w.pass(s(2)).is_empty());
    w.update(&f, |f| f.severity = Severity::Critical);
    assert_eq!(w.pass(s(2)), ["opened stale-heartbeat"]);
}

#[test]
fn giving_up_can_be_told_alone() {
    let mut w = World::new("gave_up = true");
    let f = w.open("1", Kind::CrashLoop, "c");
    assert!(w.pass(s(2)).is_empty());
    w.update(&f, give_up);
    assert_eq!(w.pass(s(2)), ["opened crash-loop"]);
    // For everybody else it is an escalation.
    let mut w = World::new("on = [\"crash-loop\"]");
    let f = w.open("1", Kind::CrashLoop, "c");
    assert_eq!(w.pass(s(2)), ["opened crash-loop"]);
    w.update(&f, give_up);
    assert_eq!(w.pass(s(2)), ["escalated crash-loop"]);
    w.update(&f, |f| {
        give_up(f);
        f.summary = "other words".into();
    });
    assert!(w.pass(s(2)).is_empty());
}

#[test]
fn only_some_states_are_told() {
    let mut w = World::new("severity = \"critical\"\nstates = [\"resolved\"]");
    let f = w.open("1", Kind::Crashed, "c");
    assert!(w.pass(s(2)).is_empty());
    w.resolve(&f);
    assert_eq!(w.pass(s(2)), ["resolved crashed"]);
    let mut w = World::new("severity = \"critical\"\nstates = [\"opened\"]");
    let f = w.open("1", Kind::Crashed, "c");
    w.resolve(&f);
    assert_eq!(w.pass(s(2)), ["opened crashed"]);
}

#[test]
fn after_waits_until_it_keeps_happening() {
    let mut w = World::new("on = [\"crashed\", \"stale-socket\"]\nafter = \"3 in 10m\"");
    let crash = |w: &mut World, n: u32| {
        let f = w.open(&n.to_string(), Kind::Crashed, &format!("c{n}"));
        // Told again, it has not happened again.
        w.update(&f, |f| f.summary = "other words".into());
        let told = w.pass(s(2));
        w.resolve(&f);
        (told, w.pass(s(2)))
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(crash(&mut w, 1), (none.clone(), none.clone()));
    w.pass(s(601));
    assert_eq!(
        crash(&mut w, 2),
        (none.clone(), none.clone()),
        "the first is too long ago"
    );
    w.open("x", Kind::StaleSocket, "x");
    assert_eq!(
        crash(&mut w, 3),
        (none.clone(), none.clone()),
        "another kind does not count"
    );
    let (opened, resolved) = crash(&mut w, 4);
    assert_eq!(
        (opened[0].as_str(), resolved[0].as_str()),
        ("opened crashed", "resolved crashed")
    );
    assert_eq!(crash(&mut w, 5), (none.clone(), none), "counting begins anew");
    assert_eq!(w.router.followed.len(), 1);
}

#[test]
fn too_much_waits_and_is_left_out_when_it_is_over() {
    let mut w = World::new("severity = \"critical\"\nat_most = \"2 in 1m\"");
    let all: Vec<Finding> = (0..5)
        .map(|n| w.open(&n.to_string(), Kind::StaleSocket, &format!("c{n}")))
        .collect();
    assert_eq!(w.pass(s(2)).len(), 2);
    // The end of what was told is told in any case.
    w.resolve(&all[0]);
    assert_eq!(w.pass(s(2)), ["resolved stale-socket"]);
    w.resolve(&all[2]);
    w.pass(s(50));
    let due = {
        w.now = w.now + s(10);
        w.router.due(&NoSilences, w.now)
    };
    assert_eq!(
        due.iter().map(words).collect::<Vec<_>>(),
        ["opened stale-socket"; 2]
    );
    assert_eq!(due[0].suppressed, 1, "it says that something was left out");
    assert_eq!(w.router.decided().limited, 1);
    assert!(w.router.deadline().is_none());
}

#[test]
fn a_silence_holds_back_and_what_is_still_wrong_is_told_after_it() {
    let mut w = World::new("severity = \"critical\"");
    w.silences.set("annad", Some(w.now + s(60)));
    let over = w.open("1", Kind::Crashed, "a");
    w.open("2", Kind::StaleSocket, "b");
    assert!(w.pass(s(30)).is_empty());
    w.resolve(&over);
    assert!(w.pass(s(29)).is_empty());
    assert_eq!(w.pass(s(2)), ["opened stale-socket"]);
    assert_eq!(w.router.decided().silenced, 1);

    // What was told before it, and ends during it.
    let f = w.open("3", Kind::NotListening, "c");
    assert_eq!(w.pass(s(2)), ["opened not-listening"]);
    w.silences.set("annad", Some(w.now + s(3600)));
    w.resolve(&f);
    assert!(w.pass(s(60)).is_empty());
    // It is taken back early.
    w.silences.set("annad", None);
    w.router.silences_changed(w.now);
    assert_eq!(w.pass(s(0)), ["resolved not-listening"]);
}

#[test]
fn what_was_told_before_a_restart_is_not_told_again() {
    let mut w = World::new("severity = \"critical\"");
    let told = w.open("1", Kind::StaleSocket, "a");
    let gone = Finding {
        subject: "unix:/gone".into(),
        ..finding("2", Kind::StaleSocket, "b", w.now)
    };
    w.router.take(&gone, w.now);
    assert_eq!(w.pass(s(2)).len(), 2);
    let kept: Vec<Kept> = w
        .router
        .take_changed()
        .into_iter()
        .filter_map(|(_, k)| k)
        .collect();
    assert_eq!(kept.len(), 2);
    let text = serde_json::to_string(&kept).unwrap();

    let mut after = World::new("severity = \"critical\"");
    after.now = Nanos(5_000_000_000);
    after
        .router
        .inherit(serde_json::from_str(&text).unwrap(), after.now);
    // Found again, it has another id, and another cause.
    let again = after.open("9", Kind::StaleSocket, "z");
    assert!(after.pass(s(10)).is_empty());
    // What was not found again is over.
    after.router.resync(std::slice::from_ref(&again), after.now);
    assert_eq!(after.pass(s(1)), ["resolved stale-socket"]);
    after.resolve(&again);
    let due = after.router.due(&NoSilences, after.now);
    assert_eq!(due.len(), 1);
    let alert = due[0].main();
    assert_eq!(
        alert.started_ns,
        told.at.0 as i64 + WALL,
        "it began when it began"
    );
    assert_eq!(alert.ended_ns, Some(after.now.0 as i64 + WALL));
    let changed = after.router.take_changed();
    assert!(changed.iter().all(|(_, kept)| kept.is_none()), "{changed:?}");
}

#[test]
fn missed_lines_are_made_up_for() {
    let mut w = World::new("severity = \"critical\"");
    let f = w.open("1", Kind::StaleSocket, "a");
    let g = finding("2", Kind::Crashed, "b", w.now);
    w.router.resync(&[f.clone(), g.clone()], w.now);
    assert_eq!(w.pass(s(2)), ["opened stale-socket", "opened crashed"]);
    w.router.resync(&[g], w.now);
    assert_eq!(w.pass(s(2)), ["resolved stale-socket"]);
}

const ALERTMANAGER: &str =
    "severity = \"warning\"\nwebhook = \"http://127.0.0.1:9093/api/v2/alerts\"\nformat = \"alertmanager\"";

#[test]
fn an_alertmanager_is_told_of_each_and_again() {
    let mut w = World::new(ALERTMANAGER);
    let a = w.open("1", Kind::StaleSocket, "kill");
    let b = w.open("2", Kind::Crashed, "kill");
    assert_eq!(w.pass(s(2)), ["opened crashed+stale-socket"]);
    let late = w.open("3", Kind::NotListening, "kill");
    assert_eq!(w.pass(s(2)), ["opened not-listening"]);
    w.resolve(&b);
    assert_eq!(w.pass(s(2)), ["resolved crashed"]);
    let told = w.pass(s(180));
    assert_eq!(told, ["repeated stale-socket+not-listening"; 3], "every minute");
    w.resolve(&a);
    w.resolve(&late);
    assert_eq!(w.pass(s(2)), ["resolved stale-socket+not-listening"]);
    assert!(w.pass(s(600)).is_empty());
    assert!(w.router.followed.is_empty() && w.router.groups.is_empty());
    assert_eq!(w.router.deadline(), None);
}

#[test]
fn an_alertmanager_knows_alerts_by_their_labels() {
    let mut w = World::new(ALERTMANAGER);
    let mut f = finding("1", Kind::StaleHeartbeat, "c", w.now);
    f.severity = Severity::Warning;
    w.router.take(&f, w.now);
    assert_eq!(w.pass(s(2)), ["opened stale-heartbeat"]);
    w.update(&f, |f| f.severity = Severity::Critical);
    let due = w.router.due(&NoSilences, w.now);
    assert_eq!(
        due.iter().map(words).collect::<Vec<_>>(),
        ["escalated stale-heartbeat", "resolved stale-heartbeat"]
    );
    assert_eq!(
        due[1].main().finding.severity,
        Severity::Warning,
        "the old alert ends"
    );
    assert!(due[1].main().ended_ns.is_some() && due[0].main().ended_ns.is_none());

    // Two ends of one service look the same to it: the first one's end must not end the other's alert.
    let mut w = World::new(ALERTMANAGER);
    let first = w.open("1", Kind::Crashed, "a");
    let second = w.open("2", Kind::Crashed, "b");
    assert_eq!(w.pass(s(2)).len(), 2);
    w.resolve(&first);
    assert!(w.pass(s(2)).is_empty());
    w.resolve(&second);
    assert_eq!(w.pass(s(2)), ["resolved crashed"]);
}

#[test]
fn what_is_followed_has_a_bound() {
    let mut w = World::new("severity = \"critical\"\nat_most = \"100000 in 1m\"");
    for n in 0..MAX_FINDINGS + 10 {
        w.open(&n.to_string(), Kind::StaleSocket, &n.to_string());
    }
    assert_eq!(w.router.decided().overflow, 10);
    assert_eq!(w.pass(s(2)).len(), MAX_FINDINGS);
}

#[test]
fn a_rule_of_nothing_but_after_counts_from_one() {
    assert_eq!(After::default().count, 1);
    let mut happened = Happened::new(After::default());
    assert!(happened.often_enough(&finding("1", Kind::Crashed, "c", Nanos(1)), Nanos(1)));
}
