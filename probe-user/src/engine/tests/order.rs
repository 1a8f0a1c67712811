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
