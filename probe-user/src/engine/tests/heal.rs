use super::world::*;
use crate::{
    engine::finding::{EventKind, FindingState, Kind},
    event::{ExitStatus, UnitJob, UnitState, What},
};

fn gave_up(w: &mut World, attempts: Option<u32>) {
    w.tell(What::GaveUp {
        service: "d".into(),
        attempts,
    });
}

#[test]
fn an_open_crash_loop_is_told_when_probe_gives_up() {
    let mut w = World::new(service());
    for pid in 50..55 {
        w.start(pid);
        w.exit(pid, ExitStatus::Code(1));
        w.unlink(None);
        w.pass(ms(100));
    }
    let f = w.finding(Kind::CrashLoop);
    assert_eq!(f.facts["gave_up"], false);
    let id = f.id.clone();
    gave_up(&mut w, Some(3));
    let f = w.finding(Kind::CrashLoop);
    assert_eq!((&f.id, &f.facts["gave_up"]), (&id, &true.into()));
    assert!(
        f.summary.ends_with("; probe gave up after 3 attempts to heal it"),
        "{}",
        f.summary
    );
    assert_eq!(f.state, FindingState::Updated);
    assert_eq!(w.count(EventKind::Action), 1);
    // Nobody tries any more: time does not heal it.
    w.pass(ms(3_600_000));
    assert!(w.open().contains(&Kind::CrashLoop));
    gave_up(&mut w, None);
    assert!(!w.open().contains(&Kind::CrashLoop));
}

#[test]
fn giving_up_is_a_crash_loop_also_without_crashes() {
    let mut w = World::new(service());
    w.start(50);
    gave_up(&mut w, Some(2));
    let f = w.finding(Kind::CrashLoop);
    assert_eq!(f.facts["gave_up"], true);
    assert_eq!(f.summary, "probe gave up after 2 attempts to heal it");
    assert_eq!(w.open(), [Kind::CrashLoop]);
    // Somebody that is not declared says nothing.
    w.tell(What::GaveUp {
        service: "unheard-of".into(),
        attempts: Some(1),
    });
    gave_up(&mut w, None);
    assert_eq!(w.open(), []);
}

#[test]
fn a_unit_with_a_job_or_between_two_lives_is_changing() {
    let state = |active: &str, sub: &str| UnitState {
        active_state: active.into(),
        sub_state: sub.into(),
        ..UnitState::default()
    };
    assert!(!state("active", "running").is_changing());
    assert!(!state("failed", "failed").is_changing());
    assert!(!state("inactive", "dead").is_changing());
    assert!(state("activating", "auto-restart").is_changing());
    assert!(state("deactivating", "stop-sigterm").is_changing());
    let job = Some(UnitJob {
        id: 1,
        kind: "restart".into(),
    });
    assert!(
        UnitState {
            job,
            ..state("active", "running")
        }
        .is_changing()
    );
    let out_of_sight = UnitState {
        error: Some("no bus".into()),
        ..state("activating", "start")
    };
    assert!(!out_of_sight.is_changing(), "nothing may be concluded");
}
