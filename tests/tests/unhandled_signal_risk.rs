//! Signals that a daemon is meant to handle, before anybody sends one.

use probe_tests::{Daemon, Sandbox, Scene, Watch};

#[test]
fn a_signal_that_nothing_handles() {
    let Scene { watch, daemon, .. } = Scene::with(
        |s| s.on("TERM=clean"),
        "signals = { handled = [\"TERM\", \"USR1\"] }",
    );

    let risk = watch.expect("unhandled-signal-risk", "annad");
    risk.says(daemon.pid()).says("USR1");
    assert_eq!(risk.severity, "warning");
    assert!(!risk.summary.contains("TERM"), "TERM is caught: {}", risk.summary);
    watch.expect_exactly(&[("unhandled-signal-risk", "annad")]);

    daemon.kill("TERM");
    watch.expect_resolved("unhandled-signal-risk", "annad");
    watch.stop();
}

#[test]
fn a_handler_handles_it() {
    nothing_when("USR1=catch");
}

#[test]
fn a_signalfd_handles_it() {
    nothing_when("USR1=signalfd");
}

#[test]
fn an_ignored_one_would_not_kill() {
    nothing_when("USR1=ignore");
}

fn nothing_when(reaction: &str) {
    let Scene { watch, daemon, .. } = Scene::with(|s| s.on(reaction), "signals = { handled = [\"USR1\"] }");

    watch.expect_nothing();
    watch.stop();
    drop(daemon);
}

#[test]
fn sigwait_handles_it() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut daemon = Daemon::at(&exe).tcp(0).start();
    daemon.tell("sigwait USR1");
    let more = format!(
        "listen = [\"tcp:127.0.0.1:{}\"]\nsignals = {{ handled = [\"USR1\"] }}",
        daemon.port()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    watch.expect_nothing();
    daemon.kill("USR1");
    daemon.caught("USR1");
    watch.stop();
}

#[test]
fn a_child_needs_no_handler() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=catch"), "signals = { handled = [\"USR1\"] }");

    daemon.tell("fork 2");

    watch.expect_nothing();
    watch.stop();
}
