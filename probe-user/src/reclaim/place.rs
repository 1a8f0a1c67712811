//! The directory that a file is removed from, opened once: what happens to the path above it does not matter any more.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, fstat, openat, readlinkat, renameat_with,
        statat, unlinkat,
    },
    io::Errno,
};

use crate::sources::root::{Root, Rooted};

/// As the kernel does (`MAXSYMLINKS`).
const LINKS: usize = 40;
/// What a file is called between its last look and its removal.
const ASIDE: &str = ".probe-reclaim";

/// A name in an opened directory.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
    shown: PathBuf,
}

/// Why a path is not touched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the link {} on the way there belongs to user {uid}, who could lead it anywhere", .link.display())]
    Link { link: PathBuf, uid: u32 },
    #[error(
        "its directory belongs to user {uid} and others may write to it: whatever is there could be replaced at any moment"
    )]
    Directory { uid: u32 },
    #[error("its directory can't be opened: {0}")]
    Open(io::Error),
}

/// What became of a file that was to be removed.
#[derive(Debug)]
pub(super) enum Removal {
    Removed,
    /// It was gone before.
    Gone,
    /// Something else has its name now, or it is not what it was; that stays as it is.
    Changed(String),
    Failed(String),
}

impl Place {
    /// `None`: there is no such directory, so there is no such file.
    pub(super) fn open(at: &Rooted) -> Result<Option<Self>, Refusal> {
        let (Some(parent), Some(name)) = (at.path.parent(), at.path.file_name()) else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = match &at.root {
            Root::Host => walk(parent),
            // Inside another root a link leads nowhere outside.
            Root::Directory(_) | Root::Process(_) => at.root.open(parent, flags).map_err(Refusal::Open),
        };
        let directory = match directory {
            Ok(directory) => directory,
            Err(Refusal::Open(e)) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let stat = fstat(&directory).map_err(|e| Refusal::Open(e.into()))?;
        if !is_trusted(stat.st_uid) && stat.st_mode & 0o022 != 0 {
            return Err(Refusal::Directory { uid: stat.st_uid });
        }
        Ok(Some(Self {
            directory,
            name: name.to_owned(),
            shown: at.path.clone(),
        }))
    }

    /// The file under the name, which is not followed. `None`: there is none.
    pub(super) fn file(&self, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.directory, &self.name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until every bind(2) that has made a file in this directory is done.
    ///
    /// bind(2) makes the file first and joins the socket to it then, and holds the directory's lock (`i_rwsem`) throughout:
    /// `unix_bind_bsd()` in `net/unix/af_unix.c`. In between the file looks as if nothing was bound to it. Renaming a name to
    /// itself without replacing takes that lock too, and changes nothing whether the name is there (`EEXIST`) or not.
    pub(super) fn settle(&self) -> io::Result<()> {
        let it = (self.directory.as_fd(), self.name.as_os_str());
        match renameat_with(it.0, it.1, it.0, it.1, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes `file` if the name still leads to it and `is_dead` still holds.
    ///
    /// unlinkat(2) takes a name, and what the name leads to can be changed between any look and the call. So the file is
    /// first moved to a name that nobody else uses. What turns out to be something else then is moved back; it was away
    /// for two system calls, instead of gone for good. `is_dead` is asked again in between.
    pub(super) fn remove(
        &self,
        file: BorrowedFd<'_>,
        is_dead: &mut dyn FnMut() -> Result<(), String>,
    ) -> Removal {
        let wanted = match fstat(file) {
            Ok(stat) => stat,
            Err(e) => return Removal::Failed(e.to_string()),
        };
        match self.stat(&self.name) {
            Ok(Some(now)) if is_same(&now, &wanted) => {}
            Ok(Some(_)) => return Removal::Changed("another file has its name now".into()),
            Ok(None) => return Removal::Gone,
            Err(e) => return Removal::Failed(e.to_string()),
        }
        let aside = match self.move_aside() {
            Ok(Some(aside)) => aside,
            Ok(None) => return Removal::Gone,
            // A file system without RENAME_NOREPLACE (NFS): what was looked at a moment ago must do.
            Err(Errno::INVAL) => return self.unlink(&self.name),
            Err(e) => return Removal::Failed(io::Error::from(e).to_string()),
        };
        let verdict = match self.stat(&aside) {
            Ok(Some(moved)) if is_same(&moved, &wanted) => is_dead(),
            Ok(Some(_)) => Err("another file took its name at the last moment".into()),
            Ok(None) => return Removal::Gone,
            Err(e) => Err(e.to_string()),
        };
        match verdict {
            Ok(()) => self.unlink(&aside),
            Err(why) => self.put_back(&aside, why),
        }
    }

    /// Puts back or removes what an earlier reclaim, which was killed in the middle, had moved aside.
    pub(super) fn recover(&self, is_dead: &mut dyn FnMut(&OwnedFd) -> Result<(), String>) -> Option<Removal> {
        let aside = self.aside();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &aside, flags, Mode::empty()).ok()?;
        Some(match is_dead(&file) {
            Ok(()) => self.unlink(&aside),
            Err(why) => self.put_back(&aside, why),
        })
    }

    fn aside(&self) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(ASIDE);
        name
    }

    fn move_aside(&self) -> Result<Option<OsString>, Errno> {
        let mut aside = self.aside();
        for _ in 0..8 {
            match renameat_with(
                &self.directory,
                &self.name,
                &self.directory,
                &aside,
                RenameFlags::NOREPLACE,
            ) {
                Ok(()) => return Ok(Some(aside)),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::EXIST) => {
                    aside = self.aside();
                    aside.push(format!("-{:x}", fastrand::u64(..)));
                }
                Err(e) => return Err(e),
            }
        }
        Err(Errno::EXIST)
    }

    fn put_back(&self, aside: &OsStr, why: String) -> Removal {
        match renameat_with(
            &self.directory,
            aside,
            &self.directory,
            &self.name,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => Removal::Changed(why),
            Err(e) => Removal::Failed(format!(
                "{why}, and it could not get its name back ({}): it is {} now",
                io::Error::from(e),
                self.shown.with_file_name(aside).display()
            )),
        }
    }

    fn unlink(&self, name: &OsStr) -> Removal {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) => Removal::Removed,
            Err(Errno::NOENT) => Removal::Gone,
            Err(e) => Removal::Failed(io::Error::from(e).to_string()),
        }
    }

    fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shown.display())
    }
}

/// Exact, where a descriptor of the one is open: its inode number is not used again meanwhile.
fn is_same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Opens a directory step by step. Links are followed that root or we have made: `/var/run` mostly is one.
fn walk(path: &Path) -> Result<OwnedFd, Refusal> {
    let fail = |e: Errno| Refusal::Open(e.into());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || openat(CWD, "/", flags | OFlags::DIRECTORY, Mode::empty()).map_err(fail);
    let mut here = root()?;
    let mut shown = PathBuf::from("/");
    let mut todo: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        let next = openat(&here, &name, flags, Mode::empty()).map_err(fail)?;
        let stat = fstat(&next).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            shown.push(&name);
            here = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(fail(Errno::LOOP));
        }
        if !is_trusted(stat.st_uid) {
            return Err(Refusal::Link {
                link: shown.join(&name),
                uid: stat.st_uid,
            });
        }
        let target = readlinkat(&next, c"", Vec::new()).map_err(fail)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            here = root()?;
            shown = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(name);
        }
    }
    let stat = fstat(&here).map_err(fail)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(here),
        _ => Err(fail(Errno::NOTDIR)),
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
