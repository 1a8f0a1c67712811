//! Ends that nobody asked for, and ends that only look like it.

use probe_tests::{Daemon, Finding, Sandbox, Scene, Watch, kill};

fn crashed_and_not_running(watch: &Watch) -> Finding {
    let crashed = watch.expect("crashed", "annad");
    let not_running = watch.expect("not-running", "annad");
    assert_eq!(crashed.severity, "critical");
    assert_eq!(crashed.cause, not_running.cause, "one end, one cause");
    crashed
}

const BOTH: [(&str, &str); 2] = [("crashed", "annad"), ("not-running", "annad")];

#[test]
fn kill_9_of_a_daemon_that_has_only_a_tcp_port() {
    let Scene { watch, daemon, .. } = Scene::new();

    let killer = daemon.kill("KILL");

    crashed_and_not_running(&watch)
        .by(killer)
        .says("KILL")
        .says(daemon.pid());
    watch.expect_exactly(&BOTH);
    watch.stop();
}

#[test]
fn exit_0_with_the_listener_open() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    daemon.tell("exit 0");

    let crashed = crashed_and_not_running(&watch);
    assert!(
        crashed.says(daemon.pid()).actor.is_none(),
        "nobody did it: {crashed:?}"
    );
    watch.expect_exactly(&BOTH);
    watch.stop();
}

#[test]
fn a_daemon_that_stops_itself_cleanly_on_a_command_has_not_crashed() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    daemon.tell("stop-cleanly");
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_clean_stop_with_another_exit_code_is_a_crash() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let address = format!("close tcp:127.0.0.1:{}", daemon.port());
    daemon.tell(&address);
    daemon.tell("exit 3");

    crashed_and_not_running(&watch);
    watch.stop();
}

#[test]
fn going_into_the_background_and_then_listening_is_no_crash() {
    into_the_background("--daemonize=early");
}

#[test]
fn listening_and_then_going_into_the_background_is_no_crash() {
    into_the_background("--daemonize=late");
}

fn into_the_background(how: &str) {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (socket, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let more = format!(
        "pid_file = {pid_file:?}\nlisten = [\"unix:{}\"]\nexpected = false",
        socket.display()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let mut daemon = Daemon::at(&exe)
        .unix(&socket)
        .pid_file(&pid_file)
        .arg(how)
        .start();
    assert!(daemon.first().wait().success());
    assert_ne!(daemon.first().pid(), daemon.pid());

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn handing_over_to_a_child_is_no_crash() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let first = daemon.pid();
    daemon.hand_over();

    watch.expect_event("handover", "annad", "from the first process", |e| {
        e.raw.contains(&first.to_string())
    });
    watch.expect_nothing();

    let killer = daemon.kill("KILL");
    crashed_and_not_running(&watch).by(killer).says(daemon.pid());
    watch.stop();
}

#[test]
fn a_re_exec_that_keeps_its_listener_is_no_crash() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    daemon.tell("exec");

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_child_that_dies_is_no_crash() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let child = daemon.tell("fork").parse().expect("a pid");
    kill("KILL", child);
    watch.expect_event("exit", "annad", "the child's", |e| {
        e.value["process"]["pid"] == child
    });

    watch.expect_nothing();
    watch.stop();
}
