//! The same changes by inotify, which does not tell who made them.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, WatchDescriptor};

use super::{Change, Mark, Queued, What, file_name};
use crate::event::PathChange;

pub(super) type Watch = WatchDescriptor;

pub(super) struct Inotify(nix::sys::inotify::Inotify);

impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(nix::sys::inotify::Inotify::init(
            InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC,
        )?))
    }

    /// Marks a directory; the same one gives the same watch.
    pub(super) fn mark(&mut self, directory: &File) -> io::Result<Watch> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        Ok(self.0.add_watch(path.as_str(), flags)?)
    }

    pub(super) fn unmark(&mut self, watch: Watch) {
        let _ = self.0.rm_watch(watch);
    }

    pub(super) fn drain(&mut self, f: &mut impl FnMut(Queued)) {
        while let Ok(events) = self.0.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    f(Queued::Overflow);
                    continue;
                }
                let mut tell = |what| {
                    f(Queued::Change(Change {
                        mark: Mark::Inotify(event.wd),
                        what,
                        pid: None,
                    }))
                };
                if event
                    .mask
                    .intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED)
                {
                    tell(What::Gone);
                } else if event.mask.contains(AddWatchFlags::IN_MOVE_SELF) {
                    tell(What::Moved);
                }
                let Some(name) = event.name.as_ref().and_then(|n| file_name(n.as_bytes())) else {
                    continue;
                };
                for (bit, change) in [
                    (AddWatchFlags::IN_DELETE, PathChange::Removed),
                    (AddWatchFlags::IN_MOVED_FROM, PathChange::RenamedAway),
                    (AddWatchFlags::IN_CREATE, PathChange::Created),
                    (AddWatchFlags::IN_MOVED_TO, PathChange::RenamedTo),
                ] {
                    if event.mask.contains(bit) {
                        tell(What::Name(name.clone(), change));
                    }
                }
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
