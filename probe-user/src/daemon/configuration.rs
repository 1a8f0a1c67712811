//! Where the configuration comes from, and when its files change.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;

use crate::config::{
    Config,
    load::{self, ConfigError},
};

/// After the last change, because files that belong together are written one after the other.
const REST: Duration = Duration::from_millis(200);
/// Changes that do not end are not waited for any longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Looks at the directories, if some come or go meanwhile.
const ATTEMPTS: usize = 8;

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// `probe.toml` and `probe.d/*.toml` there.
    Directory(PathBuf),
}

impl Source {
    /// `None`: nothing is there.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn load(&self) -> Result<Option<Config>, ConfigError> {
        let loaded = match self {
            Self::File(file) => load::load(Some(file), Path::new(load::DIRECTORY)),
            Self::Directory(directory) => load::load(None, directory),
        };
        Ok(loaded?.map(|l| l.config))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::File(path) | Self::Directory(path)) = self;
        path.display().fmt(f)
    }
}

/// A directory that is watched, and which names in it count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    This(OsString),
    Toml,
}

impl Names {
    fn have(&self, name: &OsStr) -> bool {
        match self {
            Self::This(this) => this == name,
            Self::Toml => {
                !name.as_encoded_bytes().starts_with(b".")
                    && Path::new(name).extension().is_some_and(|e| e == "toml")
            }
        }
    }
}

/// Tells when the configuration's files change. Directories that do not exist yet are waited for.
#[derive(Debug)]
pub(super) struct ConfigWatch {
    /// Directory, and what counts in it.
    wanted: Vec<(PathBuf, Names)>,
    inotify: Option<(Inotify, AsyncFd<OwnedFd>)>,
    /// What is watched now, by the kernel's number.
    watched: Vec<(nix::sys::inotify::WatchDescriptor, PathBuf, Names)>,
}

impl ConfigWatch {
    pub(super) fn new(source: &Source) -> Self {
        let mut wanted = Vec::new();
        // Each directory on the way, for the next name on it.
        let mut names_on_the_way = |path: &Path| {
            for place in path.ancestors() {
                if let (Some(parent), Some(name)) = (place.parent(), place.file_name()) {
                    let entry = (parent.to_owned(), Names::This(name.to_owned()));
                    if !wanted.contains(&entry) {
                        wanted.push(entry);
                    }
                }
            }
        };
        match source {
            Source::File(file) => {
                names_on_the_way(&std::path::absolute(file).unwrap_or_else(|_| file.clone()))
            }
            Source::Directory(directory) => {
                names_on_the_way(&directory.join("probe.toml"));
                names_on_the_way(&directory.join("probe.d"));
                wanted.push((directory.join("probe.d"), Names::Toml));
            }
        }
        let mut watch = Self {
            wanted,
            inotify: None,
            watched: Vec::new(),
        };
        match open() {
            Ok(inotify) => watch.inotify = Some(inotify),
            Err(e) => {
                tracing::warn!("changes of the configuration are not noticed: {e}; SIGHUP has it read anew");
            }
        }
        watch.arm();
        watch
    }

    /// Watches what exists now: files where they are, and of a directory that does not exist the nearest one above it.
    fn arm(&mut self) {
        let Some((inotify, _)) = &self.inotify else { return };
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let before = std::mem::take(&mut self.watched);
        for _ in 0..ATTEMPTS {
            self.watched.clear();
            // A directory tells itself when it goes, and its parent may have much to tell about others.
            let there = |(directory, names): &(PathBuf, Names)| match names {
                Names::This(child) => directory.join(child).is_dir(),
                Names::Toml => false,
            };
            let needed: Vec<_> = self.wanted.iter().filter(|w| !there(w)).cloned().collect();
            for (directory, names) in &needed {
                match inotify.add_watch(directory, flags) {
                    Ok(number) => self.watched.push((number, directory.clone(), names.clone())),
                    // It is waited for in the one above it.
                    Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {}
                    Err(e) => tracing::warn!("changes in {} are not noticed: {e}", directory.display()),
                }
            }
            if self.wanted.iter().filter(|w| !there(w)).eq(&needed) {
                break;
            }
        }
        for (number, ..) in before {
            if !self.watched.iter().any(|(n, ..)| *n == number) {
                // It may be gone with its directory.
                _ = inotify.rm_watch(number);
            }
        }
    }

    /// Waits until a file has changed, and a little longer. Nothing is lost when it is dropped while it waits, but the
    /// little longer.
    pub(super) async fn changed(&mut self) {
        self.one_change().await;
        let more = async { while tokio::time::timeout(REST, self.one_change()).await.is_ok() {} };
        // Changes that do not end are read as they are.
        _ = tokio::time::timeout(LONGEST, more).await;
    }

    async fn one_change(&mut self) {
        loop {
            let Some((inotify, ready)) = &self.inotify else {
                return std::future::pending().await;
            };
            let Ok(mut guard) = ready.readable().await else {
                return std::future::pending().await;
            };
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(_) => {
                    guard.clear_ready();
                    continue;
                }
            };
            let counts = events.iter().any(|e| self.counts(e));
            if counts {
                // A directory may have come or gone.
                self.arm();
                return;
            }
        }
    }

    fn counts(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        let Some(name) = &event.name else {
            // One of the directories itself.
            let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            return event.mask.intersects(gone) && self.watched.iter().any(|(n, ..)| *n == event.wd);
        };
        let at = self.watched.iter().filter(|(number, ..)| *number == event.wd);
        at.into_iter().any(|(_, directory, names)| {
            names.have(name) && (event.mask != AddWatchFlags::IN_CREATE || is_complete(&directory.join(name)))
        })
    }
}

/// A file that was just created is still empty and will be closed; a link or a second name is there at once.
fn is_complete(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| !m.is_file() || m.nlink() > 1)
}

fn open() -> io::Result<(Inotify, AsyncFd<OwnedFd>)> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let fd = inotify.as_fd().try_clone_to_owned()?;
    // SAFETY: the OwnedFd is moved into the AsyncFd, so it stays open and the same for as long as it is registered.
    let ready = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(|e| io::Error::other(format!("cannot wait on a file descriptor: {e:?}")))?;
    Ok((inotify, ready))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::TempDir;

    async fn tells(watch: &mut ConfigWatch) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watch.changed())
            .await
            .is_ok()
    }

    /// Nothing is told of what came until now: a change of our own is the next that counts.
    async fn is_silent(watch: &mut ConfigWatch) -> bool {
        tokio::time::timeout(Duration::from_millis(50), watch.one_change())
            .await
            .is_err()
    }

    #[tokio::test]
    async fn directories_that_come_later_are_noticed() {
        let dir = TempDir::new("config-watch");
        let etc = dir.path().join("etc/probe");
        let mut watch = ConfigWatch::new(&Source::Directory(etc.clone()));
        fs::create_dir_all(etc.join("probe.d")).unwrap();
        assert!(tells(&mut watch).await);
        fs::write(etc.join("probe.d/a.toml"), "").unwrap();
        assert!(tells(&mut watch).await);
        fs::write(etc.join("probe.toml"), "").unwrap();
        assert!(tells(&mut watch).await);
        fs::remove_file(etc.join("probe.d/a.toml")).unwrap();
        assert!(tells(&mut watch).await);
        fs::write(dir.path().join("elsewhere"), "").unwrap();
        fs::rename(dir.path().join("elsewhere"), etc.join("probe.toml")).unwrap();
        assert!(tells(&mut watch).await);
        std::os::unix::fs::symlink("/dev/null", etc.join("probe.d/link.toml")).unwrap();
        assert!(tells(&mut watch).await);
    }

    #[tokio::test]
    async fn other_files_do_not_count() {
        let dir = TempDir::new("config-watch");
        let file = dir.path().join("p.toml");
        fs::write(&file, "").unwrap();
        let mut watch = ConfigWatch::new(&Source::File(file.clone()));
        fs::write(dir.path().join("other.toml"), "").unwrap();
        fs::read(&file).unwrap();
        assert!(is_silent(&mut watch).await);
        fs::write(&file, "x").unwrap();
        assert!(tells(&mut watch).await);
    }
}
