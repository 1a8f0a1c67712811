//! A socket file that nobody holds.

use std::{fs, os::unix::net::UnixListener};

use probe_tests::{Daemon, Sandbox, Watch};

#[test]
fn a_crash_leaves_a_stale_socket_until_it_is_removed() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let killer = daemon.kill("USR2");

    let stale = watch.expect("stale-socket", "annad");
    stale.by(killer).says(daemon.pid()).says("USR2");
    assert_eq!(stale.subject, format!("unix:{}", path.display()));

    fs::remove_file(&path).expect("it is there");
    watch.expect_resolved("stale-socket", "annad");
    watch.stop();
}

#[test]
fn what_was_stale_before_probe_began_has_no_actor() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    drop(UnixListener::bind(&path).expect("bind"));
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let stale = watch.expect("stale-socket", "annad");
    assert!(stale.actor.is_none(), "never a guess: {stale:?}");
    watch.stop();
}

#[test]
fn a_listener_that_a_child_still_holds_is_not_stale() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let mut daemon = Daemon::at(&exe).unix(&path).start();
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    daemon.tell("hand-over");

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn an_abstract_address_is_never_stale() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let name = format!("@probe-test-{}", std::process::id());
    let mut daemon = Daemon::at(&exe).start();
    daemon.tell(&format!("listen unix:{name}"));
    let more = format!("listen = [\"unix:{name}\"]");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    daemon.kill("KILL");

    watch.expect("crashed", "annad");
    watch.expect_exactly(&[("crashed", "annad"), ("not-running", "annad")]);
    watch.stop();
}

#[test]
fn what_an_asked_stop_leaves_behind_is_no_finding() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let daemon = Daemon::at(&exe)
        .unix(&path)
        .pid_file(&pid_file)
        .on("TERM=exit0")
        .start();
    let more = format!("listen = [\"unix:{}\"]\npid_file = {pid_file:?}", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    daemon.kill("TERM");
    daemon.wait_gone();
    assert!(path.exists() && pid_file.exists());

    watch.expect_nothing();
    watch.stop();
}
