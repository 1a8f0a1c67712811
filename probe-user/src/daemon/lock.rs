//! One daemon for each socket: a lock that lives as long as the daemon does, and names it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use crate::{clock::Nanos, event::ProcId, sources::process};

/// Why the daemon may not run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another probe daemon runs already: process {pid} holds {}; stop it first, or name another `socket` in [probe]",
        path.display()
    )]
    Taken { pid: u32, path: PathBuf },
    #[error("another process holds {}, and has not said which it is", path.display())]
    TakenByUnknown { path: PathBuf },
    #[error("the lock {} cannot be opened: {error}", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error("the lock {} is {found}; expected a regular file of this user", path.display())]
    Foreign { path: PathBuf, found: String },
}

/// Held until it is dropped. The file stays: what is removed could be locked twice.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock that lies at `path`, for the process `me` which began at `since`.
    ///
    /// # Errors
    /// If somebody has it, and who.
    pub(super) fn take(path: &Path, me: ProcId, since: Nanos) -> Result<Self, LockError> {
        let open = |error| LockError::Open {
            path: path.to_owned(),
            error,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        let uid = nix::unistd::geteuid().as_raw();
        if !metadata.is_file() || metadata.uid() != uid || metadata.nlink() != 1 {
            let found = match metadata.is_file() {
                true => format!(
                    "a file of user {} with {} names",
                    metadata.uid(),
                    metadata.nlink()
                ),
                false => "no regular file".to_owned(),
            };
            return Err(LockError::Foreign {
                path: path.to_owned(),
                found,
            });
        }
        // SAFETY: the descriptor is open for as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } < 0 {
            let e = io::Error::last_os_error();
            if e.raw_os_error() != Some(libc::EWOULDBLOCK) {
                return Err(open(e));
            }
            return Err(match holder(&mut file) {
                Some(pid) => LockError::Taken {
                    pid,
                    path: path.to_owned(),
                },
                None => LockError::TakenByUnknown {
                    path: path.to_owned(),
                },
            });
        }
        let text = format!("{} {} {}\n", me.pid, me.start_ticks, since.0);
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(open)?;
        Ok(Self { _file: file })
    }
}

/// Who the file names, if that process still lives.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let start_ticks = words.next()?.parse().ok()?;
    (process::identity(pid) == Some(ProcId { pid, start_ticks })).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sources::testing::TempDir;

    fn me() -> ProcId {
        process::identity(std::process::id()).unwrap()
    }

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let dir = TempDir::new("daemon-lock");
        let path = dir.path().join("probe.lock");
        let first = Lock::take(&path, me(), Nanos(1)).unwrap();
        match Lock::take(&path, me(), Nanos(2)) {
            Err(LockError::Taken { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        drop(Lock::take(&path, me(), Nanos(3)).unwrap());
    }

    #[test]
    fn a_name_that_was_left_behind_is_not_believed() {
        let dir = TempDir::new("daemon-lock");
        let path = dir.path().join("probe.lock");
        let somebody = ProcId {
            pid: std::process::id(),
            start_ticks: 1,
        };
        let _first = Lock::take(&path, somebody, Nanos(1)).unwrap();
        assert!(matches!(
            Lock::take(&path, me(), Nanos(2)),
            Err(LockError::TakenByUnknown { .. })
        ));
    }

    #[test]
    fn planted_files_are_refused() {
        let dir = TempDir::new("daemon-lock");
        let target = dir.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(matches!(
            Lock::take(&link, me(), Nanos(1)),
            Err(LockError::Open { .. })
        ));
        let hard = dir.path().join("hard");
        std::fs::hard_link(&target, &hard).unwrap();
        assert!(matches!(
            Lock::take(&hard, me(), Nanos(1)),
            Err(LockError::Foreign { .. })
        ));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }
}
