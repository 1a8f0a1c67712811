//! The spawner: a small process beside the daemon that runs programs for it: hooks, restarts, `journalctl`.
//!
//! The daemon starts it first of all, then closes its sandbox (see [`crate::daemon::sandbox`]), in which nothing can be
//! executed any more. Both talk over a socket pair. For each program the daemon hands over one end of another pair; what is
//! wanted and what came of it passes there, and closing it ends the program. The end of the first pair is the end of the
//! other process: the spawner then ends whatever it runs, and itself.
//!
//! It is this same executable, started anew: nothing that the daemon has opened, mapped or read is in it.

mod serve;
mod wire;

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use tokio::io::{Interest, unix::AsyncFd};

pub use self::serve::serve;
use self::wire::Request;
use crate::hooks::exec::{End, Ran, Run};

/// The name under which the executable is this process instead of the command line.
pub const NAME: &str = "probe-spawner";
/// How long it may take to start a program and to end one, beyond the program's own limit.
const MARGIN: Duration = Duration::from_secs(15);

/// Where programs are run, once it was started: a sandbox is a whole process's, so this is too.
static CURRENT: OnceLock<Ours> = OnceLock::new();

/// Our end of the pair.
#[derive(Debug)]
struct Ours(OwnedFd);

/// The spawner, running.
#[derive(Debug)]
pub struct Spawner {
    child: Child,
    hears: OwnedFd,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    #[error("the spawner, which runs hooks and restarts, cannot be started: {0}")]
    Start(#[from] io::Error),
    #[error("this process has a spawner already")]
    Second,
}

/// Starts it. From here on every program of this process is run by it.
///
/// # Errors
/// When the kernel gives no more processes or descriptors.
pub fn start() -> Result<Spawner, SpawnerError> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(io::Error::from)?;
    let child = Command::new("/proc/self/exe")
        .arg0(NAME)
        // Neither the service manager's sockets nor its words are for it.
        .env_clear()
        .current_dir("/")
        .stdin(theirs)
        .stdout(Stdio::null())
        .spawn()?;
    let hears = ours.try_clone()?;
    CURRENT.set(Ours(ours)).map_err(|_| SpawnerError::Second)?;
    Ok(Spawner { child, hears })
}

impl Spawner {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns once it has ended, with how: it never does by itself. To be called in a tokio runtime.
    pub async fn ended(&mut self) -> String {
        let watch = |fd: OwnedFd| {
            // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, and it is dropped with the `AsyncFd`.
            unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
        };
        match self.hears.try_clone().and_then(watch) {
            // It says nothing on this socket: what can be read is its end.
            Ok(fd) => _ = fd.readable().await,
            Err(e) => {
                tracing::warn!("whether the spawner lives can't be known: {e}");
                std::future::pending::<()>().await;
            }
        }
        // What has closed its socket ends now, or hangs: then it is of no use either.
        _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => how(status),
            Err(e) => e.to_string(),
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by {}", crate::signal::Signal(signal)),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => status.to_string(),
    }
}

/// Whether programs are run by a spawner.
pub(crate) fn is_there() -> bool {
    CURRENT.get().is_some()
}

/// Has the spawner run a program to its end, or the end of its time. When this is dropped before that, the program is ended.
pub(crate) async fn run(runner: u64, run: Run) -> Ran {
    let within = run.limit + MARGIN;
    ask(conversation(), runner, run, within).await
}

/// A spawner that hangs answers nothing: whoever waits for a program goes on.
async fn ask(conversation: io::Result<UnixStream>, runner: u64, run: Run, within: Duration) -> Ran {
    let limit = run.limit;
    let ran = async {
        let mut stream = tokio::net::UnixStream::from_std(conversation?)?;
        wire::send(&mut stream, &Request::Run { runner, run }).await?;
        wire::receive(&mut stream).await
    };
    let end = match tokio::time::timeout(within, ran).await {
        Ok(Ok(ran)) => return ran,
        Ok(Err(e)) => End::NotStarted(format!("the spawner does not run it: {e}")),
        Err(_) => End::TimedOut {
            limit,
            unkillable: true,
        },
    };
    Ran {
        end,
        output: String::new(),
    }
}

/// Has the spawner run a program for as long as the returned socket is open. What it writes is read there, without waiting.
///
/// # Errors
/// When the spawner takes no more.
pub(crate) fn follow(argv: Vec<String>) -> io::Result<UnixStream> {
    let mut stream = conversation()?;
    stream.write_all(&wire::framed(&Request::Follow { argv })?)?;
    Ok(stream)
}

/// A pair of which the spawner has got the other end. Ours does not wait.
fn conversation() -> io::Result<UnixStream> {
    let Some(Ours(spawner)) = CURRENT.get() else {
        return Err(io::Error::other("there is none"));
    };
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let rights = [theirs.as_raw_fd()];
    sendmsg::<()>(
        spawner.as_raw_fd(),
        &[io::IoSlice::new(b"+")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::exec::Rest;

    #[tokio::test]
    async fn a_spawner_that_answers_nothing_is_not_waited_for() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let run = Run {
            argv: vec!["true".into()],
            environment: Vec::new(),
            user: None,
            input: Vec::new(),
            limit: Duration::from_millis(100),
            rest: Rest::End,
        };
        let within = Duration::from_millis(200);
        let ran = tokio::time::timeout(Duration::from_secs(10), ask(Ok(ours), 1, run.clone(), within)).await;
        let timed_out = End::TimedOut {
            limit: run.limit,
            unkillable: true,
        };
        assert_eq!(ran.expect("an end").end, timed_out);

        let gone = Err(io::Error::from(io::ErrorKind::BrokenPipe));
        let end = ask(gone, 1, run, within).await.end;
        assert_eq!(
            end,
            End::NotStarted("the spawner does not run it: broken pipe".into())
        );
    }
}
