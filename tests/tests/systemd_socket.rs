//! Socket activation: process 1 holds the listener, and that is as it should be.

use std::os::unix::net::UnixStream;

use probe_tests::{Sandbox, Unit, Watch};

#[test]
fn a_listener_that_systemd_holds_is_no_finding() {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let path = sandbox.path("annad.sock");
    let unit = Unit::file(&sandbox, "annad")
        .arg("--inherit")
        .arg(&format!("unix:{}=3", path.display()))
        .socket(&format!("ListenStream={}", path.display()))
        .load();
    // The daemon accepts only when it is told, and that takes its time on a slow machine.
    let more = format!(
        "listen = [\"unix:{}\"]\naccept_within = \"10m\"\nexpected = false",
        path.display()
    );
    let watch = Watch::start(&sandbox, &unit.declared(&more));

    // Nobody but systemd listens.
    unit.systemctl(&["start", &unit.socket()]);
    watch.expect_event("listen", "annad", "by systemd", |l| {
        l.value["process"]["pid"] == 1
    });
    watch.expect_nothing();

    // The first connection starts the daemon, which then holds the listener too.
    let connection = UnixStream::connect(&path).expect("systemd listens");
    let pid = unit.ready();
    watch.expect_event("ready", "annad", "the daemon", |l| {
        l.value["process"]["pid"] == pid
    });
    watch.expect_nothing();

    // It stops, and systemd listens on.
    drop(connection);
    unit.tell(&format!("accept unix:{}", path.display()));
    unit.stop();
    watch.expect_nothing();
    assert_eq!(unit.property("ActiveState"), "inactive");

    // It goes as it came.
    unit.systemctl(&["stop", &unit.socket()]);
    watch.expect_nothing();
    watch.stop();
}
