//! The API's socket file is made again when somebody has removed it: nobody would reach the daemon any more.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use super::listen::{self, Own};

/// Between two attempts to make it again.
const PAUSE: Duration = Duration::from_secs(1);

/// Ours, until it is dropped: then it is removed.
#[derive(Debug)]
pub(super) struct SocketFile {
    own: Own,
    group: Option<u32>,
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl SocketFile {
    /// To be called within a Tokio runtime.
    pub(super) fn new(own: Own, group: Option<u32>) -> Self {
        let mut file = Self {
            own,
            group,
            watch: None,
        };
        file.arm();
        file
    }

    /// Waits until the file is gone, makes another one, and gives its listener. Nothing is lost when it is dropped while it
    /// waits.
    pub(super) async fn made_again(&mut self) -> UnixListener {
        let mut complained = false;
        loop {
            if self.own.is_there() {
                self.changed().await;
                continue;
            }
            match self.make() {
                Ok(listener) => {
                    tracing::warn!(
                        "somebody has removed {}; it is there again",
                        self.own.path.display()
                    );
                    return listener;
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!("nobody can connect any more, until this is mended: {error}");
                    }
                    // The file system may be full or read-only: nothing tells when that is over.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn make(&mut self) -> io::Result<UnixListener> {
        if let Some(parent) = self.own.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let (listener, own) = listen::bind(&self.own.path, self.group).map_err(io::Error::other)?;
        listener.set_nonblocking(true)?;
        self.own = own;
        // Its directory may be another one.
        self.arm();
        Ok(listener)
    }

    fn arm(&mut self) {
        self.watch = match Watch::of(self.own.path.parent().unwrap_or(Path::new("/"))) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(
                    "whether {} is removed is not noticed: {error}",
                    self.own.path.display()
                );
                None
            }
        };
    }

    async fn changed(&self) {
        let Some(watch) = &self.watch else {
            return std::future::pending().await;
        };
        let Ok(mut guard) = watch.ready.readable().await else {
            return std::future::pending().await;
        };
        // Whatever it was: the caller looks.
        if watch.inotify.read_events().is_err() {
            guard.clear_ready();
        }
    }
}

impl Watch {
    fn of(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(directory, flags)?;
        let fd = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: the OwnedFd is moved into the AsyncFd, so it stays open and the same for as long as it is registered.
        let ready = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
            .map_err(|e| io::Error::other(format!("cannot wait on a file descriptor: {e:?}")))?;
        Ok(Self { inotify, ready })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.own.remove();
    }
}
