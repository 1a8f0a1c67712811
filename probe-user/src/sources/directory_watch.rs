//! Changes of declared names: bind, link, unlink, rename, and the coming and going of the directories above them.
//!
//! The directory of each declared path is marked, and the one above it; while it does not exist, the nearest ancestor
//! that does. fanotify names the acting process; where it is refused (tmpfs before 6.1, some overlays), inotify tells the
//! same without one. Events are hints: the kernel merges them and stamps no time. The directory above is needed because
//! a removed directory that is some process's working directory tells nobody that it is gone.

mod fanotify;
mod inotify;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use rustix::fs::OFlags;

use self::{
    fanotify::{Fanotify, Handle},
    inotify::Inotify,
};
use super::root::Rooted;
use crate::event::PathChange;

/// How often marks are set anew when directories change under the hand.
const ROUNDS: usize = 8;
/// How often the queues are read in one drain, so that a storm of events can't hold the caller for ever.
const DRAINS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryEvent {
    /// Something happened to a declared name. `pid`: who did it, a thread group id; it may have ended.
    Name {
        path: Rooted,
        change: PathChange,
        pid: Option<u32>,
    },
    /// The directory of a declared path appeared, went or was replaced: the state of the path may be another.
    Appeared { path: Rooted },
    /// The kernel dropped events.
    Overflow,
}

/// How directories are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of them with the acting process.
    Fanotify,
    /// None with the acting process.
    Inotify,
    /// Some file systems refuse fanotify.
    Mixed,
}

/// A marked directory, by what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Fanotify(Handle),
    Inotify(inotify::Watch),
}

/// What a queue tells about one name in a marked directory.
struct Change {
    mark: Mark,
    what: What,
    pid: Option<u32>,
}

enum What {
    Name(OsString, PathChange),
    /// The directory itself was removed; its mark went with it.
    Gone,
    /// The directory itself was renamed; its mark went along.
    Moved,
}

enum Queued {
    Change(Change),
    Overflow,
}

pub struct DirectoryWatch {
    fanotify: Option<Fanotify>,
    inotify: Inotify,
    /// Readable when one of the two is.
    epoll: Epoll,
    paths: BTreeSet<Rooted>,
    /// By the name under which it was opened; two names may lead to one directory.
    marks: BTreeMap<Rooted, Mark>,
    /// Directories that can't be watched, and why.
    failures: BTreeMap<Rooted, String>,
}

impl DirectoryWatch {
    /// # Errors
    /// Out of descriptors or of inotify instances. That fanotify is refused is no error.
    pub fn new() -> io::Result<Self> {
        Self::with(Fanotify::new().ok())
    }

    fn with(fanotify: Option<Fanotify>) -> io::Result<Self> {
        let inotify = Inotify::new()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&inotify, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        if let Some(fanotify) = &fanotify {
            epoll.add(fanotify, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        }
        let (paths, marks, failures) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            fanotify,
            inotify,
            epoll,
            paths,
            marks,
            failures,
        })
    }

    /// Watches an absolute path, whether it exists or not. What happened to it before is for the caller to look at,
    /// afterwards. Directories that can't be watched are in [`Self::failures`].
    pub fn add(&mut self, path: impl Into<Rooted>) {
        self.add_all([path.into()]);
    }

    /// [`Self::add`] of many, with one look at the directories.
    pub fn add_all(&mut self, paths: impl IntoIterator<Item = Rooted>) {
        let mut new = false;
        for path in paths {
            new |= self.paths.insert(path);
        }
        if new {
            self.reconcile();
        }
    }

    /// No longer watches some of them.
    pub fn remove_all(&mut self, paths: impl IntoIterator<Item = Rooted>) {
        let mut gone = false;
        for path in paths {
            gone |= self.paths.remove(&path);
        }
        if gone {
            self.reconcile();
        }
    }

    pub fn mode(&self) -> Mode {
        let by_inotify = self
            .marks
            .values()
            .filter(|m| matches!(m, Mark::Inotify(_)))
            .count();
        match (&self.fanotify, by_inotify) {
            (None, _) => Mode::Inotify,
            (Some(_), 0) => Mode::Fanotify,
            (Some(_), n) if n == self.marks.len() => Mode::Inotify,
            _ => Mode::Mixed,
        }
    }

    /// Whether changes in the directory of this path come without the acting process.
    pub fn is_without_actor(&self, path: &Rooted) -> bool {
        matches!(self.marks.get(&path.parent()), Some(Mark::Inotify(_)))
    }

    /// Directories that exist and can't be watched, and why: changes there are seen by snapshots only.
    pub fn failures(&self) -> &BTreeMap<Rooted, String> {
        &self.failures
    }

    /// Tries again to watch what can't be watched.
    pub fn retry(&mut self) {
        if !self.failures.is_empty() {
            self.reconcile();
        }
    }

    /// Reads what has happened. Does not wait.
    pub fn drain(&mut self, mut f: impl FnMut(DirectoryEvent)) {
        let mut queued = Vec::new();
        for _ in 0..DRAINS {
            if let Some(fanotify) = &mut self.fanotify {
                fanotify.drain(&mut |q| queued.push(q));
            }
            self.inotify.drain(&mut |q| queued.push(q));
            if queued.is_empty() {
                break;
            }
            let before = self.marks.clone();
            let mut structure = false;
            for queued in queued.drain(..) {
                match queued {
                    Queued::Overflow => {
                        structure = true;
                        f(DirectoryEvent::Overflow);
                    }
                    Queued::Change(change) => structure |= self.settle(change, &mut f),
                }
            }
            if structure {
                self.reconcile();
                for path in self.moved_since(&before) {
                    f(DirectoryEvent::Appeared { path });
                }
            }
        }
    }

    /// Reports a change of a declared name. `true`: a directory on the way to one changed.
    fn settle(&mut self, change: Change, f: &mut impl FnMut(DirectoryEvent)) -> bool {
        let Change { mark, what, pid } = change;
        let (name, change) = match what {
            What::Name(name, change) => (name, change),
            What::Moved => return true,
            What::Gone => {
                self.forget(&mark);
                return true;
            }
        };
        let mut structure = false;
        for directory in self
            .marks
            .iter()
            .filter(|(_, m)| **m == mark)
            .map(|(directory, _)| directory)
        {
            let path = Rooted {
                root: directory.root.clone(),
                path: directory.path.join(&name),
            };
            if self.paths.contains(&path) {
                f(DirectoryEvent::Name {
                    path: path.clone(),
                    change,
                    pid,
                });
            }
            // Declared names below it stand right behind it in the order.
            structure |= self.paths.iter().any(|declared| is_below(declared, &path));
        }
        structure
    }

    /// The mark of a removed directory is gone, by the kernel's hand.
    fn forget(&mut self, mark: &Mark) {
        self.marks.retain(|_, m| m != mark);
    }

    /// The declared paths whose directory is another than before, or is there now, or is not any more.
    fn moved_since(&self, before: &BTreeMap<Rooted, Mark>) -> Vec<Rooted> {
        let differs = |path: &&Rooted| {
            let directory = path.parent();
            before.get(&directory) != self.marks.get(&directory)
        };
        self.paths.iter().filter(differs).cloned().collect()
    }

    /// Brings the marks in line with the directories as they are now.
    fn reconcile(&mut self) {
        self.failures.clear();
        for _ in 0..ROUNDS {
            let wanted = wanted(&self.paths);
            let mut changed = false;
            let unwanted: Vec<Rooted> = self
                .marks
                .keys()
                .filter(|d| !wanted.contains(*d))
                .cloned()
                .collect();
            for directory in wanted {
                changed |= self.mark(&directory);
            }
            // Last: one directory may get another name, and its mark must stand all the time.
            for directory in unwanted {
                self.unmark(&directory);
            }
            // Something may have been made between the look and the mark: look again.
            if !changed {
                break;
            }
        }
    }

    /// `true`: the mark is new, or it could not be set because the directory has gone.
    fn mark(&mut self, name: &Rooted) -> bool {
        let directory = match open(name) {
            Ok(directory) => directory,
            Err(_) => {
                self.unmark(name);
                return true;
            }
        };
        let by_fanotify = self.fanotify.as_mut().map(|f| f.mark(&directory));
        let mark = match by_fanotify {
            Some(Ok(handle)) => Mark::Fanotify(handle),
            // Whatever the reason, inotify may still do.
            Some(Err(_)) | None => match self.inotify.mark(&directory) {
                Ok(watch) => Mark::Inotify(watch),
                Err(e) => {
                    self.failures.insert(name.clone(), e.to_string());
                    return false;
                }
            },
        };
        if self.marks.get(name) == Some(&mark) {
            return false;
        }
        self.unmark(name);
        self.marks.insert(name.clone(), mark);
        true
    }

    fn unmark(&mut self, name: &Rooted) {
        let Some(mark) = self.marks.remove(name) else {
            return;
        };
        if self.marks.values().any(|m| *m == mark) {
            return;
        }
        match mark {
            // fanotify takes a mark away by its directory, which may be gone or have another name; the events of a mark
            // that stays are dropped above.
            Mark::Fanotify(handle) => {
                if let (Some(fanotify), Ok(directory)) = (&mut self.fanotify, open(name)) {
                    fanotify.unmark(&directory, &handle);
                }
            }
            Mark::Inotify(watch) => self.inotify.unmark(watch),
        }
    }
}

impl AsFd for DirectoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// The directories to mark: of each path the nearest that exists, and the one above it.
fn wanted(paths: &BTreeSet<Rooted>) -> BTreeSet<Rooted> {
    let mut wanted = BTreeSet::new();
    for declared in paths {
        let at = |path: &Path| Rooted {
            root: declared.root.clone(),
            path: path.to_owned(),
        };
        let above = declared.path.ancestors().skip(1).map(at);
        let Some(nearest) = above.into_iter().find(|directory| open(directory).is_ok()) else {
            continue;
        };
        if nearest.path.parent().is_some() {
            wanted.insert(nearest.parent());
        }
        wanted.insert(nearest);
    }
    wanted
}

fn is_below(path: &Rooted, directory: &Rooted) -> bool {
    path.root == directory.root && path.path != directory.path && path.path.starts_with(&directory.path)
}

fn open(directory: &Rooted) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    directory.root.open(&directory.path, flags).map(File::from)
}

/// A file name that an event carries. `None` for the directory itself.
fn file_name(bytes: &[u8]) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())];
    (!bytes.is_empty() && bytes != b"." && !bytes.contains(&b'/'))
        .then(|| OsStr::from_bytes(bytes).to_owned())
}

#[cfg(test)]
mod tests;
