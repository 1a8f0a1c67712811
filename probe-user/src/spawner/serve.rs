//! The spawner's own side.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream as StdStream, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::UnixStream,
    select,
    task::JoinSet,
};

use super::{
    NAME,
    wire::{self, Request},
};
use crate::hooks::exec::{Group, Runner};

/// Programs that are run at the same time: more than hooks and services may want at once.
const AT_ONCE: usize = 256;

/// Serves the daemon at the other end of standard input until that ends.
///
/// # Errors
/// When standard input is no daemon.
pub fn serve() -> io::Result<()> {
    // A name of 15 characters is what the kernel keeps.
    _ = rustix::thread::set_name(&std::ffi::CString::new(NAME)?);
    outlive_signals()?;
    // Whoever started the daemon may have left something open; nothing else is.
    // SAFETY: no memory is involved, and nothing in this process has a descriptor above 2 yet. Kernels before 5.9 refuse.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let daemon = unsafe { OwnedFd::from_raw_fd(0) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name(NAME)
        .build()?;
    let result = runtime.block_on(listen(daemon));
    // What still runs was begun by a daemon that is gone: dropping ends it.
    drop(runtime);
    result
}

/// A service manager that stops the daemon signals every process of the unit, and a terminal its whole group. The daemon
/// says when to end. A handler, not "ignore": that would be inherited by what is run.
fn outlive_signals() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        // SAFETY: the handler does nothing, which is safe whenever it is called.
        unsafe { sigaction(signal, &handler) }?;
    }
    Ok(())
}

async fn listen(daemon: OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&daemon, true)?;
    // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, and it is dropped with the `AsyncFd`.
    let daemon =
        unsafe { AsyncFd::register_with_interest(daemon, Interest::READABLE) }.map_err(io::Error::from)?;
    let runners = Runners::default();
    let mut running = JoinSet::new();
    loop {
        let stream = select! {
            stream = next(&daemon) => stream?,
            Some(_) = running.join_next() => continue,
        };
        let Some(stream) = stream else { return Ok(()) };
        if running.len() >= AT_ONCE {
            // Whoever asked sees the end of the socket.
            continue;
        }
        let runners = runners.clone();
        running.spawn(async move {
            // The daemon that asked sees the end of the socket, and says so.
            _ = converse(stream, &runners).await;
        });
    }
}

/// The next conversation. `None`: the daemon has ended.
async fn next(daemon: &AsyncFd<OwnedFd>) -> io::Result<Option<UnixStream>> {
    loop {
        let mut ready = daemon.readable().await?;
        match ready.try_io(|fd| take(fd.get_ref().as_raw_fd()).map_err(io::Error::from)) {
            Ok(Ok(Taken::Stream(stream))) => {
                stream.set_nonblocking(true)?;
                return UnixStream::from_std(stream).map(Some);
            }
            Ok(Ok(Taken::Nothing)) => {}
            Ok(Ok(Taken::End)) => return Ok(None),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => {}
        }
    }
}

enum Taken {
    Stream(StdStream),
    Nothing,
    End,
}

fn take(fd: RawFd) -> Result<Taken, Errno> {
    let mut byte = [0];
    let mut bytes = [io::IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(fd, &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let [fd] = fds[..]
        {
            // SAFETY: the kernel has just opened it for us, and nobody else knows its number.
            return Ok(Taken::Stream(unsafe { StdStream::from_raw_fd(fd) }));
        }
    }
    Ok(match message.bytes {
        0 => Taken::End,
        _ => Taken::Nothing,
    })
}

/// Runners that have something to remember: what was killed and is still there.
#[derive(Debug, Clone, Default)]
struct Runners(Arc<Mutex<HashMap<u64, Runner>>>);

impl Runners {
    fn of(&self, id: u64) -> Runner {
        let mut runners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runners.entry(id).or_default().clone()
    }

    fn forget(&self, id: u64) {
        let mut runners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if runners.get(&id).is_some_and(|r| !r.is_stuck()) {
            runners.remove(&id);
        }
    }
}

async fn converse(mut stream: UnixStream, runners: &Runners) -> io::Result<()> {
    match wire::receive(&mut stream).await? {
        Request::Run { runner, run } => {
            let ours = runners.of(runner);
            let ran = select! {
                ran = ours.run_here(run) => ran,
                // Whoever asked has gone: what was dropped is ended.
                () = closed(&mut stream) => return Ok(()),
            };
            runners.forget(runner);
            wire::send(&mut stream, &ran).await
        }
        Request::Follow { argv } => follow(&mut stream, &argv).await,
    }
}

/// The daemon says nothing after its question, so whatever is read is the end.
async fn closed(stream: &mut UnixStream) {
    _ = stream.read_u8().await;
}

async fn follow(stream: &mut UnixStream, argv: &[String]) -> io::Result<()> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stream.as_fd().try_clone_to_owned()?)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let mut group = Group::of(child)?;
    group.watch()?;
    select! {
        () = group.ended() => {}
        () = closed(stream) => {}
    }
    // Dropped, it is killed and reaped.
    drop(group);
    Ok(())
}
