//! The last close of a listening socket, without tracing close(2).
//!
//! A one-shot inotify watch through `/proc/PID/fd/N` lands on the socket's inode and fires when the last reference to the
//! open file goes: the last of all duplicates and inherited descriptors, those of killed holders and of messages in flight
//! included. It fires neither for connections nor for shutdown(2).

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

#[derive(Debug, thiserror::Error)]
pub enum CloseWatchError {
    /// The descriptor does not hold that socket (any more): it was closed before the watch stood. Another holder may
    /// have it still.
    #[error("descriptor {fd} of process {pid} does not hold socket {inode}")]
    AlreadyClosed { inode: u64, pid: u32, fd: i32 },
    #[error("no more inotify watches for socket {inode}: raise fs.inotify.max_user_watches")]
    Limit { inode: u64 },
    #[error("socket {inode} can't be watched through descriptor {fd} of process {pid}: {source}")]
    Watch {
        inode: u64,
        pid: u32,
        fd: i32,
        source: io::Error,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The last descriptor of the socket with this inode number was closed.
    Socket(u64),
    /// The kernel dropped events; nothing is known about any watched socket, and all watches are gone.
    Overflow,
}

pub struct CloseWatch {
    inotify: Inotify,
    by_watch: BTreeMap<WatchDescriptor, u64>,
    by_inode: BTreeMap<u64, WatchDescriptor>,
}

impl CloseWatch {
    /// # Errors
    /// Out of descriptors, or of inotify instances (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self {
            inotify,
            by_watch: BTreeMap::new(),
            by_inode: BTreeMap::new(),
        })
    }

    /// Watches the socket `inode` that process `pid` holds as descriptor `fd`. Does nothing where it is watched already.
    ///
    /// # Errors
    /// [`CloseWatchError::AlreadyClosed`] when that descriptor isn't this socket before and after the watch was set;
    /// otherwise what the kernel says.
    pub fn watch(&mut self, inode: u64, pid: u32, fd: i32) -> Result<(), CloseWatchError> {
        if self.by_inode.contains_key(&inode) {
            return Ok(());
        }
        let link = descriptor(pid, fd);
        if !leads_to_socket(&link, inode) {
            return Err(CloseWatchError::AlreadyClosed { inode, pid, fd });
        }
        let flags = AddWatchFlags::IN_CLOSE | AddWatchFlags::IN_ONESHOT;
        let watch = self.inotify.add_watch(&link, flags).map_err(|e| match e {
            nix::Error::ENOENT | nix::Error::ESRCH => CloseWatchError::AlreadyClosed { inode, pid, fd },
            nix::Error::ENOSPC => CloseWatchError::Limit { inode },
            e => CloseWatchError::Watch {
                inode,
                pid,
                fd,
                source: e.into(),
            },
        })?;
        // The last close may have come between the opening of the link and the watch; then no event will.
        if !leads_to_socket(&link, inode) {
            // The descriptor may lead to another watched socket by now, whose watch must stay.
            if !self.by_watch.contains_key(&watch) {
                let _ = self.inotify.rm_watch(watch);
            }
            return Err(CloseWatchError::AlreadyClosed { inode, pid, fd });
        }
        self.by_watch.insert(watch, inode);
        self.by_inode.insert(inode, watch);
        Ok(())
    }

    /// Ends the watch of a socket. Nothing is reported about it afterwards.
    pub fn unwatch(&mut self, inode: u64) {
        if let Some(watch) = self.by_inode.remove(&inode) {
            self.by_watch.remove(&watch);
            // It may have fired just now.
            let _ = self.inotify.rm_watch(watch);
        }
    }

    /// How many sockets are watched.
    pub fn len(&self) -> usize {
        self.by_inode.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    /// Reads what has happened, until nothing is left. Does not wait.
    pub fn drain(&mut self, mut f: impl FnMut(Closed)) {
        let mut overflow = false;
        // EAGAIN ends it; so does any other error, and the next drain meets it again.
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    overflow = true;
                }
                // Whichever comes first of the close itself and the notice that the watch is gone. An old notice about
                // a watch that was removed here finds nothing: watch numbers are not used again soon.
                let Some(inode) = self.by_watch.remove(&event.wd) else {
                    continue;
                };
                self.by_inode.remove(&inode);
                f(Closed::Socket(inode));
            }
        }
        if overflow {
            for (watch, _) in std::mem::take(&mut self.by_watch) {
                let _ = self.inotify.rm_watch(watch);
            }
            self.by_inode.clear();
            f(Closed::Overflow);
        }
    }
}

impl AsFd for CloseWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn descriptor(pid: u32, fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
}

/// Whether a link in `/proc/PID/fd` is the socket `inode`.
pub(super) fn leads_to_socket(link: &Path, inode: u64) -> bool {
    fs::read_link(link).is_ok_and(|target| socket_inode(&target) == Some(inode))
}

/// `N` of `socket:[N]`.
pub(super) fn socket_inode(target: &Path) -> Option<u64> {
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    };

    use super::*;
    use crate::sources::testing::{Child, TempDir, alone, until};

    fn inode(fd: &impl AsRawFd) -> u64 {
        fs::metadata(descriptor(std::process::id(), fd.as_raw_fd()))
            .unwrap()
            .ino()
    }

    fn drained(watch: &mut CloseWatch) -> Vec<Closed> {
        let mut seen = Vec::new();
        watch.drain(|c| seen.push(c));
        seen
    }

    #[test]
    fn the_last_close_is_told_once() {
        let _alone = alone();
        let dir = TempDir::new("close");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (me, fd, ino) = (std::process::id(), listener.as_raw_fd(), inode(&listener));
        let mut watch = CloseWatch::new().unwrap();
        watch.watch(ino, me, fd).unwrap();
        watch.watch(ino, me, fd).unwrap();
        assert_eq!(watch.len(), 1);
        let client = UnixStream::connect(&path).unwrap();
        drop((listener.accept().unwrap(), client));
        let copy: OwnedFd = listener.as_fd().try_clone_to_owned().unwrap();
        drop(listener);
        assert_eq!(drained(&mut watch), []);
        drop(copy);
        assert_eq!(drained(&mut watch), [Closed::Socket(ino)]);
        assert_eq!(drained(&mut watch), []);
        assert!(watch.is_empty());
    }

    #[test]
    fn a_killed_holder_counts() {
        let _alone = alone();
        let dir = TempDir::new("closekill");
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let ino = inode(&listener);
        let mut watch = CloseWatch::new().unwrap();
        watch
            .watch(ino, std::process::id(), listener.as_raw_fd())
            .unwrap();
        let child = Child::holding(|| ());
        drop(listener);
        assert_eq!(drained(&mut watch), [], "a child holds it");
        drop(child);
        let mut seen = Vec::new();
        until("the close is seen", || {
            watch.drain(|c| seen.push(c));
            !seen.is_empty()
        });
        assert_eq!(seen, [Closed::Socket(ino)]);
    }

    #[test]
    fn what_is_closed_already_is_said_so() {
        let _alone = alone();
        let dir = TempDir::new("closed");
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (me, fd, ino) = (std::process::id(), listener.as_raw_fd(), inode(&listener));
        let mut watch = CloseWatch::new().unwrap();
        assert!(matches!(
            watch.watch(ino + 1, me, fd),
            Err(CloseWatchError::AlreadyClosed { .. })
        ));
        watch.watch(ino, me, fd).unwrap();
        watch.unwatch(ino);
        drop(listener);
        assert_eq!(drained(&mut watch), []);
    }
}
