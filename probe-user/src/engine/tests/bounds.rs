//! A flood fills what is remembered up to its bound, shows, and is over when a snapshot fits again.

use super::world::{SOCK, World, ms, service};
use crate::{
    engine::{Effect, finding::Kind},
    event::{Holder, ProcId, SnapshotReason, Socket, SocketId, SocketState, What},
};

fn told(w: &World, source: &str) -> usize {
    w.effects
        .iter()
        .filter(|e| matches!(e, Effect::Lost { source: s, .. } if s == source))
        .count()
}

#[test]
fn a_flood_of_children_is_cut_off_and_shows() {
    let mut w = World::new(service());
    w.start(50);
    let bound = w.engine.config.probe.bounds.members.get() as usize;
    let mut child = w.process(100, 50, "/usr/bin/d");
    // Without optimisation fewer are more than enough, too.
    let children = if cfg!(debug_assertions) {
        100_000
    } else {
        1_000_000
    };
    for pid in 100..100 + children {
        child.id.pid = pid;
        // World keeps what was told; the flood is told to the engine alone.
        let event = crate::event::Event {
            at: w.now,
            time_source: crate::event::TimeSource::Kernel,
            what: What::Fork { child: child.clone() },
        };
        for effect in w.engine.apply(event, w.now) {
            match effect {
                Effect::Find(f) => w.findings.push(*f),
                Effect::Lost { .. } => w.effects.push(effect),
                _ => {}
            }
        }
    }
    assert_eq!(w.engine.members().count(), bound);
    assert_eq!(
        told(&w, "probe.bounds.members"),
        1,
        "once until the next snapshot"
    );
    assert_eq!(w.open(), [Kind::Blind]);
    // They are all gone.
    w.pass(ms(100));
    w.snapshot(SnapshotReason::Interval);
    assert_eq!(w.engine.members().count(), 1);
    assert_eq!(w.open(), []);
}

#[test]
fn a_hundred_thousand_sockets_on_one_address() {
    let mut w = World::new(service());
    w.start(50);
    let bound = w.engine.config.probe.bounds.sockets.get() as usize;
    let one = w.sockets[0].clone();
    let many = (1_000..101_000).map(|n| Socket {
        id: SocketId(n),
        inode: n,
        ..one.clone()
    });
    w.sockets.extend(many);
    w.snapshot(SnapshotReason::Interval);
    let ledger = w.engine.addresses.of(SOCK);
    assert_eq!(ledger.live.len(), bound);
    assert_eq!(told(&w, "probe.bounds.sockets"), 1);
    assert_eq!(w.open(), [Kind::Blind]);
    w.sockets.truncate(1);
    w.pass(ms(100));
    w.snapshot(SnapshotReason::Interval);
    assert_eq!(w.open(), []);
}

/// A member among the holders is kept, so that the address is not taken for a stranger's.
#[test]
fn more_holders_than_are_remembered() {
    let mut w = World::new(service());
    w.start(50);
    let bound = w.engine.config.probe.bounds.holders.get() as usize;
    let own = w.sockets[0].holders[0].clone();
    let strangers = (1000..11_000).map(|pid| Holder {
        process: ProcId { pid, start_ticks: 1 },
        fd: 3,
    });
    w.sockets[0].holders = strangers.chain([own.clone()]).collect();
    w.sockets[0].state = SocketState::Listening;
    w.pass(ms(100));
    w.snapshot(SnapshotReason::Interval);
    let ledger = w.engine.addresses.of(SOCK);
    let holders = &ledger.live.values().next().unwrap().socket.holders;
    assert_eq!((holders.len(), &holders[0]), (bound, &own));
    assert_eq!(w.open(), [Kind::Blind]);
}
