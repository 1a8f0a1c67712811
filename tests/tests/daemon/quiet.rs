//! Nothing happens when nothing happens.

use std::{fmt::Write, fs, thread, time::Duration};

use probe_tests::{Probed, Sandbox, until_within};

/// How long is looked at, well within `settle_every`.
const LOOK: Duration = Duration::from_secs(10);
const SERVICES: usize = 500;

/// How often the process's threads were given the processor, by thread.
fn switches(pid: u32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let mut all: Vec<(String, u64)> = tasks
        .flatten()
        .map(|task| {
            let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let number = |line: &str| line.rsplit('\t').next().and_then(|n| n.parse::<u64>().ok());
            let of = |part| text.lines().filter(|l| l.contains(part)).filter_map(number).sum();
            let name = text
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("Name:\t");
            (
                format!("{name} {}", task.file_name().display()),
                of("ctxt_switches"),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn no_thread_wakes_up_in_ten_seconds_with_500_services() {
    let sandbox = Sandbox::new();
    // Whoever uses the directory for temporary files, or ours, is somebody who does something.
    let place = sandbox.path("var/run");
    fs::create_dir_all(&place).expect("a directory");
    let mut config = String::new();
    for n in 0..SERVICES {
        let path = place.join(format!("s{n}"));
        let _ = writeln!(
            config,
            "[[service]]\nname = \"s{n}\"\nexe = \"{0}\"\npid_file = \"{0}.pid\"\nlisten = [\"unix:{0}.sock\"]\nexpected = false",
            path.display()
        );
    }
    let probed = Probed::with(&sandbox, "settle_every = \"1h\"", &config);
    // What the start left to be done is over once threads that only wait for work have ended, and nothing moves.
    let mut last = Vec::new();
    until_within(Duration::from_secs(60), "it is at rest", || {
        thread::sleep(Duration::from_secs(2));
        let now = switches(probed.pid());
        let rests = now == last;
        last = now;
        rests
    });
    let before = switches(probed.pid());
    thread::sleep(LOOK);
    let after = switches(probed.pid());
    println!("{} threads, {SERVICES} services: {after:?}", after.len());
    assert_eq!(before, after, "a thread woke up within {LOOK:?}");
    assert!(
        after.iter().all(|(_, n)| *n > 0),
        "every thread has run at some time: {after:?}"
    );
}
