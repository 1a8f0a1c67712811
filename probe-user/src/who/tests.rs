use std::{
    net::TcpListener,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    path::Path,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, UnixAddr, bind, getsockname};

use super::*;
use crate::{
    event::{AddressState, FileId, PathState, SocketId},
    sources::testing::{Child, TempDir, alone},
};

fn ask(address: &str) -> Answer {
    look(&address.parse().unwrap(), &Options::default()).unwrap()
}

fn at(path: &Path) -> Answer {
    ask(&format!("unix:{}", path.display()))
}

fn pids(socket: &Socket) -> Vec<u32> {
    assert!(socket.holders_complete, "{socket:#?}");
    socket.holders.iter().map(|h| h.pid).collect()
}

fn stream() -> std::os::fd::OwnedFd {
    nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap()
}

#[test]
fn the_trap_of_three_processes() {
    let _alone = alone();
    let dir = TempDir::new("who-trap");
    let path = dir.path().join("s");
    let first = Child::holding(|| UnixListener::bind(&path).unwrap());
    let answer = at(&path);
    assert_eq!(answer.state, State::Live, "{answer:#?}");
    assert_eq!(pids(&answer.sockets[0]), [first.pid()]);
    assert_eq!(answer.sockets[0].reachable, Some(true));

    // The second one unlinks and binds the path again, and is killed.
    std::fs::remove_file(&path).unwrap();
    let second = Child::holding(|| UnixListener::bind(&path).unwrap());
    let answer = at(&path);
    assert_eq!(answer.state, State::Live);
    let holders: Vec<_> = answer.sockets.iter().map(|s| (pids(s), s.reachable)).collect();
    assert_eq!(
        holders,
        [(vec![second.pid()], Some(true)), (vec![first.pid()], Some(false))]
    );
    drop(second);
    let answer = at(&path);
    assert_eq!(answer.state, State::Stale, "{answer:#?}");
    assert_eq!(pids(&answer.sockets[0]), [first.pid()]);
    assert_eq!(answer.sockets[0].reachable, Some(false));
    assert!(
        answer.summary.contains(&first.pid().to_string()),
        "{}",
        answer.summary
    );

    // With the file gone too, the first one is all that is left.
    std::fs::remove_file(&path).unwrap();
    let answer = at(&path);
    assert_eq!(answer.state, State::Orphaned, "{answer:#?}");
    drop(first);
    assert_eq!(at(&path).state, State::Free);
}

#[test]
fn a_name_that_came_by_a_link_leads_to_its_holder() {
    let _alone = alone();
    let dir = TempDir::new("who-link");
    let (temporary, path) = (dir.path().join("s.123"), dir.path().join("s"));
    let daemon = Child::holding(|| {
        let listener = UnixListener::bind(&temporary).unwrap();
        std::fs::hard_link(&temporary, &path).unwrap();
        std::fs::remove_file(&temporary).unwrap();
        listener
    });
    let answer = at(&path);
    assert_eq!(answer.state, State::Live, "{answer:#?}");
    assert_eq!(pids(&answer.sockets[0]), [daemon.pid()]);
    let made = answer.path.unwrap().made_boot_ns.unwrap();
    let holder = &answer.sockets[0].holders[0];
    assert_eq!(holder.since_boot_ns, made.max(holder.start_ns));

    // A symbolic link is followed, as connect(2) does.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("s", &link).unwrap();
    let answer = at(&link);
    assert_eq!(answer.state, State::Live);
    assert_eq!(answer.path.unwrap().links_to.as_deref(), path.to_str());
    std::fs::remove_file(&path).unwrap();
    assert_ne!(at(&link).state, State::Live);
}

#[test]
fn every_descriptor_of_a_holder_is_named() {
    let _alone = alone();
    let dir = TempDir::new("who-fds");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let second = listener.try_clone().unwrap();
    let answer = at(&path);
    let [socket] = &answer.sockets[..] else {
        panic!("{answer:#?}")
    };
    let [me] = &socket.holders[..] else {
        panic!("{answer:#?}")
    };
    assert_eq!(me.pid, std::process::id());
    assert_eq!(me.fds, [listener.as_raw_fd(), second.as_raw_fd()]);
    assert_eq!(me.exe.as_deref(), std::env::current_exe().unwrap().to_str());
    assert!(me.since_boot_ns <= answer.boot_ns);
}

#[test]
fn a_bound_socket_is_no_listener() {
    let _alone = alone();
    let dir = TempDir::new("who-bound");
    let path = dir.path().join("s");
    let fd = stream();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let answer = at(&path);
    assert_eq!(answer.state, State::Bound, "{answer:#?}");
    assert_eq!(pids(&answer.sockets[0]), [std::process::id()]);
    assert_eq!(answer.sockets[0].limit, None);
    drop(fd);
    assert_eq!(at(&path).state, State::Stale);
}

#[test]
fn a_listener_that_was_shut_down() {
    let _alone = alone();
    let dir = TempDir::new("who-shut");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    assert_eq!(at(&path).state, State::ShutDown);
}

#[test]
fn what_is_no_socket_is_named() {
    let dir = TempDir::new("who-file");
    std::fs::write(dir.path().join("f"), "").unwrap();
    let answer = at(&dir.path().join("f"));
    assert_eq!(answer.state, State::NotASocket);
    assert_eq!(answer.path.unwrap().is, "regular file");
    let answer = at(&dir.path().join("none"));
    assert_eq!(
        (answer.state, answer.path.unwrap().is.as_str()),
        (State::Free, "absent")
    );
}

#[test]
fn abstract_names_and_datagrams() {
    let _alone = alone();
    let name = format!("probe-who-{}", std::process::id());
    let address = format!("unix:@{name}");
    assert_eq!(ask(&address).state, State::Free);
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let answer = ask(&address);
    assert_eq!(answer.state, State::Live, "{answer:#?}");
    assert_eq!(pids(&answer.sockets[0]), [std::process::id()]);
    drop(socket);
    assert_eq!(ask(&address).state, State::Free);
}

#[test]
fn ports_with_queues() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _waiting = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let answer = ask(&format!("tcp:{port}"));
    assert_eq!(answer.state, State::Live, "{answer:#?}");
    assert_eq!(pids(&answer.sockets[0]), [std::process::id()]);
    assert_eq!(answer.sockets[0].queue, Some(1));
    assert!(answer.sockets[0].limit > Some(1));
    assert_eq!(ask(&format!("tcp:127.0.0.2:{port}")).state, State::Free);
    assert_eq!(ask(&format!("udp:{port}")).state, State::Free);
    let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let answer = ask(&format!("udp:{}", udp.local_addr().unwrap().port()));
    assert_eq!(answer.state, State::Live);
    assert_eq!(answer.sockets[0].limit, None);
}

#[test]
fn a_port_that_is_bound_only() {
    let _alone = alone();
    let fd = nix::sys::socket::socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(fd.as_raw_fd()).unwrap().port();
    let answer = ask(&format!("tcp:{port}"));
    // Kernels before 6.8 do not show it, and then the answer says so.
    match answer.state {
        State::Bound => assert_eq!(pids(&answer.sockets[0]), [std::process::id()]),
        State::Free => assert_eq!(answer.cannot_see.len(), 1, "{answer:#?}"),
        _ => panic!("{answer:#?}"),
    }
}

fn state(path: PathState, sockets: Vec<crate::event::Socket>) -> AddressState {
    AddressState {
        address: "unix:/run/a".parse().unwrap(),
        of: None,
        netns: None,
        path: Some(path),
        changed: None,
        sockets,
        processes: Vec::new(),
        error: None,
    }
}

fn seen(state: &AddressState) -> Seen<'_> {
    Seen {
        state,
        at: Nanos(2_000_000_000),
        wall_offset_ns: 0,
        made: None,
        links_to: None,
        all_holders: true,
        namespaces_unseen: false,
        cannot_see: Vec::new(),
    }
}

#[test]
fn what_could_not_be_seen_is_unknown() {
    const FILE: FileId = FileId { dev: 1, ino: 2 };
    let dead = state(PathState::Socket(FILE), Vec::new());
    assert_eq!(answer(&seen(&dead)).state, State::Stale);
    // It may be bound in a network namespace that could not be looked into.
    let blind = Seen {
        namespaces_unseen: true,
        ..seen(&dead)
    };
    assert_eq!(answer(&blind).state, State::Unknown);
    let unread = state(PathState::Unknown("denied".into()), Vec::new());
    assert_eq!(answer(&seen(&unread)).state, State::Unknown);
    let unasked = AddressState {
        error: Some("refused".into()),
        ..dead.clone()
    };
    assert_eq!(answer(&seen(&unasked)).state, State::Unknown);
    // A listener whose holders nobody saw is a listener.
    let listener = crate::event::Socket {
        id: SocketId(1),
        inode: 7,
        state: crate::event::SocketState::Listening,
        file: Some(FILE),
        ip: None,
        queue: 0,
        backlog: 5,
        head: None,
        holders: Vec::new(),
        holders_known: false,
    };
    let served = state(PathState::Socket(FILE), vec![listener]);
    let answer = answer(&seen(&served));
    assert_eq!(answer.state, State::Live);
    assert!(!answer.sockets[0].holders_complete);
    assert!(answer.summary.contains("could not be seen"), "{}", answer.summary);
}

/// What is known from the last look is the answer only while nobody else can hold the socket.
#[test]
fn a_second_look_misses_nobody() {
    let _alone = alone();
    let dir = TempDir::new("who-again");
    let path = dir.path().join("s");
    let first = Child::holding(|| UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let mut looker = Looker::new().unwrap();
    let mut ask = || looker.look(&address, &Options::default());
    let answer = ask();
    assert_eq!(pids(&answer.sockets[0]), [first.pid()]);
    let fd = answer.sockets[0].holders[0].fds[0];
    // Since when is read from the wall clock, which is compared anew with the clock of the boot.
    let timeless = |mut sockets: Vec<Socket>| {
        for holder in sockets.iter_mut().flat_map(|s| &mut s.holders) {
            (holder.since, holder.since_boot_ns) = (String::new(), 0);
        }
        sockets
    };
    let again = ask();
    assert_eq!(timeless(again.sockets), timeless(answer.sockets));

    // One who is no relative of the holder takes a descriptor of it.
    let holder = rustix::process::Pid::from_raw(first.pid().cast_signed()).unwrap();
    let stranger = Child::holding(|| {
        use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let process = pidfd_open(holder, PidfdFlags::empty()).unwrap();
        pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).unwrap()
    });
    let mut both = [first.pid(), stranger.pid()];
    both.sort_unstable();
    let mut found = pids(&ask().sockets[0]);
    found.sort_unstable();
    assert_eq!(found, both);
    drop(first);
    assert_eq!(pids(&ask().sockets[0]), [stranger.pid()]);
    drop(stranger);
    assert_eq!(ask().state, State::Stale);
}
