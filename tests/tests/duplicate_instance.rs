//! More instances than there should be.

use probe_tests::{Daemon, Sandbox, Scene};

#[test]
fn two_daemons_that_share_a_port() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(|s| s.arg("--reuse-port"), "");

    let second = Daemon::at(&exe).arg("--reuse-port").tcp(daemon.port()).start();

    let duplicate = watch.expect("duplicate-instance", "annad");
    duplicate.says(daemon.pid()).says(second.pid());
    watch.expect_exactly(&[("duplicate-instance", "annad")]);
    second.kill("TERM");
    watch.expect_resolved("duplicate-instance", "annad");
    watch.stop();
}

#[test]
fn as_many_as_declared_are_no_duplicates() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(|s| s.arg("--reuse-port"), "max_instances = 2");

    let second = Daemon::at(&exe).arg("--reuse-port").tcp(daemon.port()).start();

    watch.expect_nothing();
    watch.stop();
    drop(second);
}

#[test]
fn a_graceful_handover_within_the_overlap_is_no_duplicate() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(|s| s.arg("--reuse-port"), "");

    let successor = Daemon::at(&exe).arg("--reuse-port").tcp(daemon.port()).start();
    daemon.kill("TERM");
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
    drop(successor);
}

#[test]
fn the_same_executable_as_a_tool_and_children_are_no_instances() {
    let Scene {
        watch,
        mut daemon,
        exe,
        ..
    } = Scene::new();

    daemon.tell("fork 3");
    let tool = Daemon::at(&exe).start();

    watch.expect_nothing();
    watch.stop();
    drop(tool);
}

#[test]
fn another_service_s_executable_is_none_of_its_instances() {
    let Scene { watch, daemon, .. } = Scene::new();

    let elsewhere = Sandbox::new();
    let other = Daemon::at(&Daemon::install(&elsewhere, "annad")).tcp(0).start();

    watch.expect_nothing();
    watch.stop();
    drop((other, daemon));
}
