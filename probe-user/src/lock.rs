//! One at a time: a lock on a file that names who holds it.
//!
//! The kernel frees a flock when its holder ends, however it ends, so no lock is ever stale, and the name in the file is
//! only what is told to those who wait.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use crate::clock;

/// How often a held lock is tried again: at first, and after a while.
const TRY_FIRST: Duration = Duration::from_millis(2);
const TRY_AT_LAST: Duration = Duration::from_millis(50);
/// Most bytes of the holder's name that are read.
const NAME_BYTES: u64 = 1024;

/// Who holds a lock, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// `reclaim` or `run`.
    pub command: String,
    /// When it took the lock: nanoseconds on the boot clock.
    pub since_boot_ns: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "probe {} ({})", self.command, self.pid)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is held by {holder}, still after {}", .path.display(), humantime::format_duration(*.waited))]
    Held {
        path: PathBuf,
        holder: String,
        waited: Duration,
    },
    #[error("the directory {} for locks can't be made: {source}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{} can't be locked: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no lock file: {problem}", .path.display())]
    NoLock { path: PathBuf, problem: &'static str },
}

/// Held until it is dropped, or until the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock `name` for `command` (`reclaim`, `run`) in `directory`, which is made where it is missing. Waits at
    /// most so long for another holder.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder.
    pub fn take(directory: &Path, name: &str, command: &str, within: Duration) -> Result<Self, LockError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| LockError::Directory {
                path: directory.to_owned(),
                source,
            })?;
        // A name is one component, whatever is in it.
        let name = name.replace('%', "%25").replace('/', "%2f");
        let path = directory.join(format!("{name}.{command}.lock"));
        let fail = |source: io::Error| LockError::File {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        let no_lock = |problem| LockError::NoLock {
            path: path.clone(),
            problem,
        };
        if !metadata.is_file() {
            return Err(no_lock("it is not a regular file"));
        }
        if metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(no_lock("it belongs to another user"));
        }
        let until = clock::now() + within;
        let mut pause = TRY_FIRST;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::Error(e)) => return Err(fail(e)),
                Err(fs::TryLockError::WouldBlock) => {
                    let left = until.since(clock::now());
                    if left.is_zero() {
                        return Err(LockError::Held {
                            holder: holder(&mut file)
                                .map_or("a process that has not said its name".into(), |h| h.to_string()),
                            path,
                            waited: within,
                        });
                    }
                    // flock(2) has no time limit of its own.
                    std::thread::sleep(pause.min(left));
                    pause = (pause * 2).min(TRY_AT_LAST);
                }
            }
        }
        let me = Holder {
            pid: std::process::id(),
            command: command.to_owned(),
            since_boot_ns: clock::now().0,
        };
        let line = serde_json::to_string(&me).map_err(|e| fail(e.into()))?;
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        writeln!(file, "{line}").map_err(fail)?;
        Ok(Self { file, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: removing it would let two processes lock two files of one name.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(NAME_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The configured state directory; where that can't be written, one of the user's own (`$XDG_STATE_HOME/probe`, else
/// `~/.local/state/probe`).
pub fn state_dir(configured: &Path) -> PathBuf {
    let exists_or_can_be_made = configured
        .ancestors()
        .find(|d| d.exists())
        .is_some_and(|d| access(d, AccessFlags::W_OK | AccessFlags::X_OK).is_ok());
    if exists_or_can_be_made {
        return configured.to_owned();
    }
    let own = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))
        .filter(|p| p.is_absolute());
    own.map_or_else(|| configured.to_owned(), |d| d.join("probe"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sources::testing::TempDir;

    #[test]
    fn a_second_one_waits_and_learns_who_holds_it() {
        let dir = TempDir::new("lock-file");
        let at = dir.path().join("locks");
        let first = Lock::take(&at, "a", "run", Duration::ZERO).unwrap();
        let mode = fs::metadata(first.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Lock::take(&at, "a", "run", Duration::from_millis(20)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("probe run ({})", std::process::id())),
            "{text}"
        );
        // Another service, another purpose.
        Lock::take(&at, "b", "run", Duration::ZERO).unwrap();
        Lock::take(&at, "a", "reclaim", Duration::ZERO).unwrap();
        let waits = std::thread::spawn({
            let at = at.clone();
            move || Lock::take(&at, "a", "run", Duration::from_secs(10)).map(drop)
        });
        drop(first);
        waits.join().unwrap().unwrap();
    }

    #[test]
    fn a_planted_lock_file_is_none() {
        let dir = TempDir::new("lock-planted");
        fs::write(dir.path().join("target"), "keep").unwrap();
        std::os::unix::fs::symlink("target", dir.path().join("a.run.lock")).unwrap();
        assert!(matches!(
            Lock::take(dir.path(), "a", "run", Duration::ZERO),
            Err(LockError::File { .. })
        ));
        assert_eq!(fs::read_to_string(dir.path().join("target")).unwrap(), "keep");
        fs::create_dir(dir.path().join("b.run.lock")).unwrap();
        assert!(Lock::take(dir.path(), "b", "run", Duration::ZERO).is_err());
    }
}
