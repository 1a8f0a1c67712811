//! Sockets and executables that change hands.

use super::world::{World, ms, service};
use crate::{
    config::Service,
    engine::finding::{EventKind, Kind},
    event::{Disposition, ExitStatus, FileId, Holder, SnapshotReason, What},
    signal::Signal,
};

const OLD: FileId = FileId { dev: 1, ino: 1000 };
const NEW: FileId = FileId { dev: 1, ino: 1001 };

fn without_pid_file() -> Service {
    Service {
        pid_file: None,
        ..service()
    }
}

/// `pid` holds the first socket too, without any event.
fn pass_socket_to(w: &mut World, pid: u32) {
    let process = w.processes[&pid].id;
    w.sockets[0].holders.push(Holder { process, fd: 3 });
}

#[test]
fn a_socket_passed_to_a_sibling_is_a_handover() {
    let mut w = World::new(without_pid_file());
    w.exec(50);
    w.listen(50);
    w.findings.clear();
    w.exec(51);
    pass_socket_to(&mut w, 51);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(60_000));
    w.expect_nothing();
    assert_eq!(w.count(EventKind::Handover), 1);
    w.kill(51, 99);
    assert!(w.open().contains(&Kind::Crashed), "and its crash is one");
}

#[test]
fn exit_0_with_a_sibling_that_holds_nothing_is_a_crash() {
    let mut w = World::new(without_pid_file());
    w.exec(50);
    w.listen(50);
    w.exec(51);
    w.exit(50, ExitStatus::Code(0));
    assert!(w.opened().contains(&Kind::Crashed), "{:#?}", w.findings);
    assert_eq!(w.count(EventKind::Handover), 0);
}

/// Socket activation: a service manager holds the listener while the daemon is down.
#[test]
fn a_socket_that_a_member_has_held_is_not_taken_by_who_holds_it_too() {
    let mut w = World::new(Service {
        expected: false,
        ..without_pid_file()
    });
    w.exec(50);
    w.listen(50);
    let manager = w.process(9, 1, "/sbin/manager");
    w.processes.insert(9, manager);
    pass_socket_to(&mut w, 9);
    w.findings.clear();
    w.exit(50, ExitStatus::Code(1));
    w.pass(ms(60_000));
    assert_eq!(w.open(), [Kind::Crashed]);
}

#[test]
fn an_upgraded_executable_is_the_declared_one() {
    let mut w = World::new(Service {
        expected: false,
        ..without_pid_file()
    });
    let path = "/usr/bin/d".to_owned();
    let tell = |w: &mut World, id| {
        w.tell(What::Executable {
            path: path.clone(),
            id: Some(id),
        });
    };
    tell(&mut w, OLD);
    tell(&mut w, NEW);
    for (pid, exe_id, member) in [(50, NEW, true), (60, OLD, false)] {
        let mut process = w.process(pid, 1, "/usr/bin/d");
        process.exe_id = Some(exe_id);
        w.processes.insert(pid, process.clone());
        w.tell(What::Exec { process });
        assert_eq!(w.engine.members().any(|id| id.pid == pid), member, "{pid}");
    }
}

/// A binary upgrade: the old master is asked to leave, and what happens to the new one soon after is its own affair.
#[test]
fn a_new_master_that_the_pid_file_names_is_not_stopped_with_the_old_one() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 51);
    w.pass(ms(100));
    w.write_pid_file(51);
    let (new, old) = (w.processes[&51].id, w.processes[&50].id);
    for s in &mut w.sockets {
        assert!(s.holders.iter().any(|h| h.process == old));
        s.holders.push(Holder { process: new, fd: 3 });
    }
    w.snapshot(SnapshotReason::Interval);
    w.signal(50, Signal::QUIT, 99, Disposition::Caught);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(8_000));
    w.findings.clear();
    w.kill(51, 99);
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
    assert!(
        !w.opened().contains(&Kind::KilledWhileStopping),
        "{:?}",
        w.opened()
    );
}

/// An upgrade whose PID file is only read once the old one has ended: who goes on is told all the same, once.
#[test]
fn a_handover_that_is_read_late_is_told() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 51);
    w.pass(ms(100));
    let state = w.pid_file_of(51);
    let (new, old) = (w.processes[&51].id, w.processes[&50].id);
    for s in &mut w.sockets {
        assert!(s.holders.iter().any(|h| h.process == old));
        s.holders.push(Holder { process: new, fd: 3 });
    }
    w.pass(ms(10));
    w.signal(50, Signal::QUIT, 99, Disposition::Caught);
    w.exit(50, ExitStatus::Code(0));
    assert_eq!(w.count(EventKind::Handover), 0);
    w.tell(What::PidFile(state.clone()));
    assert_eq!(w.count(EventKind::Handover), 1);
    w.tell(What::PidFile(state));
    w.snapshot(SnapshotReason::Interval);
    assert_eq!(w.count(EventKind::Handover), 1);
}

/// What only the old one answers is not the new one's.
#[test]
fn a_predecessor_that_is_draining_makes_nobody_ready() {
    let mut w = World::new(service());
    w.start(50);
    assert_eq!(w.count(EventKind::Ready), 1);
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.exec(51);
    w.write_pid_file(51);
    let view = w.engine.views().remove(0);
    assert_eq!((view.generation, view.ready), (2, false), "{view:#?}");
    w.listen(51);
    assert_eq!(w.count(EventKind::Ready), 2);
    assert!(w.engine.views().remove(0).ready);
}
