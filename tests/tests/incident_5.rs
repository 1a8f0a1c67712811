//! Incident 5: the restart with a draining old process, the second daemon that holds the lock, and the new generation
//! that never binds its port.

use probe_tests::{Daemon, Sandbox, Scene, Watch, free_port};

#[test]
fn a_draining_predecessor_is_no_duplicate_until_it_stays() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(
        |s| s.arg("--reuse-port").on("TERM=catch"),
        "stop_within = \"60s\"",
    );

    // Within `overlap` the old one may drain.
    let second = Daemon::at(&exe).arg("--reuse-port").tcp(daemon.port()).start();
    daemon.kill("TERM");
    daemon.kill("KILL");
    watch.expect("killed-while-stopping", "annad").says(daemon.pid());
    watch.forget();
    watch.expect_nothing();

    // After it, both are named.
    let third = Daemon::at(&exe).arg("--reuse-port").tcp(second.port()).start();
    watch
        .expect("duplicate-instance", "annad")
        .says(second.pid())
        .says(third.pid());
    watch.stop();
}

#[test]
fn the_one_that_loses_the_lock_race_is_in_a_crash_loop() {
    let Scene {
        watch,
        daemon: holder,
        exe,
        ..
    } = Scene::with(
        |s| s,
        "expected = false\ncrash_loop = { restarts = 3, window = \"60s\" }",
    );
    let port = holder.port();
    holder.kill("KILL");
    watch.expect("crashed", "annad");

    // Whoever restarts it does so although it ends at once each time: the lock is held.
    for _ in 0..2 {
        let mut loser = Daemon::at(&exe).tcp(port).start();
        loser.tell("exit 1");
        loser.wait_gone();
    }

    watch
        .expect("crash-loop", "annad")
        .says("3 times")
        .says("exited with code 1");
    watch.stop();
}

#[test]
fn a_new_generation_that_never_binds_its_port() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (pid_file, old_port) = (sandbox.path("annad.pid"), free_port());
    let more = format!("listen = [\"tcp:127.0.0.1:{old_port}\"]\npid_file = {pid_file:?}\nexpected = false");
    let old = Daemon::at(&exe)
        .tcp(old_port)
        .pid_file(&pid_file)
        .on("TERM=clean")
        .start();
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    old.kill("TERM");
    old.wait_gone();
    let mut new = Daemon::at(&exe).pid_file(&pid_file).start();

    watch.expect("not-listening", "annad").says(new.pid());
    watch.expect_exactly(&[("not-listening", "annad")]);
    new.tell(&format!("listen tcp:127.0.0.1:{old_port}"));
    watch.expect_resolved("not-listening", "annad");
    watch.stop();
}
