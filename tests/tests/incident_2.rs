//! Incident 2: the daemon that would not stop, and the USR1 that nobody had sent.

use probe_tests::{Daemon, Scene};

#[test]
fn a_stop_that_hangs_until_it_is_killed() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("TERM=catch"), "stop_within = \"1s\"");

    let asker = daemon.kill("TERM");
    daemon.caught("TERM");
    let slow = watch.expect("slow-stop", "annad");
    slow.by(asker)
        .says(daemon.pid())
        .says("caught")
        .says("still open");
    let killer = daemon.kill("KILL");

    let killed = watch.expect("killed-while-stopping", "annad");
    killed.by(killer).says(asker).says(daemon.pid());
    watch.expect_resolved("slow-stop", "annad");
    watch.stop();
}

#[test]
fn the_risk_of_usr1_is_told_before_it_comes_and_its_sender_afterwards() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(|s| s, "signals = { handled = [\"USR1\"] }\nexpected = false");

    watch
        .expect("unhandled-signal-risk", "annad")
        .says(daemon.pid())
        .says("USR1");
    let sender = watch.while_paused(|| {
        let sender = daemon.kill("USR1");
        daemon.wait_gone();
        sender
    });
    watch.expect("unhandled-signal", "annad").by(sender).says("USR1");
    watch.expect_resolved("unhandled-signal-risk", "annad");

    // With the handler it only dumps its diagnostics.
    let mut mended = Daemon::at(&exe).tcp(daemon.port()).on("USR1=catch").start();
    watch.expect_resolved("unhandled-signal", "annad");
    watch.forget();
    mended.kill("USR1");
    mended.caught("USR1");
    watch.expect_nothing();
    watch.stop();
}
