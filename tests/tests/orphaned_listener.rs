//! A live listener whose path no longer leads to it.

use std::{path::PathBuf, process::Command};

use probe_tests::{Daemon, Proc, Sandbox, Watch};

struct Scene {
    watch: Watch,
    daemon: Daemon,
    path: PathBuf,
    sandbox: Sandbox,
}

fn scene() -> Scene {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let daemon = Daemon::at(&exe).unix(&path).start();
    let config = Daemon::service("annad", &exe, &format!("listen = [\"unix:{}\"]", path.display()));
    Scene {
        watch: Watch::start(&sandbox, &config),
        daemon,
        path,
        sandbox,
    }
}

/// Runs a program to its end; returns the pid that it had.
fn done(command: &mut Command) -> u32 {
    let mut proc = Proc::spawn(command);
    assert!(proc.wait().success());
    proc.pid()
}

#[test]
fn rm_f_of_a_live_daemon_s_socket() {
    let Scene {
        watch, daemon, path, ..
    } = scene();

    let rm = done(Command::new("/usr/bin/rm").arg("-f").arg(&path));

    let orphan = watch.expect("orphaned-listener", "annad");
    orphan.by(rm).says(daemon.pid()).says(path.display());
    assert_eq!(orphan.severity, "critical");
    watch.expect_exactly(&[("orphaned-listener", "annad")]);
    watch.stop();
}

#[test]
fn rename_away() {
    let Scene {
        watch,
        daemon,
        path,
        sandbox,
    } = scene();

    let mv = done(
        Command::new("/usr/bin/mv")
            .arg(&path)
            .arg(sandbox.path("elsewhere.sock")),
    );

    watch
        .expect("orphaned-listener", "annad")
        .by(mv)
        .says(daemon.pid());
    watch.expect_exactly(&[("orphaned-listener", "annad")]);
    watch.stop();
}

#[test]
fn rename_of_another_file_over_it() {
    let Scene {
        watch,
        daemon,
        path,
        sandbox,
    } = scene();
    let other = sandbox.write("other", "");

    let mv = done(Command::new("/usr/bin/mv").arg("-f").arg(&other).arg(&path));

    watch
        .expect("orphaned-listener", "annad")
        .by(mv)
        .says(daemon.pid());
    watch.expect_exactly(&[("orphaned-listener", "annad")]);
    watch.stop();
}

#[test]
fn rename_there_and_back_ends_it() {
    let Scene {
        watch,
        path,
        sandbox,
        daemon: _daemon,
    } = scene();
    let elsewhere = sandbox.path("elsewhere.sock");

    done(Command::new("/usr/bin/mv").arg(&path).arg(&elsewhere));
    watch.expect("orphaned-listener", "annad");
    done(Command::new("/usr/bin/mv").arg(&elsewhere).arg(&path));

    watch.expect_resolved("orphaned-listener", "annad");
    watch.stop();
}

#[test]
fn a_daemon_that_rebinds_its_own_path_orphans_nobody() {
    let Scene {
        watch,
        mut daemon,
        path,
        ..
    } = scene();

    daemon.tell(&format!("rebind unix:{}", path.display()));

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_socket_that_was_orphaned_before_probe_began_has_no_actor() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let mut daemon = Daemon::at(&exe).unix(&path).start();
    daemon.tell(&format!("unlink {}", path.display()));
    let config = Daemon::service("annad", &exe, &format!("listen = [\"unix:{}\"]", path.display()));
    let watch = Watch::start(&sandbox, &config);

    let orphan = watch.expect("orphaned-listener", "annad");
    assert!(
        orphan.says(daemon.pid()).actor.is_none(),
        "never a guess: {orphan:?}"
    );
    watch.stop();
}
