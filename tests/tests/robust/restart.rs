//! No gap across probe's own restart, crash and upgrade: programs and maps stay pinned, and the next daemon reads what happened.

use std::{fs, thread};

use probe_tests::{Daemon, Objects, Proc, kill, table::row, until};

use crate::scene::{NAME, Scene};

const TABLE: &str = "restart";

#[test]
fn after_kill_9_in_a_storm_the_next_one_tells_what_happened_meanwhile() {
    const STORM: u64 = 3000;
    const MEANWHILE: u64 = 1000;
    let mut scene = Scene::new("");
    let before = Objects::of(scene.probed.pid());
    let Scene { probed, daemon, .. } = &mut scene;
    thread::scope(|s| {
        let storm = s.spawn(|| daemon.tell(&format!("raise USR1 {STORM}")));
        until("the storm is told", || told(&probed.metrics()) > 100);
        probed.kill();
        storm.join().expect("the storm ends");
    });
    let pinned = before.that_exist();
    scene.daemon.tell(&format!("raise USR2 {MEANWHILE}"));
    let killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.probed.begin();

    let crashed = scene.expect("crashed");
    assert_eq!(crashed["actor"]["pid"], killer, "{crashed:#}");
    let stale = scene.expect("stale-socket");
    let takeover = scene.takeover();
    assert_eq!(takeover["adopted"], true, "{takeover:#}");
    assert_eq!(takeover["lost"], 0, "{takeover:#}");
    assert_eq!(takeover["reattached"], serde_json::json!([]), "{takeover:#}");
    let signals = scene.history(&["--kind", "signal"]);
    let usr2 = signals.iter().filter(|l| l["signal"] == "USR2").count() as u64;
    assert_eq!(usr2, MEANWHILE, "{takeover:#}");
    assert!(
        scene.probed.status()["probe"]["lost"]
            .as_object()
            .is_some_and(|l| l.is_empty())
    );
    // The same programs: none was loaded anew.
    let after = Objects::of(scene.probed.pid());
    assert!(pinned.count("link") > 5, "{pinned:?}");
    assert_eq!(pinned.of_kind("link"), after.of_kind("link"));
    row(
        TABLE,
        &[
            "kill -9 in a storm, then a crash of the service",
            &format!(
                "{} events had waited, 0 lost; {usr2} of {MEANWHILE} signals sent meanwhile",
                takeover["records"]
            ),
            &format!("crashed names {killer}; stale-socket: {}", stale["summary"]),
        ],
    );
}

/// A worker of the service that runs another program: nothing but its parent made it a member.
fn worker(scene: &mut Scene) -> Proc {
    let pid: u32 = scene.daemon.tell("fork-exec sleep 600").parse().expect("a pid");
    let told = || scene.history(&["--kind", "exec"]);
    until("its exec is written down", || {
        told().iter().any(|l| l["process"]["pid"] == pid)
    });
    Proc::adopt("worker", pid)
}

#[test]
fn an_orphan_that_no_selector_selects_stays_a_member() {
    let mut scene = Scene::new("");
    let worker = worker(&mut scene);
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.expect("crashed");
    assert_eq!(scene.bpffs.entries("MEMBERS"), 1, "the worker");
    scene.probed.kill();
    scene.probed.begin();
    let killer = kill("KILL", worker.pid());
    let of_the_worker = |l: &serde_json::Value| l["process"]["pid"] == worker.pid() && l["service"] == NAME;
    until("its end is told", || {
        scene.history(&["--kind", "exit"]).iter().any(of_the_worker)
    });
    let signals = scene.history(&["--kind", "signal"]);
    let signal = signals.iter().find(|l| of_the_worker(l)).expect("who killed it");
    assert_eq!(signal["actor"]["pid"], killer, "{signal:#}");
    // Of those that have ended nothing is kept.
    until("no member is left", || scene.bpffs.entries("MEMBERS") == 0);
    row(
        TABLE,
        &[
            "kill -9 beside a worker of another executable, whose parent has ended before",
            &format!("its end, and that {killer} has sent it KILL"),
            "it is a member as before",
        ],
    );
}

#[test]
fn what_a_worker_and_its_parent_died_of_meanwhile_is_told() {
    let mut scene = Scene::new("");
    let worker = worker(&mut scene);
    scene.probed.kill();
    let parents_killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    let killer = kill("USR1", worker.pid());
    worker.wait_gone();
    scene.probed.begin();
    assert_eq!(scene.expect("crashed")["actor"]["pid"], parents_killer);
    let unhandled = scene.expect("unhandled-signal");
    assert_eq!(unhandled["actor"]["pid"], killer, "{unhandled:#}");
    row(
        TABLE,
        &[
            "kill -9, then ends of the service and of a worker of another executable",
            &format!("unhandled-signal names {killer}"),
            &format!("crashed names {parents_killer}"),
        ],
    );
}

/// Signals of the storm that were told.
fn told(metrics: &str) -> u64 {
    let line = metrics
        .lines()
        .find(|l| l.starts_with("probe_signals_total") && l.contains("\"USR1\""));
    let value = line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
    value.map_or(0, |v| v as u64)
}

#[test]
fn after_an_orderly_restart_nothing_is_missing_and_nobody_is_made_up() {
    let mut scene = Scene::new("");
    let generation = scene.probed.service(NAME)["generation"].clone();
    scene.probed.stop();
    // One life ends as asked and another one begins, while nobody looks.
    scene.daemon.kill("TERM");
    scene.daemon.wait_gone();
    let path = scene.sandbox.path("annad.sock");
    fs::remove_file(&path).expect("the old socket");
    scene.daemon = Daemon::at(&scene.exe).unix(&path).start();
    scene.probed.begin();
    scene.until_main(scene.daemon.pid());
    assert_eq!(scene.open(), [""; 0], "an asked stop is no finding");
    let takeover = scene.takeover();
    assert_eq!(takeover["lost"], 0, "{takeover:#}");
    let now = scene.probed.service(NAME);
    assert_eq!(
        now["generation"],
        generation.as_u64().expect("a number") + 1,
        "{now:#}"
    );
    row(
        TABLE,
        &[
            "stop, the service restarts, start",
            &format!("{} events had waited, 0 lost", takeover["records"]),
            "generation counted, no finding",
        ],
    );
}

#[test]
fn what_did_not_fit_meanwhile_is_counted_exactly_and_settled() {
    const FLOOD: u64 = 5000;
    let mut scene = Scene::new("ring = \"64KiB\"\n");
    scene.probed.kill();
    scene.daemon.tell(&format!("raise USR2 {FLOOD}"));
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.probed.begin();
    // How it ended was lost, so nobody is blamed; that it is gone is true.
    scene.expect("not-running");
    until("the blindness is over", || {
        scene.probed.status()["probe"]["blind"].is_null()
    });
    let takeover = scene.takeover();
    let lost = scene.lost("ring:signal");
    let told = scene.history(&["--kind", "signal"]);
    // Those before the kill were USR1.
    let told = told.iter().filter(|l| l["signal"] != "USR1").count() as u64;
    // The KILL is one more.
    assert_eq!(told + lost, FLOOD + 1, "{takeover:#}");
    assert!(lost > 0);
    assert!(
        !scene.open().contains(&"crashed".to_owned()),
        "{:?}",
        scene.open()
    );
    // A third one does not tell the same loss again.
    scene.probed.stop();
    scene.probed.begin();
    assert_eq!(scene.lost("ring:signal"), 0);
    row(
        TABLE,
        &[
            "kill -9, then more than a ring of 64 KiB holds",
            &format!("{told} told + {lost} lost = {} sent", FLOOD + 1),
            "not-running without an actor, after a snapshot",
        ],
    );
}

#[test]
fn an_upgrade_drains_what_the_old_build_left() {
    // Another size of the ring makes another generation, as another build does.
    let mut scene = Scene::new("ring = \"1MiB\"\n");
    scene.probed.stop();
    scene.daemon.tell("raise USR2 500");
    let killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    let old = scene.bpffs.generations();
    scene.probed.rewrite("ring = \"1MiB\"", "ring = \"2MiB\"");
    scene.probed.begin();
    let crashed = scene.expect("crashed");
    assert_eq!(crashed["actor"]["pid"], killer, "{crashed:#}");
    let takeover = scene.takeover();
    assert_eq!(takeover["adopted"], false, "{takeover:#}");
    assert_eq!(
        takeover["predecessors"][0]["generation"],
        old[0].as_str(),
        "{takeover:#}"
    );
    let signals = scene.history(&["--kind", "signal"]);
    assert_eq!(signals.iter().filter(|l| l["signal"] == "USR2").count(), 500);
    let new = scene.bpffs.generations();
    assert!(new.len() == 1 && new != old, "{new:?}");
    row(
        TABLE,
        &[
            "upgrade to a build whose maps differ",
            &format!("{} events had waited and were told, 0 lost", takeover["records"]),
            &format!("crashed names {killer}; the old pins are gone"),
        ],
    );
}

#[test]
fn an_upgrade_of_the_abi_says_what_it_cannot_read() {
    let mut scene = Scene::new("");
    scene.probed.stop();
    scene.daemon.tell("raise USR2 500");
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    // As if a build of another ABI had made them.
    let old = scene.bpffs.generations().remove(0);
    let (_, digest) = old.split_once('-').expect("a version");
    let pins = scene.bpffs.pins();
    fs::rename(pins.join(&old), pins.join(format!("v1-{digest}"))).expect("another name");
    scene.probed.begin();
    scene.expect("not-running");
    until("the blindness is over", || {
        scene.probed.status()["probe"]["blind"].is_null()
    });
    let takeover = scene.takeover();
    let unreadable = takeover["predecessors"][0]["unreadable"]
        .as_u64()
        .expect("a number");
    assert!(unreadable >= 501, "{takeover:#}");
    assert_eq!(scene.lost("upgrade"), unreadable);
    assert_eq!(scene.bpffs.generations(), [old]);
    row(
        TABLE,
        &[
            "upgrade to another ABI",
            &format!("{unreadable} records drained and counted as lost (upgrade)"),
            "blind until the snapshot, then not-running",
        ],
    );
}

#[test]
fn a_map_of_another_size_is_never_used() {
    let mut scene = Scene::new("");
    scene.probed.stop();
    let maps = scene
        .bpffs
        .pins()
        .join(&scene.bpffs.generations()[0])
        .join("maps");
    fs::remove_file(maps.join("LOST")).expect("a pinned map");
    let made = std::process::Command::new("bpftool")
        .args(["map", "create"])
        .arg(maps.join("LOST"))
        .args([
            "type",
            "percpu_array",
            "key",
            "4",
            "value",
            "8",
            "entries",
            "3",
            "name",
            "LOST",
        ])
        .status();
    assert!(made.expect("bpftool").success());
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.probed.begin();
    scene.expect("not-running");
    let takeover = scene.takeover();
    let summary = takeover["summary"].as_str().unwrap_or_default();
    assert!(
        summary.contains("the pinned map LOST has the size 3"),
        "{takeover:#}"
    );
    assert_eq!(scene.lost("pins"), 1);
    assert!(scene.probed.status()["probe"]["pinned"]["directory"].is_string());
    row(
        TABLE,
        &[
            "a pinned map of another size",
            "refused, removed, told as lost (pins)",
            "settled by a snapshot",
        ],
    );
}

#[test]
fn a_hook_whose_pin_is_gone_is_attached_anew_and_named() {
    let mut scene = Scene::new("");
    scene.probed.kill();
    let links = scene
        .bpffs
        .pins()
        .join(&scene.bpffs.generations()[0])
        .join("links");
    fs::remove_file(links.join("signal_generate")).expect("a pinned link");
    scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.probed.begin();
    scene.expect("not-running");
    let takeover = scene.takeover();
    assert_eq!(
        takeover["reattached"],
        serde_json::json!(["signal_generate"]),
        "{takeover:#}"
    );
    assert_eq!(scene.lost("detached:signal_generate"), 1);
    assert!(links.join("signal_generate").exists());
    // The signal was not seen, so nobody is said to have sent it.
    assert!(!scene.open().contains(&"unhandled-signal".to_owned()));
    row(
        TABLE,
        &[
            "a link that was not pinned",
            "attached anew, told as lost (detached:signal_generate)",
            "settled by a snapshot",
        ],
    );
}

#[test]
fn two_daemons_never_read_one_ring() {
    let scene = Scene::new("");
    let other = probe_tests::Sandbox::new();
    let service = Daemon::service("other", &other.path("other"), "");
    let second = probe_tests::Probed::with(&other, &scene.bpffs.toml(), &service);
    let pinned = second.status()["probe"]["pinned"].take();
    assert_eq!(pinned["directory"], serde_json::Value::Null);
    let why = pinned["why_not"].as_str().unwrap_or_default();
    assert!(
        why.contains("another probe daemon uses what is pinned in"),
        "{why}"
    );
    row(
        TABLE,
        &[
            "a second daemon with the same pin_dir",
            "watches, pins nothing, and says why",
            why,
        ],
    );
}

#[test]
fn uninstall_leaves_nothing_in_the_kernel() {
    let mut scene = Scene::new("");
    let all = Objects::of(scene.probed.pid());
    assert!(
        all.count("prog") > 5 && all.count("map") > 5 && all.count("link") > 5,
        "{all:?}"
    );
    assert_eq!(all.that_exist(), all, "bpftool lists them");
    // While it runs nothing is taken away from it.
    let refused = scene.probed.uninstall();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("another probe daemon uses"),
        "{refused:?}"
    );
    scene.probed.stop();
    let kept = all.that_exist();
    assert!(kept.count("link") > 5, "they outlive the daemon: {kept:?}");
    let removed = scene.probed.uninstall();
    assert_eq!(removed.code, Some(0), "{removed:?}");
    until("nothing of it is left", || all.that_exist().is_empty());
    assert!(!scene.bpffs.pins().exists());
    row(
        TABLE,
        &[
            "probe daemon --uninstall",
            &format!(
                "{} programs, {} maps, {} links before",
                all.count("prog"),
                all.count("map"),
                all.count("link")
            ),
            "0 in bpftool's lists, no pin",
        ],
    );
}

#[test]
fn without_keep_pinned_nothing_is_left() {
    let mut scene = Scene::new("keep_pinned = false\n");
    let all = Objects::of(scene.probed.pid());
    assert!(scene.bpffs.pinned().is_empty());
    assert!(!all.is_empty());
    scene.probed.stop();
    until("nothing of it is left", || all.that_exist().is_empty());
    row(
        TABLE,
        &[
            "stop with keep_pinned = false",
            &format!(
                "{} programs, {} maps, {} links before",
                all.count("prog"),
                all.count("map"),
                all.count("link")
            ),
            "0 in bpftool's lists, no pin",
        ],
    );
}

#[test]
fn turning_keep_pinned_off_takes_over_and_then_leaves_nothing() {
    let mut scene = Scene::new("keep_pinned = true\n");
    scene.probed.stop();
    let killer = scene.daemon.kill("KILL");
    scene.daemon.wait_gone();
    scene.probed.rewrite("keep_pinned = true", "keep_pinned = false");
    scene.probed.begin();
    assert_eq!(scene.expect("crashed")["actor"]["pid"], killer);
    assert!(scene.bpffs.pinned().is_empty(), "{:?}", scene.bpffs.pinned());
    let all = Objects::of(scene.probed.pid());
    assert!(all.count("link") > 5, "{all:?}");
    scene.probed.stop();
    until("nothing of it is left", || all.that_exist().is_empty());
    row(
        TABLE,
        &[
            "keep_pinned turned off, restart, stop",
            "what had waited was told",
            "0 in bpftool's lists, no pin",
        ],
    );
}
