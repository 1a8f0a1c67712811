//! Incident 1: the daemon that hangs after a reboot. `trap` is the fourth part of it.

use std::{os::unix::net::UnixStream, process::Command};

use probe_tests::{Daemon, Proc, Sandbox, Watch};

#[test]
fn a_crash_an_rm_and_a_daemon_that_does_not_accept() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let first = Daemon::at(&exe).unix(&path).start();
    let more = format!(
        "listen = [\"unix:{}\"]\naccept_within = \"400ms\"",
        path.display()
    );
    let config = format!(
        "[probe]\nsettle_every = \"200ms\"\n{}",
        Daemon::service("annad", &exe, &more)
    );
    let watch = Watch::start(&sandbox, &config);

    // The socket file outlives a crash.
    let killer = first.kill("KILL");
    watch.expect("stale-socket", "annad").by(killer).says(first.pid());

    // The start script removes it, whoever holds it: first a dead one's, then a live one's.
    remove(&path);
    let second = Daemon::at(&exe).unix(&path).start();
    watch.expect_resolved("stale-socket", "annad");
    let rm = remove(&path);
    watch
        .expect("orphaned-listener", "annad")
        .by(rm)
        .says(second.pid());

    // The next one listens and hangs.
    second.kill("TERM");
    second.wait_gone();
    let third = Daemon::at(&exe).unix(&path).start();
    let client = UnixStream::connect(&path).expect("the kernel accepts into the queue");
    watch.expect("accept-stall", "annad").says(third.pid());
    watch.stop();
    drop(client);
}

fn remove(path: &std::path::Path) -> u32 {
    let mut rm = Proc::spawn(Command::new("/usr/bin/rm").arg("-f").arg(path));
    assert!(rm.wait().success());
    rm.pid()
}

#[test]
fn twenty_restarts_give_twenty_sockets_and_no_finding() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    for n in 1..=20 {
        let daemon = Daemon::at(&exe).unix(&path).on("TERM=clean").start();
        UnixStream::connect(&path).unwrap_or_else(|e| panic!("restart {n}: {e}"));
        watch.expect_event("ready", "annad", "the next generation", |e| {
            e.value["generation"] == n
        });
        daemon.kill("TERM");
        daemon.wait_gone();
    }

    watch.expect_nothing();
    watch.stop();
}
