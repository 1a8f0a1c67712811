//! Lives of processes and the signals that end them, caused on the running kernel as root.

mod kernel_support;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::ExitStatusExt as _,
        },
    },
    process::{Command, Stdio},
};

use kernel_support::{OwnExe, Reaped, Watch, identity, inode};
use probe_user::{
    clock,
    event::{Disposition, ExitStatus, ProcId, SignalResult, What},
    kernel::Wanted,
    signal::Signal,
};

#[test]
fn a_life_is_seen_from_exec_to_the_death_by_a_sender_that_is_gone() {
    let Some(mut watch) = Watch::load() else { return };
    let exe = OwnExe::copy("/bin/sleep", "life");
    watch.want_exe(&exe.path);
    let before = clock::now();
    let mut child = Reaped(Command::new(&exe.path).arg("1000").spawn().unwrap());
    let pid = child.0.id();
    let (at, process) = watch.expect("exec", |e| match &e.what {
        What::Exec { process } if process.id.pid == pid => Some((e.at, process.clone())),
        _ => None,
    });
    assert!(
        before < at && at < clock::now(),
        "the record carries the boot clock"
    );
    assert_eq!(process.id, identity(pid));
    assert_eq!(process.parent, Some(identity(std::process::id())));
    assert_eq!(process.exe.as_deref(), exe.path.to_str());
    assert_eq!(process.exe_id.unwrap().ino, inode(&exe.path));
    assert_eq!(process.argv, [exe.path.to_str().unwrap(), "1000"]);
    assert_eq!((process.comm.as_str(), process.uid), ("daemon", Some(0)));

    // The shell sends the signal itself, and has ended and been reaped before the record is read.
    let mut shell = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("kill -USR1 {pid}"))
        .spawn()
        .unwrap();
    let sender = shell.id();
    assert!(shell.wait().unwrap().success());
    let (sent, sent_at) = watch.expect("signal", |e| match &e.what {
        What::Signal(sent) if sent.target.id == process.id => Some((sent.clone(), e.at)),
        _ => None,
    });
    assert_eq!((sent.signal, sent.code), (Signal::USR1, 0));
    assert_eq!(
        (sent.result, sent.disposition),
        (SignalResult::Queued, Disposition::Default)
    );
    let actor = sent.actor.unwrap();
    assert_eq!((actor.id.pid, actor.uid), (sender, Some(0)));
    assert_eq!(
        actor.exe.as_deref(),
        fs::canonicalize("/bin/sh").unwrap().to_str()
    );
    assert_eq!(actor.parent, Some(identity(std::process::id())));

    let (status, listeners) = watch.exit_of(pid);
    assert_eq!(
        status,
        ExitStatus::Signal {
            signal: Signal::USR1,
            core: false
        }
    );
    assert_eq!(listeners, Some(vec![]));
    assert_eq!(child.0.wait().unwrap().signal(), Some(libc::SIGUSR1));

    let past = watch.kernel.past(pid).unwrap();
    assert_eq!(
        (past.process.id, past.process.comm.as_str()),
        (process.id, "daemon")
    );
    assert_eq!(past.status, status);
    assert!(sent_at < past.ended);
    let past = watch.kernel.past(sender).unwrap();
    assert_eq!((past.process.id, past.status), (actor.id, ExitStatus::Code(0)));
    assert_eq!(watch.kernel.lost(), []);
}

#[test]
fn children_inherit_and_an_exit_tells_which_listeners_were_still_open() {
    let Some(mut watch) = Watch::load() else { return };
    let own = OwnExe::copy("/bin/true", "exit");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(own.directory.join("socket")).unwrap();
    let connection = UnixStream::connect(own.directory.join("socket")).unwrap();
    let (accepted, _) = unix.accept().unwrap();
    let number = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
    let held = [tcp.as_fd(), udp.as_fd(), unix.as_fd()].map(number);
    let connections = [connection.as_fd(), accepted.as_fd()].map(number);
    // Without close-on-exec, so that the shell gets them.
    let inherited: Vec<OwnedFd> = [
        tcp.as_fd(),
        udp.as_fd(),
        unix.as_fd(),
        connection.as_fd(),
        accepted.as_fd(),
    ]
    .into_iter()
    .map(|fd| nix::unistd::dup(fd).unwrap())
    .collect();
    let script = format!("read line; {}; exit 7", own.path.display());
    let mut shell = Reaped(
        Command::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    drop(inherited);
    let pid = shell.0.id();
    watch.supervise(pid);
    writeln!(shell.0.stdin.as_mut().unwrap()).unwrap();

    let child = watch.expect("fork", |e| match &e.what {
        What::Fork { child } => Some(child.clone()),
        _ => None,
    });
    assert_eq!(child.parent, Some(identity(pid)));
    let argv = watch.expect("exec of the child", |e| match &e.what {
        What::Exec { process } if process.id == child.id => Some(process.argv.clone()),
        _ => None,
    });
    assert_eq!(argv, [own.path.to_str().unwrap()]);
    assert_eq!(watch.exit_of(child.id.pid).0, ExitStatus::Code(0));
    let (status, listeners) = watch.exit_of(pid);
    assert_eq!(status, ExitStatus::Code(7));
    let listeners = listeners.unwrap();
    assert!(
        held.iter().all(|inode| listeners.contains(inode)),
        "{held:?} in {listeners:?}"
    );
    assert!(
        !connections.iter().any(|inode| listeners.contains(inode)),
        "a connection is no listener"
    );
}

#[test]
fn a_child_that_is_killed_at_once_is_not_missed() {
    const CHILDREN: usize = 200;
    let Some(mut watch) = Watch::load() else { return };
    // The shell waits for a line until it is supervised.
    let script = format!(
        "read line; i=0; while [ $i -lt {CHILDREN} ]; do while :; do :; done & kill -USR1 $!; i=$((i+1)); done; wait"
    );
    let mut shell = Reaped(
        Command::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let pid = shell.0.id();
    watch.supervise(pid);
    writeln!(shell.0.stdin.as_mut().unwrap()).unwrap();
    watch.exit_of(pid);
    let targets: BTreeSet<ProcId> = watch
        .seen
        .iter()
        .filter_map(|e| match &e.what {
            What::Signal(sent) if sent.signal == Signal::USR1 => {
                assert_eq!(sent.actor.as_ref().map(|a| a.id.pid), Some(pid));
                Some(sent.target.id)
            }
            _ => None,
        })
        .collect();
    let ends: BTreeSet<ProcId> = watch
        .seen
        .iter()
        .filter_map(|e| match &e.what {
            What::Exit {
                process,
                status: ExitStatus::Signal {
                    signal: Signal::USR1, ..
                },
                ..
            } => Some(process.id),
            _ => None,
        })
        .collect();
    assert_eq!(targets.len(), CHILDREN);
    assert_eq!(targets, ends);
    let noise = watch
        .seen
        .iter()
        .find(|e| matches!(&e.what, What::Signal(s) if s.signal == Signal::CHLD));
    assert_eq!(noise, None, "the ends of children are told by their exits");
    assert_eq!(watch.kernel.lost(), []);
}

#[test]
fn what_the_kernel_sends_has_no_actor() {
    let Some(mut watch) = Watch::load() else { return };
    let exe = OwnExe::copy("/bin/sh", "pipe");
    watch.want_exe(&exe.path);
    let mut child = Reaped(
        Command::new(&exe.path)
            .args(["-c", "trap - PIPE; read line; while :; do echo x; done"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let pid = child.0.id();
    // The reader of the pipe goes: the kernel sends PIPE, which ends the writer by default.
    drop(child.0.stdout.take());
    writeln!(child.0.stdin.as_mut().unwrap()).unwrap();
    let sent = watch.expect("signal", |e| match &e.what {
        What::Signal(sent) if sent.target.id.pid == pid => Some(sent.clone()),
        _ => None,
    });
    assert_eq!((sent.signal, sent.actor), (Signal(libc::SIGPIPE), None));
    assert_eq!(
        watch.exit_of(pid).0,
        ExitStatus::Signal {
            signal: Signal(libc::SIGPIPE),
            core: false
        }
    );
}

#[test]
fn dispositions_are_those_of_the_moment() {
    let Some(mut watch) = Watch::load() else { return };
    let exe = OwnExe::copy("/bin/sh", "disposition");
    watch.want_exe(&exe.path);
    let mut child = Reaped(
        Command::new(&exe.path)
            .args([
                "-c",
                "trap '' HUP; trap : USR2; echo ready; while read line; do :; done; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut ready = [0; 6];
    child.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = child.0.id();
    for (signal, disposition, results) in [
        (Signal::HUP, Disposition::Ignored, [SignalResult::Ignored; 2]),
        (
            Signal(libc::SIGUSR2),
            Disposition::Caught,
            [SignalResult::Queued; 2],
        ),
        (Signal::STOP, Disposition::Default, [SignalResult::Queued; 2]),
        // Whether it had stopped before the CONT came is a matter of moments.
        (
            Signal::CONT,
            Disposition::Default,
            [SignalResult::Ignored, SignalResult::Queued],
        ),
        (Signal::KILL, Disposition::Default, [SignalResult::Queued; 2]),
    ] {
        // SAFETY: a signal to our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(pid as i32, signal.0) }, 0);
        let sent = watch.expect(&signal.to_string(), |e| match &e.what {
            What::Signal(sent) if sent.target.id.pid == pid && sent.signal == signal => Some(sent.clone()),
            _ => None,
        });
        assert_eq!(sent.disposition, disposition, "{signal}");
        assert!(results.contains(&sent.result), "{signal}: {:?}", sent.result);
        assert_eq!(sent.actor.unwrap().id, identity(std::process::id()));
    }
    assert_eq!(
        watch.exit_of(pid).0,
        ExitStatus::Signal {
            signal: Signal::KILL,
            core: false
        }
    );
}

#[test]
fn a_declared_unit_is_recognised_at_exec() {
    let Some(mut watch) = Watch::load() else { return };
    let Some(root) = watch.kernel.facts().cgroup2.clone() else {
        eprintln!("skipped: cgroup v2 is not mounted");
        return;
    };
    let unit = format!("probe-test-{}.service", std::process::id());
    let own = root.join(&unit);
    let inner = own.join("inner");
    fs::create_dir_all(&inner).unwrap();
    watch
        .kernel
        .want(&Wanted {
            units: BTreeSet::from([unit.clone()]),
            ..Wanted::default()
        })
        .unwrap();
    for cgroup in [&own, &inner] {
        let script = format!("echo $$ > {}/cgroup.procs && exec sleep 0.01", cgroup.display());
        let mut child = Command::new("/bin/sh").arg("-c").arg(script).spawn().unwrap();
        let pid = child.id();
        let exec = watch.expect("exec", |e| match &e.what {
            What::Exec { process } if process.id.pid == pid => Some(process.clone()),
            _ => None,
        });
        assert_eq!(exec.unit.as_ref(), Some(&unit));
        assert_eq!(exec.argv, ["sleep", "0.01"]);
        assert_eq!(watch.exit_of(pid).0, ExitStatus::Code(0));
        child.wait().unwrap();
    }
    fs::remove_dir(&inner).unwrap();
    fs::remove_dir(&own).unwrap();
}

#[test]
fn a_fault_tells_its_address() {
    let Some(mut watch) = Watch::load() else { return };
    let exe = OwnExe::copy("/bin/sh", "fault");
    watch.want_exe(&exe.path);
    // A function that calls itself for ever runs off the end of its stack.
    let mut child = Reaped(
        Command::new(&exe.path)
            .args(["-c", "ulimit -c 0; ulimit -s 128; f() { f; }; f"])
            .spawn()
            .unwrap(),
    );
    let pid = child.0.id();
    let sent = watch.expect("signal", |e| match &e.what {
        What::Signal(sent) if sent.target.id.pid == pid => Some(sent.clone()),
        _ => None,
    });
    assert_eq!((sent.signal, &sent.actor), (Signal(libc::SIGSEGV), &None));
    assert_eq!(sent.disposition, Disposition::Default);
    assert!(
        sent.code > 0 && sent.fault_addr.is_some_and(|a| a > 4096),
        "{sent:?}"
    );
    let (status, _) = watch.exit_of(pid);
    assert!(
        matches!(
            status,
            ExitStatus::Signal {
                signal: Signal(libc::SIGSEGV),
                ..
            }
        ),
        "{status:?}"
    );
    child.0.wait().unwrap();
}
