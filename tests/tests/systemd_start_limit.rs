//! A unit that systemd restarts until it gives up.

use probe_tests::{Probed, Sandbox, Unit, Watch, kill};

#[test]
fn systemd_gives_up_a_daemon_that_crashes_again_and_again() {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let unit = Unit::file(&sandbox, "annad")
        .in_unit("StartLimitIntervalSec=1h")
        .in_unit("StartLimitBurst=2")
        .with("Restart=always")
        .with("RestartSec=100ms")
        .load();
    let config = unit.declared("crash_loop = { restarts = 5, window = \"1h\" }\nexpected = false");
    let watch = Watch::start(&sandbox, &config);
    let probed = Probed::start(&sandbox, &config);

    for _ in 0..2 {
        let pid = if unit.property("NRestarts") == "0" {
            unit.start()
        } else {
            unit.ready()
        };
        watch.expect_event("ready", "annad", "of this life", |l| {
            l.value["process"]["pid"] == pid
        });
        // Not SEGV: the runtime of a Rust program catches that, and survives it when a process sends it.
        kill("ABRT", pid);
        watch.expect("crashed", "annad").says(pid);
        watch.forget();
    }

    let looping = watch.expect("crash-loop", "annad");
    looping.says("gave up").says(unit.name());
    assert_eq!(looping.severity, "critical");
    let told = watch.lines();
    let told = told.iter().find(|l| l.value["id"] == looping.id.as_str());
    assert_eq!(told.map(|l| &l.value["gave_up"]), Some(&true.into()));
    assert_eq!(unit.property("ActiveState"), "failed");

    // Whoever waits for it is told at once, however long he would have waited.
    let output = probed.ask(&["wait", "annad", "--ready", "--timeout", "1h"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("gave up"), "{output:?}");
    drop(probed);

    unit.systemctl(&["reset-failed", unit.name()]);
    unit.start();
    watch.expect_resolved("crash-loop", "annad");
    watch.stop();
}
