//! A daemon that listens and does not accept.

use std::{
    collections::VecDeque,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use probe_tests::{Daemon, Sandbox, Watch};

/// Queues are looked at when everything is settled, and again `accept_within` after somebody was seen at the head.
fn config(exe: &Path, listen: &str) -> String {
    let more = format!("listen = [{listen:?}]\naccept_within = \"400ms\"");
    format!(
        "[probe]\nsettle_every = \"200ms\"\n{}",
        Daemon::service("annad", exe, &more)
    )
}

fn over_unix() -> (Watch, Daemon, PathBuf) {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let watch = Watch::start(&sandbox, &config(&exe, &format!("unix:{}", path.display())));
    (watch, daemon, path)
}

fn over_tcp() -> (Watch, Daemon, String) {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let daemon = Daemon::at(&exe).tcp(0).start();
    let address = format!("tcp:127.0.0.1:{}", daemon.port());
    let watch = Watch::start(&sandbox, &config(&exe, &address));
    (watch, daemon, address)
}

#[test]
fn a_client_that_waits_at_a_socket_file() {
    let (watch, mut daemon, path) = over_unix();
    let address = format!("unix:{}", path.display());

    let client = UnixStream::connect(&path).expect("the kernel accepts into the queue");

    let stall = watch.expect("accept-stall", "annad");
    stall.says(daemon.pid()).says("runs");
    assert_eq!((stall.severity.as_str(), &stall.subject), ("critical", &address));
    assert!(stall.actor.is_none(), "nobody did it: {stall:?}");
    daemon.tell(&format!("accept {address}"));
    watch.expect_resolved("accept-stall", "annad");
    watch.expect_exactly(&[("accept-stall", "annad")]);
    watch.stop();
    drop(client);
}

#[test]
fn a_client_that_waits_at_a_tcp_port() {
    let (watch, mut daemon, address) = over_tcp();

    let client = TcpStream::connect(("127.0.0.1", daemon.port())).expect("the kernel accepts into the queue");

    let stall = watch.expect("accept-stall", "annad");
    stall.says(daemon.pid()).says("runs");
    assert_eq!(stall.subject, address);
    daemon.tell(&format!("accept {address}"));
    watch.expect_resolved("accept-stall", "annad");
    watch.expect_exactly(&[("accept-stall", "annad")]);
    watch.stop();
    drop(client);
}

#[test]
fn a_stopped_owner_is_named_with_who_stopped_it() {
    let (watch, daemon, path) = over_unix();

    let sender = daemon.kill("STOP");
    let client = UnixStream::connect(&path).expect("the kernel accepts into the queue");

    let stall = watch.expect("accept-stall", "annad");
    stall.by(sender).says(daemon.pid()).says("is stopped");
    let stopped = watch.expect("stopped", "annad");
    assert_eq!(stall.cause, stopped.cause, "one signal, one cause");
    watch.expect_exactly(&[("accept-stall", "annad"), ("stopped", "annad")]);
    watch.stop();
    drop(client);
}

#[test]
fn a_busy_queue_at_a_socket_file_that_moves_is_no_stall() {
    let (watch, mut daemon, path) = over_unix();
    let address = format!("unix:{}", path.display());
    keep_busy(&watch, &mut daemon, &address, || {
        UnixStream::connect(&path).expect("connect")
    });
    watch.stop();
}

#[test]
fn a_busy_queue_at_a_tcp_port_that_moves_is_no_stall() {
    let (watch, mut daemon, address) = over_tcp();
    let port = daemon.port();
    keep_busy(&watch, &mut daemon, &address, || {
        TcpStream::connect(("127.0.0.1", port)).expect("connect")
    });
    watch.stop();
}

/// Always somebody waits, but never the same one for long.
fn keep_busy<T>(watch: &Watch, daemon: &mut Daemon, address: &str, connect: impl Fn() -> T) {
    let mut clients = VecDeque::from([connect(), connect()]);
    let sentinel = watch.begin_sentinel();
    while !watch.sentinel_came(&sentinel) {
        clients.push_back(connect());
        daemon.tell(&format!("accept {address}"));
        clients.pop_front();
    }
    // Two wait on from now, and that will be a stall.
    let opened = watch.opened_before(&sentinel);
    assert!(opened.is_empty(), "{opened:?}");
}

#[test]
fn an_idle_listener_is_no_stall() {
    let (watch, daemon, _path) = over_unix();

    watch.expect_nothing();
    watch.stop();
    drop(daemon);
}
