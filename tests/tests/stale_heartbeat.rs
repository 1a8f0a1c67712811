//! A daemon that shows no sign of life, and what it is doing instead.

use std::path::{Path, PathBuf};

use probe_tests::{Daemon, Finding, Network, Sandbox, Scene, Watch, state, until};

/// A daemon that shows signs of life in one way until it is muted, and the file.
fn beating(way: &str) -> (Watch, Daemon, PathBuf) {
    let sandbox = Sandbox::new();
    let file = sandbox.path("heartbeat");
    let declared = match way {
        "log" => format!("log = {file:?}, contains = \"daemon alive\""),
        _ => format!("file = {file:?}"),
    };
    // A whole second is up to a second old when it is written.
    let stale_after = if way == "epoch" { "1900ms" } else { "1500ms" };
    let more = format!("heartbeat = {{ {declared}, stale_after = {stale_after:?} }}");
    let beat = format!("--beat={way}={}", file.display());
    let Scene { watch, daemon, .. } = Scene::with_in(sandbox, |s| s.arg(&beat), &more);
    watch.expect_event("heartbeat", "annad", "the first", |_| true);
    (watch, daemon, file)
}

fn stale(watch: &Watch) -> Finding {
    let finding = watch.expect("stale-heartbeat", "annad");
    assert_eq!(finding.severity, "critical");
    finding
}

#[test]
fn a_file_that_is_not_touched_any_more() {
    mutes_and_unmutes("touch", |_, _| {});
}

#[test]
fn a_file_with_the_second_inside() {
    // To write the old second again is no sign of life.
    mutes_and_unmutes("epoch", |daemon, file| {
        daemon.tell(&format!("touch {}", file.display()));
    });
}

#[test]
fn a_log_without_the_line() {
    mutes_and_unmutes("log", |daemon, file| {
        daemon.tell(&format!("log {} another line", file.display()));
    });
}

fn mutes_and_unmutes(way: &str, and_no_sign_of_life: impl Fn(&mut Daemon, &Path)) {
    let (watch, mut daemon, file) = beating(way);

    daemon.tell("mute");
    and_no_sign_of_life(&mut daemon, &file);

    let finding = stale(&watch);
    finding.says(daemon.pid()).says("runs");
    assert!(finding.actor.is_none(), "nobody did it: {finding:?}");
    daemon.tell("unmute");
    watch.expect_resolved("stale-heartbeat", "annad");
    watch.expect_exactly(&[("stale-heartbeat", "annad")]);
    watch.stop();
}

#[test]
fn beats_in_time_are_no_finding() {
    for way in ["touch", "epoch", "log"] {
        let (watch, daemon, _file) = beating(way);

        watch.expect_nothing();
        watch.stop();
        drop(daemon);
    }
}

#[test]
fn a_daemon_that_was_stopped_says_so() {
    let (watch, daemon, _beat) = beating("touch");

    let sender = daemon.kill("STOP");

    let stopped = watch.expect("stopped", "annad");
    let stale = stale(&watch);
    stale.by(sender).says(daemon.pid()).says("is stopped");
    assert_eq!(stale.cause, stopped.cause, "one signal, one cause");
    watch.stop();
}

#[test]
fn a_daemon_that_is_gone_says_so() {
    let (watch, daemon, _beat) = beating("touch");

    let killer = daemon.kill("KILL");

    let crashed = watch.expect("crashed", "annad");
    let stale = stale(&watch);
    stale.by(killer).says(daemon.pid()).says("KILL");
    assert_eq!(stale.cause, crashed.cause, "one end, one cause");
    watch.stop();
}

#[test]
fn an_uninterruptible_daemon_names_its_system_call() {
    let (watch, mut daemon, _beat) = beating("touch");

    daemon.tell("vfork");
    until("it is in uninterruptible sleep", || {
        state(daemon.pid()) == Some('D')
    });

    stale(&watch)
        .says(daemon.pid())
        .says("uninterruptible")
        .says("clone");
    watch.stop();
}

#[test]
fn no_beats_are_expected_after_an_asked_stop() {
    let (watch, daemon, _beat) = beating("touch");

    daemon.kill("TERM");
    daemon.wait_gone();

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn an_outage_of_the_network_is_a_warning() {
    let sandbox = Sandbox::new();
    let network = Network::new();
    let exe = Daemon::install(&sandbox, "annad");
    let peer = Daemon::in_network(&network, &Daemon::install(&sandbox, "peer"))
        .tcp(0)
        .start();
    let beat = sandbox.path("heartbeat");
    let mut daemon = Daemon::in_network(&network, &exe)
        .arg(&format!("--beat=touch={}", beat.display()))
        .start();
    let peer_address = format!("tcp:127.0.0.1:{}", peer.port());
    daemon.tell(&format!("connect {peer_address}"));
    // Data counts as unanswered after it was sent again twice, which takes 600 ms.
    let more = format!("heartbeat = {{ file = {beat:?}, stale_after = \"1800ms\" }}");
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));
    watch.expect_event("heartbeat", "annad", "the first", |_| true);

    network.cut();
    daemon.tell("ask");

    let finding = watch.expect("stale-heartbeat", "annad");
    assert_eq!(finding.severity, "warning");
    finding.says(daemon.pid()).says(&peer_address);
    watch.stop();
    drop(peer);
}
