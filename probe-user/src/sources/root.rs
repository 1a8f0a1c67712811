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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sources::testing::{Child, TempDir, alone};

    fn identity(pid: u32) -> ProcId {
        process::identity(pid).unwrap()
    }

    #[test]
    fn links_inside_another_root_lead_nowhere_outside() {
        let dir = TempDir::new("root");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("jail/run")).unwrap();
        fs::write(at("secret"), "host").unwrap();
        fs::write(at("jail/secret"), "jail").unwrap();
        symlink("/secret", at("jail/absolute")).unwrap();
        symlink("../../../secret", at("jail/run/above")).unwrap();
        symlink("/", at("jail/run/slash")).unwrap();
        symlink(at("secret"), at("jail/outside")).unwrap();
        symlink("/proc/self/root", at("jail/magic")).unwrap();
        let root = Root::Directory(at("jail"));
        let jail = path::file_id(&at("jail/secret")).unwrap();
        for name in ["/absolute", "/run/above", "/run/slash/secret", "/../../secret"] {
            assert_eq!(path::file_id_at(&root, name.as_ref()).unwrap(), jail, "{name}");
        }
        assert!(path::file_id_at(&root, at("secret").as_path()).is_err());
        assert!(path::file_id_at(&root, "/outside".as_ref()).is_err());
        assert!(path::file_id_at(&root, "/magic/secret".as_ref()).is_err());
        // The last component itself is never followed.
        let place = Rooted {
            root,
            path: "/absolute".into(),
        };
        assert!(place.open(OFlags::RDONLY).is_err());
    }

    #[test]
    fn a_process_s_root_is_found() {
        let _alone = alone();
        let dir = TempDir::new("chroot");
        let jail = dir.path().to_owned();
        let child = Child::holding(|| nix::unistd::chroot(&jail).unwrap());
        let root = Root::of(identity(child.pid())).unwrap();
        assert_eq!(root, Root::Directory(jail.clone()));
        // Renamed under it: the name still leads there.
        let moved = jail.with_extension("moved");
        fs::rename(&jail, &moved).unwrap();
        assert_eq!(
            Root::of(identity(child.pid())).unwrap(),
            Root::Directory(moved.clone())
        );
        fs::rename(&moved, &jail).unwrap();
        // Removed under it: it has no name any more.
        fs::remove_dir(&jail).unwrap();
        let id = identity(child.pid());
        assert_eq!(Root::of(id).unwrap(), Root::Process(id));
        drop(child);
        let gone = Root::Process(id);
        let e = gone.open("/".as_ref(), OFlags::PATH).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ESRCH), "gone is not absent");
        assert_eq!(Root::of(identity(std::process::id())).unwrap(), Root::Host);
    }

    #[test]
    fn a_directory_that_is_shared_is_the_host_s() {
        use nix::{
            mount::{MsFlags, mount},
            sched::{CloneFlags, unshare},
        };
        let _alone = alone();
        let dir = TempDir::new("mounts");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("private")).unwrap();
        let private = at("private");
        let child = Child::holding(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), &private, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            std::os::unix::net::UnixListener::bind(private.join("s")).unwrap()
        });
        let id = identity(child.pid());
        let root = Root::of(id).unwrap();
        assert_eq!(root, Root::Process(id));
        assert_eq!(Rooted::new(&root, &at("s")), Rooted::host(&at("s")));
        let place = Rooted::new(&root, &at("private/s"));
        assert_eq!(place.root, root);
        assert!(matches!(
            path::stamp_at(&place).state,
            crate::event::PathState::Socket(_)
        ));
        assert_eq!(path::state(&at("private/s")), crate::event::PathState::Absent);
        drop(child);
        assert!(matches!(
            path::stamp_at(&place).state,
            crate::event::PathState::Unknown(_)
        ));
    }
}
