//! A daemon that was stopped with SIGSTOP.

use probe_tests::Scene;

#[test]
fn who_stopped_it_and_that_it_goes_on() {
    let Scene { watch, daemon, .. } = Scene::new();

    let sender = daemon.kill("STOP");

    let stopped = watch.expect("stopped", "annad");
    stopped.by(sender).says(daemon.pid());
    assert_eq!(stopped.severity, "warning");
    daemon.kill("CONT");
    watch.expect_resolved("stopped", "annad");
    watch.expect_exactly(&[("stopped", "annad")]);
    watch.stop();
}
