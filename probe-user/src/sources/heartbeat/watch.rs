//! Follows paths by inotify: the way to a file, and the file itself.
//!
//! Quiet where others are busy: of a directory on the way only its own move or removal is watched; names are watched in
//! the last directory, and where something is missing or a link. Writes are told by the watch on the file itself.
//! What was looked up before it was watched is looked up again, so that no change falls between.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use rustix::fs::{FileType, Mode, OFlags, Stat};

/// Most steps on the way to a file, where the kernel allows 40 links.
const STEPS: usize = 256;
/// Most buffers of events taken in one drain; the rest stays ready.
const BUFFERS: usize = 64;

const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ONLYDIR);
/// A directory that is removed while somebody works in it tells nothing until that ends; the slow net finds that.
const ITSELF: AddWatchFlags = AddWatchFlags::IN_MOVE_SELF
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);
/// `ATTRIB` for a touch and for an unlink, `CLOSE_WRITE` for what was written through a mapping.
const CONTENT: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CLOSE_WRITE);

pub(super) struct FileWatch {
    inotify: Inotify,
    targets: Vec<Target>,
    /// By watch descriptor.
    watched: BTreeMap<i32, Watched>,
}

struct Target {
    path: PathBuf,
    watches: BTreeSet<i32>,
}

struct Watched {
    descriptor: WatchDescriptor,
    /// Which targets want to know what.
    by: Vec<(usize, Interest)>,
}

enum Interest {
    /// What this name in the directory leads to.
    Name(OsString),
    /// Whether the directory stays where it is.
    Itself,
    Content,
}

impl Interest {
    fn mask(&self) -> AddWatchFlags {
        match self {
            Self::Name(_) => NAMES,
            Self::Itself => ITSELF,
            Self::Content => CONTENT,
        }
    }
}

/// What a name in a directory is now.
struct Entry {
    file: OwnedFd,
    stat: Stat,
}

impl Entry {
    fn open(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(Self {
                stat: rustix::fs::fstat(&file)?,
                file,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn id(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }
}

/// Where a path leads.
pub(super) struct Found {
    /// A regular file, opened with `O_PATH`. `None`: there is none.
    pub(super) file: Option<OwnedFd>,
    /// Why changes may be missed.
    pub(super) error: Option<String>,
}

/// What changed, by target.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) names: BTreeSet<usize>,
    pub(super) contents: BTreeSet<usize>,
    /// Events were lost: anything may have changed.
    pub(super) overflow: bool,
}

impl FileWatch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            targets: Vec::new(),
            watched: BTreeMap::new(),
        })
    }

    /// Nothing is watched until [`Self::find`] is called.
    pub(super) fn add(&mut self, path: PathBuf) -> usize {
        self.targets.push(Target {
            path,
            watches: BTreeSet::new(),
        });
        self.targets.len() - 1
    }

    pub(super) fn path(&self, target: usize) -> &Path {
        &self.targets[target].path
    }

    /// Finds out where the path leads and watches the way there, its end, and the files in `keep`; nothing else of this
    /// target any more.
    pub(super) fn find(&mut self, target: usize, keep: &[BorrowedFd<'_>]) -> Found {
        let path = self.targets[target].path.clone();
        let before = std::mem::take(&mut self.targets[target].watches);
        for descriptor in &before {
            if let Some(watched) = self.watched.get_mut(descriptor) {
                watched.by.retain(|(by, _)| *by != target);
            }
        }
        let mut error = None;
        let walked = self.walk(target, &path, &mut error).and_then(regular);
        let file = walked.unwrap_or_else(|e| {
            error.get_or_insert(e);
            None
        });
        for file in keep.iter().copied().chain(file.as_ref().map(|f| f.as_fd())) {
            self.watch(target, file, Interest::Content, &mut error);
        }
        for descriptor in before {
            self.drop_unwanted(descriptor);
        }
        Found {
            file,
            error: error.map(|e| describe(&path, &e)),
        }
    }

    fn walk(
        &mut self,
        target: usize,
        path: &Path,
        error: &mut Option<io::Error>,
    ) -> io::Result<Option<OwnedFd>> {
        let mut directory = open_root()?;
        let mut todo = components(path.as_os_str());
        for _ in 0..STEPS {
            let Some(name) = todo.pop_front() else {
                return Ok(Some(directory));
            };
            if !todo.is_empty()
                && let Some(entry) = Entry::open(&directory, &name)?
                && entry.kind() == FileType::Directory
            {
                self.watch(target, entry.file.as_fd(), Interest::Itself, error);
                match Entry::open(&directory, &name)? {
                    Some(again) if again.id() == entry.id() => directory = entry.file,
                    // It was replaced before it was watched.
                    _ => todo.push_front(name),
                }
                continue;
            }
            self.watch(target, directory.as_fd(), Interest::Name(name.clone()), error);
            let Some(entry) = Entry::open(&directory, &name)? else {
                return Ok(None);
            };
            match entry.kind() {
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(&entry.file, c"", Vec::new())?;
                    if link.as_bytes().starts_with(b"/") {
                        directory = open_root()?;
                    }
                    for part in components(OsStr::from_bytes(link.as_bytes())).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                _ if todo.is_empty() => return Ok(Some(entry.file)),
                // It was created before the name was watched.
                FileType::Directory => todo.push_front(name),
                // A file where a directory is expected.
                _ => return Ok(None),
            }
        }
        Err(rustix::io::Errno::LOOP.into())
    }

    fn watch(
        &mut self,
        target: usize,
        what: BorrowedFd<'_>,
        interest: Interest,
        error: &mut Option<io::Error>,
    ) {
        // Several targets may watch the same thing in different ways.
        let add = AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
        let path = format!("/proc/self/fd/{}", what.as_raw_fd());
        match self.inotify.add_watch(path.as_str(), add | interest.mask()) {
            Ok(descriptor) => {
                self.targets[target].watches.insert(descriptor.as_raw());
                let watched = self.watched.entry(descriptor.as_raw()).or_insert(Watched {
                    descriptor,
                    by: Vec::new(),
                });
                watched.by.push((target, interest));
            }
            Err(e) => {
                error.get_or_insert(e.into());
            }
        }
    }

    fn drop_unwanted(&mut self, descriptor: i32) {
        if self.watched.get(&descriptor).is_some_and(|w| w.by.is_empty())
            && let Some(watched) = self.watched.remove(&descriptor)
        {
            // Fails where the kernel has dropped it already.
            let _ = self.inotify.rm_watch(watched.descriptor);
        }
    }

    pub(super) fn drain(&mut self) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..BUFFERS {
            match self.inotify.read_events() {
                Ok(events) => events.iter().for_each(|e| self.sort(e, &mut changes)),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        changes
    }

    fn sort(&mut self, event: &InotifyEvent, changes: &mut Changes) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            changes.overflow = true;
            return;
        }
        let descriptor = event.wd.as_raw();
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            // The watched thing is gone for good, and its descriptor is never given again.
            for (target, _) in self.watched.remove(&descriptor).into_iter().flat_map(|w| w.by) {
                self.targets[target].watches.remove(&descriptor);
                changes.names.insert(target);
            }
            return;
        }
        for (target, interest) in self.watched.get(&descriptor).into_iter().flat_map(|w| &w.by) {
            match interest {
                Interest::Content if event.mask.intersects(CONTENT) => changes.contents.insert(*target),
                Interest::Itself if event.mask.intersects(ITSELF) => changes.names.insert(*target),
                Interest::Name(name) if event.name.as_ref() == Some(name) => changes.names.insert(*target),
                _ => false,
            };
        }
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn open_root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/", flags, Mode::empty())?)
}

/// Anything else is neither read nor watched: to open a FIFO or a device is an act, and a device is never quiet.
fn regular(found: Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let Some(file) = found else { return Ok(None) };
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Some(file)),
        other => Err(io::Error::other(format!(
            "it is no regular file but a {}",
            type_name(other)
        ))),
    }
}

fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "file of an unknown type",
    }
}

fn components(path: &OsStr) -> VecDeque<OsString> {
    path.as_bytes()
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
        .collect()
}

fn describe(path: &Path, e: &io::Error) -> String {
    let path = path.display();
    match e.raw_os_error() {
        Some(libc::ENOSPC) => {
            format!(
                "cannot watch {path}: no inotify watch is left; raise the sysctl fs.inotify.max_user_watches"
            )
        }
        _ => format!("cannot watch {path}: {e}"),
    }
}
