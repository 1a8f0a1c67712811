//! Each state is caused in a child: this test program, which runs one of the parts below.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    process::{Child, Command, Stdio},
    thread,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::{
    signal::{SigSet, Signal as Sig, kill},
    signalfd::SignalFd,
};

use super::*;
use crate::{event::SignalMasks, signal::Signal, sources::testing::until};

const PART: &str = "PROBE_TEST_PROCESS_STATE_PART";
const READY: &str = "the part is being played";

const PORT: &str = "its port is ";

struct Played(Child, Option<u16>);

impl Played {
    /// Starts a child and waits until it says that it has done its part.
    fn new(part: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "sources::process_state::tests::child",
                "--ignored",
                "--nocapture",
            ])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut played = Self(child, None);
        let said = lines.map_while(Result::ok).any(|line| {
            if let Some((_, port)) = line.split_once(PORT) {
                played.1 = Some(port.parse().unwrap());
            }
            line.contains(READY)
        });
        assert!(said, "{part} ended before it was ready");
        played
    }

    fn id(&self) -> ProcId {
        process::identity(self.0.id()).unwrap()
    }

    fn look(&self) -> ProcessState {
        look(self.id())
    }

    fn masks(&self) -> SignalMasks {
        self.look().masks.unwrap()
    }

    fn send(&self, signal: Sig) {
        kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// The first state for which this holds.
    fn until(&self, what: &str, holds: impl Fn(&ProcessState) -> bool) -> ProcessState {
        let mut state = self.look();
        until(what, || {
            state = self.look();
            holds(&state)
        });
        state
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ready() {
    println!("{READY}");
    std::io::stdout().flush().unwrap();
}

/// Until the parent closes its end or kills.
fn rest() {
    let _ = std::io::stdin().read(&mut [0]);
}

extern "C" fn on_signal(_: libc::c_int) {}

extern "C" fn vforked(_: *mut libc::c_void) -> libc::c_int {
    // SAFETY: calls without memory. The process ends with its parent; at the latest, where that ended before it was
    // asked for, when the alarm rings.
    unsafe {
        libc::alarm(20);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::pause();
    }
    0
}

/// Drops all that comes to this socket before it is acknowledged.
fn make_deaf(socket: &impl AsFd) {
    let code = libc::sock_filter {
        code: 6, // BPF_RET | BPF_K: keep 0 bytes
        jt: 0,
        jf: 0,
        k: 0,
    };
    let mut code = [code];
    let program = libc::sock_fprog {
        len: 1,
        filter: code.as_mut_ptr(),
    };
    // SAFETY: the program and its length outlive the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as u32,
        )
    };
    assert_eq!(done, 0);
}

/// A connection whose other end acknowledges nothing, with data under way.
fn deaf_connection() -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    make_deaf(&server);
    client.write_all(b"is anybody there?").unwrap();
    (listener, client, server)
}

#[test]
#[ignore = "runs as the child of the others"]
fn child() {
    let Ok(part) = env::var(PART) else { return };
    let usr1 = SigSet::from(Sig::SIGUSR1);
    match part.as_str() {
        "signalfd" => {
            usr1.thread_block().unwrap();
            let _fd = SignalFd::new(&usr1).unwrap();
            ready();
            rest();
        }
        "sigwait" => {
            thread::spawn(move || {
                usr1.thread_block().unwrap();
                let _ = usr1.wait();
            });
            ready();
            rest();
        }
        "handler" => {
            // SAFETY: the handler does nothing.
            unsafe {
                libc::signal(libc::SIGUSR1, on_signal as *const () as libc::sighandler_t);
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
            }
            ready();
            rest();
        }
        "vfork" => {
            let mut stack = vec![0u8; 64 * 1024];
            ready();
            // SAFETY: without CLONE_VM the child has its own copy of everything; the stack grows down from its end.
            unsafe {
                let top = stack.as_mut_ptr().add(stack.len()).cast();
                libc::clone(
                    vforked,
                    top,
                    libc::CLONE_VFORK | libc::SIGCHLD,
                    std::ptr::null_mut(),
                );
            }
        }
        "connect" => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            make_deaf(&listener);
            println!("{PORT}{}", listener.local_addr().unwrap().port());
            ready();
            let _ = TcpStream::connect(listener.local_addr().unwrap());
        }
        "read" => {
            // In a network namespace of this thread only.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            loopback_up();
            let (_listener, mut client, _server) = deaf_connection();
            ready();
            let _ = client.read(&mut [0]);
        }
        "server" => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            println!("{PORT}{}", listener.local_addr().unwrap().port());
            ready();
            let mut server = listener.accept().unwrap().0;
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"hello").unwrap();
            let mut fds = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::NONE);
        }
        other => panic!("no part is called {other}"),
    }
}

fn loopback_up() {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // SAFETY: ifreq is plain data; the name is terminated by the zeros around it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        assert_eq!(
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request),
            0
        );
    }
}

#[test]
fn a_stopped_process_is_stopped_until_it_is_continued() {
    let child = Played::new("handler");
    assert_eq!(child.look().run, RunState::Running);
    child.send(Sig::SIGSTOP);
    child.until("it is stopped", |s| s.run == RunState::Stopped);
    // Stopped, it still tells what it would handle, and what waits for it.
    child.send(Sig::SIGUSR1);
    assert!(SignalMasks::has(child.masks().pending, Signal::USR1));
    child.send(Sig::SIGCONT);
    child.until("it runs on", |s| s.run == RunState::Running);
    child.until("it took the signal", |s| {
        s.masks
            .is_some_and(|m| !SignalMasks::has(m.pending, Signal::USR1))
    });
}

#[test]
fn caught_and_ignored_signals_show() {
    let child = Played::new("handler");
    // A thread that begins or ends blocks everything for a moment.
    let state = child.until("no thread begins or ends", |s| {
        s.masks
            .is_some_and(|m| !SignalMasks::has(m.blocked, Signal::TERM))
    });
    let masks = state.masks.unwrap();
    assert!(SignalMasks::has(masks.caught, Signal::USR1));
    assert!(SignalMasks::has(masks.ignored, Signal::HUP));
    assert!(!SignalMasks::has(masks.caught | masks.blocked, Signal::HUP));
    assert!(masks.handles(Signal::USR1) && !masks.handles(Signal::TERM) && !masks.waiting);
}

#[test]
fn a_blocked_signal_is_pending_until_somebody_takes_it() {
    let child = Played::new("signalfd");
    assert!(child.masks().handles(Signal::USR1));
    assert!(!SignalMasks::has(child.masks().pending, Signal::USR1));
    // To the process; every other thread of it leaves USR1 open, so it goes to the one thread that blocks it.
    let tid = child_thread(&child, Signal::USR1);
    // SAFETY: a system call with plain numbers; the child is ours and not waited for.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, child.0.id(), tid, libc::SIGUSR1) };
    assert_eq!(sent, 0);
    assert!(SignalMasks::has(child.masks().pending, Signal::USR1));
    assert_eq!(child.look().run, RunState::Running);
}

/// The thread that blocks a signal, and not everything, as one does that begins or ends.
fn child_thread(child: &Played, signal: Signal) -> u32 {
    let mut found = None;
    until("one thread blocks the signal", || {
        found = Threads::read(child.0.id()).list.into_iter().find(|t| {
            let blocked = Threads::of(vec![t.clone()]).masks().map_or(0, |m| m.blocked);
            SignalMasks::has(blocked, signal) && !SignalMasks::has(blocked, Signal::TERM)
        });
        found.is_some()
    });
    found.unwrap().tid
}

#[test]
fn a_thread_in_sigwait_shows_though_no_mask_does() {
    let child = Played::new("sigwait");
    let state = child.until("a thread is in sigwait, which opens what it waits for", |s| {
        s.masks
            .is_some_and(|m| m.waiting && !SignalMasks::has(m.blocked | m.caught, Signal::USR1))
    });
    assert!(state.masks.unwrap().handles(Signal::USR1));
}

#[test]
fn a_vfork_parent_is_in_uninterruptible_sleep() {
    let child = Played::new("vfork");
    let state = child.until("it is in state D", |s| {
        matches!(s.run, RunState::Uninterruptible { .. })
    });
    assert_eq!(
        state.run,
        RunState::Uninterruptible {
            syscall: Some("clone".into())
        }
    );
}

#[test]
fn whoever_connects_to_a_silent_peer_waits_on_it() {
    let child = Played::new("connect");
    let state = child.until("it waits", |s| matches!(s.run, RunState::WaitingOnPeer { .. }));
    let peer = format!("tcp:127.0.0.1:{}", child.1.unwrap());
    assert_eq!(state.run, RunState::WaitingOnPeer { peer });
}

#[test]
fn a_client_that_went_away_holds_no_server_up() {
    let child = Played::new("server");
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, child.1.unwrap())).unwrap();
    make_deaf(&client);
    client.write_all(b"?").unwrap();
    let pid = child.0.id();
    until("the answer is sent over and over", || {
        let known = Connections::read(pid, pid);
        tcp::socket_inodes(pid)
            .into_iter()
            .filter_map(|inode| known.unanswered(inode))
            .any(|c| !c.outgoing)
    });
    assert_eq!(child.look().run, RunState::Running);
}

#[test]
fn whoever_reads_from_a_peer_that_acknowledges_nothing_waits_on_it() {
    let child = Played::new("read");
    child.until("it waits", |s| matches!(s.run, RunState::WaitingOnPeer { .. }));
}

#[test]
fn an_ended_process_is_gone_and_so_is_a_reused_pid() {
    let mut child = Played::new("handler");
    let id = child.id();
    let other = ProcId {
        start_ticks: id.start_ticks + 1,
        ..id
    };
    assert_eq!(look(other).run, RunState::Gone);
    child.0.kill().unwrap();
    // A zombie until it is waited for.
    until("it is gone", || look(id).run == RunState::Gone);
    child.0.wait().unwrap();
    assert_eq!(
        look(id),
        ProcessState {
            process: id,
            run: RunState::Gone,
            masks: None,
            locks: Vec::new(),
        }
    );
}
