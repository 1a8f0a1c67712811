//! Which bus a service manager is on, and how to get there.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use rustix::{process::Uid, thread::set_thread_res_uid};
use zbus::{Connection, connection::Builder};

use super::{CALL_WITHIN, UnitsError};

const SYSTEM: &str = "/run/dbus/system_bus_socket";

/// A bus that a service manager is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bus {
    /// A D-Bus address.
    Address(String),
    System,
    User {
        name: String,
        uid: u32,
    },
}

impl Bus {
    /// # Errors
    /// No such user, or the user data base could not be asked.
    pub(super) fn of(user: Option<&str>, address: Option<&str>) -> Result<Self, UnitsError> {
        if let Some(address) = address {
            return Ok(Self::Address(address.to_owned()));
        }
        let Some(name) = user else { return Ok(Self::System) };
        match nix::unistd::User::from_name(name) {
            Ok(Some(user)) => Ok(Self::User {
                name: name.to_owned(),
                uid: user.uid.as_raw(),
            }),
            Ok(None) => Err(UnitsError::NoSuchUser {
                user: name.to_owned(),
            }),
            Err(error) => Err(UnitsError::UserDatabase {
                user: name.to_owned(),
                error: error.into(),
            }),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Address(_) => None,
            Self::System => Some(PathBuf::from(SYSTEM)),
            Self::User { uid, .. } => Some(PathBuf::from(format!("/run/user/{uid}/bus"))),
        }
    }

    /// Why nobody can be asked now.
    pub(super) fn absent(&self) -> Option<String> {
        let path = self.path()?;
        let error = path.symlink_metadata().err()?;
        let path = path.display();
        Some(match self {
            Self::User { name, .. } => {
                format!("units of {name}: their service manager is not there ({path}: {error})")
            }
            _ => format!("units: there is no systemd on a bus here ({path}: {error})"),
        })
    }

    /// Whether it may come later: a user's bus does when that user logs in.
    pub(super) fn may_come(&self) -> bool {
        !matches!(self, Self::System)
    }

    pub(super) async fn connect(&self) -> Result<Connection, UnitsError> {
        let builder = match (self, self.path()) {
            (Self::Address(address), _) => Builder::address(address.as_str()),
            (Self::User { uid, .. }, Some(path)) => {
                let stream = stream_as(*uid, &path).map_err(|error| UnitsError::Connect { path, error })?;
                Builder::unix_stream(stream).user_id(*uid)
            }
            (_, path) => {
                let path = path.unwrap_or_else(|| SYSTEM.into());
                let stream = stream(&path).map_err(|error| UnitsError::Connect { path, error })?;
                Builder::unix_stream(stream)
            }
        };
        let connection = builder.method_timeout(CALL_WITHIN).build();
        match tokio::time::timeout(CALL_WITHIN, connection).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(UnitsError::Silent),
        }
    }
}

/// Without waiting: a UNIX listener whose queue is full answers at once that it is.
fn stream(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

/// A bus of a user lets in nobody else, root included, and asks the kernel whose connection it is: that of the thread
/// that made it. A thread of its own is that user for this one call, and ends; its directory is that user's to fill, so
/// root's rights should not follow what lies there either.
pub(super) fn stream_as(uid: u32, path: &Path) -> io::Result<UnixStream> {
    if rustix::process::geteuid().as_raw() == uid {
        return stream(path);
    }
    let path = path.to_owned();
    let connect = move || {
        set_thread_res_uid(None, Uid::from_raw(uid), None)?;
        stream(&path)
    };
    thread::Builder::new()
        .name("user-bus".into())
        .spawn(connect)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked")))
}
