//! More events than fit while probe is not looking: the loss is counted and said, and a snapshot settles the truth.

use probe_tests::Scene;

/// Signals sent while probe is stopped: far more records than any sensible ring buffer holds.
const FLOOD: &str = "raise USR1 60000";

#[test]
fn lost_events_are_counted_and_the_blindness_ends() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=catch"), "");

    watch.while_paused(|| daemon.tell(FLOOD));

    let lost = watch.expect_line("lost", "with a count", |l| {
        l.value["count"].as_u64().is_some_and(|n| n > 0)
    });
    assert!(lost.value["source"].is_string());
    let blind = watch.expect_any("blind", "at all", |_| true);
    assert_eq!(blind.severity, "warning");
    watch.expect_resolved("blind", &blind.service);
    watch.stop();
}

#[test]
fn what_happened_unseen_is_found_by_the_snapshot() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::with(|s| s.on("USR1=catch"), "");

    watch.while_paused(|| {
        daemon.tell(FLOOD);
        daemon.kill("KILL");
        daemon.wait_gone();
    });

    watch.expect_line("lost", "at all", |_| true);
    watch.expect("not-running", "annad");
    watch.stop();
}
