//! Listeners of declared ports, holders, and the silence about everything else, on the running kernel as root.

mod kernel_support;

use std::{
    collections::BTreeSet,
    io,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
    process::Command,
};

use kernel_support::{OwnExe, Watch, identity, inode};
use probe_user::{
    address::Address,
    event::{SocketId, What},
    kernel::{Kernel, LoadOptions, Wanted},
};

fn cookie(socket: impl AsFd) -> SocketId {
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    assert_eq!(done, 0);
    SocketId(cookie)
}

/// Declares a free port, and binds it. A child that another test is about to start holds a closed socket for a moment
/// longer: then another port is taken.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn bind_declared<S: AsFd>(
    watch: &mut Watch,
    scheme: &str,
    ip: &str,
    bind: fn(String) -> io::Result<S>,
    port: fn(&S) -> u16,
) -> (Address, S) {
    for _ in 0..50 {
        let place = format!("{ip}:{}", port(&bind(format!("{ip}:0")).unwrap()));
        let address: Address = format!("{scheme}:{place}").parse().unwrap();
        let mut wanted = Wanted::default();
        wanted.add_address(&address);
        watch.kernel.want(&wanted).unwrap();
        match bind(place) {
            Ok(socket) => return (address, socket),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::AddrInUse),
        }
    }
    panic!("no port of {ip} stays free");
}

/// Its socket begins, by us, and ends.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn is_seen<S: AsFd>(watch: &mut Watch, (address, socket): (Address, S)) {
    let expected = (
        Some(cookie(&socket)),
        Some(rustix::fs::fstat(&socket).unwrap().st_ino),
    );
    let (holder, ids) = watch.expect("listen", |e| match &e.what {
        What::Listen {
            address: a,
            process,
            socket,
            inode,
            ..
        } if *a == address => Some((process.id, (*socket, *inode))),
        _ => None,
    });
    assert_eq!(holder, identity(std::process::id()));
    // The cgroup hook runs before a TCP socket listens, and gives it its cookie.
    if watch.kernel.plan().is_attached("post_bind4") {
        assert_eq!(ids, expected, "{address}");
    }
    drop(socket);
    let ids = watch.expect("unlisten", |e| match &e.what {
        What::Unlisten {
            address: a,
            socket,
            inode,
            ..
        } if *a == address => Some((*socket, *inode)),
        _ => None,
    });
    assert_eq!(ids, expected, "{address}");
}

#[test]
fn declared_ports_are_seen_to_begin_and_end() {
    let Some(mut watch) = Watch::load() else { return };
    for ip in ["127.0.0.1", "[::1]"] {
        if let Err(error) = UdpSocket::bind(format!("{ip}:0")) {
            eprintln!("skipped {ip}: {error}");
            continue;
        }
        let listener = bind_declared(&mut watch, "tcp", ip, TcpListener::bind, |s| {
            s.local_addr().unwrap().port()
        });
        is_seen(&mut watch, listener);
        if !watch.kernel.plan().is_attached("sock_release") {
            eprintln!(
                "skipped UDP: {:?}",
                watch.kernel.plan().without().collect::<Vec<_>>()
            );
            continue;
        }
        let socket = bind_declared(&mut watch, "udp", ip, UdpSocket::bind, |s| {
            s.local_addr().unwrap().port()
        });
        is_seen(&mut watch, socket);
    }
    assert_eq!(watch.kernel.lost(), []);
}

#[test]
fn iterators_find_processes_and_holders() {
    let Some(mut watch) = Watch::load() else { return };
    let Some(mut iterators) = watch.kernel.iterators() else {
        eprintln!("skipped: {:?}", watch.kernel.plan().without().collect::<Vec<_>>());
        return;
    };
    let own = identity(std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = |fd: &dyn AsFd| rustix::fs::fstat(fd).unwrap().st_ino;
    let (wanted, unwanted) = (number(&listener), number(&other));
    let of_listener = BTreeSet::from([wanted]);
    // Another test of this process may be about to start a child, which holds everything until it executes.
    let mut holders = iterators.holders(&of_listener).unwrap();
    holders.retain(|(_, id, _)| *id == own);
    assert_eq!(holders, [(wanted, own, listener.as_raw_fd())]);
    let all = iterators.all_holders().unwrap();
    for (inode, fd) in [(wanted, listener.as_raw_fd()), (unwanted, other.as_raw_fd())] {
        assert!(all.contains(&(inode, own, fd)));
    }
    assert_eq!(iterators.holders(&BTreeSet::new()).unwrap(), []);
    drop(listener);
    let holders = iterators.holders(&of_listener).unwrap();
    assert!(!holders.iter().any(|(_, id, _)| *id == own), "{holders:?}");

    let tasks = iterators.tasks().unwrap();
    let task = tasks.iter().find(|t| t.process.id == own).unwrap();
    let name = std::env::current_exe().unwrap().file_name().unwrap().to_owned();
    let told = name.len().min(probe_user::sources::path::NAME_BYTES);
    assert_eq!(task.exe_name, name.as_encoded_bytes()[..told]);
    let process = &task.process;
    assert_eq!(process.uid, Some(0));
    assert_eq!(process.exe_id.unwrap().ino, inode(Path::new("/proc/self/exe")));
    let ids: BTreeSet<u32> = tasks.iter().map(|t| t.process.id.pid).collect();
    assert_eq!(ids.len(), tasks.len(), "threads are no processes");
}

#[test]
fn what_nobody_declared_makes_no_record() {
    const PROCESSES: usize = 2000;
    let Some(mut watch) = Watch::load() else { return };
    // Something is declared, so that every filter is in use; nothing of it happens.
    let exe = OwnExe::copy("/bin/true", "quiet");
    let mut wanted = Wanted {
        exes: BTreeSet::from([inode(&exe.path)]),
        units: BTreeSet::from(["probe-test-never.service".to_owned()]),
        ..Wanted::default()
    };
    wanted.add_address(&"tcp:1".parse().unwrap());
    wanted.add_address(&"udp:1".parse().unwrap());
    watch.kernel.want(&wanted).unwrap();
    for round in 0..PROCESSES {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        if round % 4 == 0 {
            child.kill().unwrap();
            let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        }
        child.wait().unwrap();
    }
    assert_eq!(watch.kernel.records(), 0);
    // The programs were there all the time, and the counter does count.
    assert!(Command::new(&exe.path).status().unwrap().success());
    assert!(watch.kernel.records() >= 2, "an exec and an exit");
    assert_eq!(watch.kernel.lost(), []);
}

#[test]
fn a_full_ring_is_counted() {
    const LIVES: u64 = 20;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: loading eBPF programs needs root");
        return;
    }
    let mut kernel = Kernel::load(&LoadOptions {
        ring_bytes: 4096,
        ..LoadOptions::default()
    })
    .unwrap();
    let exe = OwnExe::copy("/bin/true", "full");
    kernel
        .want(&Wanted {
            exes: BTreeSet::from([inode(&exe.path)]),
            ..Wanted::default()
        })
        .unwrap();
    for _ in 0..LIVES {
        assert!(Command::new(&exe.path).status().unwrap().success());
    }
    let lost = kernel.lost();
    let of = |name: &str| {
        lost.iter()
            .filter(|(source, _)| source == name)
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    assert_eq!(
        of("ring:exec") + of("ring:exit") + kernel.records(),
        2 * LIVES,
        "{lost:?}"
    );
    assert!(of("ring:exec") > 0 && kernel.records() > 0, "{lost:?}");
    assert_eq!(kernel.lost(), [], "each loss is told once");
}
