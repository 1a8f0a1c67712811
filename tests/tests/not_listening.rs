//! A living daemon that does not listen where it should.

use std::os::unix::fs::FileTypeExt;

use probe_tests::{Daemon, Sandbox, Scene, Watch, free_port};

#[test]
fn a_daemon_that_never_listens() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("annad.pid");
    let port = free_port();
    let more = format!("listen = [\"tcp:127.0.0.1:{port}\"]\npid_file = {pid_file:?}\nexpected = false");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let mut daemon = Daemon::at(&exe).pid_file(&pid_file).start();

    let finding = watch.expect("not-listening", "annad");
    finding.says(daemon.pid());
    assert_eq!(finding.subject, format!("tcp:127.0.0.1:{port}"));
    daemon.tell(&format!("listen tcp:127.0.0.1:{port}"));
    watch.expect_resolved("not-listening", "annad");
    watch.stop();
}

#[test]
fn a_bound_address_that_nobody_listens_on() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let more = format!(
        "listen = [\"unix:{}\"]\npid_file = {pid_file:?}\nexpected = false",
        path.display()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let mut daemon = Daemon::at(&exe).pid_file(&pid_file).start();
    daemon.tell(&format!("bind unix:{}", path.display()));

    watch.expect("not-listening", "annad").says(daemon.pid());
    watch.expect_exactly(&[("not-listening", "annad")]);
    watch.stop();
}

#[test]
fn a_tcp_listener_that_a_living_daemon_closed() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let address = format!("tcp:127.0.0.1:{}", daemon.port());
    daemon.tell(&format!("close {address}"));

    watch.expect("not-listening", "annad").says(daemon.pid());
    watch.expect_exactly(&[("not-listening", "annad")]);
    daemon.tell(&format!("listen {address}"));
    watch.expect_resolved("not-listening", "annad");
    watch.stop();
}

#[test]
fn a_tcp_listener_that_was_shut_down() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let command = format!("shutdown tcp:127.0.0.1:{}", daemon.port());
    daemon.tell(&command);

    watch.expect("not-listening", "annad").says(daemon.pid());
    watch.stop();
}

#[test]
fn a_unix_listener_that_a_living_daemon_closed_leaves_a_stale_socket() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let mut daemon = Daemon::at(&exe).unix(&path).start();
    let config = Daemon::service("annad", &exe, &format!("listen = [\"unix:{}\"]", path.display()));
    let watch = Watch::start(&sandbox, &config);

    daemon.tell(&format!("close unix:{}", path.display()));
    assert!(
        path.symlink_metadata()
            .expect("the file stays")
            .file_type()
            .is_socket()
    );

    watch.expect("not-listening", "annad").says(daemon.pid());
    watch.expect("stale-socket", "annad");
    watch.expect_exactly(&[("not-listening", "annad"), ("stale-socket", "annad")]);
    watch.stop();
}

#[test]
fn a_udp_socket_that_a_living_daemon_closed() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut daemon = Daemon::at(&exe).udp(0).start();
    let address = format!("udp:127.0.0.1:{}", daemon.port());
    let watch = Watch::start(
        &sandbox,
        &Daemon::service("annad", &exe, &format!("listen = [{address:?}]")),
    );

    daemon.tell(&format!("close {address}"));

    watch.expect("not-listening", "annad").says(daemon.pid());
    daemon.tell(&format!("listen {address}"));
    watch.expect_resolved("not-listening", "annad");
    watch.stop();
}

#[test]
fn a_short_gap_is_no_finding() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let address = format!("tcp:127.0.0.1:{}", daemon.port());
    daemon.send(&format!("close {address}\nlisten {address}"));
    daemon.tell("ping");

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn listeners_closed_in_an_asked_stop_are_no_finding() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("TERM=catch"), "stop_within = \"15s\"");

    daemon.kill("TERM");
    daemon.caught("TERM");
    let command = format!("close tcp:127.0.0.1:{}", daemon.port());
    daemon.tell(&command);

    watch.expect_nothing();
    watch.stop();
}
