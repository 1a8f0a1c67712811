//! What healthy daemons do and must not be blamed for (design §2, the rules that healthy daemons force).

use super::world::{PID_FILE, World, ms, service};
use crate::{
    config::Service,
    engine::finding::{EventKind, Kind},
    event::{Disposition, ExitStatus, PidFileContent, PidFileState, What},
    signal::Signal,
};

/// Rule 1: double fork into the background.
#[test]
fn a_forking_start_is_a_handover() {
    let mut w = World::new(service());
    w.exec(50);
    w.fork(50, 51);
    w.fork(51, 52);
    w.listen(52);
    w.findings.clear();
    w.exit(50, ExitStatus::Code(0));
    w.exit(51, ExitStatus::Code(0));
    w.write_pid_file(52);
    w.pass(ms(60_000));
    w.expect_nothing();
    assert_eq!(w.engine.mains()[0].map(|m| m.pid), Some(52));
    w.kill(52, 99);
    assert!(w.open().contains(&Kind::Crashed), "and its crash is one");
}

/// A main process that has handed over is still named by its PID file: whoever goes on has a while to write its own.
fn handed_over() -> World {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 51);
    let heir = w.processes[&51].id;
    for socket in &mut w.sockets {
        socket.holders.push(crate::event::Holder { process: heir, fd: 3 });
    }
    w.snapshot(crate::event::SnapshotReason::Interval);
    w.findings.clear();
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(500));
    w.expect_nothing();
    w
}

#[test]
fn the_heir_writes_the_pid_file_a_moment_later() {
    let mut w = handed_over();
    w.write_pid_file(51);
    w.pass(ms(60_000));
    w.expect_nothing();
}

#[test]
fn an_heir_that_never_writes_the_pid_file_leaves_it_stale() {
    let mut w = handed_over();
    w.pass(ms(60_000));
    assert_eq!(w.open(), [Kind::StalePidFile]);
}

/// Rule 3: the same executable as a tool.
#[test]
fn a_tool_run_of_the_same_executable_is_no_instance() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.exec(70);
    w.pass(ms(60_000));
    w.expect_nothing();
    w.exit(70, ExitStatus::Code(1));
    w.expect_nothing();
}

/// Rule 3, the service is down: the tool does not bring it up, and its failure is no crash.
#[test]
fn a_tool_run_does_not_count_as_running() {
    let mut w = World::new(service());
    w.exec(70);
    w.exit(70, ExitStatus::Code(1));
    assert_eq!(w.opened(), [Kind::NotRunning]);
    assert_eq!(w.open(), [Kind::NotRunning]);
}

/// Rule 9: workers that outlive their master are one instance.
#[test]
fn survivors_are_one_instance() {
    let mut w = World::new(service());
    w.start(50);
    for worker in [60, 61, 62] {
        w.fork(50, worker);
        let id = w.processes[&worker].id;
        w.sockets[0]
            .holders
            .push(crate::event::Holder { process: id, fd: 3 });
    }
    w.snapshot(crate::event::SnapshotReason::Interval);
    w.kill(50, 99);
    w.findings.clear();
    w.pass(ms(120_000));
    assert!(
        !w.opened().contains(&Kind::DuplicateInstance),
        "{:#?}",
        w.findings
    );
}

/// Two processes that ran before probe did, and hold these listeners; a while later.
fn found_running(listeners: &[&[u32]]) -> World {
    let mut w = World::before_the_first_snapshot(service());
    for pid in [60, 61] {
        let process = w.process(pid, 1, "/usr/bin/d");
        w.processes.insert(pid, process);
    }
    for holders in listeners {
        w.listener_of(holders);
    }
    w.snapshot(crate::event::SnapshotReason::Start);
    w.pass(ms(120_000));
    w
}

/// Rule 9, although probe began when the master was gone already.
#[test]
fn survivors_that_nobody_saw_forked_are_one_instance_by_their_socket() {
    let w = found_running(&[&[60, 61]]);
    assert!(
        !w.opened().contains(&Kind::DuplicateInstance),
        "{:#?}",
        w.findings
    );
}

/// Two sockets at one address were bound by two.
#[test]
fn two_that_bound_a_socket_each_are_two_also_when_nobody_saw_them_start() {
    let w = found_running(&[&[60], &[61]]);
    assert!(w.opened().contains(&Kind::DuplicateInstance));
}

/// Rule 10: an empty PID file is not written yet.
#[test]
fn an_empty_pid_file_is_no_finding() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    let (content, modified) = (PidFileContent::Empty, w.now);
    w.tell(What::PidFile(PidFileState {
        path: PID_FILE.into(),
        of: None,
        local: None,
        content,
        modified,
        process: None,
    }));
    w.expect_nothing();
    w.pass(ms(60_000));
    assert_eq!(w.open(), [Kind::StalePidFile], "and it never was");
    w.write_pid_file(50);
    assert_eq!(w.open(), []);
}

/// Rule 12: a daemon that rebinds its own path orphans nobody.
#[test]
fn rebinding_its_own_path_orphans_nobody() {
    let mut w = World::new(service());
    let old = w.start(50);
    w.findings.clear();
    w.unlink(Some(50));
    w.pass(ms(500));
    w.listen(50);
    w.pass(ms(100));
    w.close(old);
    w.pass(ms(60_000));
    w.expect_nothing();
}

#[test]
fn unlinking_its_own_path_for_good_is_found() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.unlink(Some(50));
    w.pass(ms(900));
    w.expect_nothing();
    w.pass(ms(200));
    assert_eq!(w.open(), [Kind::OrphanedListener]);
}

#[test]
fn a_reload_changes_nothing() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.findings.clear();
    w.signal(50, Signal::HUP, 99, Disposition::Caught);
    w.fork(50, 61);
    w.signal(60, Signal::QUIT, 50, Disposition::Caught);
    w.exit(60, ExitStatus::Code(0));
    w.pass(ms(60_000));
    w.expect_nothing();
    assert_eq!(w.count(EventKind::Ready), 1);
}

#[test]
fn a_restart_as_asked_is_a_new_generation_and_no_finding() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    for (old, new) in [(50, 51), (51, 52)] {
        w.pass(ms(1_000));
        w.signal(old, Signal::TERM, 99, Disposition::Caught);
        w.unlink(Some(old));
        w.remove_pid_file(old);
        w.exit(old, ExitStatus::Code(0));
        w.pass(ms(200));
        w.start(new);
    }
    w.expect_nothing();
    assert_eq!(w.engine.services[0].generation, 3);
}

#[test]
fn a_declared_interpreter_that_runs_something_else_is_let_go() {
    let mut w = World::new(Service {
        script: Some("/opt/agent.sh".into()),
        ..service()
    });
    w.exec(50);
    assert!(
        w.effects
            .iter()
            .any(|e| matches!(e, crate::engine::Effect::Forget(id) if id.pid == 50))
    );
}

/// A plain service, with neither address nor PID file, counts once it has lived for `ready_within`.
#[test]
fn a_plain_service_counts_after_ready_within() {
    let mut w = World::new(Service {
        listen: Vec::new(),
        pid_file: None,
        ..service()
    });
    w.exec(50);
    w.pass(ms(9_000));
    assert_eq!(w.open(), [Kind::NotRunning]);
    w.pass(ms(2_000));
    assert_eq!(w.open(), []);
    w.kill(50, 99);
    assert_eq!(w.open(), [Kind::NotRunning, Kind::Crashed]);
}

/// Rule 6: what signalfd or sigwait takes is handled.
#[test]
fn signals_that_are_waited_for_are_handled() {
    use crate::event::{ProcessState, RunState, SignalMasks};
    let signals = crate::config::Signals {
        handled: vec![Signal::TERM, Signal::HUP],
    };
    let masks = |caught, blocked, waiting| SignalMasks {
        caught,
        blocked,
        waiting,
        ..SignalMasks::default()
    };
    let bit = |s: Signal| 1u64 << (s.0 - 1);
    for (seen, found) in [
        (masks(bit(Signal::TERM) | bit(Signal::HUP), 0, false), false),
        (masks(bit(Signal::TERM), bit(Signal::HUP), false), false),
        (masks(0, 0, true), false),
        (masks(bit(Signal::TERM), 0, false), true),
    ] {
        let mut w = World::new(Service {
            signals: signals.clone(),
            ..service()
        });
        w.start(50);
        w.findings.clear();
        w.effects.clear();
        w.pass(ms(10_500));
        assert!(
            w.effects
                .iter()
                .any(|e| matches!(e, crate::engine::Effect::Look(id) if id.pid == 50))
        );
        let process = w.processes[&50].id;
        w.tell(What::Process(ProcessState {
            process,
            run: RunState::Running,
            masks: Some(seen),
            locks: Vec::new(),
        }));
        assert_eq!(
            w.open(),
            if found {
                vec![Kind::UnhandledSignalRisk]
            } else {
                vec![]
            },
            "{seen:?}"
        );
    }
}

/// Sessions outlive the server that is restarted: they hold nothing that is declared.
#[test]
fn sessions_that_outlive_a_restart_are_no_instance() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.findings.clear();
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.remove_pid_file(50);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(60_000));
    w.expect_nothing();
    w.start(70);
    w.pass(ms(120_000));
    w.expect_nothing();
    w.start(80);
    w.pass(ms(120_000));
    assert!(
        w.opened().contains(&Kind::DuplicateInstance),
        "a second server is one"
    );
}

/// A helper that lives a moment longer than its master, which was told to stop, and holds the listeners until then.
#[test]
fn listeners_that_close_with_a_helper_after_the_stop_are_no_finding() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    let helper = w.processes[&60].id;
    w.sockets[0].holders.push(crate::event::Holder {
        process: helper,
        fd: 3,
    });
    w.snapshot(crate::event::SnapshotReason::Interval);
    w.findings.clear();
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.remove_pid_file(50);
    w.exit(50, ExitStatus::Code(0));
    w.close(w.sockets[0].inode);
    w.pass(ms(5_000));
    w.expect_nothing();
}

/// A worker is not meant to handle what its master was declared to.
#[test]
fn a_worker_that_outlives_a_crash_is_not_judged_by_its_signals() {
    let mut service = service();
    service.signals.handled = vec![Signal::HUP];
    let mut w = World::new(service);
    w.start(50);
    w.fork(50, 60);
    w.kill(50, 99);
    w.findings.clear();
    w.pass(ms(60_000));
    assert!(
        !w.opened().contains(&Kind::UnhandledSignalRisk),
        "{:#?}",
        w.findings
    );
}

/// That it removed its PID file is told before its end, what stands there is read after it.
#[test]
fn a_pid_file_that_is_being_read_is_not_judged() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.tell(What::PidFilePath {
        path: PID_FILE.into(),
        of: None,
        change: crate::event::PathChange::Removed,
        actor: w.processes.get(&50).cloned().map(Into::into),
    });
    w.exit(50, ExitStatus::Code(255));
    assert!(!w.opened().contains(&Kind::StalePidFile), "{:#?}", w.findings);
    w.pass(ms(10_000));
    assert!(
        w.opened().contains(&Kind::StalePidFile),
        "it was never read: it is as it was"
    );
}

/// Workers that notice that their master was killed close their listener and go: it is stale for the master's sake.
#[test]
fn a_socket_whose_last_worker_went_after_a_crash_is_stale() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    let worker = w.processes[&60].id;
    w.sockets[0].holders.push(crate::event::Holder {
        process: worker,
        fd: 3,
    });
    w.snapshot(crate::event::SnapshotReason::Interval);
    w.kill(50, 99);
    w.pass(ms(1_000));
    w.close(w.sockets[0].inode);
    w.exit(60, ExitStatus::Code(0));
    w.pass(ms(5_000));
    assert!(w.open().contains(&Kind::StaleSocket), "{:?}", w.open());
    assert_eq!(w.finding(Kind::StaleSocket).cause, w.finding(Kind::Crashed).cause);
}

/// `apache2 -k graceful-stop` runs the daemon's own executable, and asks the daemon to stop.
#[test]
fn a_tool_of_the_same_executable_asks_to_stop() {
    let mut w = World::new(service());
    let listener = w.start(50);
    w.findings.clear();
    w.exec(70);
    w.signal(50, Signal::TERM, 70, Disposition::Caught);
    w.exit(70, ExitStatus::Code(0));
    w.remove_pid_file(50);
    w.unlink(Some(50));
    w.close(listener);
    w.pass(ms(5_000));
    w.expect_nothing();
    w.exit(50, ExitStatus::Code(1));
    w.pass(ms(60_000));
    w.expect_nothing();
}
