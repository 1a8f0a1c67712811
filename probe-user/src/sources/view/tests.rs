use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::{linux::net::SocketAddrExt, unix::net},
};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::{
    address::Address,
    event::{AddressState, PidFileContent},
    sources::{
        observer::Observer,
        process,
        testing::{Child, TempDir, alone},
    },
};

fn view(netns: Netns, main: &Child) -> View {
    let mut view = View {
        netns,
        process: process::identity(main.pid()),
        ..View::default()
    };
    view.refresh();
    view
}

fn look(address: &str, view: &View) -> AddressState {
    let site: Site = address.parse().unwrap();
    Observer::new(None).unwrap().site(&site, view)
}

fn holders(state: &AddressState) -> Vec<u32> {
    let sockets = state.sockets.iter().flat_map(|s| &s.holders);
    sockets.map(|h| h.process.pid).collect()
}

#[test]
fn a_port_and_an_abstract_name_are_of_one_network_namespace() {
    let _alone = alone();
    let ours = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = ours.local_addr().unwrap().port();
    let name = format!("probe-view-{}", std::process::id());
    let child = Child::holding(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        (
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap(),
            net::UnixListener::bind_addr(&address).unwrap(),
        )
    });
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let path = Netns::Path(format!("/proc/{}/ns/net", child.pid()));
    for address in [format!("tcp:{port}"), format!("unix:@{name}")] {
        for netns in [Netns::Main, path.clone()] {
            let state = look(&address, &view(netns.clone(), &child));
            assert_eq!(holders(&state), [child.pid()], "{address} {netns:?}: {state:#?}");
            let theirs = fs::read_link(format!("/proc/{}/ns/net", child.pid())).unwrap();
            assert_eq!(theirs.to_str(), Some(&*format!("net:[{}]", state.netns.unwrap())));
        }
        let state = look(&address, &view(Netns::Host, &child));
        assert_eq!(
            state.sockets.len(),
            usize::from(address.starts_with("tcp")),
            "{address}"
        );
        // The child has a copy of our listener, too.
        assert!(
            holders(&state)
                .iter()
                .all(|pid| *pid == child.pid() || *pid == std::process::id())
        );
        assert!(
            state
                .sockets
                .iter()
                .all(|s| holders(&state).contains(&std::process::id()) && s.file.is_none())
        );
        assert_eq!(own.to_str(), Some(&*format!("net:[{}]", state.netns.unwrap())));
    }
    // Nobody's namespace, one that there is not, and files that stand for none.
    let nobody = View {
        netns: Netns::Main,
        ..View::default()
    };
    let state = look(&format!("tcp:{port}"), &nobody);
    assert_eq!((state.sockets.len(), state.netns, state.error), (0, None, None));
    for path in ["/nonexistent", "/dev/null", "/proc/self/ns/mnt", "/etc/passwd"] {
        let view = View {
            netns: Netns::Path(path.into()),
            ..View::default()
        };
        let state = look(&format!("tcp:{port}"), &view);
        assert!(state.error.is_some_and(|e| e.contains(path)), "{path}");
    }
}

#[test]
fn a_chrooted_daemon_means_its_own_paths_and_those_it_bound_before() {
    let _alone = alone();
    let dir = TempDir::new("view");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("jail").join(at("x").strip_prefix("/").unwrap())).unwrap();
    let (before, after) = (at("before"), at("x/after"));
    fs::create_dir(at("x")).unwrap();
    let child = Child::holding(|| {
        let first = net::UnixListener::bind(&before).unwrap();
        nix::unistd::chroot(&at("jail")).unwrap();
        (first, net::UnixListener::bind(&after).unwrap())
    });
    let view = view(Netns::Host, &child);
    assert_eq!(view.root, Root::Directory(at("jail")));
    for path in [&before, &after] {
        let address = Address::Unix(path.clone()).to_string();
        let state = look(&address, &view);
        assert_eq!(holders(&state), [child.pid()], "{state:#?}");
        assert!(
            matches!(state.path, Some(PathState::Socket(file)) if state.sockets[0].file == Some(file)),
            "{state:#?}"
        );
    }
    // Seen from the host, the second name leads nowhere, and the socket is not that name's.
    let host = look(&Address::Unix(after.clone()).to_string(), &View::default());
    assert_eq!((host.path, host.sockets), (Some(PathState::Absent), vec![]));
    // The first one's file is gone: the main process still holds what it was bound to.
    fs::remove_file(&before).unwrap();
    let state = look(&Address::Unix(before).to_string(), &view);
    assert_eq!(
        (holders(&state), state.path),
        (vec![child.pid()], Some(PathState::Absent))
    );
}

struct End(u32);

impl Drop for End {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0 as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn a_number_in_a_pid_file_is_of_the_main_process_s_pid_namespace() {
    let _alone = alone();
    let dir = TempDir::new("pidns");
    let file = dir.path().join("d.pid");
    let pid_of_child = dir.path().join("child");
    // unshare(2) moves the next child; that one is 1 there.
    let _parent = Child::holding(|| {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let child = Child::holding(|| {});
        fs::write(&pid_of_child, child.pid().to_string()).unwrap();
        child
    });
    let main: u32 = fs::read_to_string(&pid_of_child).unwrap().parse().unwrap();
    // The first process of the namespace outlives whoever made it.
    let _end = End(main);
    let view = View {
        process: process::identity(main),
        ..View::default()
    };
    let read = || pid_file::read(&file, None, &view);
    fs::write(&file, "1\n").unwrap();
    let state = read();
    assert_eq!(state.content, PidFileContent::Pid(main));
    assert_eq!(state.local, Some(1));
    assert_eq!(state.process.unwrap().id, view.process.unwrap());
    // Nobody there has this number, whoever has it here.
    fs::write(&file, format!("{}\n", std::process::id())).unwrap();
    let state = read();
    assert_eq!((state.local, state.process), (Some(std::process::id()), None));
    // Once the main process has ended, nobody else is meant.
    let ended = View {
        foreign_pids: true,
        ..View::default()
    };
    let state = pid_file::read(&file, None, &ended);
    assert_eq!((state.local, state.process), (Some(std::process::id()), None));
    // Somebody outside wrote the number that the host knows it by.
    fs::write(&file, format!("{main}\n")).unwrap();
    let state = read();
    assert_eq!((state.content, state.local), (PidFileContent::Pid(main), None));
    assert_eq!(state.process.unwrap().id.pid, main);
}
