//! The daemons that the other tests stand on do what those tests believe, without probe.

use std::{fs, os::unix::net::UnixStream, path::Path};

use probe_tests::{Daemon, MemoryGroup, Nginx, Redis, Sandbox, kill};

#[test]
fn faulty_listens_closes_and_stops_as_told() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let mut daemon = Daemon::at(&exe).unix(&path).pid_file(&pid_file).start();

    assert_eq!(
        fs::read_to_string(&pid_file).expect("PID file").trim(),
        daemon.pid().to_string()
    );
    UnixStream::connect(&path).expect("it listens");
    daemon.tell(&format!("close unix:{}", path.display()));
    UnixStream::connect(&path).expect_err("it has closed the listener");
    daemon.tell(&format!("rebind unix:{}", path.display()));
    UnixStream::connect(&path).expect("it listens anew");

    daemon.tell("stop-cleanly");
    daemon.wait_gone();
    assert!(!path.exists() && !pid_file.exists());
}

#[test]
fn faulty_goes_into_the_background_and_hands_over() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut daemon = Daemon::at(&exe).tcp(0).arg("--daemonize").start();
    assert!(daemon.first().wait().success());

    let before = daemon.pid();
    daemon.hand_over();

    assert_ne!(before, daemon.pid());
    daemon.tell("ping");
    assert_eq!(
        fs::read_link(format!("/proc/{}/exe", daemon.pid())).expect("it runs"),
        exe
    );
}

#[test]
fn faulty_reacts_to_signals_as_told() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut daemon = Daemon::at(&exe)
        .on("USR1=catch")
        .on("HUP=ignore")
        .on("TERM=reraise")
        .start();

    daemon.kill("HUP");
    let sender = daemon.kill("USR1");
    daemon.caught("USR1");
    assert!(!Path::new(&format!("/proc/{sender}")).exists());
    daemon.kill("TERM");

    let status = daemon.first().wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
}

#[test]
fn redis_starts_and_stops_in_both_ways() {
    let sandbox = Sandbox::new();
    let redis = Redis::install(&sandbox);
    let first = redis.start();
    let rival = redis.rival(&sandbox).start();
    for process in [first, rival] {
        kill("TERM", process.pid());
        process.wait_gone();
    }

    let background = redis.daemonized().start();
    kill("TERM", background.pid());
    background.wait_gone();
}

#[test]
fn nginx_starts_reloads_and_stops() {
    let sandbox = Sandbox::new();
    let nginx = Nginx::install(&sandbox);
    let master = nginx.start();
    assert_eq!(master.workers().len(), 2);
    master.reload();
    let second = nginx.rival(&sandbox).start();
    assert_ne!(master.pid(), second.pid());
    second.stop("TERM");
    master.stop("QUIT");
}

#[test]
fn a_memory_group_kills_what_takes_too_much() {
    let group = match MemoryGroup::new("probe-test-harness", 64) {
        Ok(group) => group,
        Err(why) => return println!("skipped: {why}"),
    };
    let sandbox = Sandbox::new();
    let mut daemon = Daemon::at(&Daemon::install(&sandbox, "annad")).start();
    group.add(daemon.pid());

    daemon.tell("alloc 8");
    daemon.send("alloc 256");

    let status = daemon.first().wait();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "{status}"
    );
}
