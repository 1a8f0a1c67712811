//! A daemon that crashes, is started again, and crashes.

use probe_tests::{Daemon, Scene};

#[test]
fn three_crashes_within_the_window() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(
        |s| s,
        "expected = false\ncrash_loop = { restarts = 3, window = \"60s\" }",
    );
    let port = daemon.port();

    let mut lives = vec![daemon];
    for _ in 0..2 {
        lives[lives.len() - 1].kill("KILL");
        watch.expect("crashed", "annad");
        watch.forget();
        lives.push(Daemon::at(&exe).tcp(port).start());
    }
    lives[2].kill("KILL");

    let looping = watch.expect("crash-loop", "annad");
    assert_eq!(looping.says(lives[2].pid()).severity, "critical");
    watch.stop();
}

#[test]
fn stops_and_starts_are_no_crashes() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(
        |s| s,
        "expected = false\ncrash_loop = { restarts = 2, window = \"60s\" }",
    );
    let port = daemon.port();

    let mut life = daemon;
    for _ in 0..3 {
        life.kill("TERM");
        life.wait_gone();
        life = Daemon::at(&exe).tcp(port).start();
    }

    watch.expect_nothing();
    watch.stop();
    drop(life);
}
