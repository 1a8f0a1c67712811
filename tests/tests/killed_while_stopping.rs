//! SIGKILL for a daemon that was stopping.

use probe_tests::Scene;

#[test]
fn who_asked_and_who_killed() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("TERM=catch"), "");

    let asker = daemon.kill("TERM");
    daemon.caught("TERM");
    let killer = daemon.kill("KILL");

    let finding = watch.expect("killed-while-stopping", "annad");
    finding.by(killer).says(asker).says(daemon.pid());
    assert_eq!(finding.severity, "critical");
    watch.expect_exactly(&[("killed-while-stopping", "annad")]);
    watch.stop();
}

#[test]
fn a_kill_that_nobody_asked_for_is_a_crash_instead() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=catch"), "");

    daemon.kill("USR1");
    daemon.caught("USR1");
    daemon.kill("KILL");

    watch.expect("crashed", "annad");
    watch.expect_exactly(&[("crashed", "annad"), ("not-running", "annad")]);
    watch.stop();
}

#[test]
fn a_slow_stop_that_ends_by_itself_was_not_killed() {
    let Scene { watch, daemon, .. } = Scene::with(|s| s.on("TERM=slow:1"), "");

    daemon.kill("TERM");
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
}
