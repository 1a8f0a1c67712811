//! A signal that a daemon is meant to handle, and ignores.

use probe_tests::Scene;

#[test]
fn who_sent_it() {
    let Scene { watch, daemon, .. } =
        Scene::with(|s| s.on("HUP=ignore"), "signals = { handled = [\"HUP\"] }");

    let sender = daemon.kill("HUP");

    let ignored = watch.expect("signal-ignored", "annad");
    ignored.by(sender).says(daemon.pid()).says("HUP");
    assert_eq!(ignored.severity, "warning");
    watch.expect_exactly(&[("signal-ignored", "annad")]);
    watch.stop();
}

#[test]
fn one_that_it_is_not_meant_to_handle_is_no_finding() {
    let Scene { watch, daemon, .. } = Scene::with(|s| s.on("HUP=ignore"), "");

    daemon.kill("HUP");

    watch.expect_nothing();
    watch.stop();
}
