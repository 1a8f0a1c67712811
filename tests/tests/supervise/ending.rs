//! How it ends: the child's code, the stop, the limit, and who is not let in.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use probe_tests::{ControlGroup, Proc, kill, probe, run, until};
use rustix::process::Signal;

use crate::Site;

#[test]
fn the_code_or_the_signal_becomes_its_own() {
    let site = Site::new("");
    let sandbox = &site.sandbox;
    let plain = sandbox.write("plain", "not executable");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    for (argv, code) in [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -KILL $$"], 137),
        (vec!["sh", "-c", "kill -TERM $$"], 143),
        (vec!["/nonexistent/program"], 127),
        (vec![plain.to_str().unwrap()], 126),
    ] {
        let output = run(site.command(&["job", "--"]).args(&argv));
        assert_eq!(output.code, Some(code), "{argv:?}: {output:?}");
    }
    let missing = sandbox.path("missing.toml");
    let output = run(probe(&["run", "--config"])
        .arg(missing)
        .args(["job", "--", "true"]));
    assert_eq!(output.code, Some(125), "{output:?}");
}

#[test]
fn a_second_one_is_refused_and_told_who_is_there() {
    let site = Site::new("");
    let mut first = site.run(&[], &["--on", "TERM=clean"]);
    let child = first.child();

    let mut second = site.run(&["--wait", "100ms"], &[]);

    second.ends_with(125);
    let holder = format!("probe run ({})", first.proc.pid());
    assert!(second.has_said(&holder), "{:?}", second.said);
    assert!(!second.has_said("started process"));
    let lock = fs::metadata(site.state().join("locks/annad.run.lock")).unwrap();
    assert_eq!(lock.permissions().mode() & 0o777, 0o600);
    assert!(
        Proc::adopt("annad", child.pid).is_alive(),
        "nothing happened to the first"
    );
}

#[test]
fn signals_reach_the_child_and_a_stop_is_one() {
    let site = Site::new("");
    let mut supervisor = site.run(
        &["--restart", "always"],
        &["--on", "USR1=catch", "--on", "HUP=catch", "--on", "TERM=clean"],
    );
    supervisor.child();
    site.logs("ready pid=");
    supervisor.signal(Signal::USR1);
    site.logs("signal USR1");
    supervisor.signal(Signal::HUP);
    site.logs("signal HUP");

    supervisor.signal(Signal::TERM);

    supervisor.ends_with(0);
    assert!(!supervisor.has_said("starting again"), "{:?}", supervisor.said);
    let output = run(&mut site.command(&["--resume", "annad"]));
    assert_eq!(output.code, Some(125), "it is over: {output:?}");
}

#[test]
fn who_ignores_the_stop_is_killed_after_stop_within() {
    let site = Site::new("stop_within = \"300ms\"");
    let mut supervisor = site.run(&[], &["--on", "TERM=ignore"]);
    let child = supervisor.child();
    site.logs("ready pid=");

    supervisor.signal(Signal::TERM);

    supervisor.says(&format!("sent KILL to process {}", child.pid));
    supervisor.ends_with(137);
}

#[test]
fn the_limit_ends_the_whole_tree() {
    let site = Site::new("stop_within = \"200ms\"");
    let mut supervisor = site.run(&["--limit", "3s"], &["--on", "TERM=ignore"]);
    let child = supervisor.child();
    let mut tree = vec![Proc::adopt("annad", child.pid)];
    for order in ["fork 2", "fork-away"] {
        site.order(order);
    }
    until("it has forked", || site.log(0).matches("ok ").count() == 2);
    for line in site.log(0).lines().filter_map(|l| l.strip_prefix("ok ")) {
        tree.extend(
            line.split(' ')
                .map(|p| Proc::adopt("a child", p.parse().unwrap())),
        );
    }
    assert_eq!(tree.len(), 4);
    let stranger = Proc::spawn(Command::new("sleep").arg("1000"));

    supervisor.ends_with(124);

    assert!(tree.iter().all(|p| !p.is_alive()), "{:?}", supervisor.said);
    assert!(stranger.is_alive());
}

/// What a child leaves behind would be in the way of the next one.
#[test]
fn what_a_child_left_behind_goes_with_it() {
    let site = Site::new("");
    let mut supervisor = site.run(&[], &[]);
    supervisor.child();
    site.order("fork-away");
    site.logs("ok ");
    let log = site.log(0);
    let orphan = log.lines().find_map(|l| l.strip_prefix("ok ")).unwrap();
    let orphan = Proc::adopt("orphan", orphan.parse().unwrap());

    site.order("exit 3");

    supervisor.ends_with(3);
    assert!(!orphan.is_alive());
}

/// SIGKILL is pending while a control group is frozen.
#[test]
fn one_that_nothing_ends_is_told() {
    let Some(freezer) = ControlGroup::freezer() else {
        return;
    };
    let site = Site::new("stop_within = \"100ms\"");
    let mut supervisor = site.run(&["--limit", "1s"], &[]);
    let child = supervisor.child();
    freezer.add(child.pid);
    freezer.freeze(true);

    supervisor.ends_with(124);

    assert!(
        supervisor.has_said("lives on after SIGKILL: it is frozen by the control group"),
        "{:?}",
        supervisor.said
    );
    let child = Proc::adopt("annad", child.pid);
    assert!(child.is_alive());
    freezer.freeze(false);
    child.wait_gone();
}

#[test]
fn a_stopped_one_hears_of_the_stop() {
    let site = Site::new("");
    let mut supervisor = site.run(&["--limit", "1s"], &["--on", "TERM=exit:0"]);
    let child = supervisor.child();
    site.logs("ready pid=");
    kill("STOP", child.pid);

    supervisor.ends_with(124);

    assert!(!supervisor.has_said("sent KILL"), "{:?}", supervisor.said);
    assert_eq!(site.row().restart_count, 0);
}
