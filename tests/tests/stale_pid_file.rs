//! A PID file that names nobody, or somebody else.

use std::{path::PathBuf, process::Command};

use probe_tests::{Daemon, Proc, Sandbox, Watch};

struct Scene {
    watch: Watch,
    daemon: Daemon,
    pid_file: PathBuf,
    sandbox: Sandbox,
}

/// A daemon with a PID file only.
fn scene() -> Scene {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("annad.pid");
    let daemon = Daemon::at(&exe).pid_file(&pid_file).start();
    let more = format!("pid_file = {pid_file:?}\nexpected = false");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));
    Scene {
        watch,
        daemon,
        pid_file,
        sandbox,
    }
}

#[test]
fn a_crash_leaves_a_pid_file() {
    let Scene {
        watch,
        daemon,
        pid_file,
        ..
    } = scene();

    let killer = daemon.kill("KILL");

    let stale = watch.expect("stale-pid-file", "annad");
    stale.by(killer).says(daemon.pid()).says(pid_file.display());
    assert_eq!(stale.severity, "warning");
    std::fs::remove_file(&pid_file).expect("it is there");
    watch.expect_resolved("stale-pid-file", "annad");
    watch.stop();
}

#[test]
fn it_names_a_process_of_another_program() {
    let Scene {
        watch,
        mut daemon,
        sandbox,
        ..
    } = scene();
    let stranger = Daemon::at(&Daemon::install(&sandbox, "stranger")).start();

    daemon.tell(&format!("pid-file {}", stranger.pid()));

    watch.expect("stale-pid-file", "annad").says(stranger.pid());
    daemon.tell("pid-file");
    watch.expect_resolved("stale-pid-file", "annad");
    watch.stop();
}

#[test]
fn it_was_stale_before_probe_began() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut dead = Proc::spawn(&mut Command::new("/usr/bin/true"));
    dead.wait();
    let pid_file = sandbox.write("annad.pid", &format!("{}\n", dead.pid()));
    let more = format!("pid_file = {pid_file:?}\nexpected = false");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let stale = watch.expect("stale-pid-file", "annad");
    assert!(stale.says(dead.pid()).actor.is_none(), "never a guess: {stale:?}");
    watch.stop();
}

#[test]
fn an_empty_one_is_not_written_yet() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("annad.pid");
    let more = format!("pid_file = {pid_file:?}\nexpected = false");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    sandbox.write("annad.pid", "");
    let daemon = Daemon::at(&exe).pid_file(&pid_file).start();

    watch.expect_nothing();
    watch.stop();
    drop(daemon);
}
