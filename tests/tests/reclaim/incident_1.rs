//! Incident 1's script: twenty restarts, and a client after each. What `rm -f` and `sleep 1` did is done by `probe reclaim`.

use std::{
    io::Read,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::Site;

const RESTARTS: u32 = 20;
/// As the people in the incident had it.
const CLIENT_WITHIN: Duration = Duration::from_secs(2);
const AVERAGE_WITHIN: Duration = Duration::from_millis(500);

#[expect(clippy::disallowed_methods, reason = "a client measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn twenty_restarts_half_of_them_by_kill_9() {
    let site = Site::new("");
    println!("| restart | ended by | removed | client |\n| --- | --- | --- | --- |");
    let mut latencies = Vec::new();
    let mut daemon = site.start();
    for n in 1..=RESTARTS {
        let by = if n % 2 == 0 { Signal::KILL } else { Signal::TERM };
        daemon.process().signal(by);
        daemon.wait_gone();

        let reclaimed = site.reclaim(&[]);

        // Neither handler was asked for: both ends leave everything behind.
        reclaimed
            .is_clear()
            .ended(0)
            .removed(&[&site.socket, &site.pid_file]);
        daemon = site.start();
        let from = now();
        let mut client = UnixStream::connect(&site.socket).unwrap();
        client.set_read_timeout(Some(CLIENT_WITHIN)).unwrap();
        daemon.tell(&format!("accept unix:{}", site.socket.display()));
        let mut answer = Vec::new();
        client
            .read_to_end(&mut answer)
            .unwrap_or_else(|e| panic!("restart {n}: {e}"));
        let latency = from.elapsed();
        println!("| {n} | {by:?} | socket, PID file | {} µs |", latency.as_micros());
        latencies.push(latency);
    }
    let average = latencies.iter().sum::<Duration>() / RESTARTS;
    println!(
        "{}/{RESTARTS} sockets, no time-out, {} µs on average",
        latencies.len(),
        average.as_micros()
    );
    assert!(average < AVERAGE_WITHIN, "{average:?}");
}
