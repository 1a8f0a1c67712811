//! A unit of a user's service manager.

use probe_tests::{Manager, Sandbox, Unit, Watch, kill};

#[test]
fn a_user_s_unit_is_followed_on_the_user_s_bus() {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let manager = Manager::of_new_user("alice");
    let unit = Unit::file(&sandbox, "annad")
        .of(&manager)
        .with("Restart=always")
        .with("RestartSec=100ms")
        .load();
    let watch = Watch::start(&sandbox, &unit.declared("expected = false"));

    let pid = unit.start();
    watch.expect_event("unit", "annad", "with its main process", |l| {
        l.value["main_pid"] == pid && l.value["user"] == "alice"
    });
    watch.expect_nothing();

    let killer = kill("KILL", pid);
    let second = unit.ready();
    watch.expect("crashed", "annad").by(killer).says(pid);
    watch.expect_resolved("crashed", "annad");
    watch.expect_event("unit", "annad", "that it was restarted", |l| {
        l.value["main_pid"] == second && l.value["n_restarts"] == 1
    });

    watch.forget();
    unit.stop();
    watch.expect_event("exit", "annad", "of the second", |l| {
        l.value["process"]["pid"] == second
    });
    watch.expect_nothing();
    watch.stop();
}
