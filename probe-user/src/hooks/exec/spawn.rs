//! Starting the program.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, Stdio},
};

use super::{Rest, Run, group::Group, user::Identity};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Our ends.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) input: OwnedFd,
    /// Of both outputs.
    pub(super) output: OwnedFd,
}

/// Starts it. May wait: for the name service, and for the file system that the program lies on.
pub(super) fn spawn(run: &Run) -> Result<(Group, Option<Pipes>), String> {
    let (program, arguments) = run.argv.split_first().ok_or("no program is named")?;
    let user = run.user.as_deref().map(Identity::of).transpose()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", user.as_ref().map_or("/", |u| &u.home))
        .envs(run.environment.iter().map(|(k, v)| (k, v)))
        .current_dir("/")
        .process_group(0);
    if let Some(user) = &user {
        command.env("USER", &user.name).env("LOGNAME", &user.name);
    }
    let cannot = |e: io::Error| match &user {
        Some(user) => format!("cannot run {program} as {}: {e}", user.name),
        None => format!("cannot run {program}: {e}"),
    };
    let pipes = match run.rest {
        Rest::End => Some(pipes(&mut command).map_err(cannot)?),
        Rest::Leave => {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            None
        }
    };
    let become_user = user.clone();
    let prepare = move || {
        // Everything that probe opens closes itself at exec; this is for what a library did not open so.
        // SAFETY: no memory is involved. Kernels before 5.11 refuse the flag, and nothing more is lost.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        become_user.as_ref().map_or(Ok(()), Identity::assume)
    };
    // SAFETY: `prepare` makes system calls only: it takes no lock and does not allocate.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn().map_err(cannot)?;
    // The command holds the child's ends of the pipes.
    drop(command);
    let group = Group::of(child).map_err(cannot)?;
    Ok((group, pipes))
}

fn pipes(command: &mut Command) -> io::Result<Pipes> {
    let (to_read, input) = io::pipe()?;
    let (output, to_write) = io::pipe()?;
    command
        .stdin(to_read)
        .stdout(to_write.try_clone()?)
        .stderr(to_write);
    Ok(Pipes {
        input: input.into(),
        output: output.into(),
    })
}
