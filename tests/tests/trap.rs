//! Incident 1: one path, three processes. The first binds it, the second unlinks and rebinds it, the third kills the second.
//! `lsof` then names the first and says "in use", while every connect is refused.

use std::{io::ErrorKind, os::unix::net::UnixStream, process::Command};

use probe_tests::{Daemon, Sandbox, Watch, run};

#[test]
fn both_findings_are_right_while_lsof_names_the_wrong_process() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let first = Daemon::at(&exe).unix(&path).start();
    let more = format!("listen = [\"unix:{}\"]\nmax_instances = 2", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let second = Daemon::at(&exe).unix(&path).arg("--take-over").start();
    let killer = second.kill("KILL");

    watch
        .expect("orphaned-listener", "annad")
        .by(second.pid())
        .says(first.pid());
    watch
        .expect("stale-socket", "annad")
        .by(killer)
        .says(second.pid());

    let lsof = run(Command::new("/usr/bin/lsof").arg("-t").arg(&path));
    assert_eq!(
        lsof.stdout.trim(),
        first.pid().to_string(),
        "lsof says that the first process uses the path"
    );
    let refused = UnixStream::connect(&path).expect_err("nobody listens there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(first.process().is_alive());
    watch.stop();
}
