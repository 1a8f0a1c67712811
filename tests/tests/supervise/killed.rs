//! `probe run` is killed again and again, in everything that it does. What the kernel tells of its children is the judge:
//! there never are two of them.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    thread,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use probe_tests::{Daemon, Watch, until};
use probe_user::run::store::{Phase, Runs};
use rustix::process::Signal;

use crate::{Running, Site};

const OPTIONS: [&str; 4] = ["--restart", "always", "--wait", "20s"];
const DAEMON: [&str; 2] = ["--on", "TERM=catch"];

/// What a reclaim waits for.
fn reclaim_lock(site: &Site) -> Flock<File> {
    let path = site.state().join("locks/annad.reclaim.lock");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    let mut file = Some(file);
    let mut lock = None;
    until("the lock of the reclaim is free", || {
        match Flock::lock(file.take().unwrap(), FlockArg::LockExclusiveNonblock) {
            Ok(taken) => lock = Some(taken),
            Err((again, _)) => file = Some(again),
        }
        lock.is_some()
    });
    lock.unwrap()
}

#[test]
fn ten_times_and_never_two_children() {
    let site = Site::new("stop_within = \"1500ms\"\nheal = { backoff = \"300ms..300ms\" }");
    let watch = Watch::start(
        &site.sandbox,
        &Daemon::service("annad", &site.exe, "expected = false"),
    );
    let start = || site.run(&OPTIONS, &DAEMON);
    let mut kills = 0;
    let mut kill = |mut supervisor: Running| {
        supervisor.kill();
        kills += 1;
    };
    let phase = || {
        Runs::open(&site.state())
            .unwrap()
            .get("annad")
            .unwrap()
            .map(|row| row.phase)
    };

    // While it cleans up before its first start,
    let lock = reclaim_lock(&site);
    let early = start();
    until("the run is written down", || phase() == Some(Phase::Starting));
    kill(early);
    drop(lock);
    // and at whatever it does so long after its own start.
    for ms in [4, 12, 30] {
        let early = start();
        thread::sleep(Duration::from_millis(ms));
        kill(early);
    }
    // While it runs: what it has started itself, and what it has taken over.
    let mut running = start();
    let first = running.child();
    kill(running);
    let mut running = start();
    assert_eq!(running.child(), first);
    site.logs("ready pid=");
    kill(running);
    // Between two lives.
    let mut before = first.clone();
    for n in 0..2 {
        let mut pausing = start();
        let child = pausing.child();
        assert_eq!(child.restart, before.restart + n);
        site.logs("ready pid=");
        site.order("exit 1");
        pausing.says("starting again in");
        kill(pausing);
        before = child;
    }
    // While it stops. Whoever comes then ends the one that is being stopped, and starts another.
    let mut stopping = start();
    let mut child = stopping.child();
    for _ in 0..2 {
        site.logs("ready pid=");
        stopping.signal(Signal::TERM);
        site.logs("signal TERM");
        kill(stopping);
        stopping = start();
        assert_eq!(stopping.child(), child);
        let next = stopping.child();
        assert_eq!(next.restart, child.restart + 1);
        child = next;
    }
    assert_eq!(kills, 10);
    site.logs("ready pid=");
    stopping.signal(Signal::TERM);
    stopping.ends_with(137);

    watch.expect_event("exit", "annad", "of the last child", |l| {
        l.value["process"]["pid"] == child.pid
    });
    let lives = Lives::of(&watch);
    println!(
        "{kills} kills of probe, {} children, at most {} at once",
        lives.begun, lives.most
    );
    assert_eq!(lives.most, 1);
    let row = site.row();
    assert_eq!(
        (&row.identity, row.restart_count),
        (&first.identity, child.restart)
    );
    assert_eq!(row.restart_count + 1, lives.begun);
    watch.stop();
}

/// What the kernel told of those who became the daemon.
struct Lives {
    begun: u64,
    most: usize,
}

impl Lives {
    fn of(watch: &Watch) -> Self {
        let mut turns: Vec<(u64, bool, u64)> = Vec::new();
        for line in watch.lines() {
            let v = &line.value;
            let is_turn = line.kind() == "event" && v["service"] == "annad";
            let begins = match v["kind"].as_str() {
                Some("exec") if is_turn => true,
                Some("exit") if is_turn => false,
                _ => continue,
            };
            assert_eq!(v["time_source"], "kernel", "{}", line.raw);
            turns.push((
                v["boot_ns"].as_u64().unwrap(),
                begins,
                v["process"]["pid"].as_u64().unwrap(),
            ));
        }
        turns.sort_unstable();
        let (mut alive, mut most, mut begun) = (BTreeSet::new(), 0, 0);
        for (_, begins, pid) in turns {
            if begins {
                begun += u64::from(alive.insert(pid));
            } else {
                assert!(alive.remove(&pid), "{pid} ended before it began");
            }
            most = most.max(alive.len());
        }
        Self { begun, most }
    }
}
