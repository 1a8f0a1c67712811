//! Units under the real systemd: who the main process is, whose life it is, and how often it was restarted.

use probe_tests::{Line, Sandbox, Unit, Watch, kill, table::row};

fn scene(more: &[&str]) -> Option<(Watch, Unit)> {
    if !Unit::possible() {
        return None;
    }
    let sandbox = Sandbox::new();
    let unit = more
        .iter()
        .fold(Unit::file(&sandbox, "annad"), |u, s| u.with(s))
        .load();
    let watch = Watch::start(&sandbox, &unit.declared("expected = false"));
    Some((watch, unit))
}

/// What systemd says of the unit, once it says this.
#[track_caller]
fn told(watch: &Watch, what: &str, test: impl Fn(&Line) -> bool) -> Line {
    watch.expect_event("unit", "annad", what, test)
}

#[test]
fn the_main_process_is_systemd_s() {
    let Some((watch, unit)) = scene(&[]) else { return };
    told(&watch, "before its start", |l| {
        l.value["active_state"] == "inactive"
    });

    let pid = unit.start();

    told(&watch, "with its main process", |l| l.value["main_pid"] == pid);
    let ready = watch.expect_event("ready", "annad", "the first", |_| true);
    assert_eq!(ready.value["generation"], 1, "{}", ready.raw);
    assert_eq!(ready.value["process"]["pid"], pid, "{}", ready.raw);
    assert_eq!(ready.value["process"]["unit"], unit.name(), "{}", ready.raw);
    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_restart_is_a_new_generation_and_no_crash() {
    let Some((watch, unit)) = scene(&[]) else { return };
    let first = unit.start();
    watch.expect_event("ready", "annad", "the first", |l| {
        l.value["process"]["pid"] == first
    });

    unit.systemctl(&["restart", unit.name()]);
    let second = unit.ready();

    let ready = watch.expect_event("ready", "annad", "the second", |l| {
        l.value["process"]["pid"] == second
    });
    assert_eq!(ready.value["generation"], 2, "{}", ready.raw);
    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_crash_that_systemd_mends_is_told_and_counted() {
    let Some((watch, unit)) = scene(&["Restart=always", "RestartSec=100ms"]) else {
        return;
    };
    let first = unit.start();
    told(&watch, "with its main process", |l| l.value["main_pid"] == first);

    let killer = kill("KILL", first);
    let second = unit.ready();

    watch.expect("crashed", "annad").by(killer).says(first);
    watch.expect_resolved("crashed", "annad");
    told(&watch, "that it was restarted", |l| {
        l.value["main_pid"] == second && l.value["n_restarts"] == 1
    });
    assert_eq!(unit.property("NRestarts"), "1");
    watch.stop();
}

#[test]
fn systemd_that_starts_itself_anew_is_followed_on() {
    let Some((watch, unit)) = scene(&[]) else { return };
    let pid = unit.start();
    told(&watch, "with its main process", |l| l.value["main_pid"] == pid);

    unit.systemctl(&["daemon-reexec"]);
    unit.systemctl(&["restart", unit.name()]);
    let second = unit.ready();

    told(&watch, "with its new main process", |l| {
        l.value["main_pid"] == second
    });
    watch.expect_nothing();
    watch.stop();
    row(
        "faults",
        &["systemd starts itself anew", "nothing", "units are followed on"],
    );
}
