//! One cause and all that follows from it: ends that drag others with them, findings that are over for good, restarts
//! over what an earlier life left behind.

use std::collections::BTreeMap;

use super::world::{World, ms, service};
use crate::{
    config::{Config, Service},
    engine::{Engine, finding::Kind},
    event::{Disposition, ExitStatus, SnapshotReason, What},
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
        w.sockets[0].holders.push(crate::event::Holder { process: id, fd: 3 });
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

#[test]
fn a_stop_signal_that_is_ignored_asks_nothing() {
    let mut w = World::new(service());
    w.start(50);
    w.findings.clear();
    w.signal(50, Signal::INT, 99, Disposition::Ignored);
    w.pass(ms(60_000));
    w.expect_nothing();
    w.kill(50, 99);
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
