//! A real redis: UNIX socket, TCP port, PID file.

use std::io::Write;

use std::time::Duration;

use probe_tests::{Redis, Sandbox, Watch, kill};

#[test]
fn start_stop_and_restart_give_no_finding() {
    lives_and_stops(Redis::install);
}

#[test]
fn start_stop_and_restart_in_the_background_give_no_finding() {
    lives_and_stops(|sandbox| Redis::install(sandbox).daemonized());
}

fn lives_and_stops(install: impl Fn(&Sandbox) -> Redis) {
    let sandbox = Sandbox::new();
    let redis = install(&sandbox);
    let watch = Watch::start(&sandbox, &format!("{}expected = false\n", redis.service()));

    for _start_and_restart in 0..2 {
        let process = redis.start();
        kill("TERM", process.pid());
        process.wait_gone();
    }
    let last = redis.start();

    watch.expect_nothing();
    watch.stop();
    drop(last);
}

#[test]
fn stopping_an_expected_redis_gives_no_finding() {
    let sandbox = Sandbox::new();
    let redis = Redis::install(&sandbox);
    let process = redis.start();
    let watch = Watch::start(&sandbox, &redis.service());

    kill("TERM", process.pid());
    process.wait_gone();

    watch.expect_nothing();
    watch.stop();
}

/// The promise of the README.
const WITHIN: Duration = Duration::from_millis(50);

const ROUNDS: usize = 9;

#[test]
fn kill_9_leaves_a_stale_socket_and_a_stale_pid_file_known_within_50_ms() {
    let sandbox = Sandbox::new();
    let redis = Redis::install(&sandbox);
    let mut process = redis.start();
    let watch = Watch::start(&sandbox, &redis.service());

    let (mut socket_after, mut pid_file_after) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let killer = kill("KILL", process.pid());

        let socket = watch.expect("stale-socket", "redis");
        let pid_file = watch.expect("stale-pid-file", "redis");
        for finding in [&socket, &pid_file] {
            finding.by(killer).says(process.pid());
            assert_eq!(finding.actor().exe.as_deref(), Some("/usr/bin/kill"));
            assert_eq!(finding.actor().uid, Some(0));
        }
        assert_eq!(socket.subject, format!("unix:{}", redis.socket.display()));
        assert_eq!(socket.severity, "critical");
        assert_eq!(socket.cause, pid_file.cause, "one kill, one cause");
        socket_after.push(Duration::from_nanos(socket.detected_after_ns));
        pid_file_after.push(Duration::from_nanos(pid_file.detected_after_ns));

        if round + 1 < ROUNDS {
            watch.forget();
            process = redis.start();
            watch.expect_resolved("stale-socket", "redis");
            watch.expect_resolved("stale-pid-file", "redis");
        }
    }
    watch.stop();

    for (what, times) in [
        ("stale-socket", &mut socket_after),
        ("stale-pid-file", &mut pid_file_after),
    ] {
        times.sort();
        let (median, max) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        // Not through `println!`, which is shown for failures only: this figure is for whoever runs the tests.
        let figure = format!("{what} after kill -9: median {median:?}, slowest {max:?} of {ROUNDS}\n");
        std::io::stderr()
            .write_all(figure.as_bytes())
            .expect("standard error");
        assert!(
            median <= WITHIN,
            "{what} came after {median:?} (median), promised are {WITHIN:?}: {times:?}"
        );
    }
}

#[test]
fn a_second_redis_that_rebinds_the_path_orphans_the_first() {
    let sandbox = Sandbox::new();
    let redis = Redis::install(&sandbox);
    let rival = redis.rival(&sandbox);
    let first = redis.start();
    let watch = Watch::start(&sandbox, &redis.service());

    let second = rival.start();

    let orphan = watch.expect("orphaned-listener", "redis");
    orphan
        .by(second.pid())
        .says(first.pid())
        .says(redis.socket.display());
    assert_eq!(orphan.actor().exe.as_deref(), redis.exe.to_str());
    watch.expect_exactly(&[("orphaned-listener", "redis")]);
    watch.stop();
}
