//! Signs of life that systemd keeps: entries of the journal, and the watchdog's time stamp.

use probe_tests::{Sandbox, Unit, Watch};

/// `beat`: how the daemon shows that it lives. `way`: how probe is told of it.
fn falls_silent_and_speaks_again(beat: &str, way: &str, settings: &[&str]) {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let file = Unit::file(&sandbox, "annad").arg("--beat").arg(beat);
    let unit = settings.iter().fold(file, |u, s| u.with(s)).load();
    let heartbeat = format!("heartbeat = {{ {way}, stale_after = \"6s\" }}\nexpected = false");
    let watch = Watch::start(&sandbox, &unit.declared(&heartbeat));
    let pid = unit.start();
    watch.expect_event("heartbeat", "annad", "the first", |_| true);
    watch.expect_nothing();

    unit.tell("mute");
    let stale = watch.expect("stale-heartbeat", "annad");
    stale.says(pid).says("runs");
    assert_eq!(stale.severity, "critical");

    unit.tell("unmute");
    watch.expect_resolved("stale-heartbeat", "annad");
    watch.expect_exactly(&[("stale-heartbeat", "annad")]);
    watch.stop();
}

#[test]
fn an_entry_of_the_journal() {
    falls_silent_and_speaks_again(
        "stderr=",
        "journal = \"daemon alive\"",
        &["StandardError=journal"],
    );
}

#[test]
fn the_watchdog_of_the_unit() {
    falls_silent_and_speaks_again(
        "notify=",
        "notify = true",
        &["NotifyAccess=main", "WatchdogSec=1h"],
    );
}

/// systemd ends it by its own watchdog: what it did is told, and that nobody else did it.
#[test]
fn the_watchdog_ends_a_daemon_that_hangs() {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let unit = Unit::file(&sandbox, "annad")
        .arg("--beat")
        .arg("notify=")
        .with("NotifyAccess=main")
        .with("WatchdogSec=6s")
        .with("Restart=always")
        .with("RestartSec=100ms")
        .load();
    let watch = Watch::start(&sandbox, &unit.declared("expected = false"));
    let pid = unit.start();
    watch.expect_event("ready", "annad", "the first", |l| {
        l.value["process"]["pid"] == pid
    });

    unit.tell("mute");

    let crashed = watch.expect("crashed", "annad");
    crashed.by(1).says(pid).says("ABRT");
    unit.ready();
    watch.expect_resolved("crashed", "annad");
    watch.stop();
}
