//! Answers at an address as signs of life.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    thread,
};

use super::*;

const ASK: &str = "send = \"PING\", expect = \"+PONG\", every = \"100ms\", timeout = \"300ms\"";

fn ask(address: &str) -> Scene {
    let mut scene = Scene::new(&format!("{{ connect = \"{address}\", {ASK} }}"), |_| {});
    assert_eq!(scene.initial(), None);
    scene
}

/// Waits for the check to fail, without a beat before.
#[track_caller]
fn failure(scene: &mut Scene) -> String {
    scene.wait("the check fails", |heartbeats, beat| {
        assert_eq!(beat, None);
        heartbeats.failures().next().map(|(_, why)| why.to_owned())
    })
}

#[track_caller]
fn alive(scene: &mut Scene) {
    let began = clock::now();
    let beat = scene.wait("a beat", |_, beat| beat);
    assert!(beat >= began && beat <= clock::now());
    assert_eq!(scene.heartbeats.failures().count(), 0);
}

/// Answers each connection in two pieces.
fn answer(mut peer: impl Read + Write, with: &str) {
    let mut question = [0; 4];
    // The check may have gone at the end of a test.
    if peer.read_exact(&mut question).is_ok() && &question == b"PING" {
        let _ = peer.write_all(&with.as_bytes()[..2]);
        let _ = peer.write_all(&with.as_bytes()[2..]);
    }
}

fn tcp() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = format!("tcp:127.0.0.1:{}", listener.local_addr().unwrap().port());
    (listener, address)
}

/// Shortens the queue of a listener to a single connection.
fn one_waits(listener: &impl AsFd) {
    // SAFETY: plain numbers; the descriptor is open.
    assert_eq!(unsafe { libc::listen(listener.as_fd().as_raw_fd(), 0) }, 0);
}

#[test]
fn a_server_that_answers_is_alive_again_and_again() {
    let (listener, address) = tcp();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|peer| answer(peer.unwrap(), "+PONG\r\n"))
    });
    let mut scene = ask(&address);
    for _ in 0..3 {
        alive(&mut scene);
    }
}

#[test]
fn a_server_that_never_answers_is_not_alive() {
    let (listener, address) = tcp();
    let mut scene = ask(&address);
    let why = failure(&mut scene);
    assert!(why.ends_with("within 300ms: no answer"), "{why}");
    // The first connection is gone by now; whoever accepts later answers the next one.
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|peer| answer(peer.unwrap(), "+PONG"))
    });
    alive(&mut scene);
}

#[test]
fn a_wrong_or_missing_answer_is_none() {
    let (listener, address) = tcp();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|peer| answer(peer.unwrap(), "-LOADING"))
    });
    assert!(failure(&mut ask(&address)).contains("otherwise"));
    let (listener, address) = tcp();
    thread::spawn(move || listener.incoming().for_each(|peer| answer(peer.unwrap(), "+P")));
    assert!(failure(&mut ask(&address)).contains("closed the connection"));
}

#[test]
fn an_address_where_nobody_listens_refuses() {
    let (listener, address) = tcp();
    drop(listener);
    assert!(failure(&mut ask(&address)).contains("refused"));
    assert!(failure(&mut ask("unix:/nonexistent/socket")).contains("No such file"));
}

#[test]
fn a_full_queue_of_a_unix_socket_is_waited_for() {
    let mut scene = Scene::new(&format!("{{ connect = \"unix:DIR/s\", {ASK} }}"), |_| {});
    let path = scene.path("s");
    let listener = UnixListener::bind(&path).unwrap();
    one_waits(&listener);
    let waits = UnixStream::connect(&path).unwrap();
    scene.initial();
    let why = failure(&mut scene);
    assert!(why.contains("within 300ms: its queue is full"), "{why}");
    drop(waits);
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|peer| answer(peer.unwrap(), "+PONG"))
    });
    alive(&mut scene);
}

#[test]
fn a_full_queue_of_a_tcp_socket_times_out() {
    let (listener, address) = tcp();
    one_waits(&listener);
    let _waits = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let why = failure(&mut ask(&address));
    assert!(why.ends_with("within 300ms: no connection"), "{why}");
}

#[test]
fn other_kinds_of_sockets_are_asked_too() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = format!("udp:127.0.0.1:{}", server.local_addr().unwrap().port());
    thread::spawn(move || {
        let mut question = [0; 16];
        while let Ok((_, peer)) = server.recv_from(&mut question) {
            let _ = server.send_to(b"+PONG", peer);
        }
    });
    alive(&mut ask(&address));

    let name = format!("probe-heartbeat-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|peer| answer(peer.unwrap(), "+PONG"))
    });
    alive(&mut ask(&format!("unix:@{name}")));

    let mut scene = Scene::new(&format!("{{ connect = \"unix:DIR/seq\", {ASK} }}"), |_| {});
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, send, socket,
    };
    let server = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(server.as_raw_fd(), &UnixAddr::new(&scene.path("seq")).unwrap()).unwrap();
    listen(&server, Backlog::new(5).unwrap()).unwrap();
    thread::spawn(move || {
        while let Ok(peer) = accept(server.as_raw_fd()) {
            let flags = nix::sys::socket::MsgFlags::empty();
            let _ = recv(peer, &mut [0; 16], flags);
            let _ = send(peer, b"+PONG", flags | nix::sys::socket::MsgFlags::MSG_NOSIGNAL);
            let _ = nix::unistd::close(peer);
        }
    });
    scene.initial();
    alive(&mut scene);
}

#[test]
fn a_connection_is_enough_where_no_more_is_asked() {
    let (listener, address) = tcp();
    let mut scene = Scene::new(&format!("{{ connect = \"{address}\" }}"), |_| {});
    scene.initial();
    alive(&mut scene);
    // Every ten seconds, unless it says otherwise.
    let next = scene.heartbeats.deadline().unwrap().since(clock::now());
    assert!(
        next > Duration::from_secs(8) && next <= Duration::from_secs(10),
        "{next:?}"
    );
    drop(listener);
}
