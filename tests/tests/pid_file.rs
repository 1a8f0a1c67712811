//! Every way in which PID files are written, and what else may stand under their names: never a finding while the daemon
//! is well, and the truth again afterwards.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use probe_tests::{Daemon, Sandbox, Watch};

struct Scene {
    watch: Watch,
    daemon: Daemon,
    pid_file: PathBuf,
    sandbox: Sandbox,
}

fn scene() -> Scene {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("annad.pid");
    let daemon = Daemon::at(&exe).pid_file(&pid_file).start();
    let more = format!("pid_file = {pid_file:?}\nexpected = true");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));
    Scene {
        watch,
        daemon,
        pid_file,
        sandbox,
    }
}

/// Puts a file under the name as careful daemons do.
fn replace(sandbox: &Sandbox, pid_file: &Path, content: &str) {
    let new = sandbox.write("new", content);
    fs::rename(new, pid_file).expect("rename");
}

/// That the daemon's crash is told after all that shows that probe still reads the file.
fn crash(scene: Scene) {
    let Scene { watch, daemon, .. } = scene;
    let killer = daemon.kill("KILL");
    watch.expect("stale-pid-file", "annad").by(killer);
    watch.stop();
}

#[test]
fn replaced_by_rename_rotated_empty_for_a_while_and_with_several_lines() {
    let scene = scene();
    let (pid, pid_file) = (scene.daemon.pid(), scene.pid_file.clone());
    replace(&scene.sandbox, &pid_file, &format!("{pid}\n"));
    // Rotated: the old one keeps another name.
    fs::rename(&pid_file, scene.sandbox.path("annad.pid.1")).expect("rename");
    fs::write(&pid_file, "").expect("write");
    fs::write(&pid_file, format!("  {pid}\n")).expect("write");
    fs::write(
        &pid_file,
        format!("{pid}\n/var/lib/postgresql\n1700000000\n5432\n"),
    )
    .expect("write");
    scene.watch.expect_nothing();
    crash(scene);
}

#[test]
fn what_is_no_pid_file_is_neither_followed_nor_waited_for() {
    let scene = scene();
    let (watch, pid, pid_file) = (&scene.watch, scene.daemon.pid(), scene.pid_file.clone());
    let told = |what: &str| {
        watch.expect_event("pid_file", "annad", what, |l| l.raw.contains(what));
    };
    // 10 MB of rubbish.
    replace(&scene.sandbox, &pid_file, &"rubbish\n".repeat(1_250_000));
    told("rubbish");
    // It leads to a true one, and is not followed all the same.
    fs::remove_file(&pid_file).expect("remove");
    symlink(scene.sandbox.write("elsewhere", &pid.to_string()), &pid_file).expect("a link");
    told("symbolic link");
    fs::remove_file(&pid_file).expect("remove");
    nix::unistd::mkfifo(&pid_file, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    told("not a regular file");
    fs::remove_file(&pid_file).expect("remove");
    fs::write(&pid_file, format!("{pid}\n")).expect("write");
    watch.expect_nothing();
    crash(scene);
}

#[test]
fn it_names_another_process_and_then_the_daemon_again() {
    let scene = scene();
    replace(&scene.sandbox, &scene.pid_file, "1\n");
    scene.watch.expect("stale-pid-file", "annad");
    let pid = scene.daemon.pid();
    replace(&scene.sandbox, &scene.pid_file, &format!("{pid}\n"));
    scene.watch.expect_resolved("stale-pid-file", "annad");
    scene.watch.forget();
    scene.watch.expect_nothing();
    crash(scene);
}
