//! Starting a child that does nothing before its identity is written down.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    fcntl::OFlag,
    sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, pthread_sigmask},
    unistd::{ForkResult, dup2_stderr, dup2_stdout, fork, pipe2},
};

use crate::tree::{Handle, OpenError};

/// What a child ends with that was never let go.
const NEVER_STARTED: i32 = 125;

/// What is started, and how.
#[derive(Debug)]
pub struct Plan<'a> {
    pub argv: &'a [OsString],
    pub directory: Option<&'a Path>,
    /// Where it writes its output itself. `None`: where ours goes.
    pub output: Option<&'a File>,
    /// Variables that are set, or removed.
    pub environment: Vec<(&'static str, Option<OsString>)>,
    /// The signal mask that it starts with.
    pub mask: SigSet,
    /// What it gets when we end.
    pub on_our_end: Option<NixSignal>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("no command was given")]
    Empty,
    #[error("no process could be made: {0}")]
    Fork(io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("it ended before it could be looked at")]
    Vanished,
    #[error("cannot run {}: {source}", .program.display())]
    Exec { program: PathBuf, source: io::Error },
    #[error("its identity could not be kept: {0}")]
    Keep(String),
}

/// Starts a child. `keep` is told who it is before it becomes the command; where that fails, or this process dies before
/// it is done, the child ends without having run anything.
///
/// This process must have one thread only: the child may allocate.
///
/// # Errors
/// [`SpawnError::Exec`] when the command can't be run.
pub fn spawn(
    plan: &Plan<'_>,
    keep: &mut dyn FnMut(&Handle) -> Result<(), String>,
) -> Result<Handle, SpawnError> {
    let Some(program) = plan.argv.first() else {
        return Err(SpawnError::Empty);
    };
    let pipes = || pipe2(OFlag::O_CLOEXEC).map_err(|e| SpawnError::Fork(e.into()));
    let ((wait, go), (failed, fail)) = (pipes()?, pipes()?);
    let parent = nix::unistd::getpid();
    // SAFETY: there is one thread, so no lock is held by another one in the child's copy.
    match unsafe { fork() }.map_err(|e| SpawnError::Fork(e.into()))? {
        ForkResult::Child => {
            drop((go, failed));
            let error = become_command(plan, program, wait, parent);
            let code = error.raw_os_error().unwrap_or(libc::EIO);
            let _ = File::from(fail).write_all(&code.to_ne_bytes());
            // SAFETY: ends this process at once, without running what belongs to the parent.
            unsafe { libc::_exit(NEVER_STARTED) }
        }
        ForkResult::Parent { child } => {
            drop((wait, fail));
            // Not waited for yet, so the pid is the child's.
            let handle =
                Handle::open(u32::try_from(child.as_raw()).unwrap_or(0))?.ok_or(SpawnError::Vanished)?;
            keep(&handle).map_err(SpawnError::Keep)?;
            let let_go = File::from(go).write_all(b"!");
            let mut code = [0; 4];
            match (let_go, File::from(failed).read_exact(&mut code)) {
                // It has been closed by the exec.
                (_, Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(handle),
                (_, Ok(())) => Err(SpawnError::Exec {
                    program: program.into(),
                    source: io::Error::from_raw_os_error(i32::from_ne_bytes(code)),
                }),
                (Err(e), _) | (_, Err(e)) => Err(SpawnError::Fork(e)),
            }
        }
    }
}

/// In the child. Returns only why it could not.
fn become_command(plan: &Plan<'_>, program: &OsStr, wait: OwnedFd, parent: nix::unistd::Pid) -> io::Error {
    if let Some(signal) = plan.on_our_end {
        let _ = nix::sys::prctl::set_pdeathsig(signal);
        // It may have ended before that was set.
        if nix::unistd::getppid() != parent {
            // SAFETY: as above.
            unsafe { libc::_exit(NEVER_STARTED) }
        }
    }
    // Nothing comes when the parent has died.
    if File::from(wait).read_exact(&mut [0]).is_err() {
        // SAFETY: as above.
        unsafe { libc::_exit(NEVER_STARTED) }
    }
    if let Some(output) = plan.output {
        let both = dup2_stdout(output.as_fd()).and_then(|()| dup2_stderr(output.as_fd()));
        if let Err(e) = both {
            return e.into();
        }
    }
    let mut command = Command::new(program);
    command.args(plan.argv.iter().skip(1));
    if let Some(directory) = plan.directory {
        command.current_dir(directory);
    }
    for (name, value) in &plan.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mask = plan.mask;
    // SAFETY: sigprocmask is async-signal-safe, and the closure touches nothing else.
    unsafe {
        command.pre_exec(move || Ok(pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?));
    }
    command.exec()
}
