//! What systemd says of the unit, next to what the kernel says of its processes.

use super::world::{World, ms, service};
use crate::{
    config::Service,
    engine::finding::{EventKind, Kind},
    event::{Disposition, Event, ExitStatus, TimeSource, UnitJob, UnitState, What},
    signal::Signal,
};

const UNIT: &str = "d.service";

/// Killed by KILL, its parent being systemd or not.
const KILLED: ExitStatus = ExitStatus::Signal {
    signal: Signal::KILL,
    core: false,
};

fn with_unit() -> Service {
    Service {
        unit: Some(UNIT.into()),
        ..service()
    }
}

fn world() -> World {
    World::new(with_unit())
}

impl World {
    /// systemd says: this state, this main process.
    fn unit(&self, active: &str, sub: &str, main: Option<u32>) -> UnitState {
        UnitState {
            unit: UNIT.into(),
            main_pid: main,
            exec_main_pid: main,
            process: main.and_then(|p| self.processes.get(&p)).cloned(),
            active_state: active.into(),
            sub_state: sub.into(),
            result: "success".into(),
            ..UnitState::default()
        }
    }

    fn running(&mut self, main: u32) {
        let state = self.unit("active", "running", Some(main));
        self.tell(What::Unit(state));
    }

    fn job(&mut self, kind: &str, active: &str, sub: &str, main: Option<u32>) {
        let job = Some(UnitJob {
            id: 812,
            kind: kind.into(),
        });
        let state = UnitState {
            job,
            ..self.unit(active, sub, main)
        };
        self.tell(What::Unit(state));
    }

    /// A process of the unit, started by systemd.
    fn exec_in_unit(&mut self, pid: u32) {
        let mut p = self.process(pid, 1, "/usr/bin/d");
        p.unit = Some(UNIT.into());
        self.processes.insert(pid, p.clone());
        self.tell(What::Exec { process: p });
    }

    fn start_unit(&mut self, pid: u32) {
        self.exec_in_unit(pid);
        self.running(pid);
        self.listen(pid);
        self.write_pid_file(pid);
        self.findings.clear();
    }

    fn main(&self) -> Option<u32> {
        self.engine.mains()[0].map(|id| id.pid)
    }
}

#[test]
fn a_stop_job_is_an_asked_stop_whatever_ends_the_process() {
    for status in [
        ExitStatus::Code(0),
        ExitStatus::Code(1),
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    ] {
        let mut w = world();
        w.start_unit(50);
        w.job("stop", "deactivating", "stop", Some(50));
        w.pass(ms(100));
        w.exit(50, status);
        let state = w.unit("inactive", "dead", None);
        w.tell(What::Unit(state));
        w.pass(ms(60_000));
        w.expect_nothing();
    }
}

#[test]
fn without_the_job_the_same_end_is_a_crash() {
    let mut w = world();
    w.start_unit(50);
    w.exit(50, ExitStatus::Code(1));
    assert!(w.open().contains(&Kind::Crashed));
}

#[test]
fn a_restart_job_begins_a_new_generation_and_finds_nothing() {
    let mut w = world();
    w.start_unit(50);
    w.job("restart", "deactivating", "stop-sigterm", Some(50));
    w.exit(50, ExitStatus::Code(1));
    w.job("start", "activating", "start", None);
    w.pass(ms(100));
    w.exec_in_unit(51);
    w.running(51);
    // What the last life left is there until the next one replaces it.
    w.pass(ms(500));
    w.listen(51);
    w.write_pid_file(51);
    w.pass(ms(60_000));
    w.expect_nothing();
    let ready = w.shown.iter().rev().find(|s| s.kind == EventKind::Ready).unwrap();
    assert_eq!(ready.facts.value("generation"), 2);
}

/// The kernel is faster than the bus: what looked like a crash for a moment was asked for.
#[test]
fn a_job_that_is_heard_of_after_the_end_excuses_it() {
    for (active, main) in [("deactivating", None), ("active", Some(50))] {
        let mut w = world();
        w.start_unit(50);
        w.exit(50, ExitStatus::Code(1));
        assert!(w.open().contains(&Kind::Crashed));
        w.job("stop", active, "stop", main);
        assert_eq!(w.open(), [], "{active} {main:?}");
    }
}

#[test]
fn a_job_that_follows_a_crash_excuses_nothing() {
    // systemd's own restart, and somebody's stop of what has failed.
    for (kind, active, result) in [
        ("restart", "activating", "success"),
        ("stop", "failed", "exit-code"),
        ("stop", "deactivating", "exit-code"),
    ] {
        let mut w = world();
        w.start_unit(50);
        w.exit(50, ExitStatus::Code(1));
        w.pass(ms(100));
        let state = UnitState {
            result: result.into(),
            job: Some(UnitJob {
                id: 9,
                kind: kind.into(),
            }),
            ..w.unit(active, "auto-restart", None)
        };
        w.tell(What::Unit(state));
        assert!(w.open().contains(&Kind::Crashed), "{kind} {active}");
    }
}

#[test]
fn kill_9_under_automatic_restarts_is_a_crash_until_the_next_life() {
    let mut w = world();
    w.start_unit(50);
    w.kill(50, 99);
    assert!(w.open().contains(&Kind::Crashed));
    let state = UnitState {
        n_restarts: 1,
        result: "signal".into(),
        ..w.unit("activating", "auto-restart", None)
    };
    w.tell(What::Unit(state));
    w.pass(ms(100));
    w.unlink(None);
    w.start_unit_after_restart(51, 1);
    assert_eq!(w.open(), []);
    let shown = w.shown.iter().rev().find(|s| s.kind == EventKind::Unit).unwrap();
    assert_eq!(shown.facts.value("n_restarts"), 1);
    assert!(shown.summary.ends_with("restarted once"), "{}", shown.summary);
}

impl World {
    fn start_unit_after_restart(&mut self, pid: u32, n_restarts: u32) {
        self.exec_in_unit(pid);
        let state = UnitState {
            n_restarts,
            ..self.unit("active", "running", Some(pid))
        };
        self.tell(What::Unit(state));
        self.listen(pid);
        self.write_pid_file(pid);
    }
}

#[test]
fn the_start_limit_is_a_crash_loop_that_was_given_up() {
    let mut w = world();
    for pid in [50, 51] {
        w.start_unit(pid);
        w.exit(pid, ExitStatus::Code(1));
        w.unlink(None);
        w.pass(ms(100));
    }
    assert!(!w.open().contains(&Kind::CrashLoop), "two of five");
    let state = UnitState {
        result: "start-limit-hit".into(),
        n_restarts: 2,
        ..w.unit("failed", "failed", None)
    };
    w.tell(What::Unit(state));
    let f = w.finding(Kind::CrashLoop);
    assert_eq!(f.facts["gave_up"], true);
    assert!(
        f.summary.contains("2 times in 0.1 s") && f.summary.ends_with("gave up d.service: start-limit-hit"),
        "{}",
        f.summary
    );
    // Nobody tries any more: time does not heal it.
    w.pass(ms(3_600_000));
    assert!(w.open().contains(&Kind::CrashLoop));
    w.start_unit(52);
    assert!(!w.open().contains(&Kind::CrashLoop), "{:#?}", w.findings);
}

/// What systemd 252 says: the result stays that of the last process.
#[test]
fn a_restart_without_a_process_means_that_systemd_gave_up() {
    let mut w = world();
    for (n, pid) in [50, 51].into_iter().enumerate() {
        w.start_unit_after_restart(pid, n as u32);
        w.exit(pid, ExitStatus::Code(1));
        w.unlink(None);
        w.pass(ms(100));
    }
    let failed = |w: &World, n_restarts| UnitState {
        result: "exit-code".into(),
        exec_main_pid: Some(51),
        n_restarts,
        ..w.unit("failed", "failed", None)
    };
    let state = failed(&w, 1);
    w.tell(What::Unit(state));
    assert!(!w.open().contains(&Kind::CrashLoop), "it is not to be restarted");
    let state = failed(&w, 2);
    w.tell(What::Unit(state));
    let f = w.finding(Kind::CrashLoop);
    assert_eq!(f.facts["gave_up"], true);
    assert!(
        f.summary
            .ends_with("gave up d.service: start limit hit after exit-code"),
        "{}",
        f.summary
    );
    // Whoever starts it by hand begins to count anew.
    w.start_unit_after_restart(52, 0);
    assert!(!w.open().contains(&Kind::CrashLoop), "{:#?}", w.findings);
}

#[test]
fn an_open_crash_loop_is_told_when_systemd_gives_up() {
    let mut w = world();
    for pid in 50..55 {
        w.start_unit(pid);
        w.exit(pid, ExitStatus::Code(1));
        w.unlink(None);
        w.pass(ms(100));
    }
    let f = w.finding(Kind::CrashLoop);
    assert_eq!(f.facts["gave_up"], false);
    let id = f.id.clone();
    let state = UnitState {
        result: "start-limit-hit".into(),
        ..w.unit("failed", "failed", None)
    };
    w.tell(What::Unit(state));
    let f = w.finding(Kind::CrashLoop);
    assert_eq!((&f.id, &f.facts["gave_up"]), (&id, &true.into()));
}

/// What nobody saw of the starts: systemd gave up before probe began.
#[test]
fn a_start_limit_without_any_end_is_found() {
    let mut w = world();
    let state = UnitState {
        result: "start-limit-hit".into(),
        ..w.unit("failed", "failed", None)
    };
    w.tell(What::Unit(state));
    assert!(w.open().contains(&Kind::CrashLoop));
    let f = w.finding(Kind::CrashLoop);
    assert!(f.actor.is_none() && !f.evidence.is_empty(), "{f:#?}");
}

#[test]
fn the_units_main_process_comes_before_the_oldest_and_the_pid_files() {
    let mut w = world();
    w.exec_in_unit(50);
    w.pass(ms(10));
    w.exec_in_unit(60);
    w.listen(50);
    w.write_pid_file(50);
    assert_eq!(w.main(), Some(50));
    w.running(60);
    assert_eq!(w.main(), Some(60));
    // It has ended, and systemd has not yet said so.
    w.exit(60, ExitStatus::Code(0));
    assert_eq!(w.main(), Some(50));
}

/// `ExecStartPre=` and the like run in the unit, before it has a main process.
#[test]
fn helpers_of_the_unit_are_not_the_service() {
    for code in [0, 1] {
        let mut w = world();
        let state = w.unit("inactive", "dead", None);
        w.tell(What::Unit(state));
        w.findings.clear();
        w.exec_in_unit(49);
        let state = w.unit("activating", "start-pre", None);
        w.tell(What::Unit(state));
        w.exit(49, ExitStatus::Code(code));
        w.start_unit(50);
        assert!(!w.opened().contains(&Kind::Crashed), "{:#?}", w.findings);
        let begun = w.shown.iter().filter(|s| s.kind == EventKind::Ready);
        assert_eq!(
            begun.map(|s| s.facts.value("generation")).collect::<Vec<_>>(),
            [1]
        );
    }
}

/// It lived too shortly for systemd to be asked while it did.
#[test]
fn a_main_process_that_dies_at_once_counts_when_systemd_names_it() {
    let mut w = world();
    let state = w.unit("inactive", "dead", None);
    w.tell(What::Unit(state));
    for pid in 50..55 {
        w.exec_in_unit(pid);
        w.pass(ms(2));
        w.exit(pid, ExitStatus::Code(1));
        let state = UnitState {
            exec_main_pid: Some(pid),
            result: "exit-code".into(),
            ..w.unit("activating", "auto-restart", None)
        };
        w.tell(What::Unit(state));
        assert!(w.open().contains(&Kind::Crashed), "{pid}: {:#?}", w.findings);
        w.pass(ms(100));
    }
    assert!(w.open().contains(&Kind::CrashLoop));
}

#[test]
fn a_helpers_pid_that_the_main_process_has_now_makes_no_crash() {
    let mut w = world();
    let state = w.unit("inactive", "dead", None);
    w.tell(What::Unit(state));
    w.findings.clear();
    w.exec_in_unit(50);
    w.exit(50, ExitStatus::Code(1));
    w.pass(ms(1_000));
    w.exec_in_unit(50);
    w.running(50);
    w.listen(50);
    let ready = w.shown.iter().rev().find(|s| s.kind == EventKind::Ready).unwrap();
    assert_eq!(ready.facts.value("generation"), 1);
    w.exit(50, ExitStatus::Code(1));
    let crashed: Vec<_> = w.findings.iter().filter(|f| f.kind == Kind::Crashed).collect();
    assert_eq!(crashed.len(), 1, "of the second only: {crashed:#?}");
}

/// A unit of processes that systemd cannot tell apart.
#[test]
fn without_a_main_process_every_process_of_an_active_unit_counts() {
    let mut w = World::new(Service {
        exe: None,
        listen: Vec::new(),
        pid_file: None,
        ..with_unit()
    });
    let state = w.unit("active", "running", None);
    w.tell(What::Unit(state));
    w.exec_in_unit(50);
    w.exit(50, ExitStatus::Code(1));
    assert!(w.open().contains(&Kind::Crashed));
}

#[test]
fn a_main_process_that_only_systemd_knows_joins() {
    let mut w = World::new(Service {
        exe: None,
        ..with_unit()
    });
    let p = w.process(50, 1, "/usr/bin/other");
    w.processes.insert(50, p);
    w.running(50);
    assert_eq!(w.main(), Some(50));
}

#[test]
fn the_older_of_two_answers_does_not_count() {
    let mut w = world();
    w.exec_in_unit(50);
    w.exec_in_unit(60);
    let old = w.unit("active", "running", Some(50));
    let before = w.now;
    w.pass(ms(10));
    w.running(60);
    w.apply(Event {
        at: before,
        time_source: TimeSource::Observed,
        what: What::Unit(old),
    });
    assert_eq!(w.main(), Some(60));
}

#[test]
fn another_managers_unit_of_the_same_name_says_nothing() {
    let mut w = world();
    w.start_unit(50);
    let state = UnitState {
        user: Some("alice".into()),
        result: "start-limit-hit".into(),
        ..w.unit("failed", "failed", None)
    };
    w.tell(What::Unit(state));
    w.expect_nothing();
}

#[test]
fn a_cancelled_job_explains_nothing_later() {
    let mut w = world();
    w.start_unit(50);
    w.job("stop", "active", "running", Some(50));
    w.pass(ms(60_000));
    // It waits for another unit's end: the process was not told anything.
    w.expect_nothing();
    w.running(50);
    w.exit(50, ExitStatus::Code(1));
    assert!(w.open().contains(&Kind::Crashed));
}

#[test]
fn a_reload_job_asks_nobody_to_stop() {
    let mut w = world();
    w.start_unit(50);
    w.job("reload", "reloading", "reload", Some(50));
    w.exit(50, ExitStatus::Code(1));
    assert!(w.open().contains(&Kind::Crashed));
}

#[test]
fn a_stop_job_that_takes_long_is_a_slow_stop() {
    let mut w = world();
    w.start_unit(50);
    w.job("stop", "deactivating", "stop", Some(50));
    w.pass(ms(7_600));
    assert_eq!(w.open(), [Kind::SlowStop]);
    assert!(
        w.finding(Kind::SlowStop)
            .summary
            .contains("asked to stop by systemd's stop job 812, 1 of 1 listeners"),
        "{}",
        w.finding(Kind::SlowStop).summary
    );
}

#[test]
fn kill_during_a_stop_job_is_found_unless_the_unit_stops_so() {
    for (by, found) in [("/bin/kill", true), ("/usr/lib/systemd/systemd", false)] {
        let mut w = world();
        w.start_unit(50);
        let killer = w.process(99, 1, by);
        w.processes.insert(99, killer);
        w.job("stop", "deactivating", "stop", Some(50));
        w.signal(50, Signal::KILL, 99, Disposition::Default);
        w.exit(50, KILLED);
        let open = w.open();
        assert_eq!(open.contains(&Kind::KilledWhileStopping), found, "{open:?}");
        assert!(!open.contains(&Kind::Crashed), "{open:?}");
    }
}

/// systemd sends its stop signal to every process of the unit, the main one first.
#[test]
fn workers_that_die_of_the_units_stop_signal_were_asked() {
    let term = ExitStatus::Signal {
        signal: Signal::TERM,
        core: false,
    };
    for main_first in [true, false] {
        let mut w = world();
        w.start_unit(50);
        w.fork(50, 60);
        w.signal(50, Signal::TERM, 1, Disposition::Default);
        w.signal(60, Signal::TERM, 1, Disposition::Default);
        for pid in if main_first { [50, 60] } else { [60, 50] } {
            w.exit(pid, term);
        }
        w.pass(ms(60_000));
        w.expect_nothing();
    }
}

#[test]
fn a_manager_out_of_sight_concludes_nothing() {
    let mut w = world();
    w.start_unit(50);
    w.tell(What::Unit(UnitState {
        unit: UNIT.into(),
        error: Some("the connection was closed".into()),
        ..UnitState::default()
    }));
    w.pass(ms(60_000));
    w.expect_nothing();
    assert_eq!(w.main(), Some(50));
}

#[test]
fn the_same_answer_again_shows_nothing() {
    let mut w = world();
    w.start_unit(50);
    let shown = w.count(EventKind::Unit);
    w.pass(ms(10));
    w.running(50);
    assert_eq!(w.count(EventKind::Unit), shown);
}
