//! A real journal, written by systemd's own tool and followed by the real journalctl.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::*;
use crate::config::Service;

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// Writes entries into a journal file of their own. `false`: the tool is not installed.
fn write(file: &Path, entries: &[(Nanos, &str, &str)]) -> bool {
    if !Path::new(REMOTE).exists() {
        println!("skipped: systemd-journal-remote is not installed");
        return false;
    }
    let mut text = String::new();
    for (at, unit, message) in entries {
        let wall = (at.0 as i64 + clock::wall_offset()) / 1000;
        text += &format!(
            "__REALTIME_TIMESTAMP={wall}\n__MONOTONIC_TIMESTAMP=1\n\
             _BOOT_ID=5f2a1c7e9b3d4a6f8e0c1b2a3d4e5f60\n_MACHINE_ID=0f1e2d3c4b5a69788796a5b4c3d2e1f0\n\
             _SYSTEMD_UNIT={unit}\nMESSAGE={message}\n\n"
        );
    }
    let mut child = Command::new(REMOTE)
        .arg(format!("--output={}", file.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    true
}

fn follow(dir: &Path) -> Heartbeats {
    let service = Service {
        unit: Some("a.service".into()),
        heartbeat: Some(toml::from_str("journal = \"daemon alive\"").unwrap()),
        ..Service::named("a")
    };
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    Heartbeats::with_journal(&config, Some(dir.to_owned())).unwrap()
}

/// The newest beat that is told until one is as new as `at`.
fn beat_of(heartbeats: &mut Heartbeats, at: Nanos) -> Nanos {
    let mut newest = Nanos::ZERO;
    until("a beat from the journal", || {
        heartbeats.drain(clock::now(), |what| match what {
            What::Heartbeat { beat: Some(beat), .. } => newest = newest.max(beat),
            What::Heartbeat { beat: None, .. } => {}
            other => panic!("{other:?}"),
        });
        newest >= at
    });
    newest
}

/// The journal counts in microseconds.
fn micros(at: Nanos) -> u64 {
    at.0 / 1000
}

#[test]
fn entries_of_the_unit_that_contain_the_text_are_beats() {
    let dir = TempDir::new("journal");
    let old = Nanos(clock::now().0 - 60_000_000_000);
    let newer = old + Duration::from_secs(30);
    let begun = [
        (old, "a.service", "daemon alive, 3 clients"),
        (newer, "a.service", "something else"),
        (newer, "b.service", "daemon alive"),
    ];
    if !write(&dir.path().join("one.journal"), &begun) {
        return;
    }
    let mut heartbeats = follow(dir.path());
    let beat = beat_of(&mut heartbeats, Nanos(old.0 - 2_000_000));
    assert!(micros(beat).abs_diff(micros(old)) < 2_000, "{beat} is not {old}");
    assert_eq!(heartbeats.blind().count(), 0);
    let now = clock::now();
    write(
        &dir.path().join("two.journal"),
        &[(now, "a.service", "daemon alive")],
    );
    let beat = beat_of(&mut heartbeats, Nanos(now.0 - 2_000_000));
    assert!(micros(beat).abs_diff(micros(now)) < 2_000, "{beat} is not {now}");
}

#[test]
fn a_journal_that_is_not_there_is_told_and_waited_for() {
    let dir = TempDir::new("no-journal");
    let mut heartbeats = follow(&dir.path().join("absent"));
    until("the reason", || {
        heartbeats.drain(clock::now(), |_| {});
        heartbeats.blind().any(|why| why.contains("journalctl"))
    });
    assert!(heartbeats.deadline().is_some(), "it is tried again");
}
