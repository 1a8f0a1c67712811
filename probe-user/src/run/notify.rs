//! What a child tells the service manager, passed on by us: the manager listens to its main process only, and that is us.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

use sd_notify::NotifyState;

use crate::reclaim::clear_own;

/// As long as a message may be.
const BYTES: usize = 4096;

/// A socket in the service manager's place. Its path is the same for every child and for every one of us, so that a child
/// that outlives us is heard again.
#[derive(Debug)]
pub(super) struct Relay {
    socket: UnixDatagram,
    path: PathBuf,
}

/// What a message meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Ready,
    Stopping,
    Other,
}

impl Relay {
    /// # Errors
    /// When the path is too long for a socket, or something else is there.
    pub(super) fn bind(directory: &Path, service: &str) -> io::Result<Self> {
        let name = service.replace('%', "%25").replace('/', "%2f");
        let path = directory.join(format!("{name}.notify"));
        std::fs::create_dir_all(directory)?;
        clear_own(&path).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Passes on what came.
    pub(super) fn pass_on(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut bytes = [0; BYTES];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            for (line, word) in read(&bytes[..length]) {
                // Nobody may be listening; the child does not care either.
                let _ = sd_notify::notify(&[NotifyState::Custom(&line)]);
                words.push(word);
            }
        }
        words
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Ours, and nobody else's as long as we hold the lock of the run.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The lines of a message that are passed on, and what they mean.
pub(crate) fn read(message: &[u8]) -> Vec<(String, Word)> {
    let text = String::from_utf8_lossy(message);
    let lines = text.lines().filter(|line| is_passed_on(line));
    lines
        .map(|line| {
            let word = match line {
                "READY=1" => Word::Ready,
                "STOPPING=1" => Word::Stopping,
                _ => Word::Other,
            };
            (line.to_owned(), word)
        })
        .collect()
}

/// The main process is us, and descriptors do not come through.
fn is_passed_on(line: &str) -> bool {
    !["MAINPID", "FDSTORE", "FDNAME", "FDPOLL", "BARRIER"]
        .iter()
        .any(|key| line.starts_with(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::{TempDir, alone};

    #[test]
    fn a_child_is_heard_by_the_next_of_us_too() {
        let _alone = alone();
        let dir = TempDir::new("relay");
        let first = Relay::bind(dir.path(), "a").unwrap();
        let child = UnixDatagram::unbound().unwrap();
        let path = first.path().to_owned();
        child.send_to(b"STATUS=x\nREADY=1\nMAINPID=7\n", &path).unwrap();
        assert_eq!(first.pass_on(), [Word::Other, Word::Ready]);
        assert!(Relay::bind(dir.path(), "a").is_err(), "it is in use");
        // As after SIGKILL: the file stays.
        let Relay { socket, .. } = &first;
        let _ = socket.shutdown(std::net::Shutdown::Both);
        std::fs::rename(&path, dir.path().join("kept")).unwrap();
        drop(first);
        std::fs::rename(dir.path().join("kept"), &path).unwrap();
        let second = Relay::bind(dir.path(), "a").unwrap();
        child.send_to(b"STOPPING=1", &path).unwrap();
        assert_eq!(second.pass_on(), [Word::Stopping]);
    }
}
