//! One cause and all that follows from it: ends that drag others with them, findings that are over for good, restarts
//! over what an earlier life left behind.

use std::collections::BTreeMap;

use super::world::{World, ms, service};
use crate::{
    config::{Config, Service},
    engine::{Engine, finding::Kind},
    event::{Disposition, ExitStatus, FileId, SnapshotReason, What},
    signal::Signal,
};

const SEGV: ExitStatus = ExitStatus::Signal {
    signal: Signal(11),
    core: false,
};
const TERM: ExitStatus = ExitStatus::Signal {
    signal: Signal::TERM,
    core: false,
};

/// A master with workers that hold the listener too.
fn prefork(workers: &[u32]) -> World {
    let mut w = World::new(service());
    w.start(50);
    for worker in workers {
        w.fork(50, *worker);
        let id = w.processes[worker].id;
        w.sockets[0]
            .holders
            .push(crate::event::Holder { process: id, fd: 3 });
    }
    w.path_changed(crate::event::PathChange::Created, None);
    w.pass(ms(60_000));
    w.findings.clear();
    w
}

#[test]
fn a_replaced_death_stays_over_when_the_successor_ends() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.fork(50, 60);
    w.pass(ms(1000));
    w.exit(60, SEGV);
    assert_eq!(w.open(), [Kind::UnhandledSignal]);
    w.pass(ms(1000));
    w.fork(50, 61);
    assert_eq!(w.open(), []);
    w.pass(ms(1000));
    w.exit(61, ExitStatus::Code(0));
    assert_eq!(w.open(), [], "it was replaced already");
    assert_eq!(w.opened(), [Kind::UnhandledSignal]);
}

#[test]
fn a_replaced_death_stays_over_when_the_service_is_stopped() {
    let mut w = World::new(service());
    w.start(50);
    w.pass(ms(1000));
    w.findings.clear();
    w.signal(50, Signal::USR1, 99, Disposition::Default);
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    );
    w.pass(ms(1000));
    w.start(51);
    w.pass(ms(60_000));
    assert_eq!(w.open(), []);
    let before = w.opened().len();
    w.signal(51, Signal::TERM, 99, Disposition::Caught);
    w.unlink(Some(51));
    w.remove_pid_file(51);
    w.exit(51, ExitStatus::Code(0));
    w.pass(ms(60_000));
    assert_eq!(w.open(), []);
    assert_eq!(w.opened().len(), before, "{:#?}", w.findings);
}

/// As when the main process of PostgreSQL is killed: the others notice and end, one after the other.
#[test]
fn workers_that_follow_their_dead_master_are_one_crash() {
    let mut w = prefork(&[60, 61, 62, 63, 64, 65, 66]);
    w.kill(50, 99);
    for worker in 60..=66 {
        w.pass(ms(10));
        w.exit(worker, ExitStatus::Code(1));
    }
    w.pass(ms(100));
    let crashes: Vec<_> = w.opened().into_iter().filter(|k| *k == Kind::Crashed).collect();
    assert_eq!(crashes, [Kind::Crashed]);
    assert!(!w.opened().contains(&Kind::CrashLoop));
    assert!(
        w.finding(Kind::Crashed).summary.contains("KILL"),
        "{}",
        w.finding(Kind::Crashed).summary
    );
    assert!(w.open().contains(&Kind::NotRunning));
}

#[test]
fn workers_that_follow_a_stopped_master_end_as_asked() {
    for status in [ExitStatus::Code(1), ExitStatus::Code(0)] {
        let mut w = prefork(&[60, 61]);
        w.signal(50, Signal::TERM, 99, Disposition::Default);
        w.exit(50, TERM);
        w.pass(ms(100));
        w.exit(60, status);
        w.pass(ms(1500));
        w.exit(61, status);
        w.pass(ms(60_000));
        w.expect_nothing();
    }
}

/// As when `rabbitmqctl stop` ends the virtual machine before its small helpers.
#[test]
fn helpers_that_follow_a_clean_exit_are_part_of_it() {
    let mut w = World::new(service());
    let ino = w.start(50);
    w.fork(50, 60);
    w.pass(ms(60_000));
    w.findings.clear();
    w.close(ino);
    w.unlink(Some(50));
    w.remove_pid_file(50);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(10));
    w.exit(60, ExitStatus::Code(1));
    w.pass(ms(60_000));
    w.expect_nothing();
}

/// Survivors that go on by themselves: what ends them much later is a cause of its own.
#[test]
fn a_successor_of_a_stopped_master_can_crash_later() {
    let mut w = prefork(&[60]);
    w.signal(50, Signal::QUIT, 99, Disposition::Caught);
    w.exit(50, ExitStatus::Code(0));
    w.write_pid_file(60);
    w.pass(ms(60_000));
    w.expect_nothing();
    w.exit(60, SEGV);
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
}

#[test]
fn a_stop_signal_that_is_ignored_asks_nothing() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::INT, 99, Disposition::Ignored);
    w.pass(ms(60_000));
    w.expect_nothing();
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal(libc::SIGSEGV),
            core: true,
        },
    );
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
    assert!(!w.open().contains(&Kind::KilledWhileStopping));
}

/// Most daemons unlink their path before they bind it.
#[test]
fn removing_an_old_path_at_the_start_is_no_clean_exit_at_the_end() {
    let mut w = World::new(service());
    w.exec(50);
    w.unlink(Some(50));
    w.listen(50);
    w.write_pid_file(50);
    w.pass(ms(60_000));
    w.findings.clear();
    w.exit(50, ExitStatus::Code(0));
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
}

/// What an asked stop left behind is none of the next life's faults.
#[test]
fn a_restart_over_leftovers_of_an_asked_stop_is_no_finding() {
    for pid_file_first in [true, false] {
        let mut w = World::new(service());
        w.start(50);
        w.pass(ms(1000));
        w.findings.clear();
        w.signal(50, Signal::TERM, 99, Disposition::Default);
        w.exit(50, TERM);
        w.pass(ms(5000));
        w.expect_nothing();
        w.exec(51);
        if pid_file_first {
            w.write_pid_file(51);
        } else {
            w.listen(51);
        }
        w.pass(ms(500));
        w.expect_nothing();
        if pid_file_first {
            w.listen(51);
        } else {
            w.write_pid_file(51);
        }
        w.pass(ms(60_000));
        w.expect_nothing();
    }
}

/// Rule 14: the new process stops the old one.
#[test]
fn a_successor_that_stops_its_predecessor_took_over() {
    for status in [ExitStatus::Code(0), TERM] {
        let mut w = World::new(service());
        w.start(50);
        w.pass(ms(1000));
        w.findings.clear();
        w.exec(51);
        w.unlink(Some(51));
        w.listen(51);
        w.findings.clear();
        let disposition = match status {
            TERM => Disposition::Default,
            _ => Disposition::Caught,
        };
        w.signal(50, Signal::TERM, 51, disposition);
        w.exit(50, status);
        w.write_pid_file(51);
        w.pass(ms(60_000));
        assert_eq!(w.open(), [], "{status:?}");
        assert!(!w.opened().contains(&Kind::Crashed), "{status:?}");
    }
}

#[test]
fn an_asked_stop_whose_end_was_not_seen_is_still_a_stop() {
    let mut w = World::new(service());
    let ino = w.start(50);
    w.findings.clear();
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.pass(ms(100));
    w.processes.remove(&50);
    w.close(ino);
    w.sockets.clear();
    w.snapshot(SnapshotReason::Loss);
    w.pass(ms(60_000));
    w.expect_nothing();
}

#[test]
fn a_loss_is_settled_by_any_snapshot_that_began_after_it() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    let early = w.now;
    w.pass(ms(10));
    w.tell(What::Lost {
        source: "ring".into(),
        count: 1,
    });
    assert_eq!(w.open(), [Kind::Blind]);
    let late = std::mem::replace(&mut w.now, early);
    w.snapshot(SnapshotReason::Loss);
    assert_eq!(w.open(), [Kind::Blind], "it was read before the loss");
    w.now = late + ms(10);
    w.snapshot(SnapshotReason::Interval);
    assert_eq!(w.open(), []);
}

/// Socket activation: systemd holds the listener, before and after.
#[test]
fn the_service_manager_takes_no_address() {
    let mut w = World::new(service());
    w.pass(ms(1000));
    let mut manager = w.process(1, 0, "/usr/lib/systemd/systemd");
    manager.parent = None;
    w.processes.insert(1, manager);
    w.listen(1);
    assert!(!w.open().contains(&Kind::AddressTaken), "{:?}", w.open());
    // Without a selector its holder is the service, and all processes descend from this one.
    let mut plain = service();
    (plain.exe, plain.pid_file) = (None, None);
    let mut w = World::new(plain);
    let mut manager = w.process(1, 0, "/usr/lib/systemd/systemd");
    manager.parent = None;
    w.processes.insert(1, manager);
    w.listen(1);
    assert_eq!(w.engine.members().count(), 0);
}

/// Two services of one executable, told apart by their addresses.
#[test]
fn services_that_share_an_executable_fail_each_for_itself() {
    let other = Service {
        name: "e".into(),
        listen: vec!["unix:/run/e.sock".parse().unwrap()],
        pid_file: None,
        ..service()
    };
    let mut w = World::new(service());
    w.engine = Engine::new(
        Config {
            services: vec![
                Service {
                    pid_file: None,
                    ..service()
                },
                other,
            ],
            ..Config::default()
        },
        &BTreeMap::new(),
    );
    w.findings.clear();
    w.snapshot(SnapshotReason::Start);
    assert_eq!(w.open(), [Kind::NotRunning, Kind::NotRunning]);
    w.exec(50);
    w.listen(50);
    w.pass(ms(60_000));
    assert_eq!(w.open(), [Kind::NotRunning]);
    assert_eq!(
        w.finding(Kind::NotRunning).service,
        "d",
        "resolved; the other one does not run"
    );
    w.findings.clear();
    w.signal(50, Signal::USR1, 99, Disposition::Default);
    w.exit(
        50,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false,
        },
    );
    let unhandled: Vec<_> = w
        .findings
        .iter()
        .filter(|f| f.kind == Kind::UnhandledSignal)
        .collect();
    assert_eq!(unhandled.len(), 1, "{unhandled:#?}");
    assert_eq!(unhandled[0].service, "d");
}

/// As under `mysqld_safe`: the process that starts it anew is a member too, and outlives it.
#[test]
fn a_life_that_a_supervising_member_starts_is_a_new_generation() {
    let mut w = World::new(service());
    w.exec(50);
    w.fork(50, 60);
    w.listen(60);
    w.write_pid_file(60);
    w.pass(ms(60_000));
    w.findings.clear();
    w.kill(60, 99);
    assert!(w.open().contains(&Kind::Crashed), "{:?}", w.open());
    w.pass(ms(500));
    w.fork(50, 61);
    w.unlink(Some(61));
    w.listen(61);
    w.write_pid_file(61);
    w.pass(ms(60_000));
    assert_eq!(w.open(), []);
    assert_eq!(w.engine.services[0].generation, 2);
    for next in 62..=65 {
        w.kill(next - 1, 99);
        w.pass(ms(1));
        w.fork(50, next);
        w.unlink(Some(next));
        w.listen(next);
        w.write_pid_file(next);
        w.pass(ms(500));
    }
    w.kill(65, 99);
    assert!(w.open().contains(&Kind::CrashLoop), "{:?}", w.open());
}

/// A package upgrade puts another file under the path, and the daemon is started anew.
#[test]
fn a_daemon_of_an_upgraded_executable_is_a_member() {
    let (old, new) = (FileId { dev: 1, ino: 7 }, FileId { dev: 1, ino: 8 });
    let mut w = World::new(service());
    let config = Config {
        services: vec![service()],
        ..Config::default()
    };
    w.engine = Engine::new(config, &BTreeMap::from([("/usr/bin/d".to_owned(), old)]));
    w.snapshot(SnapshotReason::Start);
    let run = |w: &mut World, pid: u32, file: FileId| {
        let mut p = w.process(pid, 1, "/usr/bin/d");
        p.exe_id = Some(file);
        w.processes.insert(pid, p.clone());
        w.tell(What::Exec { process: p });
        w.listen(pid);
        w.write_pid_file(pid);
    };
    run(&mut w, 50, old);
    w.pass(ms(1000));
    w.findings.clear();
    w.tell(What::Executable {
        path: "/usr/bin/d".into(),
        id: Some(new),
    });
    w.signal(50, Signal::TERM, 99, Disposition::Caught);
    w.unlink(Some(50));
    w.remove_pid_file(50);
    w.exit(50, ExitStatus::Code(0));
    w.pass(ms(1000));
    run(&mut w, 51, new);
    w.pass(ms(60_000));
    w.expect_nothing();
    assert_eq!(w.engine.mains()[0].map(|m| m.pid), Some(51));
}
