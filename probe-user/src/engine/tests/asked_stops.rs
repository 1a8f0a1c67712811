//! Stops that were asked for, and those that only look so.

use super::world::{World, ms, service};
use crate::{
    config::{Service, Signals},
    engine::finding::Kind,
    event::{Disposition, ExitStatus},
    signal::Signal,
};

#[test]
fn a_stop_by_term_leaves_nothing_to_find() {
    for (disposition, status) in [
        (Disposition::Caught, ExitStatus::Code(0)),
        (Disposition::Caught, ExitStatus::Code(143)),
        (
            Disposition::Default,
            ExitStatus::Signal {
                signal: Signal::TERM,
                core: false,
            },
        ),
        // Caught, cleaned up, default restored, raised again.
        (
            Disposition::Caught,
            ExitStatus::Signal {
                signal: Signal::TERM,
                core: false,
            },
        ),
    ] {
        let mut w = World::new(service());
        w.start(50);
        w.findings.clear();
        w.signal(50, Signal::TERM, 99, disposition);
        w.pass(ms(100));
        w.exit(50, status);
        w.pass(ms(60_000));
        w.expect_nothing();
    }
}

#[test]
fn a_declared_handler_that_is_not_there_is_found() {
    let signals = Signals {
        handled: vec![Signal::TERM],
    };
    let mut w = World::new(Service { signals, ..service() });
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 99, Disposition::Default);
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal::TERM,
            core: false,
        },
    );
    assert_eq!(w.open(), [Kind::UnhandledSignal]);
}

#[test]
fn kill_after_term_names_both_and_the_time_between() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Caught);
    w.pass(ms(90_000));
    w.kill(50, 99);
    assert_eq!(w.open(), [Kind::KilledWhileStopping]);
    let f = w.finding(Kind::KilledWhileStopping);
    assert!(
        f.summary
            .contains("by kill (98) and killed by kill (99) 90.000 s later"),
        "{}",
        f.summary
    );
}

/// Rule 4: a master that stops its workers asks nobody to stop the service.
#[test]
fn a_master_that_stops_its_workers_hides_no_crash() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.findings.clear();
    w.signal(60, Signal::TERM, 50, Disposition::Caught);
    w.exit(60, ExitStatus::Code(0));
    w.expect_nothing();
    let by_default = |signal| ExitStatus::Signal { signal, core: false };
    w.fork(50, 61);
    w.signal(61, Signal::TERM, 50, Disposition::Default);
    w.exit(61, by_default(Signal::TERM));
    w.expect_nothing();
    w.fork(50, 62);
    w.signal(62, Signal::USR1, 50, Disposition::Default);
    w.exit(62, by_default(Signal::USR1));
    assert_eq!(w.open(), [Kind::UnhandledSignal], "no way to end a worker");
    w.exit(50, ExitStatus::Code(1));
    assert!(w.open().contains(&Kind::Crashed));
}

/// Rule 2: a control command made it close its listeners and exit.
#[test]
fn a_clean_exit_on_a_command_is_a_stop() {
    let mut w = World::new(Service {
        pid_file: None,
        ..service()
    });
    let ino = w.start(50);
    w.findings.clear();
    w.close(ino);
    w.unlink(Some(50));
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(60_000));
    w.expect_nothing();
}

#[test]
fn removing_its_own_pid_file_is_a_clean_exit_too() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.remove_pid_file(50);
    w.exit(50, ExitStatus::Code(0));
    w.expect_nothing();
}

#[test]
fn exit_0_with_the_listener_open_is_a_crash() {
    let mut w = World::new(Service {
        pid_file: None,
        ..service()
    });
    w.start(50);
    w.findings.clear();
    w.exit(50, ExitStatus::Code(0));
    assert_eq!(w.open(), [Kind::StaleSocket, Kind::NotRunning, Kind::Crashed]);
}

#[test]
fn a_code_that_is_not_clean_is_a_crash_although_the_listener_was_closed() {
    let mut w = World::new(Service {
        pid_file: None,
        ..service()
    });
    let ino = w.start(50);
    w.findings.clear();
    w.close(ino);
    w.unlink(Some(50));
    w.exit(50, ExitStatus::Code(1));
    assert_eq!(w.open(), [Kind::NotRunning, Kind::Crashed]);
}

#[test]
fn half_of_stop_within_is_a_slow_stop() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Caught);
    w.pass(ms(7_400));
    w.expect_nothing();
    w.pass(ms(200));
    assert_eq!(w.open(), [Kind::SlowStop]);
    assert!(
        w.finding(Kind::SlowStop)
            .summary
            .contains("caught, 1 of 1 listeners are still open")
    );
    w.exit(50, ExitStatus::Code(0));
    assert_eq!(w.open(), []);
}

#[test]
fn a_declared_signal_that_is_ignored_is_found_until_it_is_caught() {
    let signals = Signals {
        handled: vec![Signal::HUP],
    };
    let mut w = World::new(Service { signals, ..service() });
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::USR1, 98, Disposition::Ignored);
    w.expect_nothing();
    w.signal(50, Signal::HUP, 98, Disposition::Ignored);
    assert_eq!(w.open(), [Kind::SignalIgnored]);
    w.signal(50, Signal::HUP, 98, Disposition::Caught);
    assert_eq!(w.open(), []);
}

#[test]
fn a_stopped_main_process_names_who_stopped_it() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::STOP, 98, Disposition::Default);
    assert_eq!(w.open(), [Kind::Stopped]);
    assert_eq!(
        w.finding(Kind::Stopped).actor.as_ref().map(|a| a.id.pid),
        Some(98)
    );
    w.signal(50, Signal::CONT, 98, Disposition::Default);
    assert_eq!(w.open(), []);
}

#[test]
fn a_blocked_signal_is_found_while_it_stays_pending() {
    use crate::event::{ProcessState, RunState, SignalMasks, What};
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::HUP, 98, Disposition::Blocked);
    w.pass(ms(4_900));
    w.expect_nothing();
    w.pass(ms(200));
    let process = w.processes[&50].id;
    let look = |pending| {
        let masks = SignalMasks {
            blocked: 1,
            pending,
            ..SignalMasks::default()
        };
        What::Process(ProcessState {
            process,
            run: RunState::Running,
            masks: Some(masks),
            locks: Vec::new(),
        })
    };
    w.tell(look(1));
    assert_eq!(w.open(), [Kind::SignalBlocked]);
    w.pass(ms(25_000));
    w.tell(look(0));
    assert_eq!(w.open(), []);
}

#[test]
fn a_stop_that_went_well_is_told_as_one_timeline() {
    use crate::engine::finding::EventKind;
    let mut w = World::new(service());
    let ino = w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Caught);
    w.pass(ms(20));
    w.close(ino);
    w.unlink(Some(50));
    w.pass(ms(30));
    w.exit(50, ExitStatus::Code(0));
    w.expect_nothing();
    let stop = w.shown.iter().find(|s| s.kind == EventKind::Stop).unwrap();
    let timeline = stop.facts.value("stop");
    assert_eq!(timeline["signal"], "TERM");
    assert_eq!(timeline["disposition"], "caught");
    assert_eq!(timeline["listeners_closed_after_ns"], 20_000_000);
    assert_eq!(timeline["ended_after_ns"], 50_000_000);
    assert_eq!(timeline["status"]["code"], 0);
}

#[test]
fn the_timeline_stands_in_the_findings_about_a_stop() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Blocked);
    w.pass(ms(8_000));
    let slow = &w.finding(Kind::SlowStop).facts["stop"];
    assert_eq!(
        (&slow["disposition"], &slow["ended_after_ns"]),
        (&"blocked".into(), &serde_json::Value::Null)
    );
    w.kill(50, 99);
    let killed = &w.finding(Kind::KilledWhileStopping).facts["stop"];
    assert_eq!(killed["ended_after_ns"], 8_000_000_000_u64);
    assert_eq!(killed["listeners_closed_after_ns"], serde_json::Value::Null);
}

#[test]
fn kill_after_a_stop_signal_that_was_ignored_is_how_a_stop_ends() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Ignored);
    w.pass(ms(90_000));
    w.expect_nothing();
    w.kill(50, 98);
    assert_eq!(w.open(), [Kind::KilledWhileStopping]);
}

#[test]
fn a_crash_long_after_a_stop_that_was_not_heeded_is_a_crash() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Caught);
    w.pass(ms(3_600_000));
    w.exit(50, ExitStatus::Code(1));
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
}
