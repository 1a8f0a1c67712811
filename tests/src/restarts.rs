//! Incident 1's script: restarts, a client after each, and a table of how long it had to wait.

use std::{
    env,
    fs::OpenOptions,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// As the people in the incident had it.
const CLIENT_WITHIN: Duration = Duration::from_secs(2);
const AVERAGE_WITHIN: Duration = Duration::from_millis(500);

/// What the clients met so far.
#[derive(Debug, Default)]
pub struct Restarts {
    table: Vec<String>,
    latencies: Vec<Duration>,
}

impl Restarts {
    pub const COUNT: usize = 20;

    /// A client after a restart. It connects, and the daemon, told by `accept`, takes the connection and closes it.
    #[track_caller]
    pub fn ask(&mut self, how: &str, socket: &Path, accept: impl FnOnce()) {
        let n = self.latencies.len() + 1;
        let from = now();
        let mut client =
            UnixStream::connect(socket).unwrap_or_else(|e| panic!("after restart {n} ({how}): {e}"));
        client
            .set_read_timeout(Some(CLIENT_WITHIN))
            .expect("a time limit");
        accept();
        let mut answer = Vec::new();
        if let Err(e) = client.read_to_end(&mut answer) {
            panic!("no answer after restart {n} ({how}): {e}");
        }
        let latency = from.elapsed();
        self.table
            .push(format!("| {n} | {how} | {} µs |", latency.as_micros()));
        self.latencies.push(latency);
    }

    /// Prints the table, and fails unless every client was served, fast enough on average. `$PROBE_TEST_TABLES` names a file
    /// that gets it too.
    #[track_caller]
    pub fn judge(self) {
        let average = self.latencies.iter().sum::<Duration>() / u32::try_from(Self::COUNT).expect("few");
        let (met, count) = (self.latencies.len(), Self::COUNT);
        let last = format!(
            "| {met}/{count} sockets | no time-out | {} µs on average |",
            average.as_micros()
        );
        let head = "| restart | how | client |\n| --- | --- | --- |".to_owned();
        let table = [vec![head], self.table, vec![last]].concat().join("\n");
        println!("{table}");
        if let Some(file) = env::var_os("PROBE_TEST_TABLES") {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .expect("the file of tables");
            writeln!(file, "{table}").expect("write a table");
        }
        assert_eq!(met, count);
        assert!(average < AVERAGE_WITHIN, "{average:?} on average");
    }
}

#[expect(clippy::disallowed_methods, reason = "a client measures real time")]
fn now() -> Instant {
    Instant::now()
}
