//! A signal that stays pending.

use probe_tests::Scene;

const HANDLED: &str = "signals = { handled = [\"USR1\"] }\nsignal_within = \"400ms\"";

#[test]
fn who_sent_it_and_that_nobody_takes_it() {
    let Scene { watch, daemon, .. } = Scene::with(|s| s.on("USR1=block"), HANDLED);

    let sender = daemon.kill("USR1");

    let blocked = watch.expect("signal-blocked", "annad");
    blocked.by(sender).says(daemon.pid()).says("USR1");
    assert_eq!(blocked.severity, "warning");
    watch.expect_exactly(&[("signal-blocked", "annad")]);
    watch.stop();
}

#[test]
fn it_ends_when_somebody_takes_it() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=block"), HANDLED);

    daemon.kill("USR1");
    watch.expect("signal-blocked", "annad");

    daemon.tell("sigwait USR1");
    daemon.caught("USR1");
    watch.expect_resolved("signal-blocked", "annad");
    watch.stop();
}

#[test]
fn a_signalfd_takes_it() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=signalfd"), HANDLED);

    daemon.kill("USR1");
    daemon.caught("USR1");

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn sigwait_takes_it() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=block"), HANDLED);

    daemon.tell("sigwait USR1");
    daemon.kill("USR1");
    daemon.caught("USR1");

    watch.expect_nothing();
    watch.stop();
}
