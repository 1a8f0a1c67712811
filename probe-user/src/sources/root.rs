//! Where an absolute path is looked up: from the host's root directory, or from that of a process.
//!
//! Inside another root, links are strangers' links: openat2(2) with `RESOLVE_IN_ROOT` follows them without ever leaving
//! that root, absolute ones and `..` included.

use std::{
    fmt, fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::{path, process};
use crate::event::ProcId;

/// How often a path is resolved anew that was renamed under the hand (`EAGAIN` of openat2).
const ATTEMPTS: usize = 8;

/// A root directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Root {
    #[default]
    Host,
    /// This directory of the host's, as after chroot(2).
    Directory(PathBuf),
    /// What this process sees, in a mount namespace of its own.
    Process(ProcId),
}

/// An absolute path, and where it is looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rooted {
    pub root: Root,
    pub path: PathBuf,
}

impl Root {
    /// The root directory of a process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn of(id: ProcId) -> io::Result<Self> {
        let link = format!("/proc/{}/root", id.pid);
        let seen = fs::read_link(&link)?;
        let same_mounts =
            fs::read_link(format!("/proc/{}/ns/mnt", id.pid))? == fs::read_link("/proc/self/ns/mnt")?;
        // The text lies once the directory was removed, renamed or covered by a mount.
        let is_there =
            || path::file_id(&seen).is_ok_and(|ours| path::file_id(link.as_ref()).is_ok_and(|x| x == ours));
        let root = match (same_mounts, seen == Path::new("/")) {
            (true, true) => Self::Host,
            (true, false) if is_there() => Self::Directory(seen),
            _ => Self::Process(id),
        };
        still(id).map(|()| root)
    }

    /// Opens what `path` leads to from this root.
    ///
    /// # Errors
    /// Those of openat2(2); `ESRCH` when the process whose root it is has ended.
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match self {
            Self::Host => return Ok(openat(CWD, path, flags, Mode::empty())?),
            Self::Directory(root) => openat(CWD, root, directory, Mode::empty())?,
            Self::Process(id) => {
                let root = openat(CWD, format!("/proc/{}/root", id.pid), directory, Mode::empty());
                // That it has ended must not look like an absent file.
                still(*id)?;
                root?
            }
        };
        for _ in 1..ATTEMPTS {
            match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Ok(openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }

    /// Whose mounts `path`'s file systems are found among, as [`path::file_id`] wants it.
    pub(super) fn mounts(&self) -> String {
        match self {
            Self::Host | Self::Directory(_) => "self".into(),
            Self::Process(id) => id.pid.to_string(),
        }
    }
}

impl Rooted {
    pub fn host(path: &Path) -> Self {
        Self {
            root: Root::Host,
            path: path.to_owned(),
        }
    }

    /// As `root` sees it; from the host's, where that is the same directory: it outlives the process.
    pub fn new(root: &Root, path: &Path) -> Self {
        let host = Self::host(path);
        let Some(directory) = path.parent() else {
            return host;
        };
        let ours = || path::file_id(directory).ok();
        let theirs = || path::file_id_at(root, directory).ok();
        if *root == Root::Host || ours().is_some_and(|ours| theirs() == Some(ours)) {
            return host;
        }
        Self {
            root: root.clone(),
            path: path.to_owned(),
        }
    }

    /// Its directory; the root directory's own is itself.
    pub fn parent(&self) -> Self {
        Self {
            root: self.root.clone(),
            path: self.path.parent().unwrap_or(Path::new("/")).to_owned(),
        }
    }

    /// The last component itself, not what it links to.
    ///
    /// # Errors
    /// As for [`Root::open`].
    pub fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        self.root.open(&self.path, flags | OFlags::NOFOLLOW)
    }
}

impl From<&Path> for Rooted {
    fn from(path: &Path) -> Self {
        Self::host(path)
    }
}

impl From<&PathBuf> for Rooted {
    fn from(path: &PathBuf) -> Self {
        Self::host(path)
    }
}

impl fmt::Display for Rooted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match &self.root {
            Root::Host => Ok(()),
            Root::Directory(root) => write!(f, " in {}", root.display()),
            Root::Process(id) => write!(f, " as process {} sees it", id.pid),
        }
    }
}

fn still(id: ProcId) -> io::Result<()> {
    if process::identity(id.pid) == Some(id) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}
