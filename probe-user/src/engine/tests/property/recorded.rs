//! What was recorded on a real kernel, told in another order that could have been as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use crate::{
    engine::{
        Effect, Engine,
        finding::{Finding, FindingState, Kind},
    },
    event::{Event, SnapshotReason, TimeSource, What},
    trace::{Entry, Reader},
};

fn recordings() -> Vec<PathBuf> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/traces");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            let name = p.to_string_lossy();
            name.ends_with(".jsonl") && !name.ends_with(".expected.jsonl")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn read(path: &std::path::Path) -> (Engine, Vec<Entry>) {
    let mut reader = Reader::open(path).unwrap();
    let engine = Engine::new(reader.header().config.clone(), &reader.header().exes);
    let entries = std::iter::from_fn(|| reader.next_entry().unwrap()).collect();
    (engine, entries)
}

/// The findings that are open in the end.
fn open(engine: &mut Engine, entries: Vec<Entry>) -> BTreeSet<(Kind, String, String)> {
    let mut open: BTreeMap<String, Finding> = BTreeMap::new();
    for Entry { now, event } in entries {
        for effect in engine.apply(event, now) {
            let Effect::Find(f) = effect else { continue };
            match f.state {
                FindingState::Resolved => open.remove(&f.id),
                FindingState::Opened | FindingState::Updated => open.insert(f.id.clone(), *f),
            };
        }
    }
    open.into_values()
        .map(|f| (f.kind, f.service, f.subject))
        .collect()
}

/// Whom a record of the kernel is about.
fn about(event: &Event) -> Option<Vec<u32>> {
    match &event.what {
        _ if event.time_source != TimeSource::Kernel => None,
        What::Exec { process } | What::Exit { process, .. } => Some(vec![process.id.pid]),
        What::Fork { child } => Some(
            [Some(child.id), child.parent]
                .into_iter()
                .flatten()
                .map(|p| p.pid)
                .collect(),
        ),
        What::Signal(sent) => Some(
            [Some(sent.target.id.pid), sent.actor.as_ref().map(|a| a.id.pid)]
                .into_iter()
                .flatten()
                .collect(),
        ),
        _ => None,
    }
}

/// Records of unrelated processes change places: every other pair, from the first or from the second on.
fn swapped(mut entries: Vec<Entry>, from: usize) -> Vec<Entry> {
    let mut i = from;
    while i + 1 < entries.len() {
        let (a, b) = (about(&entries[i].event), about(&entries[i + 1].event));
        let apart = matches!((a, b), (Some(a), Some(b)) if !a.iter().any(|pid| b.contains(pid)));
        if apart {
            let (left, right) = entries.split_at_mut(i + 1);
            std::mem::swap(&mut left[i].event, &mut right[0].event);
        }
        i += 2;
    }
    entries
}

/// How long it may take from reading something of the host until it is told.
const READING: Duration = Duration::from_millis(20);

/// What was read of the host is told some entries later than it was: what happened meanwhile is newer, and known already.
fn late(mut entries: Vec<Entry>, by: usize) -> Vec<Entry> {
    for i in (0..entries.len()).rev() {
        let is_level = match &entries[i].event.what {
            // What ends while probe begins may end unseen.
            What::Snapshot(s) => s.reason != SnapshotReason::Start,
            What::Address(_) | What::PidFile(_) | What::Process(_) => true,
            _ => false,
        };
        let to = (i + by).min(entries.len() - 1);
        for j in i..to {
            let (read, next) = (&entries[j].event, &entries[j + 1].event);
            // What happened before it was read was told before it.
            let passes = is_level
                && next.time_source == TimeSource::Kernel
                && next.at > read.at
                && next.at <= read.at + READING;
            if !passes {
                break;
            }
            let (left, right) = entries.split_at_mut(j + 1);
            std::mem::swap(&mut left[j].event, &mut right[0].event);
        }
    }
    entries
}

/// Every record of a process is told once more, `later` entries after it.
fn doubled(entries: &[Entry], later: usize) -> Vec<Entry> {
    let mut out = Vec::new();
    for (i, e) in entries.iter().enumerate() {
        out.push(e.clone());
        let again = i.checked_sub(later).map(|j| &entries[j].event);
        let again =
            again.filter(|e| matches!(e.what, What::Exec { .. } | What::Fork { .. } | What::Exit { .. }));
        if let Some(event) = again {
            out.push(Entry {
                now: e.now,
                event: event.clone(),
            });
        }
    }
    out
}

#[test]
fn recorded_histories_end_alike_in_any_order() {
    let mut wrong = Vec::new();
    for path in recordings() {
        let (mut engine, entries) = read(&path);
        let want = open(&mut engine, entries.clone());
        let orders = [
            ("swapped from 0", swapped(entries.clone(), 0)),
            ("swapped from 1", swapped(entries.clone(), 1)),
            ("looks told one later", late(entries.clone(), 1)),
            ("looks told five later", late(entries.clone(), 5)),
            ("doubled at once", doubled(&entries, 0)),
            ("doubled later", doubled(&entries, 3)),
        ];
        for (order, entries) in orders {
            let (mut engine, _) = read(&path);
            let found = open(&mut engine, entries);
            if found != want {
                wrong.push(format!(
                    "{} {order}: {found:?} instead of {want:?}",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
