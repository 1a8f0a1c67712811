//! A declared address that somebody else holds.

use probe_tests::{Daemon, Sandbox, Watch, free_port};

#[test]
fn a_stranger_on_the_declared_port() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let port = free_port();
    let more = format!("listen = [\"tcp:127.0.0.1:{port}\"]\nexpected = false");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let strange = Daemon::install(&sandbox, "stranger");
    let stranger = Daemon::at(&strange).tcp(port).start();

    let taken = watch.expect("address-taken", "annad");
    taken.by(stranger.pid()).says(format!(
        "tcp:127.0.0.1:{port} is held by stranger ({}), {}",
        stranger.pid(),
        strange.display()
    ));
    assert_eq!(taken.severity, "critical");
    stranger.kill("TERM");
    watch.expect_resolved("address-taken", "annad");
    watch.expect_exactly(&[("address-taken", "annad")]);
    watch.stop();
}

#[test]
fn a_stranger_on_the_declared_path() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let stranger = Daemon::at(&Daemon::install(&sandbox, "stranger"))
        .unix(&path)
        .start();
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    watch
        .expect("address-taken", "annad")
        .by(stranger.pid())
        .says(path.display());
    watch.stop();
}

#[test]
fn the_same_port_of_another_address_is_another_address() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let stranger = Daemon::at(&Daemon::install(&sandbox, "stranger")).tcp(0).start();
    let more = format!(
        "listen = [\"tcp:127.0.0.2:{}\"]\nexpected = false",
        stranger.port()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    watch.expect_nothing();
    watch.stop();
    drop(stranger);
}
