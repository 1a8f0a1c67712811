//! The directory of the history and the files in it. Only ours are taken: no link is followed, nothing that somebody
//! else could have put there is opened.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, renameat, statat,
        unlinkat,
    },
    io::Errno,
};

use super::StoreError;

pub(super) const DATABASE: &str = "probe.db";
/// What SQLite puts beside a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
const SET_ASIDE: &str = "probe.db.corrupt-";
/// Databases that were set aside and are kept, the newest ones.
const SET_ASIDE_KEPT: usize = 2;
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// The open directory.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    /// Its path without any link in it.
    path: PathBuf,
}

impl Place {
    /// Opens the directory, or makes it; what it lies in must exist.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |e: Errno| files(dir, e);
        let made = match mkdirat(CWD, dir, DIRECTORY_MODE) {
            Ok(()) => true,
            // A read-only file system may say that it is read-only rather than that the directory exists.
            Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS | Errno::PERM) => false,
            Err(e) => return Err(failed(e)),
        };
        let place = Self::open_existing(dir)?;
        if made {
            // Whatever the file mode creation mask is.
            fchmod(&place.dir, DIRECTORY_MODE).map_err(failed)?;
        }
        Ok(place)
    }

    pub(super) fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        let failed = |e: Errno| files(dir, e);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(CWD, dir, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(foreign(dir, "no directory")),
            Err(e) => return Err(failed(e)),
        };
        let stat = fstat(&fd).map_err(failed)?;
        if !is_own(&stat) {
            return Err(foreign(dir, "somebody else's"));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(foreign(dir, "a directory that others may write to"));
        }
        let path =
            fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_else(|_| dir.to_owned());
        Ok(Self { dir: fd, path })
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Makes sure that what is there are files of ours.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for suffix in SUFFIXES {
            let name = format!("{DATABASE}{suffix}");
            match statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.check_file(&name, &stat)?,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(self.failed(&name, e)),
            }
        }
        Ok(())
    }

    /// Makes an empty database if there is none: SQLite gives what it puts beside it the same mode.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        self.check()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&self.dir, DATABASE, flags, FILE_MODE) {
            Ok(fd) => fd,
            Err(Errno::LOOP) => return Err(foreign(&self.database(), "a symbolic link")),
            // SQLite opens it for reading.
            Err(Errno::ROFS) => return Ok(()),
            Err(e) => return Err(self.failed(DATABASE, e)),
        };
        let stat = fstat(&fd).map_err(|e| self.failed(DATABASE, e))?;
        self.check_file(DATABASE, &stat)?;
        if stat.st_mode & 0o137 != 0 {
            fchmod(&fd, FILE_MODE).map_err(|e| self.failed(DATABASE, e))?;
        }
        Ok(())
    }

    fn check_file(&self, name: &str, stat: &Stat) -> Result<(), StoreError> {
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if !is_own(stat) => "somebody else's",
            FileType::RegularFile if stat.st_nlink != 1 => "a file with several names",
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => "a symbolic link",
            _ => "no regular file",
        };
        Err(foreign(&self.path.join(name), found))
    }

    /// Whether the database is there, whole in its one file: nothing of it stands in a write-ahead log.
    pub(super) fn is_settled(&self) -> bool {
        let size = |name: &str| statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| s.st_size);
        size(DATABASE).is_ok_and(|n| n > 0) && size(&format!("{DATABASE}-wal")).map_or(true, |n| n == 0)
    }

    /// Gives the database another name, which tells why and when, and forgets older ones that were set aside.
    ///
    /// Returns that name.
    pub(super) fn set_aside(&self, stamp: &str) -> Result<PathBuf, StoreError> {
        let aside = format!("{SET_ASIDE}{stamp}");
        for suffix in SUFFIXES {
            let (from, to) = (format!("{DATABASE}{suffix}"), format!("{aside}{suffix}"));
            match renameat(&self.dir, &from, &self.dir, &to) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(self.failed(&from, e)),
            }
        }
        self.forget_old();
        Ok(self.path.join(aside))
    }

    fn forget_old(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        let mut aside: Vec<String> = names.filter(|n| n.starts_with(SET_ASIDE)).collect();
        aside.sort_unstable();
        let mut stamps: Vec<String> = aside
            .iter()
            .filter(|n| !n.ends_with("-wal") && !n.ends_with("-shm"))
            .cloned()
            .collect();
        stamps.truncate(stamps.len().saturating_sub(SET_ASIDE_KEPT));
        for name in aside.iter().filter(|n| stamps.iter().any(|s| n.starts_with(s))) {
            if let Err(e) = unlinkat(&self.dir, name, AtFlags::empty()) {
                tracing::warn!("{} stays: {e}", self.path.join(name).display());
            }
        }
    }

    fn failed(&self, name: &str, e: Errno) -> StoreError {
        files(&self.path.join(name), e)
    }
}

fn files(path: &Path, e: Errno) -> StoreError {
    StoreError::Files {
        path: path.to_owned(),
        source: io::Error::from(e),
    }
}

fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn foreign(path: &Path, found: &'static str) -> StoreError {
    StoreError::Foreign {
        path: path.to_owned(),
        found,
    }
}
