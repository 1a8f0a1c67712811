//! Whether a socket is bound to a file, and the removal of one that none is bound to.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use rustix::fs::OFlags;

use super::place::{Place, Removal};
use crate::{
    event::{FileId, PathState},
    sources::{namespace, path, sock_diag::Diag},
};

/// What is under a declared path.
#[derive(Debug)]
pub(super) enum Found {
    Absent,
    /// A file that is no socket; what it is.
    Other(String),
    /// A socket is bound to it.
    Live,
    /// None is, and none ever will be.
    Stale(OwnedFd),
    /// The kernel does not tell; why.
    Unknown(String),
}

/// Looks at it, and asks the kernel twice: for all its sockets, and for this file's.
pub(super) fn look(place: &Place) -> Found {
    let file = match place.file(OFlags::PATH) {
        Ok(Some(file)) => file,
        Ok(None) => return Found::Absent,
        Err(e) => return Found::Unknown(e.to_string()),
    };
    let id = match path::stamp_of(&file) {
        Ok((stamp, _)) => match stamp.state {
            PathState::Socket(id) => id,
            PathState::Other(what) => return Found::Other(what),
            PathState::Absent => return Found::Absent,
            PathState::Unknown(e) => return Found::Unknown(e),
        },
        Err(e) => return Found::Unknown(e.to_string()),
    };
    match is_listed(id) {
        Ok(true) => return Found::Live,
        Ok(false) => {}
        Err(e) => return Found::Unknown(e),
    }
    // A bind that is just happening is not listed yet.
    if let Err(e) = place.settle() {
        return Found::Unknown(format!("its directory could not be locked: {e}"));
    }
    match is_bound(&file) {
        Ok(true) => Found::Live,
        Ok(false) => Found::Stale(file),
        Err(e) => Found::Unknown(format!(
            "the kernel does not tell whether a socket is bound to it: {e}"
        )),
    }
}

/// Removes a socket file that was found stale.
pub(super) fn remove(place: &Place, file: &OwnedFd) -> Removal {
    place.remove(file.as_fd(), &mut || dead(file))
}

/// After a reclaim that was killed.
pub(super) fn recover(place: &Place) -> Option<Removal> {
    place.recover(&mut |file| {
        place.settle().map_err(|e| e.to_string())?;
        match path::stamp_of(file).map_err(|e| e.to_string())?.0.state {
            PathState::Socket(_) => dead(file),
            other => Err(format!("it is no socket: {other:?}")),
        }
    })
}

fn dead(file: &OwnedFd) -> Result<(), String> {
    match is_bound(file) {
        Ok(false) => Ok(()),
        Ok(true) => Err("a socket is bound to it".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Whether a live socket of any network namespace is among the kernel's, by device and inode.
fn is_listed(id: FileId) -> Result<bool, String> {
    let mut diag = Diag::open().map_err(|e| e.to_string())?;
    let lists =
        |sockets: &[crate::sources::sock_diag::UnixSocket]| sockets.iter().any(|s| s.file == Some(id));
    Ok(lists(&diag.unix().map_err(|e| e.to_string())?)
        || lists(&diag.unix_connected_datagram().map_err(|e| e.to_string())?)
        || lists(&namespace::unix_elsewhere()?))
}

/// Whether a socket is bound to this very file, in whatever network namespace and under whatever name.
///
/// A list of sockets is read piece by piece and can miss one; this is one question. connect(2) looks for the socket
/// bound to the inode (`unix_find_bsd()` in `net/unix/af_unix.c`): there is none → `ECONNREFUSED`; there is one, of another
/// type than the asking socket → `EPROTOTYPE`, before anything is connected. Two types are asked with, since one of the
/// same type refuses too while it does not listen. Only for a sequenced-packet listener that the list above has missed would
/// the question be a connection.
///
/// No file that is unbound once is bound later: bind(2) always makes a new one. The caller has waited for those under way
/// ([`Place::settle`]), and holds the file open, so that its inode is nobody else's meanwhile.
fn is_bound(file: &OwnedFd) -> io::Result<bool> {
    // The descriptor leads to the file itself, whatever its name leads to.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let address = UnixAddr::new(path.as_str())?;
    for kind in [SockType::SeqPacket, SockType::Stream] {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let asking = socket(AddressFamily::Unix, kind, flags, None)?;
        match connect(asking.as_raw_fd(), &address) {
            Err(nix::Error::ECONNREFUSED) => {}
            // EAGAIN: its queue is full.
            Err(nix::Error::EPROTOTYPE | nix::Error::EAGAIN) | Ok(()) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::net::{UnixDatagram, UnixListener},
    };

    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;
    use crate::sources::{
        root::Rooted,
        testing::{TempDir, alone},
    };

    fn open(path: &std::path::Path) -> OwnedFd {
        Place::open(&Rooted::host(path))
            .unwrap()
            .unwrap()
            .file(OFlags::PATH)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_kernel_tells_whether_a_socket_is_bound_to_a_file() {
        let _alone = alone();
        let dir = TempDir::new("bound");
        for (name, kind) in [
            ("s", SockType::Stream),
            ("d", SockType::Datagram),
            ("q", SockType::SeqPacket),
        ] {
            let path = dir.path().join(name);
            let holder = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
            bind(holder.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
            let file = open(&path);
            assert!(is_bound(&file).unwrap(), "{name} bound, not listening");
            if kind != SockType::Datagram {
                listen(&holder, Backlog::new(1).unwrap()).unwrap();
                assert!(is_bound(&file).unwrap(), "{name} listening");
            }
            fs::rename(&path, dir.path().join("elsewhere")).unwrap();
            assert!(is_bound(&file).unwrap(), "{name} renamed");
            fs::remove_file(dir.path().join("elsewhere")).unwrap();
            assert!(is_bound(&file).unwrap(), "{name} unlinked");
            drop(holder);
            assert!(!is_bound(&file).unwrap(), "{name} closed");
        }
    }

    #[test]
    fn a_listener_gets_no_connection_from_the_question() {
        let dir = TempDir::new("question");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(is_bound(&open(&path)).unwrap());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let datagrams = UnixDatagram::bind(dir.path().join("d")).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        assert!(is_bound(&open(&dir.path().join("d"))).unwrap());
        assert_eq!(
            datagrams.recv(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn only_a_file_that_nothing_is_bound_to_is_removed() {
        let _alone = alone();
        let dir = TempDir::new("removal");
        let path = dir.path().join("s");
        let place = || Place::open(&Rooted::host(&path)).unwrap().unwrap();
        assert!(matches!(look(&place()), Found::Absent));
        fs::write(&path, "").unwrap();
        assert!(matches!(look(&place()), Found::Other(_)));
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(look(&place()), Found::Live));
        // Not even when somebody believed it dead.
        assert!(matches!(remove(&place(), &open(&path)), Removal::Changed(_)));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(listener);
        let Found::Stale(file) = look(&place()) else {
            panic!()
        };
        // Rebound in between.
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(remove(&place(), &file), Removal::Changed(_)));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(listener);
        let Found::Stale(file) = look(&place()) else {
            panic!()
        };
        assert!(matches!(remove(&place(), &file), Removal::Removed));
        assert!(matches!(remove(&place(), &file), Removal::Gone));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_reclaim_had_moved_aside_is_settled() {
        let _alone = alone();
        let dir = TempDir::new("recover");
        let path = dir.path().join("s");
        let place = Place::open(&Rooted::host(&path)).unwrap().unwrap();
        assert!(recover(&place).is_none());
        let listener = UnixListener::bind(&path).unwrap();
        fs::rename(&path, dir.path().join(".s.probe-reclaim")).unwrap();
        assert!(matches!(recover(&place), Some(Removal::Changed(_))));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        fs::rename(&path, dir.path().join(".s.probe-reclaim")).unwrap();
        drop(listener);
        assert!(matches!(recover(&place), Some(Removal::Removed)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
