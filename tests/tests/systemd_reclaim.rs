//! `ExecStartPre=+probe reclaim`: incident 1's script, with the real systemd.

use std::{
    io::Read,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use probe_tests::{Proc, Sandbox, Unit, probe_binary};
use rustix::process::Signal;

const RESTARTS: u32 = 20;
/// As the people in the incident had it.
const CLIENT_WITHIN: Duration = Duration::from_secs(2);
const AVERAGE_WITHIN: Duration = Duration::from_millis(500);

#[expect(clippy::disallowed_methods, reason = "a client measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The unit, and what systemd starts before it.
fn unit(sandbox: &Sandbox, kill_mode: &str) -> Unit {
    let socket = sandbox.path("annad.sock");
    let config = sandbox.path("reclaim.toml");
    let unit = Unit::file(sandbox, "annad")
        .arg("--unix")
        .arg(&socket.display().to_string())
        .with(&format!(
            "ExecStartPre=+{} reclaim --config {} annad",
            probe_binary().display(),
            config.display()
        ))
        .with("Restart=on-failure")
        .with("RestartSec=100ms")
        .with(&format!("KillMode={kill_mode}"))
        .in_unit("StartLimitIntervalSec=0")
        .load();
    let text = format!(
        "[probe]\nstate_dir = {:?}\n[[service]]\nname = \"annad\"\nunit = {:?}\nlisten = [\"unix:{}\"]\nsingleton = true\n",
        sandbox.path("state"),
        unit.name(),
        socket.display()
    );
    sandbox.write("reclaim.toml", &text);
    unit
}

#[test]
fn twenty_restarts_half_of_them_by_kill_9() {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let unit = unit(&sandbox, "control-group");
    let socket = sandbox.path("annad.sock");
    println!("| restart | how | client |\n| --- | --- | --- |");
    let mut latencies = Vec::new();
    let mut pid = unit.start();
    for n in 1..=RESTARTS {
        let how = if n % 2 == 0 {
            Proc::adopt("annad", pid).signal(Signal::KILL);
            "kill -9"
        } else {
            unit.systemctl(&["restart", unit.name()]);
            "systemctl restart"
        };
        // It binds before it says that it is ready, and it could not with a file in the way.
        let next = unit.ready();
        assert_ne!(next, pid);
        pid = next;
        let from = now();
        let mut client = UnixStream::connect(&socket).unwrap_or_else(|e| panic!("restart {n}: {e}"));
        client
            .set_read_timeout(Some(CLIENT_WITHIN))
            .expect("a time limit");
        unit.tell(&format!("accept unix:{}", socket.display()));
        let mut answer = Vec::new();
        if let Err(e) = client.read_to_end(&mut answer) {
            panic!("restart {n}: {e}");
        }
        let latency = from.elapsed();
        println!("| {n} | {how} | {} µs |", latency.as_micros());
        latencies.push(latency);
    }
    let average = latencies.iter().sum::<Duration>() / RESTARTS;
    println!(
        "{}/{RESTARTS} sockets, no time-out, {} µs on average",
        latencies.len(),
        average.as_micros()
    );
    assert!(average < AVERAGE_WITHIN, "{average:?}");
    assert_eq!(unit.property("Result"), "success");
}

/// A survivor of the unit's last life is in the group in which the reclaim itself runs.
#[test]
fn a_survivor_in_the_same_group_is_ended_and_the_start_goes_on() {
    if !Unit::possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let unit = unit(&sandbox, "process");
    let first = unit.start();
    let orphan = unit.tell("fork-away");
    let orphan = Proc::adopt("orphan", orphan.parse().expect("a pid"));
    unit.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", unit.name()]);

    let second = unit.ready();

    assert_ne!(first, second);
    assert!(!orphan.is_alive());
    assert!(Proc::adopt("annad", second).is_alive());
}
