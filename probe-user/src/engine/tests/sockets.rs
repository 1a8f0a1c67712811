//! Sockets and paths.

use super::world::{SOCK, World, ms, service};
use crate::{
    config::Service,
    engine::finding::Kind,
    event::{Disposition, ExitStatus, FileId, PathChange, PathState, SnapshotReason, SocketState},
    signal::Signal,
};

#[test]
fn an_rm_orphans_the_listener_at_once() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.unlink(Some(99));
    assert_eq!(w.open(), [Kind::OrphanedListener]);
    assert_eq!(
        w.finding(Kind::OrphanedListener).actor.as_ref().map(|a| a.id.pid),
        Some(99)
    );
    w.pass(ms(60_000));
    assert_eq!(w.open(), [Kind::OrphanedListener], "one cause, one main finding");
}

/// Incident 1: A binds, B unlinks and rebinds, B is killed.
#[test]
fn three_processes_one_path() {
    let mut w = World::new(Service {
        exe: None,
        pid_file: None,
        ..service()
    });
    w.exec_as(50, 1, "/usr/bin/a");
    w.listen(50);
    w.findings.clear();
    w.exec_as(51, 1, "/usr/bin/b");
    w.unlink(Some(51));
    w.listen(51);
    assert_eq!(w.open(), [Kind::OrphanedListener]);
    assert_eq!(
        w.finding(Kind::OrphanedListener).actor.as_ref().map(|a| a.id.pid),
        Some(51)
    );
    w.kill(51, 99);
    assert!(w.open().contains(&Kind::StaleSocket), "{:#?}", w.findings);
    assert!(w.open().contains(&Kind::OrphanedListener));
    assert_eq!(
        w.finding(Kind::StaleSocket).actor.as_ref().map(|a| a.id.pid),
        Some(99)
    );
}

#[test]
fn what_was_stale_before_probe_began_has_no_actor() {
    let mut w = World::new(Service {
        expected: false,
        ..service()
    });
    w.path = PathState::Socket(FileId { dev: 1, ino: 5 });
    w.snapshot(SnapshotReason::Interval);
    let f = w.finding(Kind::StaleSocket);
    assert_eq!((f.actor.clone(), f.subject.as_str()), (None, SOCK));
    w.unlink(Some(99));
    assert_eq!(w.open(), []);
}

#[test]
fn a_listener_closed_by_a_living_process_is_not_listening() {
    let mut w = World::new(service());
    let ino = w.start(50);
    w.findings.clear();
    w.close(ino);
    w.pass(ms(900));
    w.expect_nothing();
    w.pass(ms(200));
    assert_eq!(w.open(), [Kind::StaleSocket, Kind::NotListening]);
    w.listen(50);
    assert_eq!(w.open(), []);
}

#[test]
fn one_that_never_listens_is_found_after_ready_within() {
    let mut w = World::new(service());
    w.exec(50);
    w.write_pid_file(50);
    w.findings.clear();
    w.pass(ms(9_000));
    w.expect_nothing();
    w.pass(ms(2_000));
    assert_eq!(w.open(), [Kind::NotListening]);
}

#[test]
fn bound_without_listen_says_so() {
    let mut w = World::new(service());
    w.exec(50);
    w.write_pid_file(50);
    w.listen(50);
    w.sockets[0].state = SocketState::Bound;
    w.path_changed(PathChange::Created, Some(50));
    w.pass(ms(11_000));
    assert!(
        w.finding(Kind::NotListening)
            .summary
            .contains("listen was not called")
    );
}

#[test]
fn listen_is_noticed_although_no_event_tells_of_it() {
    let mut w = World::new(service());
    w.exec(50);
    w.listen(50);
    w.sockets[0].state = SocketState::Bound;
    w.path_changed(PathChange::Created, Some(50));
    w.findings.clear();
    w.pass(ms(100));
    w.sockets[0].state = SocketState::Listening;
    w.pass(ms(600));
    assert!(
        w.shown
            .iter()
            .any(|s| s.kind == crate::engine::finding::EventKind::Ready)
    );
    w.pass(ms(60_000));
    w.expect_nothing();
}

#[test]
fn a_killed_worker_that_shares_the_listener_leaves_it_alive() {
    let mut w = World::new(service());
    w.start(50);
    w.fork(50, 60);
    let child = w.processes[&60].id;
    w.sockets[0].holders.push(crate::event::Holder {
        process: child,
        fd: 3,
    });
    w.snapshot(SnapshotReason::Interval);
    w.findings.clear();
    w.kill(50, 99);
    assert_eq!(
        w.open(),
        [Kind::StalePidFile, Kind::Crashed],
        "the child holds the socket: {:#?}",
        w.findings
    );
    w.exit(
        60,
        ExitStatus::Signal {
            signal: Signal::KILL,
            core: false,
        },
    );
    assert!(w.open().contains(&Kind::StaleSocket));
}

#[test]
fn a_listener_in_flight_is_alive() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.sockets[0].holders.clear();
    w.snapshot(SnapshotReason::Interval);
    w.pass(ms(60_000));
    w.expect_nothing();
}

#[test]
fn an_address_held_by_a_stranger_is_taken() {
    let mut w = World::new(Service {
        expected: false,
        ..service()
    });
    w.exec_as(80, 1, "/usr/bin/other");
    let ino = w.listen(80);
    assert_eq!(w.open(), [Kind::AddressTaken]);
    let taken = w.finding(Kind::AddressTaken);
    assert_eq!(taken.actor.as_ref().map(|a| a.id.pid), Some(80));
    assert!(
        taken
            .summary
            .contains("held by other (80), /usr/bin/other, which"),
        "{}",
        taken.summary
    );
    w.unlink(Some(80));
    w.close(ino);
    assert_eq!(w.open(), []);
}

#[test]
fn a_stranger_is_named_with_its_replaced_executable_and_its_unit() {
    let mut w = World::new(Service {
        expected: false,
        ..service()
    });
    w.exec_as(80, 1, "/usr/sbin/other");
    if let Some(stranger) = w.processes.get_mut(&80) {
        stranger.exe_deleted = true;
        stranger.unit = Some("other.service".to_owned());
    }
    w.listen(80);
    let summary = &w.finding(Kind::AddressTaken).summary;
    assert!(
        summary.ends_with(
            "held by other (80), /usr/sbin/other (deleted) of other.service, which does not belong to the service"
        ),
        "{summary}"
    );
}

#[test]
fn the_same_head_of_the_queue_twice_is_a_stall() {
    use crate::event::{ProcessState, RunState, What};
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.sockets[0].queue = 3;
    w.sockets[0].head = Some(7);
    w.snapshot(SnapshotReason::Interval);
    w.pass(ms(1_000));
    // A queue that moves is no stall, however long it is.
    w.sockets[0].head = Some(8);
    w.pass(ms(2_000));
    w.expect_nothing();
    w.pass(ms(3_000));
    let process = w.processes[&50].id;
    w.tell(What::Process(ProcessState {
        process,
        run: RunState::Running,
        masks: None,
        locks: Vec::new(),
    }));
    assert_eq!(w.open(), [Kind::AcceptStall]);
    w.sockets[0].head = None;
    w.pass(ms(2_500));
    assert_eq!(w.open(), []);
    let looks = w
        .engine
        .timers
        .iter()
        .filter(|(_, due)| matches!(due, crate::engine::Due::Address(_)));
    let soon: Vec<_> = looks.collect();
    assert!(soon.is_empty(), "no wake-ups any more: {soon:?}");
}

#[test]
fn an_old_instance_that_closes_is_not_the_new_one_s_listener() {
    let mut w = World::new(service());
    let old = w.start(50);
    w.findings.clear();
    w.exec(51);
    w.write_pid_file(51);
    w.pass(ms(500));
    w.unlink(Some(50));
    w.close(old);
    w.pass(ms(5_000));
    assert!(!w.opened().contains(&Kind::NotListening), "{:#?}", w.findings);
    w.pass(ms(5_000));
    assert!(w.open().contains(&Kind::NotListening));
}

/// The second of three processes dies before probe could look at what it had bound.
#[test]
fn a_socket_that_died_before_it_was_looked_at_is_known_by_who_made_its_name() {
    let mut w = World::new(service());
    w.exec(50);
    w.findings.clear();
    // The name was made, and its socket is gone by the time of the look.
    w.path = PathState::Socket(FileId { dev: 1, ino: 77 });
    w.path_changed(PathChange::Created, Some(50));
    w.kill(50, 99);
    let f = w.finding(Kind::StaleSocket);
    assert_eq!(f.actor.as_ref().map(|a| a.id.pid), Some(99));
    assert!(
        f.summary.contains("d (50) was killed by KILL from kill (99)"),
        "{}",
        f.summary
    );
}

/// The declared path leads to a listener that nobody holds any more, because its process is dying.
fn a_listener_without_holders(w: &mut World) {
    let file = FileId { dev: 1, ino: 77 };
    w.path = PathState::Socket(file);
    w.sockets.push(crate::event::Socket {
        id: crate::event::SocketId(9),
        inode: 9,
        state: SocketState::Listening,
        file: Some(file),
        ip: None,
        queue: 0,
        backlog: 1,
        head: None,
        holders: Vec::new(),
        holders_known: true,
    });
}

/// A daemon that binds under another name and moves that into its place is stopped right then, and starts again.
#[test]
fn what_an_asked_stop_left_is_known_by_who_moved_its_name_into_place() {
    let mut w = World::new(service());
    w.exec(50);
    w.write_pid_file(50);
    w.findings.clear();
    a_listener_without_holders(&mut w);
    w.path_changed(PathChange::RenamedTo, Some(50));
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.exit(50, ExitStatus::Code(0));
    w.exec(51);
    w.close(9);
    w.write_pid_file(51);
    w.pass(ms(500));
    w.listen(51);
    w.pass(ms(60_000));
    w.expect_nothing();
}

/// Whoever moves a socket file has not bound it: his own end is not why nothing holds it.
#[test]
fn who_moves_a_dead_socket_into_place_has_not_held_it() {
    let mut w = World::new(service());
    w.exec(50);
    w.findings.clear();
    w.path = PathState::Socket(FileId { dev: 1, ino: 77 });
    w.path_changed(PathChange::RenamedTo, Some(99));
    w.pass(ms(60_000));
    let f = w.finding(Kind::StaleSocket);
    assert!(f.summary.ends_with("it was dead before probe looked"), "{f:#?}");
}

/// The look came while the process was dying: the socket still lived, and nobody held it any more.
#[test]
fn a_socket_that_was_only_seen_without_its_holder_is_known_by_who_made_its_name() {
    let mut w = World::new(service());
    w.exec(50);
    w.findings.clear();
    a_listener_without_holders(&mut w);
    w.path_changed(PathChange::Created, Some(50));
    w.kill(50, 99);
    w.close(9);
    let f = w.finding(Kind::StaleSocket);
    assert_eq!(f.actor.as_ref().map(|a| a.id.pid), Some(99));
}
