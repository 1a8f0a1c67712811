//! `probe history`: what the daemon has kept.

use std::{path::Path, time::Duration};

use probe_tests::{Daemon, Output, Probed, Sandbox, probe, run, schema::assert_fits, until};
use probe_user::{
    clock::{self, Wall},
    config::Retention,
    history::{Row, RowType, Store},
};
use serde_json::{Value, json};

/// Writes rows as the daemon does, and ends.
#[track_caller]
fn keep(dir: &Path, rows: Vec<Row>) {
    let (store, loaded) = Store::open(dir, Retention::default()).expect("a store");
    assert_eq!(loaded.notices, []);
    store.write(rows);
    assert!(store.close(Duration::from_secs(10)), "it is written");
}

fn ago(minutes: u64) -> Wall {
    clock::wall() - Duration::from_secs(60 * minutes)
}

fn rfc3339(at: Wall) -> String {
    probe_user::report::rfc3339(clock::Nanos(0), at.0)
}

fn row(r#type: RowType, at: Wall, service: &str, kind: &'static str, line: Value) -> Row {
    Row {
        at,
        r#type,
        service: Some(service.to_owned()),
        kind: Some(kind),
        json: line.to_string(),
        turn: None,
    }
}

fn event(at: Wall, service: &str, kind: &'static str, summary: &str) -> Row {
    let line = json!({
        "v": 1, "type": "event", "seq": 4, "epoch": "e", "at": rfc3339(at), "boot_ns": 9, "time_source": "kernel",
        "service": service, "kind": kind, "process": null, "subject": null, "actor": null, "summary": summary, "cursor": 4,
    });
    row(RowType::Event, at, service, kind, line)
}

fn finding(at: Wall, service: &str, kind: &'static str, summary: &str) -> Row {
    let line = json!({
        "v": 1, "type": "finding", "id": "1", "state": "opened", "kind": kind, "service": service, "severity": "critical",
        "subject": service, "cause": "c", "at": rfc3339(at), "boot_ns": 9, "detected_after_ns": 5, "actor": null,
        "summary": summary, "evidence": [4], "resolution": null, "epoch": "e", "cursor": 5,
    });
    row(RowType::Finding, at, service, kind, line)
}

#[track_caller]
fn history(dir: &Path, args: &[&str]) -> Output {
    let output = run(probe(&["history", "--state-dir"]).arg(dir).args(args));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    output
}

#[test]
fn some_of_what_was() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("state");
    let rows = vec![
        event(ago(300), "annad", "exec", "long ago"),
        event(ago(100), "annad", "signal", "bash (9) sent KILL to annad (8)"),
        finding(ago(99), "annad", "crashed", "annad (8) was killed by KILL"),
        finding(ago(10), "redis", "stale-socket", "no process holds \u{1b}[31mit"),
    ];
    let lines: Vec<String> = rows.iter().map(|r| r.json.clone()).collect();
    keep(&dir, rows);

    let told = |args: &[&str]| -> Vec<String> {
        let output = history(&dir, &[args, &["--json"]].concat());
        for line in output.stdout.lines() {
            assert_fits("lines", &serde_json::from_str(line).expect("JSON"));
        }
        output.stdout.lines().map(str::to_owned).collect()
    };
    assert_eq!(told(&[]), lines, "as they were said");
    assert_eq!(told(&["--since", "2h"]), lines[1..]);
    assert_eq!(told(&["--since", "2h", "--until", "30m"]), lines[1..3]);
    assert_eq!(
        told(&["--since", "2h", "--service", "annad", "--kind", "crashed"]),
        lines[2..3]
    );
    assert_eq!(told(&["--kind", "stale-socket,signal"]), [&*lines[1], &*lines[3]]);
    assert_eq!(told(&["--only", "event"]), lines[..2]);
    assert_eq!(told(&["--service", "nobody"]), [""; 0]);

    let human = history(&dir, &["--since", "2h"]).stdout;
    let words: Vec<&str> = human.lines().collect();
    assert_eq!(words.len(), 3, "{human}");
    assert!(
        words[0].ends_with(" annad        signal    bash (9) sent KILL to annad (8)"),
        "{human}"
    );
    assert!(
        words[1].ends_with(" annad        CRITICAL  crashed: annad (8) was killed by KILL"),
        "{human}"
    );
    assert!(
        words[2].ends_with("stale-socket: no process holds \\x1b[31mit"),
        "{human}"
    );
    let (day, rest) = words[0].split_at(11);
    assert!(
        day.starts_with("20") && day.ends_with(' ') && &rest[2..3] == ":",
        "{human}"
    );
}

#[test]
fn more_than_a_page() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("state");
    let count = 2 * probe_user::history::PAGE + 7;
    let at = ago(5);
    let rows = (0..count).map(|n| event(at, "annad", "heartbeat", &format!("beat {n}")));
    keep(&dir, rows.collect());
    let output = history(&dir, &["--json"]);
    let numbers: Vec<usize> = output
        .stdout
        .lines()
        .filter_map(|l| {
            serde_json::from_str::<Value>(l).ok()?["summary"]
                .as_str()?
                .strip_prefix("beat ")?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn where_nothing_was_kept() {
    let sandbox = Sandbox::new();
    let output = run(probe(&["history", "--state-dir"]).arg(sandbox.path("nowhere")));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("there is no history in "), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    let output = run(&mut probe(&["history", "--kind", "crahsed"]));
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("did you mean \"crashed\"?"), "{output:?}");
}

/// What a real daemon has said is there, also when it has ended.
#[test]
fn what_a_daemon_said() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let mut probed = Probed::start(&sandbox, &Daemon::service("annad", &exe, "expected = false"));
    let daemon = Daemon::at(&exe).tcp(0).start();
    probed.ask_json(&["wait", "annad", "--ready", "--timeout", "10s"]);
    daemon.kill("KILL");
    daemon.wait_gone();
    let crashed = |probed: &Probed| {
        probed.ask(&[
            "history",
            "--since",
            "1h",
            "--service",
            "annad",
            "--kind",
            "crashed",
            "--json",
        ])
    };
    until("the crash is kept", || !crashed(&probed).stdout.is_empty());
    let output = crashed(&probed);
    let line: Value = serde_json::from_str(&output.stdout).expect("one line");
    assert_fits("lines", &line);
    assert_eq!(
        (&line["kind"], &line["state"]),
        (&"crashed".into(), &"opened".into())
    );
    let told = |probed: &Probed, kind: &str| probed.ask(&["history", "--kind", kind]).stdout;
    assert!(told(&probed, "exit").contains(&format!("annad ({}) was killed by KILL", daemon.pid())));
    probed.stop();
    assert_eq!(crashed(&probed).stdout, output.stdout);
    assert!(told(&probed, "ready").contains(&format!("annad ({}) is ready, generation 1", daemon.pid())));
}
