//! Whatever order a snapshot and the events around it arrive in, the result is the same, and it is the truth.
//!
//! `PROPTEST_CASES` sets how many histories are tried, `PROPTEST_RNG_SEED` which.

mod host;
mod recorded;
mod runtime;
mod truth;

use std::collections::BTreeSet;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};

use crate::engine::finding::Kind;

use self::{
    host::Action,
    runtime::{Driver, Loss},
};

fn action() -> impl Strategy<Value = Action> {
    let who = || any::<u8>();
    let yes = || any::<bool>();
    // Mostly by the service's own processes.
    let rarely = || prop::bool::weighted(0.2);
    prop_oneof![
        4 => Just(Action::Start),
        1 => Just(Action::Stranger),
        3 => (who(), yes()).prop_map(|(of, inherits)| Action::Fork { of, inherits }),
        4 => (who(), yes(), rarely()).prop_map(|(by, replace, stranger)| Action::Bind { by, replace, stranger }),
        4 => who().prop_map(|by| Action::Listen { by }),
        3 => (who(), rarely()).prop_map(|(by, stranger)| Action::Port { by, stranger }),
        2 => (who(), yes()).prop_map(|(by, tcp)| Action::Close { by, tcp }),
        2 => (who(), yes()).prop_map(|(by, stranger)| Action::Unlink { by, stranger }),
        1 => Just(Action::RenameAway),
        1 => Just(Action::RenameBack),
        3 => who().prop_map(|by| Action::WritePid { by }),
        1 => (who(), yes()).prop_map(|(by, stranger)| Action::RemovePid { by, stranger }),
        1 => who().prop_map(|whom| Action::Term { whom }),
        2 => who().prop_map(|whom| Action::Kill { whom }),
        2 => (who(), 0..2).prop_map(|(whom, code)| Action::Exit { whom, code }),
        1 => who().prop_map(|whom| Action::StrangerExits { whom }),
        2 => prop_oneof![Just(50), Just(1500), Just(12_000), Just(40_000)].prop_map(|ms| Action::Wait { ms }),
    ]
}

fn config() -> Config {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    // Some seconds without optimisation; more of them when somebody hunts.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Plays a history as it is told at once, and as it is told late; both must end in the truth, and alike.
fn compare(actions: &[Action], choices: &[u8], log: bool) -> Result<(), String> {
    let told = |d: &Driver| if log { d.log() } else { String::new() };
    let straight = Driver::new(actions, &[], Loss::default()).play();
    truth::check(&straight).map_err(|e| format!("told in order: {e}\n{}", told(&straight)))?;
    let late = Driver::new(actions, choices, Loss::default()).play();
    truth::check(&late).map_err(|e| format!("told late: {e}\n{}", told(&late)))?;
    if late.has_unseen_heir() {
        return Ok(());
    }
    let (mut a, mut b) = (straight.open(), late.open());
    if late.undated_name {
        for open in [&mut a, &mut b] {
            open.retain(|(kind, _)| *kind != Kind::Crashed);
        }
    }
    if a != b {
        let apart: BTreeSet<_> = a.symmetric_difference(&b).collect();
        return Err(format!(
            "in order {a:?}, late {b:?}, apart {apart:?}\n--- in order\n{}\n--- late\n{}",
            told(&straight),
            told(&late)
        ));
    }
    Ok(())
}

/// Tries histories until one fails, and tells all of the shortest like it.
fn try_all<S: Strategy>(strategy: S, check: impl Fn(&S::Value, bool) -> Result<(), String>) {
    let mut runner = TestRunner::new(config());
    let result = runner.run(&strategy, |value| {
        check(&value, false).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(_, value)) = result {
        let why = check(&value, true).expect_err("it failed before");
        panic!("{value:?}\n{why}");
    }
    result.expect("no history is rejected");
}

#[test]
fn the_order_of_telling_does_not_matter() {
    let histories = (vec(action(), 1..24), vec(any::<u8>(), 1..24));
    try_all(histories, |(actions, choices), log| {
        compare(actions, choices, log)
    });
}

#[test]
fn a_snapshot_settles_a_loss() {
    let histories = (
        vec(action(), 1..24),
        vec(any::<u8>(), 0..24),
        0..12_usize,
        1..12_usize,
    );
    try_all(histories, |(actions, choices, from, count), log| {
        let loss = Loss {
            from: *from,
            count: *count,
        };
        let driver = Driver::new(actions, choices, loss).play();
        truth::check(&driver).map_err(|e| match log {
            true => format!("{e}\n{}", driver.log()),
            false => e,
        })
    });
}

/// The service's oldest process binds the address; `replace`: it unlinks the path first.
fn bind(replace: bool) -> Action {
    Action::Bind {
        by: 0,
        replace,
        stranger: false,
    }
}

/// The name that the second one makes is told before the end of the first, which was the main process until then.
#[test]
fn a_kill_that_is_told_after_the_next_one_counts_is_over_all_the_same() {
    let actions = [
        Action::Start,
        Action::Term { whom: 0 },
        Action::Start,
        Action::Kill { whom: 2 },
        bind(false),
        // And it does not come back with the end of that one.
        Action::Kill { whom: 0 },
    ];
    for played in [&actions[..5], &actions] {
        if let Err(e) = compare(played, &[34], true) {
            panic!("{e}");
        }
    }
}

/// Likewise of one that had bound the address, which the next one has bound anew.
#[test]
fn a_kill_that_is_told_after_the_next_one_has_the_address_is_over_all_the_same() {
    let actions = [
        Action::Start,
        bind(false),
        Action::Term { whom: 0 },
        Action::Start,
        Action::Kill { whom: 2 },
        bind(true),
    ];
    if let Err(e) = compare(&actions, &[51], true) {
        panic!("{e}");
    }
}

/// Until somebody looks, the first one's exit looks as if it had stopped itself: its child has inherited the socket.
#[test]
fn an_heir_of_a_socket_that_never_listened_is_known_however_late_it_is_looked_at() {
    let actions = [
        Action::Start,
        bind(false),
        Action::Kill { whom: 0 },
        Action::Start,
        bind(true),
        Action::Fork {
            of: 0,
            inherits: true,
        },
        Action::Exit { whom: 138, code: 0 },
    ];
    let choices = [0, 180, 39, 103, 0, 0, 0, 0, 0, 6, 70, 0, 0, 0];
    for skipped in 0..4 {
        if let Err(e) = compare(&actions, &choices[skipped..], true) {
            panic!("{skipped} {e}");
        }
    }
}

/// Likewise where nobody had looked at all before the first one's end.
#[test]
fn an_heir_of_a_socket_that_nobody_had_looked_at_is_known() {
    let actions = [
        Action::Start,
        bind(false),
        Action::Fork {
            of: 0,
            inherits: true,
        },
        Action::Exit { whom: 138, code: 0 },
    ];
    let choices = [0, 0, 12, 4, 20, 0, 0, 190, 35, 83, 0];
    for skipped in 0..10 {
        if let Err(e) = compare(&actions, &choices[skipped..], true) {
            panic!("{skipped} {e}");
        }
    }
}

/// The file is read while the process lives, and told after its end.
#[test]
fn whom_a_pid_file_named_counted_since_it_was_written() {
    let actions = [
        Action::Stranger,
        Action::Wait { ms: 50 },
        Action::Start,
        Action::Fork {
            of: 0,
            inherits: false,
        },
        Action::WritePid { by: 151 },
        Action::Start,
        Action::Kill { whom: 16 },
        bind(false),
    ];
    if let Err(e) = compare(&actions, &[3], true) {
        panic!("{e}");
    }
}

/// The one that it named has ended, and what lives on of its instance goes on with the same life.
#[test]
fn what_outlives_whom_a_pid_file_named_is_no_life_of_its_own() {
    let actions = [
        Action::Start,
        Action::Start,
        Action::Port {
            by: 30,
            stranger: false,
        },
        Action::Fork {
            of: 103,
            inherits: false,
        },
        Action::WritePid { by: 79 },
        Action::Kill { whom: 199 },
        Action::WritePid { by: 5 },
    ];
    if let Err(e) = compare(&actions, &[90, 0, 0, 235, 93], true) {
        panic!("{e}");
    }
}

/// The first snapshot reads a file that was written after it began, and after an end that is told before.
#[test]
fn a_pid_file_that_is_newer_than_the_snapshot_names_nobody_before() {
    let actions = [
        Action::Start,
        Action::Fork {
            of: 0,
            inherits: false,
        },
        Action::Exit { whom: 6, code: 1 },
        Action::WritePid { by: 0 },
    ];
    if let Err(e) = compare(&actions, &[107], true) {
        panic!("{e}");
    }
}

/// Nobody has looked at the socket while its maker lived, and the name says no more who that was.
#[test]
fn a_name_that_is_moved_away_and_back_is_still_of_who_made_it() {
    let actions = [
        Action::Start,
        Action::Start,
        Action::Bind {
            by: 90,
            replace: false,
            stranger: false,
        },
        Action::Exit { whom: 2, code: 0 },
        Action::RenameAway,
        Action::WritePid { by: 0 },
        Action::RenameBack,
    ];
    if let Err(e) = compare(&actions, &[28, 103, 0, 0], true) {
        panic!("{e}");
    }
}

/// The listener that makes the instance count is told after the end of its main process, which was asked to stop.
#[test]
fn a_stop_that_is_told_before_the_listener_was_asked_for_all_the_same() {
    let mut actions = vec![Action::Stranger; 3];
    actions.extend([
        Action::Start,
        Action::Term { whom: 0 },
        Action::Fork {
            of: 0,
            inherits: false,
        },
        Action::StrangerExits { whom: 0 },
        Action::Port {
            by: 1,
            stranger: false,
        },
        Action::Exit { whom: 30, code: 0 },
        Action::Kill { whom: 0 },
    ]);
    if let Err(e) = compare(&actions, &[11, 217, 187, 179, 152, 0], true) {
        panic!("{e}");
    }
}

/// A clean end is followed by whom the PID file names, which is read only after that one was killed: it followed nobody.
#[test]
fn whom_a_pid_file_names_follows_nobody_also_if_it_is_read_late() {
    let actions = [
        Action::Start,
        Action::Start,
        Action::Bind {
            by: 90,
            replace: false,
            stranger: false,
        },
        Action::Kill { whom: 5 },
        Action::Exit { whom: 0, code: 0 },
        Action::RenameBack,
        Action::Stranger,
        Action::Listen { by: 0 },
        Action::Start,
        Action::Unlink {
            by: 0,
            stranger: false,
        },
        Action::Start,
        Action::WritePid { by: 216 },
        Action::Kill { whom: 2 },
    ];
    let choices = [66, 84, 0, 71, 0, 0, 0, 104, 20, 85, 43, 0, 0, 0, 143, 29];
    if let Err(e) = compare(&actions, &choices, true) {
        panic!("{e}");
    }
}

/// The PID file names the heir of a process that is then killed, and is read only after that.
#[test]
fn an_heir_that_was_named_late_outlives_no_stop() {
    let fork = Action::Fork {
        of: 0,
        inherits: false,
    };
    let bind = |by, stranger| Action::Bind {
        by,
        replace: false,
        stranger,
    };
    let actions = [
        Action::Start,
        bind(0, true),
        Action::Close { by: 0, tcp: false },
        Action::Start,
        Action::Kill { whom: 49 },
        Action::Kill { whom: 0 },
        Action::Start,
        fork.clone(),
        Action::Term { whom: 156 },
        bind(32, false),
        Action::WritePid { by: 187 },
        Action::Kill { whom: 0 },
        fork,
        Action::Start,
        Action::Kill { whom: 0 },
        Action::Start,
    ];
    if let Err(e) = compare(&actions, &[0, 0, 4, 36, 71, 179, 159, 12], true) {
        panic!("{e}");
    }
}
