//! Whatever order a snapshot and the events around it arrive in, the result is the same.

use super::world::{World, ms, service};
use crate::{
    engine::finding::Kind,
    event::{Event, ExitStatus, SnapshotReason, TimeSource, What},
    signal::Signal,
};

/// A snapshot that was read before an exit and arrives after it brings nobody back.
#[test]
fn a_late_snapshot_does_not_raise_the_dead() {
    let mut w = World::new(service());
    w.start(50);
    w.pass(ms(50));
    let began = w.now;
    let addresses = vec![w.state_of(&super::world::SOCK.parse().unwrap())];
    let processes: Vec<_> = w.processes.values().cloned().collect();
    w.pass(ms(10));
    w.kill(50, 99);
    let before = w.open();
    let snapshot = crate::event::Snapshot {
        began,
        reason: SnapshotReason::Interval,
        processes,
        addresses,
        pid_files: Vec::new(),
    };
    w.apply(Event {
        at: began,
        time_source: TimeSource::Observed,
        what: What::Snapshot(snapshot),
    });
    assert_eq!(w.open(), before);
    assert!(before.contains(&Kind::StaleSocket));
}

/// Events that the snapshot already contains change nothing.
#[test]
fn events_told_again_change_nothing() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.snapshot(SnapshotReason::Interval);
    w.findings.clear();
    let (master, worker) = (w.processes[&50].clone(), w.processes[&60].clone());
    w.tell(What::Exec { process: master });
    w.tell(What::Fork { child: worker });
    w.pass(ms(60_000));
    w.expect_nothing();
    assert_eq!(w.engine.services[0].generation, 1);
}

/// The socket's close may be told before its holder's exit, or after it.
#[test]
fn close_before_exit_is_the_same_as_after() {
    for status in [
        ExitStatus::Signal {
            signal: Signal::KILL,
            core: false,
        },
        ExitStatus::Code(0),
    ] {
        assert_eq!(ends(status, false), ends(status, true), "{status:?}");
    }
}

fn ends(status: ExitStatus, close_first: bool) -> Vec<Kind> {
    let mut w = World::new(service());
    let ino = w.start(50);
    w.pass(ms(100));
    w.findings.clear();
    if status != ExitStatus::Code(0) {
        w.signal(50, Signal::KILL, 99, crate::event::Disposition::Default);
    }
    if close_first {
        // The exit had the socket open; only the telling is the other way round.
        let process = w.processes.remove(&50).unwrap();
        w.close(ino);
        w.tell(What::Exit {
            process,
            status,
            listeners: Some(vec![ino]),
        });
    } else {
        w.exit(50, status);
    }
    w.pass(ms(5_000));
    w.open()
}

/// An address that was held for so short that no look saw it was held nevertheless.
#[test]
fn who_held_the_address_too_short_to_be_seen_counts() {
    let mut w = World::new(service());
    w.exec(50);
    w.path_changed(crate::event::PathChange::Created, Some(50));
    w.kill(50, 99);
    assert!(w.opened().contains(&Kind::Crashed), "{:?}", w.opened());
}

/// The directory's notification of a bind overtakes the kernel's record of the exec.
#[test]
fn who_binds_before_it_is_told_to_run_is_met() {
    let mut w = World::new(service());
    let process = w.process(50, 1, "/usr/bin/d");
    w.processes.insert(50, process.clone());
    w.listen(50);
    w.tell(What::Exec { process });
    assert_eq!(w.engine.services[0].generation, 1);
    w.kill(50, 99);
    assert!(w.opened().contains(&Kind::Crashed), "{:?}", w.opened());
}

/// Who wrote the PID file and ended before anybody read whom it names was the service.
#[test]
fn who_wrote_the_pid_file_and_ended_before_it_was_read_counts() {
    let mut w = World::new(service());
    w.exec(50);
    let actor = w.processes.get(&50).cloned();
    w.tell(What::PidFilePath {
        path: super::world::PID_FILE.into(),
        of: None,
        change: crate::event::PathChange::Created,
        actor: actor.map(Into::into),
    });
    w.kill(50, 99);
    w.write_pid_file(50);
    assert!(w.opened().contains(&Kind::Crashed), "{:?}", w.opened());
}

/// A process that was forked before a list was read, and runs the service's executable only since then.
#[test]
fn a_late_list_of_processes_does_not_end_who_has_joined_since() {
    let mut w = World::new(service());
    let process = w.process(50, 1, "/usr/bin/d");
    w.pass(ms(10));
    let began = w.now;
    w.pass(ms(10));
    w.processes.insert(50, process.clone());
    w.tell(What::Exec {
        process: process.clone(),
    });
    w.apply(Event {
        at: began,
        time_source: TimeSource::Observed,
        what: What::Snapshot(crate::event::Snapshot {
            began,
            reason: SnapshotReason::Interval,
            processes: Vec::new(),
            addresses: Vec::new(),
            pid_files: Vec::new(),
        }),
    });
    assert!(w.engine.members().any(|id| id == process.id));
}

/// A stop signal that reaches the process that the PID file names, before probe has read the file.
#[test]
fn a_stop_asked_before_the_pid_file_was_read_was_asked() {
    let mut w = World::new(service());
    w.exec(50);
    w.fork(50, 60);
    let state = w.pid_file_of(60);
    w.pass(ms(1));
    w.signal(60, Signal::TERM, 99, crate::event::Disposition::Caught);
    w.tell(What::PidFile(state));
    w.pass(ms(8_000));
    assert!(w.opened().contains(&Kind::SlowStop), "{:?}", w.opened());
}

/// The parent ended before its child bound the address, and both were told in the other order: the child's end is the
/// service's, not the parent's.
#[test]
fn who_ended_before_the_instance_counted_was_not_the_service() {
    let mut w = World::new(service());
    w.exec(50);
    w.fork(50, 60);
    w.pass(ms(10));
    let ended = w.now;
    w.pass(ms(10));
    w.listen(60);
    let process = w.processes.remove(&50).unwrap();
    w.apply(Event {
        at: ended,
        time_source: TimeSource::Kernel,
        what: What::Exit {
            process,
            status: ExitStatus::Code(1),
            listeners: Some(Vec::new()),
        },
    });
    assert!(!w.opened().contains(&Kind::Crashed), "{:?}", w.opened());
    w.kill(60, 99);
    assert!(w.opened().contains(&Kind::Crashed), "{:?}", w.opened());
}

/// The directory's notification is read after the process that made the name has ended, and has the time of that.
#[test]
fn a_name_that_is_noticed_after_its_maker_ended_was_made_before() {
    let mut w = World::new(service());
    w.exec(50);
    w.fork(50, 60);
    w.pass(ms(10));
    let ended = w.now;
    w.pass(ms(10));
    w.path_changed(crate::event::PathChange::Created, Some(50));
    let process = w.processes.remove(&50).unwrap();
    w.apply(Event {
        at: ended,
        time_source: TimeSource::Kernel,
        what: What::Exit {
            process,
            status: ExitStatus::Code(1),
            listeners: Some(Vec::new()),
        },
    });
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
}

/// Of two instances the one that was the last to make the name holds the address, also if it ends before anybody looks.
#[test]
fn who_has_just_made_the_name_is_the_main_process() {
    let mut w = World::new(service());
    w.exec(50);
    w.exec(60);
    w.listen(60);
    assert_eq!(w.engine.mains()[0].map(|id| id.pid), Some(60));
    // World answers at once: here nobody has looked yet.
    let actor = w.processes[&50].clone();
    w.now = w.now + ms(10);
    let event = Event {
        at: w.now,
        time_source: TimeSource::Observed,
        what: What::Path {
            address: super::world::SOCK.parse().unwrap(),
            of: None,
            change: crate::event::PathChange::Created,
            actor: Some(actor.into()),
        },
    };
    w.engine.apply(event, w.now);
    assert_eq!(w.engine.mains()[0].map(|id| id.pid), Some(50));
    w.kill(50, 99);
    assert!(w.opened().contains(&Kind::Crashed), "{:?}", w.opened());
}

/// The directory tells of the bind only after the parent's end, without saying when it was: the file does.
#[test]
fn a_bind_that_is_told_late_is_dated_by_its_file() {
    for counted in [true, false] {
        let mut w = World::new(service());
        w.exec(50);
        w.fork(50, 60);
        w.pass(ms(100));
        let bound = w.now;
        w.pass(ms(100));
        let ended = w.now;
        w.changed = Some(if counted { bound } else { ended });
        w.pass(ms(100));
        w.listen(60);
        let process = w.processes.remove(&50).unwrap();
        w.apply(Event {
            at: ended,
            time_source: TimeSource::Kernel,
            what: What::Exit {
                process,
                status: ExitStatus::Code(1),
                listeners: Some(Vec::new()),
            },
        });
        w.snapshot(SnapshotReason::Interval);
        assert_eq!(w.open().contains(&Kind::Crashed), counted, "{:?}", w.open());
        assert_eq!(w.engine.services[0].generation, 1);
    }
}

/// Two CPUs tell of the stop signal before they tell of the parent's end, which came first: it asked what was left.
#[test]
fn a_stop_signal_that_is_told_before_the_parent_s_end_is_a_request() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    w.pass(ms(100));
    let ended = w.now;
    w.pass(ms(1));
    w.signal(60, Signal::TERM, 99, crate::event::Disposition::Caught);
    let process = w.processes.remove(&50).unwrap();
    w.apply(Event {
        at: ended,
        time_source: TimeSource::Kernel,
        what: What::Exit {
            process,
            status: ExitStatus::Code(0),
            listeners: Some(Vec::new()),
        },
    });
    assert!(w.engine.services[0].stopping().is_some());
}

/// The clock need not go on between an end and what follows it.
#[test]
fn a_start_at_the_moment_of_the_crash_replaces_it() {
    let mut w = World::new(service());
    w.start(50);
    w.pass(ms(100));
    w.kill(50, 99);
    let ended = w.now;
    w.start(60);
    assert_eq!(w.now, ended);
    w.pass(ms(60_000));
    let crashes = w.opened().iter().filter(|k| **k == Kind::Crashed).count();
    assert_eq!((crashes, w.open()), (1, Vec::new()));
}
