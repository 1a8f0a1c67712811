//! Network namespaces: a port of another one is another address.

use super::world::{World, service};
use crate::{
    address::Address,
    engine::{Effect, finding::EventKind},
    event::{AddressState, SocketId, What},
};

#[test]
fn a_listener_of_another_namespace_is_none_of_ours() {
    let mut declared = service();
    let address: Address = "tcp:80".parse().unwrap();
    declared.listen = vec![address.clone()];
    let mut w = World::new(declared);
    w.exec(50);
    let listen = |w: &World, netns: u32| What::Listen {
        address: "tcp:0.0.0.0:80".parse().unwrap(),
        process: w.processes[&50].clone(),
        socket: Some(SocketId(u64::from(netns))),
        inode: Some(u64::from(netns)),
        netns: Some(netns),
    };
    let settles = |w: &World| {
        let settles = w.effects.iter().filter(|e| matches!(e, Effect::Settle(_)));
        settles.count()
    };
    // Which namespace is meant is not known yet: worth a look, and nothing is concluded.
    let before = settles(&w);
    let event = listen(&w, 1);
    w.tell(event);
    assert!(settles(&w) > before);
    assert_eq!(w.count(EventKind::Listen), 0);
    w.tell(What::Address(AddressState {
        address,
        of: None,
        netns: Some(1),
        path: None,
        changed: None,
        sockets: Vec::new(),
        processes: Vec::new(),
        error: None,
    }));
    let before = settles(&w);
    let event = listen(&w, 2);
    w.tell(event);
    assert_eq!((w.count(EventKind::Listen), settles(&w)), (0, before));
    let event = listen(&w, 1);
    w.tell(event);
    assert_eq!(w.count(EventKind::Listen), 1);
}
