//! Binds, as the fentry tier tells of them.

use super::world::{SOCK, World, ms, service};
use crate::{
    config::Service,
    engine::finding::{EventKind, Kind},
    event::{Event, ExitStatus, PathChange, ProcessState, RunState, SocketState, TimeSource, What},
};

const IN_USE: Option<i32> = Some(libc::EADDRINUSE);

fn bound(w: &World, pid: u32, error: Option<i32>) -> What {
    What::Bind {
        address: SOCK.parse().unwrap(),
        process: w.processes[&pid].clone(),
        socket: None,
        // That of the first socket of the world.
        inode: error.is_none().then_some(101),
        error,
        netns: None,
    }
}

fn bind(w: &mut World, pid: u32, error: Option<i32>) {
    let what = bound(w, pid, error);
    w.tell(what);
}

fn shown(w: &World, kind: EventKind) -> usize {
    w.shown.iter().filter(|s| s.kind == kind).count()
}

#[test]
fn a_refused_bind_is_found_at_once_and_says_who_holds_the_address() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.exec(51);
    bind(&mut w, 51, IN_USE);
    assert_eq!(w.open(), [Kind::BindRefused]);
    let f = w.finding(Kind::BindRefused);
    assert_eq!(f.actor.as_ref().map(|a| a.id.pid), Some(51));
    assert!(f.summary.contains("EADDRINUSE"), "{}", f.summary);
    assert!(f.summary.contains("held by d (50), /usr/bin/d"), "{}", f.summary);
    assert_eq!(f.evidence.len(), 1);
    w.exit(51, ExitStatus::Code(1));
    assert!(!w.open().contains(&Kind::BindRefused), "{:#?}", w.findings);
}

#[test]
fn a_later_bind_ends_it() {
    let mut w = World::new(Service {
        expected: false,
        ..service()
    });
    w.exec(50);
    bind(&mut w, 50, Some(libc::EACCES));
    assert_eq!(w.open(), [Kind::BindRefused]);
    bind(&mut w, 50, Some(libc::EACCES));
    let opened = w.findings.iter().filter(|f| f.kind == Kind::BindRefused).count();
    assert_eq!(opened, 1, "once, however often it tries");
    bind(&mut w, 50, None);
    assert!(!w.open().contains(&Kind::BindRefused));
}

#[test]
fn a_stranger_that_fails_is_nobodys_business() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.exec_as(60, 1, "/usr/bin/other");
    bind(&mut w, 60, IN_USE);
    w.expect_nothing();
}

#[test]
fn without_a_selector_whoever_fails_is_named_until_it_is_gone() {
    let mut w = World::new(Service {
        exe: None,
        pid_file: None,
        ..service()
    });
    w.exec_as(50, 1, "/usr/bin/a");
    w.listen(50);
    w.findings.clear();
    w.exec_as(60, 1, "/usr/bin/b");
    bind(&mut w, 60, IN_USE);
    assert_eq!(w.open(), [Kind::BindRefused]);
    let process = w.processes[&60].id;
    w.tell(What::Process(ProcessState {
        process,
        run: RunState::Gone,
        masks: None,
        locks: Vec::new(),
    }));
    assert_eq!(w.open(), []);
}

#[test]
fn one_bind_and_one_listen_are_each_told_once() {
    let mut w = World::new(service());
    w.exec(50);
    w.shown.clear();
    bind(&mut w, 50, None);
    let ino = w.listen(50);
    let process = w.processes[&50].clone();
    for _ in 0..2 {
        w.tell(What::Listen {
            address: SOCK.parse().unwrap(),
            process: process.clone(),
            socket: None,
            inode: Some(ino),
            netns: None,
        });
    }
    w.pass(ms(100));
    assert_eq!(shown(&w, EventKind::Bind), 1, "{:#?}", w.shown);
    assert_eq!(shown(&w, EventKind::Listen), 1, "{:#?}", w.shown);
    // Another name of the file is news.
    w.path_changed(PathChange::Created, Some(50));
    assert_eq!(shown(&w, EventKind::Bind), 2);
}

#[test]
fn a_listener_that_no_look_has_seen_ends_once() {
    let mut w = World::new(service());
    w.exec(50);
    w.shown.clear();
    let address: crate::address::Address = SOCK.parse().unwrap();
    let process = w.processes[&50].clone();
    w.tell(What::Listen {
        address: address.clone(),
        process,
        socket: None,
        inode: Some(700),
        netns: None,
    });
    for _ in 0..2 {
        w.tell(What::Unlisten {
            address: address.clone(),
            socket: None,
            inode: Some(700),
            netns: None,
        });
    }
    assert_eq!(shown(&w, EventKind::Listen), 1);
    assert_eq!(shown(&w, EventKind::Close), 1);
}

#[test]
fn a_name_that_is_told_before_its_bind_is_the_same_bind() {
    let mut w = World::new(service());
    w.exec(50);
    w.shown.clear();
    w.path_changed(PathChange::Created, Some(50));
    bind(&mut w, 50, None);
    assert_eq!(shown(&w, EventKind::Bind), 1);
    // A later bind is another one.
    w.pass(ms(2_000));
    bind(&mut w, 50, Some(libc::EADDRINUSE));
    assert_eq!(shown(&w, EventKind::Bind), 2);
}

#[test]
fn a_name_that_is_read_late_is_the_same_bind() {
    let mut w = World::new(service());
    w.exec(50);
    w.shown.clear();
    let bound_at = w.now;
    // The records of the kernel have its time, a name that appears the time at which that was read.
    w.pass(ms(3_000));
    w.path_changed(PathChange::Created, Some(50));
    w.apply(Event {
        at: bound_at,
        time_source: TimeSource::Kernel,
        what: bound(&w, 50, None),
    });
    assert_eq!(shown(&w, EventKind::Bind), 1);
}

#[test]
fn a_listener_that_is_shut_down_and_closed_later_ends_once() {
    let mut w = World::new(service());
    let inode = w.start(50);
    w.shown.clear();
    w.sockets[0].state = SocketState::ShutDown;
    w.tell(What::Unlisten {
        address: SOCK.parse().unwrap(),
        socket: None,
        inode: Some(inode),
        netns: None,
    });
    w.pass(ms(100));
    assert_eq!(shown(&w, EventKind::Close), 1);
    w.close(inode);
    assert_eq!(shown(&w, EventKind::Close), 1);
}
