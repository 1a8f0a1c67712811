use std::{
    fs,
    io::IoSlice,
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

use super::*;
use crate::{
    config::Service,
    event::{PidFileContent, SocketState},
    sources::testing::{Child, TempDir, alone},
};

fn observer() -> Observer {
    Observer::new(None).unwrap()
}

fn unix(path: &Path) -> Address {
    Address::Unix(path.into())
}

fn pids(socket: &Socket) -> BTreeSet<u32> {
    assert!(socket.holders_known);
    socket.holders.iter().map(|h| h.process.pid).collect()
}

#[track_caller]
fn only(state: &AddressState) -> &Socket {
    assert_eq!(state.error, None);
    let [socket] = &state.sockets[..] else {
        panic!("{state:#?}")
    };
    socket
}

fn leads_to(state: &AddressState, socket: &Socket) -> bool {
    socket
        .file
        .is_some_and(|file| state.path == Some(PathState::Socket(file)))
}

#[test]
fn the_dead_one_has_the_path_and_the_living_one_has_none() {
    let _alone = alone();
    let dir = TempDir::new("trap");
    let path = dir.path().join("s");
    let mut observer = observer();
    let a = Child::holding(|| UnixListener::bind(&path).unwrap());
    let state = observer.address(&unix(&path));
    assert!(leads_to(&state, only(&state)));
    assert_eq!(pids(only(&state)), [a.pid()].into());
    assert!(state.processes.iter().any(|p| p.id.pid == a.pid()));
    assert!(
        state.processes.iter().any(|p| p.id.pid == std::process::id()),
        "its parent is told too"
    );

    let b = Child::holding(|| {
        fs::remove_file(&path).unwrap();
        UnixListener::bind(&path).unwrap()
    });
    let state = observer.address(&unix(&path));
    assert_eq!(state.sockets.len(), 2);
    let (current, orphan): (Vec<_>, Vec<_>) = state.sockets.iter().partition(|s| leads_to(&state, s));
    assert_eq!(
        (pids(current[0]), pids(orphan[0])),
        ([b.pid()].into(), [a.pid()].into())
    );

    drop(b);
    // Also for an observer that did not see how it came to be.
    for mut observer in [observer, self::observer()] {
        let state = observer.address(&unix(&path));
        assert!(matches!(state.path, Some(PathState::Socket(_))), "the file stays");
        assert!(!leads_to(&state, only(&state)), "and nobody listens behind it");
        assert_eq!(pids(only(&state)), [a.pid()].into());
        assert!(UnixStream::connect(&path).is_err());
    }
    drop(a);
    assert_eq!(self::observer().address(&unix(&path)).sockets, []);
}

#[test]
fn links_and_renames_lead_to_the_same_socket() {
    let _alone = alone();
    let dir = TempDir::new("names");
    let at = |name: &str| dir.path().join(name);
    let mut observer = observer();
    let _listener = UnixListener::bind(at("a")).unwrap();
    fs::hard_link(at("a"), at("b")).unwrap();
    let state = observer.address(&unix(&at("b")));
    let id = only(&state).id;
    assert!(leads_to(&state, only(&state)));
    fs::rename(at("a"), at("c")).unwrap();
    let state = observer.address(&unix(&at("c")));
    assert!(leads_to(&state, only(&state)) && only(&state).id == id);
    // The bound name leads nowhere now: an orphan under that name.
    let state = observer.address(&unix(&at("a")));
    assert_eq!(
        (state.path.as_ref(), only(&state).id),
        (Some(&PathState::Absent), id)
    );
    // And what had been seen under b stays known to it.
    fs::remove_file(at("b")).unwrap();
    let state = observer.address(&unix(&at("b")));
    assert_eq!(
        (state.path.as_ref(), only(&state).id),
        (Some(&PathState::Absent), id)
    );
}

#[test]
fn a_linked_directory_has_the_same_names() {
    let _alone = alone();
    let dir = TempDir::new("linked");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("run")).unwrap();
    std::os::unix::fs::symlink("run", at("var")).unwrap();
    let _orphan = UnixListener::bind(at("var/s")).unwrap();
    fs::remove_file(at("run/s")).unwrap();
    let state = observer().address(&unix(&at("run/s")));
    assert_eq!(state.path, Some(PathState::Absent));
    assert!(only(&state).holders_known);
    assert_eq!(observer().address(&unix(&at("run/t"))).sockets, []);
}

#[test]
fn a_relative_bind_is_found_by_its_file() {
    let _alone = alone();
    let dir = TempDir::new("relative");
    let child = Child::holding(|| {
        std::env::set_current_dir(dir.path()).unwrap();
        UnixListener::bind("s").unwrap()
    });
    let state = observer().address(&unix(&dir.path().join("s")));
    assert!(leads_to(&state, only(&state)));
    assert_eq!(pids(only(&state)), [child.pid()].into());
    let all = observer().listening_everything().unwrap();
    assert!(
        all.sockets
            .iter()
            .any(|f| f.address == unix(&dir.path().join("s")))
    );
}

#[test]
fn connections_are_no_holders_of_the_address() {
    let _alone = alone();
    let dir = TempDir::new("accepted");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    let _connection = listener.accept().unwrap();
    let mut observer = observer();
    assert_eq!(
        only(&observer.address(&unix(&path))).holders[0].fd,
        listener.as_raw_fd()
    );
    drop(listener);
    assert_eq!(observer.address(&unix(&path)).sockets, []);
}

#[test]
fn shutdown_datagrams_and_abstract_names() {
    let _alone = alone();
    let dir = TempDir::new("kinds");
    let at = |name: &str| dir.path().join(name);
    let mut observer = observer();
    let listener = UnixListener::bind(at("s")).unwrap();
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    assert_eq!(
        only(&observer.address(&unix(&at("s")))).state,
        SocketState::ShutDown
    );
    let _datagram = UnixDatagram::bind(at("d")).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    for _ in 0..2 {
        assert_eq!(
            only(&observer.address(&unix(&at("d")))).state,
            SocketState::Listening
        );
        // Marks the server as connected too.
        client.connect(at("d")).unwrap();
    }
    let name = format!("probe-observer-{}", std::process::id());
    let abstract_listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let state = observer.address(&Address::Abstract(name.clone()));
    assert_eq!((state.path.as_ref(), only(&state).file), (None, None));
    assert_eq!(pids(only(&state)), [std::process::id()].into());
    drop(abstract_listener);
    assert_eq!(observer.address(&Address::Abstract(name)).sockets, []);
}

#[test]
fn children_that_inherit_a_socket_hold_it() {
    let _alone = alone();
    let dir = TempDir::new("inherit");
    let path = dir.path().join("s");
    let mut observer = observer();
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(
        pids(only(&observer.address(&unix(&path)))),
        [std::process::id()].into()
    );
    let child = Child::holding(|| ());
    // A relative of a known holder.
    assert_eq!(
        pids(only(&observer.address(&unix(&path)))),
        [std::process::id(), child.pid()].into()
    );
    drop(listener);
    assert_eq!(pids(only(&observer.address(&unix(&path)))), [child.pid()].into());
}

#[test]
fn a_socket_in_flight_lives_without_a_holder() {
    let _alone = alone();
    let dir = TempDir::new("flight");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (from, _to) = UnixStream::pair().unwrap();
    let fds = [listener.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        from.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &message,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    drop(listener);
    let state = observer().address(&unix(&path));
    assert!(leads_to(&state, only(&state)));
    assert_eq!(
        (pids(only(&state)), only(&state).state),
        ([].into(), SocketState::Listening)
    );
}

/// A listener of a loopback port that others may share.
fn reuse_port(port: u16) -> TcpListener {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, listen, socket};
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_in and its size is given.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    listen(&fd, Backlog::new(1).unwrap()).unwrap();
    fd.into()
}

#[test]
fn file_systems_whose_st_dev_lies() {
    use std::os::unix::fs::MetadataExt;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let _alone = alone();
    let dir = TempDir::new("mounts");
    let at = |name: &str| dir.path().join(name);
    for name in ["upper", "work", "overlay", "tmpfs"] {
        fs::create_dir(at(name)).unwrap();
    }
    // Layers of two file systems: that is where overlayfs shows another device than its own.
    let at_text = |name: &str| at(name).display().to_string();
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        at_text("tmpfs"),
        at_text("upper"),
        at_text("work")
    );
    // The mounts are the child's alone, and go with it.
    let ok = Child::succeeds(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), &at("tmpfs"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        mount(
            Some("overlay"),
            &at("overlay"),
            Some("overlay"),
            MsFlags::empty(),
            Some(&*layers),
        )
        .unwrap();
        for directory in ["tmpfs", "overlay"] {
            let path = at(directory).join(directory);
            let mut watch = crate::sources::directory_watch::DirectoryWatch::new().unwrap();
            watch.add(&path);
            let _listener = UnixListener::bind(&path).unwrap();
            let mut events = 0;
            watch.drain(|_| events += 1);
            assert_eq!(events, 1, "{directory}: {:?}", watch.mode());
            let state = observer().address(&unix(&path));
            assert!(leads_to(&state, only(&state)), "{directory}: {state:#?}");
            let shown = nix::sys::stat::minor(fs::symlink_metadata(&path).unwrap().dev()) as u32;
            let lies = only(&state).file.unwrap().dev != shown;
            assert_eq!(lies, directory == "overlay", "stat shows 0:{shown}, {state:#?}");
        }
    });
    assert!(ok);
}

#[test]
fn a_socket_of_another_network_namespace_is_alive() {
    let _alone = alone();
    let dir = TempDir::new("netns");
    let path = dir.path().join("s");
    let child = Child::holding(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        UnixListener::bind(&path).unwrap()
    });
    let mut observer = observer();
    for _ in 0..2 {
        let state = observer.address(&unix(&path));
        assert!(leads_to(&state, only(&state)));
        assert_eq!(pids(only(&state)), [child.pid()].into());
    }
    drop(child);
    assert_eq!(observer.address(&unix(&path)).sockets, []);
}

#[test]
fn internet_addresses_by_port_and_ip() {
    let _alone = alone();
    let mut observer = observer();
    let first = reuse_port(0);
    let bound = first.local_addr().unwrap();
    let address: Address = format!("tcp:{bound}").parse().unwrap();
    assert_eq!(only(&observer.address(&address)).ip, Some(bound.ip()));
    let other: Address = format!("tcp:127.0.0.2:{}", bound.port()).parse().unwrap();
    assert_eq!(observer.address(&other).sockets, []);

    let child = Child::holding(|| reuse_port(bound.port()));
    let state = observer.address(&address);
    assert_eq!(state.sockets.len(), 2, "{state:#?}");
    assert!(state.sockets.iter().any(|s| pids(s) == [child.pid()].into()));
    drop((first, child));
    assert_eq!(observer.address(&address).sockets, []);

    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let address: Address = format!("udp:127.0.0.1:{}", udp.local_addr().unwrap().port())
        .parse()
        .unwrap();
    let state = observer.address(&address);
    assert_eq!(
        (only(&state).state, pids(only(&state))),
        (SocketState::Listening, [std::process::id()].into())
    );
}

#[test]
fn a_snapshot_tells_processes_addresses_and_pid_files() {
    let _alone = alone();
    let dir = TempDir::new("snapshot");
    let at = |name: &str| dir.path().join(name);
    let daemon = Child::holding(|| {
        let listener = UnixListener::bind(at("s")).unwrap();
        (listener, Child::holding(|| ()))
    });
    fs::write(at("pid"), format!("{}\n", daemon.pid())).unwrap();
    let mut service = Service::named("a");
    service.listen = vec![unix(&at("s")), unix(&at("missing"))];
    service.pid_file = at("pid").to_str().map(str::to_owned);
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let before = clock::now();
    let snapshot = observer().snapshot(&config, &Views::new(&config), SnapshotReason::Start);
    assert!(snapshot.began >= before);
    assert_eq!(snapshot.addresses.len(), 2);
    assert_eq!(snapshot.pid_files[0].content, PidFileContent::Pid(daemon.pid()));
    let found: BTreeMap<_, _> = snapshot
        .processes
        .iter()
        .map(|p| (p.id.pid, p.parent.unwrap().pid))
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.values().any(|parent| *parent == daemon.pid()),
        "its child is there too"
    );
    // The child of the killed daemon is not ours to reap.
    for pid in found.keys().filter(|pid| **pid != daemon.pid()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid as i32), nix::sys::signal::SIGKILL).unwrap();
    }
}

#[test]
fn an_executable_selects_its_processes() {
    let _alone = alone();
    let dir = TempDir::new("select");
    let exe = dir.path().join("daemon");
    fs::copy("/bin/sleep", &exe).unwrap();
    let mut command = std::process::Command::new(&exe);
    command
        .arg("1000")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    let child = crate::sources::testing::KillOnDrop(command.spawn().unwrap());
    let mut service = Service::named("a");
    service.exe = exe.to_str().map(str::to_owned);
    let config = Config {
        services: vec![service],
        ..Config::default()
    };
    let found = |config: &Config| {
        let processes = observer()
            .snapshot(config, &Views::new(config), SnapshotReason::Interval)
            .processes;
        processes.iter().map(|p| p.id.pid).collect::<Vec<_>>()
    };
    assert_eq!(found(&config), [child.0.id()]);
    // An upgrade: another file under the same name.
    fs::copy("/bin/sleep", dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("new"), &exe).unwrap();
    assert_eq!(found(&config), [child.0.id()]);
}

#[test]
fn what_was_seen_before_is_as_whoever_looks_for_the_first_time_sees_it() {
    let _alone = alone();
    let dir = TempDir::new("again");
    let path = dir.path().join("s");
    let mut again = observer();
    let mut same = |what: &str| {
        let state = again.address(&unix(&path));
        let first = observer().address(&unix(&path));
        // Times of files are told by the boot clock, which differs by some nanoseconds each time.
        assert_eq!(
            (&state.path, &state.sockets),
            (&first.path, &first.sockets),
            "{what}"
        );
        state
    };
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(only(&same("first")).queue, 0);
    let waiting = UnixStream::connect(&path).unwrap();
    assert_eq!(only(&same("somebody waits")).queue, 1);
    let accepted = listener.accept().unwrap();
    assert_eq!(only(&same("accepted")).queue, 0);
    drop(listener);
    assert_eq!(same("closed").sockets, []);
    drop((waiting, accepted));
    fs::remove_file(&path).unwrap();
    assert_eq!(same("removed").path, Some(PathState::Absent));
    let other = UnixListener::bind(&path).unwrap();
    assert_eq!(only(&same("bound anew")).queue, 0);
    let renamed = dir.path().join("r");
    let third = UnixListener::bind(&renamed).unwrap();
    fs::rename(&renamed, &path).unwrap();
    let file = path::state(&path);
    let state = again.address(&unix(&path));
    assert!(
        state
            .sockets
            .iter()
            .any(|s| s.file.map(PathState::Socket).as_ref() == Some(&file))
    );
    assert_eq!(
        state.sockets.len(),
        2,
        "the one that has lost the path, too: {state:#?}"
    );
    drop((other, third));
    assert_eq!(again.address(&unix(&path)).sockets, []);
}

#[test]
fn an_iterator_that_is_silent_proves_nothing() {
    struct Silent;
    impl HolderFinder for Silent {
        fn holders(&mut self, _: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
            Ok(Vec::new())
        }
    }
    impl ProcessLister for Silent {
        fn processes(&mut self) -> io::Result<Vec<Task>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
    let _alone = alone();
    let dir = TempDir::new("silent");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut observer = Observer::new(Some(Box::new(Silent))).unwrap();
    assert_eq!(
        pids(only(&observer.address(&unix(&path)))),
        [std::process::id()].into()
    );
    assert!(listener.as_fd().as_raw_fd() >= 0);
}
