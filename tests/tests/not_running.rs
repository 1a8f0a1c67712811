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
