//! Forks, execs and the ways to end.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
    unistd::{ForkResult, Pid, fork, setsid},
};

use super::sockets::Sockets;

/// `None` in the child.
pub(super) fn fork_here() -> Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child may call anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Ends without destructors, so that nothing is cleaned up that was not asked for.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(code) }
}

/// Returns in the grandchild; the two processes above it exit 0.
pub(super) fn daemonize() -> Result<()> {
    if fork_here()?.is_some() {
        leave(0);
    }
    setsid()?;
    if fork_here()?.is_some() {
        leave(0);
    }
    Ok(())
}

/// Children that end at once, in this memory: copying it takes most of a fork's time.
pub(super) fn burst(n: u32) -> Result<()> {
    extern "C" fn child(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `_exit` only ends the process.
        unsafe { libc::_exit(0) }
    }
    let mut stack = vec![0_u128; 4096];
    for _ in 0..n {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child runs on a stack of its own, whose end is given and aligned, while this process waits
        // (CLONE_VFORK), and does nothing but end.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(stack.len());
            libc::clone(child, top.cast(), flags, std::ptr::null_mut())
        };
        if pid < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        nix::sys::wait::waitpid(Pid::from_raw(pid), None)?;
    }
    Ok(())
}

/// Does nothing until whoever drives the family is gone.
pub(super) fn idle() -> ! {
    let stdin = std::io::stdin();
    loop {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&stdin), PollFlags::empty())];
        // No events are asked for, so only the hang-up of the pipe is told; the lines are the parent's.
        if let Ok(n) = poll(&mut fds, PollTimeout::NONE)
            && n > 0
        {
            leave(0);
        }
    }
}

/// A grandchild in a session of its own whose parent has ended.
pub(super) fn fork_away(sockets: &mut Sockets) -> Result<Pid> {
    let (from, to) = nix::unistd::pipe()?;
    match fork_here()? {
        Some(child) => {
            let mut pid = [0; 4];
            drop(to);
            fs::File::from(from).read_exact(&mut pid)?;
            nix::sys::wait::waitpid(child, None)?;
            Ok(Pid::from_raw(i32::from_ne_bytes(pid)))
        }
        None => {
            setsid()?;
            if fork_here()?.is_some() {
                leave(0);
            }
            sockets.close_all();
            fs::File::from(to).write_all(&std::process::id().to_ne_bytes())?;
            idle()
        }
    }
}

/// A child that gets this signal when we die: it has asked for it when this returns.
pub(super) fn fork_bound(signal: Signal) -> Result<Pid> {
    let (from, to) = nix::unistd::pipe()?;
    match fork_here()? {
        Some(child) => {
            drop(to);
            fs::File::from(from)
                .read_exact(&mut [0])
                .context("the child has ended")?;
            Ok(child)
        }
        None => {
            die_with_parent(signal)?;
            fs::File::from(to).write_all(&[1])?;
            idle()
        }
    }
}

/// The process lives on in another thread.
pub(super) fn end_first_thread() -> ! {
    std::thread::spawn(|| idle());
    // SAFETY: ends this thread only; nothing on its stack is used by the other one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    leave(1)
}

pub(super) fn write_pid_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("{text}\n")).with_context(|| format!("write {}", path.display()))
}

/// Replaces this process by a new one of the same executable that keeps the listeners.
pub(super) fn exec(sockets: &Sockets, pid_file: Option<&Path>) -> Result<()> {
    let exe = fs::read_link("/proc/self/exe")?;
    let mut command = Command::new(exe);
    command.arg("serve");
    for item in sockets.bequeath()? {
        command.arg("--inherit").arg(item);
    }
    if let Some(path) = pid_file {
        command.arg("--pid-file").arg(path);
    }
    Err(command.exec()).context("exec")
}

/// Starts another program, which runs when this returns. One that reads its standard input sees the end of it when we end.
pub(super) fn fork_exec(program: &str, args: &[&str]) -> Result<u32> {
    let mut command = Command::new(program);
    command.args(args);
    // A pipe of its own: the lines on our standard input are for us.
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    std::mem::forget(child.stdin.take());
    Ok(child.id())
}

pub(super) fn die_with_parent(signal: Signal) -> Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(signal)?)
}

/// Waits for a child that neither ends nor executes anything: the kernel lets no signal but KILL end that.
pub(super) fn wait_for_vfork() -> ! {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(libc::CLONE_VFORK | libc::SIGCHLD),
            none,
            none,
            none,
            none,
        )
    };
    if child == 0 {
        let _ = die_with_parent(Signal::SIGKILL);
        loop {
            nix::unistd::pause();
        }
    }
    leave(1)
}

/// Changes the root directory, as daemons do that lock themselves in.
pub(super) fn chroot(dir: &Path) -> Result<()> {
    nix::unistd::chroot(dir).with_context(|| format!("chroot to {}", dir.display()))?;
    Ok(std::env::set_current_dir("/")?)
}
