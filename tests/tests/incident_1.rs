//! Incident 1: the daemon that hangs after a reboot. `trap` is the fourth part of it.

use std::{
    collections::BTreeSet,
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use probe_tests::{Daemon, Probed, Proc, Sandbox, Watch};

#[test]
fn a_crash_an_rm_and_a_daemon_that_does_not_accept() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let first = Daemon::at(&exe).unix(&path).start();
    let more = format!(
        "listen = [\"unix:{}\"]\naccept_within = \"400ms\"",
        path.display()
    );
    let config = format!(
        "[probe]\nsettle_every = \"200ms\"\n{}",
        Daemon::service("annad", &exe, &more)
    );
    let watch = Watch::start(&sandbox, &config);

    // The socket file outlives a crash.
    let killer = first.kill("KILL");
    watch.expect("stale-socket", "annad").by(killer).says(first.pid());

    // The start script removes it, whoever holds it: first a dead one's, then a live one's.
    remove(&path);
    let second = Daemon::at(&exe).unix(&path).start();
    watch.expect_resolved("stale-socket", "annad");
    let rm = remove(&path);
    watch
        .expect("orphaned-listener", "annad")
        .by(rm)
        .says(second.pid());

    // The next one listens and hangs.
    second.kill("TERM");
    second.wait_gone();
    let third = Daemon::at(&exe).unix(&path).start();
    let client = UnixStream::connect(&path).expect("the kernel accepts into the queue");
    watch.expect("accept-stall", "annad").says(third.pid());
    watch.stop();
    drop(client);
}

fn remove(path: &std::path::Path) -> u32 {
    let mut rm = Proc::spawn(Command::new("/usr/bin/rm").arg("-f").arg(path));
    assert!(rm.wait().success());
    rm.pid()
}

#[test]
fn twenty_restarts_give_twenty_sockets_and_no_finding() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]\nexpected = false", path.display());
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    for n in 1..=20 {
        let daemon = Daemon::at(&exe).unix(&path).on("TERM=clean").start();
        UnixStream::connect(&path).unwrap_or_else(|e| panic!("restart {n}: {e}"));
        watch.expect_event("ready", "annad", "the next generation", |e| {
            e.value["generation"] == n
        });
        daemon.kill("TERM");
        daemon.wait_gone();
    }

    watch.expect_nothing();
    watch.stop();
}

/// How long a command of probe takes, as whoever types it sees it. It must succeed: a time-out has exit code 7.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "what a person waits is real time")]
fn timed(probed: &Probed, args: &[&str]) -> (Duration, serde_json::Value) {
    let began = Instant::now();
    let answer = probed.ask_json(args);
    (began.elapsed(), answer)
}

/// Prints the table, and judges its last column.
#[track_caller]
fn assert_latency(title: &str, rows: &[(String, Duration)]) {
    println!("{title}\n{:>7}  {:<40} latency", "restart", "");
    for (n, (what, latency)) in rows.iter().enumerate() {
        println!("{:>7}  {what:<40} {:.1} ms", n + 1, latency.as_secs_f64() * 1e3);
    }
    let count = u32::try_from(rows.len()).expect("a few rows");
    let average = rows.iter().map(|(_, latency)| *latency).sum::<Duration>() / count;
    let slowest = rows.iter().map(|(_, latency)| *latency).max().unwrap_or_default();
    println!("{count}/{count} answered, average {average:?}, slowest {slowest:?}, no time-out");
    assert!(average < Duration::from_millis(500), "average {average:?}");
}

#[test]
fn twenty_restarts_as_the_client_sees_them() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    // Ten kills in a row would be a crash loop, and rightly so.
    let more = format!(
        "listen = [\"unix:{}\"]\nexpected = false\ncrash_loop = {{ restarts = 30, window = \"60s\" }}",
        path.display()
    );
    let probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));
    let start = || Daemon::at(&exe).unix(&path).on("TERM=clean").start();
    let mut daemon = start();
    probed.ask_json(&["wait", "annad", "--ready", "--timeout", "10s"]);

    let mut rows = Vec::new();
    let mut inodes = BTreeSet::new();
    for n in 1..=20 {
        // Every other time it leaves its socket file behind, on which the next one would fail.
        daemon.kill(if n % 2 == 0 { "KILL" } else { "TERM" });
        daemon.wait_gone();
        let reclaimed = probed.ask(&["reclaim", "annad"]);
        assert_eq!(reclaimed.code, Some(0), "restart {n}: {reclaimed:?}");
        daemon = start();
        UnixStream::connect(&path).unwrap_or_else(|e| panic!("restart {n}: {e}"));
        let after = n.to_string();
        let args = [
            "wait",
            "annad",
            "--ready",
            "--timeout",
            "10s",
            "--after-generation",
            &after,
        ];
        let (latency, ready) = timed(&probed, &args);
        assert_eq!(ready["main"]["pid"], daemon.pid(), "restart {n}");
        let service = probed.service("annad");
        assert_eq!(
            (&service["restarts"], &service["verdict"]),
            (&n.into(), &"ok".into()),
            "{service}"
        );
        let inode = service["listeners"][0]["inode"].as_u64().expect("a live socket");
        inodes.insert(inode);
        rows.push((format!("annad ({}), socket {inode}", daemon.pid()), latency));
    }
    assert_eq!(inodes.len(), 20, "twenty sockets");
    assert_latency("probe wait annad --ready, after each restart of annad", &rows);
}

#[test]
fn twenty_restarts_of_probe_s_own_daemon() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let path = sandbox.path("annad.sock");
    let more = format!("listen = [\"unix:{}\"]", path.display());
    let daemon = Daemon::at(&exe).unix(&path).start();
    let mut probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let mut rows = Vec::new();
    for n in 1..=20 {
        if n % 2 == 0 {
            probed.kill();
        } else {
            probed.stop();
        }
        probed.begin();
        let (latency, answer) = timed(&probed, &["status"]);
        let service = &answer["services"][0];
        assert_eq!(
            (&service["verdict"], &service["main"]["pid"]),
            (&"ok".into(), &daemon.pid().into())
        );
        rows.push((format!("probe daemon ({})", probed.pid()), latency));
    }
    assert_latency("probe status, after each restart of probe daemon", &rows);
}
