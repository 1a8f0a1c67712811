//! A daemon that was asked to stop and lives on.

use std::time::Duration;

use probe_tests::Scene;

#[test]
fn it_is_told_at_half_of_the_time() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("TERM=catch"), "stop_within = \"1s\"");

    let asker = daemon.kill("TERM");
    daemon.caught("TERM");

    let slow = watch.expect("slow-stop", "annad");
    slow.by(asker).says(daemon.pid()).says("caught");
    assert_eq!(slow.severity, "warning");
    let after = Duration::from_nanos(slow.detected_after_ns);
    assert!(
        after >= Duration::from_millis(500),
        "half of stop_within had not passed: {after:?}"
    );

    daemon.tell("stop-cleanly");
    watch.expect_resolved("slow-stop", "annad");
    watch.expect_exactly(&[("slow-stop", "annad")]);
    watch.stop();
}

#[test]
fn a_stop_in_time_is_no_finding() {
    let Scene { watch, daemon, .. } = Scene::with(|s| s.on("TERM=clean"), "stop_within = \"1s\"");

    daemon.kill("TERM");
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
}
