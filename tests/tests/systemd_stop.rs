//! Stops by systemd: those that succeed, and the daemon that would not stop (incident 2).

use probe_tests::{Sandbox, Unit, Watch, kill};

fn scene(reaction: &str, within: &str) -> Option<(Watch, Unit, u32)> {
    if !Unit::possible() {
        return None;
    }
    let sandbox = Sandbox::new();
    let unit = Unit::file(&sandbox, "annad")
        .arg("--tcp")
        .arg("127.0.0.1:47100")
        .arg("--on")
        .arg(reaction)
        .with(&format!("TimeoutStopSec={within}"))
        .load();
    let pid = unit.start();
    let more = format!("listen = [\"tcp:127.0.0.1:47100\"]\nstop_within = {within:?}");
    let watch = Watch::start(&sandbox, &unit.declared(&more));
    watch.expect_event("unit", "annad", "with its main process", |l| {
        l.value["main_pid"] == pid
    });
    Some((watch, unit, pid))
}

/// systemd asks with TERM, waits for TimeoutStopSec=, and kills.
#[test]
fn a_daemon_that_ignores_its_stop_until_systemd_kills_it() {
    let Some((watch, unit, pid)) = scene("TERM=catch", "6s") else {
        return;
    };

    unit.systemctl(&["stop", "--no-block", unit.name()]);
    unit.caught("TERM");

    let slow = watch.expect("slow-stop", "annad");
    slow.by(1).says(pid).says("caught").says("still open");
    let killed = watch.expect("killed-while-stopping", "annad");
    killed.by(1).says(pid);
    watch.expect_resolved("slow-stop", "annad");
    watch.expect_exactly(&[("slow-stop", "annad"), ("killed-while-stopping", "annad")]);
    assert_eq!(unit.property("Result"), "timeout");
    watch.stop();
}

#[test]
fn a_stop_is_no_crash_whatever_the_exit_code() {
    for reaction in ["TERM=clean", "TERM=exit:1", "TERM=reraise"] {
        let Some((watch, unit, pid)) = scene(reaction, "30s") else {
            return;
        };

        unit.stop();

        watch.expect_event("exit", "annad", "of the main process", |l| {
            l.value["process"]["pid"] == pid
        });
        watch.expect_nothing();
        watch.stop();
    }
}

/// The same end without systemd's job.
#[test]
fn the_same_exit_code_unasked_is_a_crash() {
    let Some((watch, unit, pid)) = scene("USR1=exit:1", "30s") else {
        return;
    };

    kill("USR1", pid);

    watch.expect("crashed", "annad").says(pid);
    watch.expect_event("unit", "annad", "that it failed", |l| {
        l.value["active_state"] == "failed"
    });
    assert_eq!(unit.property("Result"), "exit-code");
    watch.stop();
}
