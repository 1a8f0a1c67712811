//! A minute of load: nothing is wrong, so nothing is found, and nothing is lost.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use probe_tests::{Deadline, Proc, Redis, Sandbox, Watch, faulty_binary, run};

/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(60);

/// Events that probe may record in all: a start, a few snapshots, the sentinel. Unrelated processes make none.
const FEW: usize = 300;

#[test]
fn a_minute_of_redis_benchmark_and_of_unrelated_processes() {
    let sandbox = Sandbox::new();
    let redis = Redis::install(&sandbox);
    let process = redis.start();
    let watch = Watch::start(&sandbox, &redis.service());

    let port = redis.port.to_string();
    let socket = redis.socket.display().to_string();
    let end = Deadline::after(LOAD);
    let (rounds, forked) = thread::scope(|s| {
        let unix = s.spawn(|| benchmark(&["-s", &socket], end));
        let tcp = s.spawn(|| benchmark(&["-h", "127.0.0.1", "-p", &port], end));
        let forked = storm(&sandbox, || unix.join().expect("benchmark over the UNIX socket"));
        (tcp.join().expect("benchmark over TCP"), forked)
    });
    println!("{rounds} rounds of redis-benchmark over TCP, {forked} unrelated processes");
    assert!(rounds > 0);
    assert!(
        forked > 2000,
        "only {forked} processes were forked: no load to speak of"
    );

    watch.expect_nothing();
    let recorded = std::fs::read_to_string(watch.trace())
        .expect("the recording")
        .lines()
        .count();
    assert!(
        recorded < FEW,
        "{recorded} lines were recorded, although only redis was declared"
    );
    assert!(process.is_alive());
    watch.stop();
}

/// Runs it again and again until the end. Returns how often.
fn benchmark(address: &[&str], end: Deadline) -> u32 {
    let mut rounds = 0;
    while end.left().is_some() {
        let bench = ["-n", "5000", "-c", "20", "-q", "-t", "ping,set,get"];
        let output = run(Command::new("/usr/bin/redis-benchmark").args(address).args(bench));
        assert_eq!(output.code, Some(0), "redis-benchmark: {}", output.stderr);
        rounds += 1;
    }
    rounds
}

/// Lets unrelated processes be born and die as long as `meanwhile` takes. Returns how many.
fn storm<T>(sandbox: &Sandbox, meanwhile: impl FnOnce() -> T) -> u64 {
    let mut command = Command::new(faulty_binary());
    command
        .args(["storm", "--dir"])
        .arg(sandbox.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut storm = Proc::spawn(&mut command);
    meanwhile();
    drop(storm.child().stdin.take());
    let out = BufReader::new(storm.child().stdout.take().expect("piped"));
    let last = out.lines().map_while(Result::ok).last().unwrap_or_default();
    assert!(storm.wait().success());
    last.strip_prefix("ok ")
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("the storm said {last:?}"))
}
