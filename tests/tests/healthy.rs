//! What healthy daemons do and must not be blamed for, and beside each the failure that looks like it and must be found.
//! The table in `tests/README.md` says which tests of other files belong here too.

use std::{fs, os::unix::fs::MetadataExt};

use probe_tests::{Daemon, Proc, Sandbox, Scene, Watch, kill};

/// A daemon with a socket file and a PID file that is selected by its PID file alone.
fn by_pid_file() -> (Watch, Daemon) {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (path, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let daemon = Daemon::at(&exe).unix(&path).pid_file(&pid_file).start();
    let config = format!(
        "[[service]]\nname = \"annad\"\npid_file = {pid_file:?}\nlisten = [\"unix:{}\"]\nready_within = \"700ms\"\n\
         relisten_within = \"300ms\"\noverlap = \"700ms\"\n",
        path.display()
    );
    let watch = Watch::start(&sandbox, &config);
    (watch, daemon)
}

/// Rule 3.
#[test]
fn a_tool_that_fails_is_no_crash() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::new();

    for code in ["0", "3"] {
        let mut tool = Daemon::at(&exe).start();
        tool.tell(&format!("exit {code}"));
        tool.wait_gone();
    }
    let tool = Daemon::at(&exe).start();
    tool.kill("KILL");
    tool.wait_gone();

    // The kill was somebody's act, and it ended a process of the declared executable.
    let opened: Vec<_> = watch.lines().iter().filter_map(|l| l.finding()).collect();
    assert!(opened.iter().all(|f| f.kind != "crashed"), "{opened:?}");
    watch.expect_nothing();
    watch.stop();
    drop(daemon);
}

/// Rule 4.
#[test]
fn a_master_that_stops_its_workers_is_not_stopped() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let worker: u32 = daemon.tell("fork").parse().expect("a pid");
    daemon.tell(&format!("signal {worker} TERM"));
    watch.expect_event("exit", "annad", "the worker's", |e| {
        e.value["process"]["pid"] == worker
    });
    watch.expect_nothing();
    watch.forget();

    let killer = daemon.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(daemon.pid());
    watch.stop();
}

/// Rule 4, the counterpart: the parent-death signal that follows a crash must not hide it.
#[test]
fn a_parent_death_signal_asks_nobody_to_stop() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let worker: u32 = daemon.tell("fork-bound").parse().expect("a pid");
    let killer = daemon.kill("KILL");

    watch.expect("crashed", "annad").by(killer).says(daemon.pid());
    watch.expect_event("exit", "annad", "the worker's", |e| {
        e.value["process"]["pid"] == worker
    });
    watch.expect_exactly(&[("crashed", "annad"), ("not-running", "annad")]);
    watch.stop();
}

/// Rule 8.
#[test]
fn an_orphaned_worker_stays_a_member() {
    let (watch, mut daemon) = by_pid_file();

    let worker: u32 = daemon.tell("fork").parse().expect("a pid");
    let worker = Proc::adopt("worker", worker);
    daemon.kill("KILL");

    // The worker holds the listener: it is neither stale nor taken by a stranger. The PID file is stale.
    watch.expect("crashed", "annad");
    watch.expect_exactly(&[("crashed", "annad"), ("stale-pid-file", "annad")]);
    watch.forget();
    // Its end is the end of the listener.
    kill("KILL", worker.pid());
    watch.expect("stale-socket", "annad").says(worker.pid());
    watch.stop();
}

/// Rule 9.
#[test]
fn survivors_of_one_instance_are_one_instance() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    let workers = daemon.tell("fork 3");
    let workers: Vec<Proc> = workers
        .split(' ')
        .map(|pid| Proc::adopt("worker", pid.parse().expect("a pid")))
        .collect();
    daemon.kill("KILL");

    // Three roots now, and each holds the listener.
    watch.expect("crashed", "annad");
    watch.expect_exactly(&[("crashed", "annad")]);
    watch.stop();
    drop(workers);
}

/// Rule 10, the counterpart: one that stays empty.
#[test]
fn a_pid_file_that_is_never_written() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("annad.pid");
    let daemon = Daemon::at(&exe).tcp(0).start();
    let more = format!(
        "listen = [\"tcp:127.0.0.1:{}\"]\npid_file = {pid_file:?}",
        daemon.port()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    fs::write(&pid_file, "").expect("write an empty PID file");

    watch.expect("stale-pid-file", "annad").says("empty");
    fs::write(&pid_file, format!("{}\n", daemon.pid())).expect("write the PID file");
    watch.expect_resolved("stale-pid-file", "annad");
    watch.stop();
}

/// Rule 11: every crash is found, although each socket file may have the inode number of the one before.
#[test]
fn socket_files_that_get_the_same_inode_number() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!(
        "listen = [\"unix:{}\"]\nexpected = false\ncrash_loop = {{ restarts = 100, window = \"1s\" }}",
        path.display()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let mut numbers = Vec::new();
    for _ in 0..4 {
        let daemon = Daemon::at(&exe).unix(&path).start();
        numbers.push(fs::metadata(&path).expect("the socket file").ino());
        watch.expect_event("listen", "annad", "the new one", |e| {
            e.value["process"]["pid"] == daemon.pid()
        });
        watch.forget();
        let killer = daemon.kill("KILL");
        watch
            .expect("stale-socket", "annad")
            .by(killer)
            .says(daemon.pid());
        fs::remove_file(&path).expect("remove the socket file");
        watch.expect_resolved("stale-socket", "annad");
        watch.forget();
    }
    println!("inode numbers of the socket file: {numbers:?}");
    let daemon = Daemon::at(&exe).unix(&path).start();
    watch.expect_nothing();
    watch.stop();
    drop(daemon);
}

/// Rule 14.
#[test]
fn a_stop_by_the_successor_is_a_handover() {
    let Scene {
        watch, daemon, exe, ..
    } = Scene::with(|s| s.arg("--reuse-port"), "");

    let mut successor = Daemon::at(&exe).arg("--reuse-port").tcp(daemon.port()).start();
    successor.tell(&format!("signal {} TERM", daemon.pid()));
    daemon.wait_gone();

    watch.expect_nothing();
    watch.forget();
    let killer = successor.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(successor.pid());
    watch.stop();
}

/// Rule 15.
#[test]
fn a_signal_of_the_kernel_has_no_sender() {
    let Scene {
        watch, mut daemon, ..
    } = Scene::new();

    daemon.tell("alarm");

    let died = watch.expect("unhandled-signal", "annad");
    died.says("ALRM").says("the kernel");
    assert!(died.actor.is_none(), "{died:?}");
    watch.stop();
}

/// Rule 15: of two senders the first one whose signal was queued.
#[test]
fn the_second_sender_of_a_pending_signal_changed_nothing() {
    let Scene { watch, daemon, .. } = Scene::new();

    daemon.kill("STOP");
    let first = daemon.kill("USR1");
    let second = daemon.kill("USR1");
    daemon.kill("CONT");

    assert_ne!(first, second);
    watch.expect("unhandled-signal", "annad").by(first).says("USR1");
    watch.stop();
}
