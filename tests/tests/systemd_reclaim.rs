//! `ExecStartPre=+probe reclaim`: incident 1's script, with the real systemd.

use probe_tests::{Proc, Restarts, Sandbox, Unit, probe_binary};
use rustix::process::Signal;

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
    let mut restarts = Restarts::default();
    let mut pid = unit.start();
    for n in 1..=Restarts::COUNT {
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
        restarts.ask(how, &socket, || {
            unit.tell(&format!("accept unix:{}", socket.display()));
        });
    }
    restarts.judge();
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
