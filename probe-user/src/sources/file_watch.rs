//! Writes to declared files. That a name appears, goes or is replaced is [`super::directory_watch`]'s to tell; this tells
//! that what stands in a file was changed in place.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use rustix::fs::OFlags;

use super::{path::is_absent, root::Rooted};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent {
    Written(Rooted),
    /// The kernel dropped events: any watched file may have changed.
    Overflow,
}

pub struct FileWatch {
    inotify: Inotify,
    paths: BTreeMap<WatchDescriptor, Rooted>,
}

impl FileWatch {
    /// # Errors
    /// Out of descriptors, or of inotify instances (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self {
            inotify,
            paths: BTreeMap::new(),
        })
    }

    /// Watches the file that the path names now; to be called again when it names another. A path that names nothing, a
    /// link or something other than a file is left alone. What was written before is for the caller to read, afterwards.
    ///
    /// # Errors
    /// No more watches (`fs.inotify.max_user_watches`), or no right to read the file.
    pub fn watch(&mut self, path: &Rooted) -> io::Result<()> {
        let file = match path.open(OFlags::PATH) {
            Ok(file) => file,
            Err(e) if is_absent(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY;
        let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        let watch = self.inotify.add_watch(by_descriptor.as_str(), flags)?;
        let old: Vec<_> = self
            .paths
            .iter()
            .filter(|(w, p)| **w != watch && *p == path)
            .map(|(w, _)| *w)
            .collect();
        for w in old {
            self.paths.remove(&w);
            // The file may be gone, and its watch with it.
            let _ = self.inotify.rm_watch(w);
        }
        self.paths.insert(watch, path.clone());
        Ok(())
    }

    pub fn forget(&mut self, path: &Rooted) {
        let watches = self.paths.iter().filter(|(_, p)| *p == path);
        for watch in watches.map(|(w, _)| *w).collect::<Vec<_>>() {
            self.paths.remove(&watch);
            let _ = self.inotify.rm_watch(watch);
        }
    }

    /// Reads what has happened. Does not wait. A file that was written to several times is told once.
    pub fn drain(&mut self, mut f: impl FnMut(FileEvent)) {
        let mut written = std::collections::BTreeSet::new();
        let mut overflow = false;
        // EAGAIN ends it; so does any other error, and the next drain meets it again.
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                overflow |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.paths.remove(&event.wd);
                } else if let Some(path) = self.paths.get(&event.wd) {
                    written.insert(path.clone());
                }
            }
        }
        written.into_iter().for_each(|path| f(FileEvent::Written(path)));
        if overflow {
            f(FileEvent::Overflow);
        }
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sources::testing::TempDir;

    fn drained(w: &mut FileWatch) -> Vec<FileEvent> {
        let mut events = Vec::new();
        w.drain(|e| events.push(e));
        events
    }

    #[test]
    fn a_write_in_place_is_told_once_and_a_replaced_file_after_it_is_watched_again() {
        let dir = TempDir::new("file-watch");
        let path = dir.path().join("d.pid");
        let place = Rooted::host(&path);
        let mut w = FileWatch::new().unwrap();
        w.watch(&place).unwrap();
        fs::write(&path, "1").unwrap();
        assert_eq!(drained(&mut w), [], "it did not exist");
        w.watch(&place).unwrap();
        w.watch(&place).unwrap();
        fs::write(&path, "2").unwrap();
        assert_eq!(drained(&mut w), [FileEvent::Written(place.clone())]);
        let new = dir.path().join("new");
        fs::write(&new, "3").unwrap();
        fs::rename(&new, &path).unwrap();
        drained(&mut w);
        w.watch(&place).unwrap();
        fs::write(&path, "4").unwrap();
        assert_eq!(drained(&mut w), [FileEvent::Written(place)]);
        assert_eq!(w.paths.len(), 1);
    }
}
