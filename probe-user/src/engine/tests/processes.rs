//! Ends, instances, PID files.

use super::world::{PID_FILE, World, ms, service};
use crate::{
    config::Service,
    engine::finding::Kind,
    event::{Disposition, ExitStatus, Process, What},
    signal::Signal,
};

#[test]
fn kill_9_is_a_crash_that_leaves_a_dead_socket_and_pid_file() {
    let mut w = World::new(service());
    assert_eq!(w.open(), [Kind::NotRunning]);
    w.start(50);
    assert_eq!(w.open(), []);
    w.pass(ms(60_000));
    w.findings.clear();
    w.kill(50, 99);
    assert_eq!(
        w.open(),
        [
            Kind::StaleSocket,
            Kind::NotRunning,
            Kind::StalePidFile,
            Kind::Crashed
        ]
    );
    for f in &w.findings {
        assert_eq!(f.actor.as_ref().map(|a| a.id.pid), Some(99), "{f:#?}");
        assert_eq!(f.cause, w.findings[0].cause, "one cause");
    }
    assert!(
        w.finding(Kind::StaleSocket)
            .summary
            .contains("was killed by KILL from kill (99)")
    );
}

#[test]
fn what_a_crash_opened_resolves_when_the_service_is_back() {
    let mut w = World::new(service());
    w.start(50);
    w.kill(50, 99);
    w.pass(ms(100));
    w.unlink(None);
    w.start(51);
    assert_eq!(w.open(), []);
    assert!(
        w.finding(Kind::Crashed)
            .resolution
            .as_ref()
            .is_some_and(|r| r.contains("generation 2"))
    );
}

#[test]
fn a_signal_without_a_handler_names_its_sender() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::USR1, 99, Disposition::Default);
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    );
    let f = w.finding(Kind::UnhandledSignal);
    assert_eq!(f.actor.as_ref().and_then(|a| a.exe.as_deref()), Some("/bin/kill"));
    assert!(w.opened().contains(&Kind::Crashed));
}

#[test]
fn a_worker_that_dies_of_a_signal_is_found_and_replaced() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.findings.clear();
    w.pass(ms(20));
    w.signal(60, Signal::USR1, 99, Disposition::Default);
    w.exit(
        60,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    );
    assert_eq!(w.open(), [Kind::UnhandledSignal]);
    w.pass(ms(20));
    w.fork(50, 61);
    assert_eq!(w.open(), []);
}

#[test]
fn the_first_sender_whose_signal_was_queued_is_the_actor() {
    let mut w = World::new(service());
    w.start(50);
    w.signal(50, Signal::USR1, 98, Disposition::Default);
    w.signal(50, Signal::USR1, 99, Disposition::Default);
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    );
    assert_eq!(
        w.finding(Kind::UnhandledSignal).actor.as_ref().map(|a| a.id.pid),
        Some(98)
    );
}

#[test]
fn the_oom_killer_is_named() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    let victim: Process = w.processes[&50].clone();
    w.tell(What::Oom {
        victim,
        rss: Some(64 << 20),
    });
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal::KILL,
            core: false,
        },
    );
    assert!(w.finding(Kind::OomKilled).summary.contains("64 MiB"));
    assert!(w.opened().contains(&Kind::Crashed));
    assert!(!w.opened().contains(&Kind::UnhandledSignal));
}

#[test]
fn two_instances_are_duplicates_after_overlap() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.exec(70);
    w.write_pid_file(70);
    w.pass(ms(29_000));
    w.expect_nothing();
    w.pass(ms(2_000));
    assert_eq!(w.open(), [Kind::DuplicateInstance]);
    w.signal(70, Signal::TERM, 99, Disposition::Caught);
    w.exit(70, ExitStatus::Code(0));
    assert!(!w.open().contains(&Kind::DuplicateInstance), "{:#?}", w.findings);
}

#[test]
fn a_graceful_handover_within_overlap_is_no_duplicate() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.exec(70);
    w.pass(ms(10_000));
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.unlink(Some(70));
    w.listen(70);
    w.write_pid_file(70);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(120_000));
    w.expect_nothing();
}

#[test]
fn a_pid_file_that_names_a_stranger_is_stale() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    let stranger = w.process(80, 1, "/usr/bin/other");
    w.processes.insert(80, stranger);
    w.write_pid_file(80);
    assert_eq!(w.open(), [Kind::StalePidFile]);
    assert_eq!(w.finding(Kind::StalePidFile).subject, PID_FILE);
    w.write_pid_file(50);
    assert_eq!(w.open(), []);
}

#[test]
fn a_service_that_nobody_expects_may_be_absent() {
    let mut w = World::new(Service {
        expected: false,
        ..service()
    });
    w.pass(ms(100_000));
    w.expect_nothing();
}

#[test]
fn a_loss_is_blind_until_a_snapshot_settles_it() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.tell(What::Lost {
        source: "ring".into(),
        count: 3,
    });
    assert_eq!(w.open(), [Kind::Blind]);
    // Nothing is concluded while events are missing.
    w.exit(50, ExitStatus::Code(1));
    assert_eq!(w.open(), [Kind::Blind]);
    w.snapshot(crate::event::SnapshotReason::Loss);
    // Whether it was asked to stop may be among what is missing.
    assert_eq!(
        w.open(),
        [Kind::StaleSocket, Kind::NotRunning, Kind::StalePidFile]
    );
}

#[test]
fn a_process_that_vanished_unseen_is_no_crash() {
    let mut w = World::new(service());
    let ino = w.start(50);
    w.findings.clear();
    w.pass(ms(1_000));
    w.processes.clear();
    w.sockets.retain(|s| s.inode != ino);
    w.snapshot(crate::event::SnapshotReason::Interval);
    assert_eq!(
        w.open(),
        [Kind::StaleSocket, Kind::NotRunning, Kind::StalePidFile]
    );
}

#[test]
fn five_ends_in_a_minute_are_a_crash_loop() {
    let mut w = World::new(service());
    for pid in 50..55 {
        w.start(pid);
        w.pass(ms(1_000));
        assert!(!w.opened().contains(&Kind::CrashLoop));
        w.exit(pid, ExitStatus::Code(1));
        w.pass(ms(500));
        w.unlink(None);
    }
    assert!(w.open().contains(&Kind::CrashLoop));
    w.start(60);
    w.pass(ms(61_000));
    assert_eq!(w.open(), []);
}

#[test]
fn a_pid_file_of_an_instance_that_holds_nothing_is_a_mismatch() {
    let mut w = World::new(Service {
        max_instances: 2,
        ..service()
    });
    w.start(50);
    w.findings.clear();
    w.exec(70);
    w.write_pid_file(70);
    w.pass(ms(31_000));
    assert_eq!(w.open(), [Kind::PidFileMismatch]);
    w.write_pid_file(50);
    assert_eq!(w.open(), []);
}

fn with_heartbeat() -> Service {
    let heartbeat = toml::from_str("file = \"/run/d.beat\"\nstale_after = \"30s\"").unwrap();
    Service {
        heartbeat: Some(heartbeat),
        ..service()
    }
}

fn beat(w: &mut World) {
    let beat = Some(w.now);
    w.tell(What::Heartbeat {
        service: "d".into(),
        beat,
    });
}

#[test]
fn a_heartbeat_that_stops_says_what_the_process_does() {
    use crate::event::{ProcessState, RunState};
    let mut w = World::new(with_heartbeat());
    w.start(50);
    w.findings.clear();
    beat(&mut w);
    w.pass(ms(20_000));
    beat(&mut w);
    w.pass(ms(29_000));
    w.expect_nothing();
    w.signal(50, Signal::STOP, 98, Disposition::Default);
    w.pass(ms(2_000));
    let process = w.processes[&50].id;
    w.tell(What::Process(ProcessState {
        process,
        run: RunState::Stopped,
        masks: None,
        locks: Vec::new(),
    }));
    assert_eq!(w.open(), [Kind::Stopped, Kind::StaleHeartbeat]);
    let f = w.finding(Kind::StaleHeartbeat);
    assert!(f.summary.contains("is stopped"), "{}", f.summary);
    assert_eq!(f.actor.as_ref().map(|a| a.id.pid), Some(98));
    assert_eq!(f.cause, w.finding(Kind::Stopped).cause);
    w.signal(50, Signal::CONT, 98, Disposition::Default);
    beat(&mut w);
    assert_eq!(w.open(), []);
}

#[test]
fn a_machine_that_slept_is_given_the_time_for_a_beat() {
    let mut w = World::new(with_heartbeat());
    w.start(50);
    w.findings.clear();
    beat(&mut w);
    w.pass(ms(20_000));
    // Asleep for longer than a beat may be late; no timer runs.
    w.now = w.now + ms(60_000);
    w.tell(What::Woke {
        slept_ns: 60_000_000_000,
    });
    w.tell(What::Timer);
    w.expect_nothing();
    // 30 s awake in all.
    w.pass(ms(9_000));
    w.expect_nothing();
    w.pass(ms(2_000));
    assert_eq!(w.open(), [Kind::StaleHeartbeat]);
}

#[test]
fn a_peer_that_does_not_answer_is_the_networks_fault() {
    use crate::{
        engine::finding::Severity,
        event::{ProcessState, RunState},
    };
    let mut w = World::new(with_heartbeat());
    w.start(50);
    w.findings.clear();
    w.pass(ms(31_000));
    let process = w.processes[&50].id;
    let run = RunState::WaitingOnPeer {
        peer: "192.0.2.1:443".into(),
    };
    w.tell(What::Process(ProcessState {
        process,
        run,
        masks: None,
        locks: Vec::new(),
    }));
    assert_eq!(w.finding(Kind::StaleHeartbeat).severity, Severity::Warning);
}

#[test]
fn no_heartbeat_is_expected_after_an_asked_stop() {
    let mut w = World::new(with_heartbeat());
    w.start(50);
    beat(&mut w);
    w.findings.clear();
    w.signal(50, Signal::TERM, 98, Disposition::Caught);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(100_000));
    w.expect_nothing();
}

#[test]
fn a_duplicate_says_who_holds_which_lock() {
    let mut w = World::new(service());
    w.start(50);
    w.exec(70);
    w.write_pid_file(70);
    w.locks.insert(50, vec!["/run/d.lock".into()]);
    w.pass(ms(31_000));
    let summary = &w.finding(Kind::DuplicateInstance).summary;
    assert!(
        summary.contains("d (50), parent 1 holds unix:/run/d.sock and the lock /run/d.lock"),
        "{summary}"
    );
    assert!(summary.contains("d (70), parent 1 holds /run/d.pid"), "{summary}");
}

/// `Process.terminate()` of a child, or a shell's `kill $!`.
#[test]
fn members_that_stop_each_other_are_no_finding() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.findings.clear();
    w.signal(60, Signal::TERM, 50, Disposition::Default);
    w.exit(
        60,
        ExitStatus::Signal {
            signal: Signal::TERM,
            core: false,
        },
    );
    w.expect_nothing();
    w.fork(50, 61);
    w.signal(61, Signal::USR1, 50, Disposition::Default);
    w.exit(
        61,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    );
    assert_eq!(w.open(), [Kind::UnhandledSignal], "any other signal is");
}
