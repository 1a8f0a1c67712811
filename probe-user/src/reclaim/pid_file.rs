//! The PID file: whether it may be believed, and its removal once it names nobody.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::Duration,
};

use rustix::fs::OFlags;

use super::place::{Place, Removal};
use crate::{
    clock::{self, Nanos},
    event::{PidFileContent, Process},
    sources::pid_file,
};

/// The clock that stamps files is coarse, and start times are told in steps of 10 ms.
const SLACK: Duration = Duration::from_millis(50);
const BYTES: u64 = 4096;

/// An opened PID file.
#[derive(Debug)]
pub(super) struct PidFile {
    place: Place,
    file: File,
    pub(super) content: PidFileContent,
    owner: u32,
    mode: u32,
    modified: Nanos,
}

impl PidFile {
    /// `None`: there is none.
    ///
    /// # Errors
    /// What it is instead of a regular file, or why it can't be read.
    pub(super) fn open(place: Place) -> Result<Option<Self>, String> {
        // Without O_NONBLOCK the opening of a planted fifo would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match place.file(flags) {
            Ok(Some(file)) => File::from(file),
            Ok(None) => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Err("it is a symbolic link".into()),
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Err("it is not a regular file".into()),
            Err(e) => return Err(e.to_string()),
        };
        let metadata = file.metadata().map_err(|e| e.to_string())?;
        if !metadata.is_file() {
            return Err("it is not a regular file".into());
        }
        let wall = metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec());
        let modified = clock::since_boot(wall);
        let mut found = Self {
            place,
            file,
            content: PidFileContent::Empty,
            owner: metadata.uid(),
            mode: metadata.mode(),
            modified,
        };
        found.content = found.read().map_err(|e| e.to_string())?;
        Ok(Some(found))
    }

    /// Why nothing may rest on it.
    pub(super) fn distrust(&self) -> Option<String> {
        (self.mode & 0o022 != 0).then(|| {
            format!(
                "others than its owner may write to it (mode {:03o}), so it could name anybody",
                self.mode & 0o777
            )
        })
    }

    /// Whether the number can mean this process: it was there when the file was written, and whoever owns the file may
    /// speak for it.
    pub(super) fn is_about(&self, process: &Process) -> Result<(), String> {
        if process.start > self.modified + SLACK {
            return Err(
                "it started after the file was last written, so the number was given to it later".into(),
            );
        }
        if self.owner != 0 && process.uid != Some(self.owner) {
            return Err(format!(
                "the file belongs to user {}, and it does not",
                self.owner
            ));
        }
        Ok(())
    }

    pub(super) fn age(&self) -> Duration {
        clock::now().since(self.modified)
    }

    /// A lock on it is held: whoever holds it lives.
    pub(super) fn is_locked(&self) -> bool {
        let Ok(metadata) = self.file.metadata() else {
            return true;
        };
        let Ok(locks) = procfs::locks() else { return true };
        let device = (
            nix::sys::stat::major(metadata.dev()),
            nix::sys::stat::minor(metadata.dev()),
        );
        locks
            .iter()
            .any(|l| l.inode == metadata.ino() && (u64::from(l.devmaj), u64::from(l.devmin)) == device)
    }

    /// Removes it if it is still the same file with the same content, and nobody has locked it.
    pub(super) fn remove(&mut self) -> Removal {
        let file: OwnedFd = match self.file.try_clone() {
            Ok(file) => file.into(),
            Err(e) => return Removal::Failed(e.to_string()),
        };
        let (mut again, before) = (&self.file, &self.content);
        let (place, locked) = (&self.place, || self.is_locked());
        place.remove(file.as_fd(), &mut || {
            if locked() {
                return Err("somebody has locked it".into());
            }
            match read(&mut again) {
                Ok(now) if now == *before => Ok(()),
                Ok(_) => Err("somebody has just written it anew".into()),
                Err(e) => Err(e.to_string()),
            }
        })
    }

    fn read(&self) -> io::Result<PidFileContent> {
        read(&mut &self.file)
    }
}

fn read(file: &mut &File) -> io::Result<PidFileContent> {
    let mut bytes = Vec::with_capacity(64);
    file.rewind()?;
    file.take(BYTES).read_to_end(&mut bytes)?;
    Ok(pid_file::parse(&bytes))
}
