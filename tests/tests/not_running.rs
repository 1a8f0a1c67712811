//! A declared service without a process.

use probe_tests::{Daemon, Sandbox, Watch, free_port};

#[test]
fn never_seen() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let port = free_port();
    let config = Daemon::service("annad", &exe, &format!("listen = [\"tcp:127.0.0.1:{port}\"]"));
    let watch = Watch::start(&sandbox, &config);

    let finding = watch.expect("not-running", "annad");
    assert!(
        finding.actor.is_none(),
        "what was so before probe began has no actor: {finding:?}"
    );

    let started = Daemon::at(&exe).tcp(port).start();
    watch.expect_resolved("not-running", "annad");
    watch.stop();
    drop(started);
}

#[test]
fn a_service_that_need_not_run_gives_no_finding() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let more = format!("listen = [\"tcp:127.0.0.1:{}\"]\nexpected = false", free_port());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_daemon_of_an_upgraded_executable_runs() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let port = free_port();
    let listen = format!("listen = [\"tcp:127.0.0.1:{port}\"]");
    let old = Daemon::at(&exe).tcp(port).start();
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &listen));

    // As a package manager does it: another file takes the name.
    let new = exe.with_extension("new");
    std::fs::copy(&exe, &new).expect("a copy of the executable");
    std::fs::rename(&new, &exe).expect("the copy takes the name");
    old.kill("TERM");
    old.wait_gone();
    let started = Daemon::at(&exe).tcp(port).start();
    watch.expect_nothing();

    started.kill("KILL");
    watch.expect("crashed", "annad");
    watch.expect("not-running", "annad");
    watch.stop();
}
