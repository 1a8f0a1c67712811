//! What an earlier run of probe left: what it knew, whom it followed, what its programs recorded, and then the snapshot.

use super::world::{World, ms, service};
use crate::{
    engine::{
        Effect,
        finding::{EventKind, Kind},
    },
    event::{Process, SnapshotReason, What},
};

/// A main process that an earlier run knew, and nobody has told of since.
fn known(pid: u32) -> (World, Process) {
    let mut w = World::before_the_first_snapshot(service());
    let main = w.process(pid, 1, "/usr/bin/d");
    w.processes.insert(pid, main.clone());
    w.tell(What::Remembered {
        service: "d".into(),
        generation: 3,
        main: Some(main.id),
    });
    (w, main)
}

#[test]
fn a_crash_meanwhile_is_one_and_names_who_did_it() {
    let (mut w, _) = known(50);
    w.kill(50, 99);
    assert_eq!(w.open(), [], "nothing is judged before the snapshot");
    w.snapshot(SnapshotReason::Start);
    assert_eq!(w.open(), [Kind::NotRunning, Kind::Crashed]);
    let crashed = w.finding(Kind::Crashed);
    assert_eq!(crashed.actor.as_ref().map(|a| a.id.pid), Some(99));
    assert_eq!(w.engine.life("d").map(|l| l.generation), Some(3));
}

/// An earlier run followed it, and knew it as one of the service.
fn followed(process: &Process) -> What {
    What::Followed {
        process: process.clone(),
        services: vec!["d".into()],
    }
}

/// Nothing was known but that it was followed.
fn followed_alone(process: &Process) -> What {
    What::Followed {
        process: process.clone(),
        services: Vec::new(),
    }
}

#[test]
fn an_end_among_what_was_lost_is_unseen() {
    let (mut w, main) = known(50);
    w.tell(followed(&main));
    w.tell(What::Lost {
        source: "ring:exit".into(),
        count: 1,
    });
    w.processes.clear();
    w.pass(ms(10));
    w.snapshot(SnapshotReason::Start);
    assert_eq!(w.open(), [Kind::NotRunning]);
    assert_eq!(w.finding(Kind::NotRunning).actor, None);
}

#[test]
fn a_worker_that_no_selector_selects_stays_a_member() {
    let (mut w, main) = known(50);
    let worker = w.process(60, 50, "/usr/bin/worker");
    w.processes.insert(60, worker.clone());
    w.tell(followed_alone(&main));
    w.tell(followed_alone(&worker));
    w.snapshot(SnapshotReason::Start);
    w.kill(60, 99);
    assert_eq!(w.count(EventKind::Exit), 1, "its end is told");
}

#[test]
fn an_orphan_stays_a_member_of_what_it_was_one_of() {
    for services in [vec!["d".to_owned()], vec!["gone".to_owned()], Vec::new()] {
        let (mut w, _) = known(50);
        w.processes.clear();
        let orphan = w.process(60, 1, "/usr/bin/worker");
        w.processes.insert(60, orphan.clone());
        let is_one = services == ["d"];
        w.tell(What::Followed {
            process: orphan.clone(),
            services,
        });
        let let_go = |w: &World| w.effects.contains(&Effect::Forget(orphan.id));
        assert_eq!(let_go(&w), !is_one);
        w.snapshot(SnapshotReason::Start);
        w.kill(60, 99);
        assert_eq!(w.count(EventKind::Exit), usize::from(is_one));
    }
}

#[test]
fn who_has_ended_meanwhile_has_ended_as_a_member() {
    let (mut w, main) = known(50);
    let worker = w.process(60, 50, "/usr/bin/worker");
    w.processes.insert(60, worker.clone());
    w.tell(followed(&main));
    w.tell(followed(&worker));
    // Both were alive together, and the worker was the main one's: a handover, had that left with 0.
    w.kill(50, 98);
    w.kill(60, 99);
    w.snapshot(SnapshotReason::Start);
    assert_eq!(w.count(EventKind::Exit), 2);
    assert_eq!(
        w.finding(Kind::Crashed).actor.as_ref().map(|a| a.id.pid),
        Some(98)
    );
}
