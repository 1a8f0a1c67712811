//! Where the API listens: sockets that the service manager has opened, or our own.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr},
    unistd::{Gid, Group},
};

use crate::{
    config::Probe,
    event::PathState,
    sources::{path, sock_diag::Diag},
};

/// Who may connect: root and the socket's group.
const MODE: u32 = 0o660;

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {}: {error}", path.display())]
    Bind { path: PathBuf, error: io::Error },
    #[error("cannot listen on {}: {why}", path.display())]
    Taken { path: PathBuf, why: String },
    #[error("cannot listen on tcp:{address}: {error}")]
    Tcp { address: SocketAddr, error: io::Error },
    #[error("the service manager's sockets cannot be taken over: {0}")]
    Handed(io::Error),
}

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: Option<UnixListener>,
    pub(super) tcp: Option<TcpListener>,
    /// Whose members may read.
    pub(super) group: Option<u32>,
    /// Our own socket file, to be removed at the end.
    own: Option<Own>,
}

/// A socket file of ours.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) path: PathBuf,
    dev: u64,
    ino: u64,
}

impl Own {
    /// Whether the path still leads to it.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == (self.dev, self.ino) && m.file_type().is_socket())
    }

    /// Removes it, if it still is ours.
    pub(super) fn remove(&self) {
        if self.is_there()
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} stays behind: {e}", self.path.display());
        }
    }
}

impl Listeners {
    /// Takes over what the service manager has opened, and opens the rest. Whoever calls holds the daemon's lock, so that
    /// no other daemon does this now.
    ///
    /// # Errors
    /// If a socket can't be had, and who has it.
    pub fn open(probe: &Probe) -> Result<Self, ListenError> {
        let group = Group::from_name(&probe.group).ok().flatten();
        let group = group.map(|g| g.gid.as_raw());
        let mut listeners = Self {
            unix: None,
            tcp: None,
            group,
            own: None,
        };
        listeners.take_handed().map_err(ListenError::Handed)?;
        if listeners.unix.is_none() {
            let (listener, own) = bind(probe.socket.as_ref(), group)?;
            (listeners.unix, listeners.own) = (Some(listener), Some(own));
        }
        if let (None, Some(address)) = (&listeners.tcp, probe.api_tcp) {
            let tcp = TcpListener::bind(address).map_err(|error| ListenError::Tcp { address, error })?;
            listeners.tcp = Some(tcp);
        }
        Ok(listeners)
    }

    /// Where it listens, for people.
    pub fn names(&self) -> Vec<String> {
        let unix = self.unix.as_ref().and_then(|l| l.local_addr().ok());
        let unix = unix.map(|a| match a.as_pathname() {
            Some(path) => format!("unix:{}", path.display()),
            None => "a socket without a path".to_owned(),
        });
        let tcp = self.tcp.as_ref().and_then(|l| l.local_addr().ok());
        unix.into_iter().chain(tcp.map(|a| format!("tcp:{a}"))).collect()
    }

    /// What `LISTEN_FDS` names.
    fn take_handed(&mut self) -> io::Result<()> {
        let fds: Vec<RawFd> = sd_notify::listen_fds()?.collect();
        for fd in fds {
            // SAFETY: the service manager opened it for us and nobody else here uses it; LISTEN_PID is ours.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            match family(&fd)? {
                libc::AF_UNIX if self.unix.is_none() => self.unix = Some(fd.into()),
                libc::AF_INET | libc::AF_INET6 if self.tcp.is_none() => {
                    let tcp = TcpListener::from(fd);
                    let address = tcp.local_addr()?;
                    if !address.ip().is_loopback() {
                        return Err(io::Error::other(format!(
                            "{address} is no loopback address: others could reach it"
                        )));
                    }
                    self.tcp = Some(tcp);
                }
                other => {
                    return Err(io::Error::other(format!(
                        "a socket of address family {other} that probe has no use for; expected one UNIX stream socket, and \
                         at most one TCP socket"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Our own socket file, whose removal is the caller's from now on.
    pub(super) fn take_own(&mut self) -> Option<Own> {
        self.own.take()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            own.remove();
        }
    }
}

/// Makes a socket file where there is none, or a dead one.
pub(super) fn bind(path: &Path, group: Option<u32>) -> Result<(UnixListener, Own), ListenError> {
    let failed = |error| ListenError::Bind {
        path: path.to_owned(),
        error,
    };
    remove_dead(path)?;
    let listener = bind_private(path).map_err(failed)?;
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let own = Own {
        path: path.to_owned(),
        dev: metadata.dev(),
        ino: metadata.ino(),
    };
    if let Some(group) = group {
        nix::unistd::fchownat(
            nix::fcntl::AT_FDCWD,
            path,
            None,
            Some(Gid::from_raw(group)),
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .map_err(|e| failed(e.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
    Ok((listener, own))
}

/// Nobody may connect before the owner and the mode are right. The file gets the mode of the socket; a umask would be that of
/// all threads.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::stat::fchmod(&socket, nix::sys::stat::Mode::empty())?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

/// Removes a socket file that no socket is bound to: what a daemon leaves behind that was killed.
fn remove_dead(path: &Path) -> Result<(), ListenError> {
    let taken = |why: String| ListenError::Taken {
        path: path.to_owned(),
        why,
    };
    let file = match path::state(path) {
        PathState::Absent => return Ok(()),
        PathState::Socket(file) => file,
        PathState::Other(what) => return Err(taken(format!("there is a {what}"))),
        PathState::Unknown(why) => return Err(taken(why)),
    };
    let bound = Diag::open().and_then(|mut diag| diag.unix()).map_err(|e| {
        taken(format!(
            "whether the socket that is there lives is not known: {e}"
        ))
    })?;
    if bound.iter().any(|s| s.file == Some(file)) {
        return Err(taken("a live socket is bound to it".to_owned()));
    }
    if path::state(path) != PathState::Socket(file) {
        return Err(taken("somebody else is binding it".to_owned()));
    }
    tracing::info!(
        "{} was left behind by a daemon that is gone; it is removed",
        path.display()
    );
    fs::remove_file(path).map_err(|error| ListenError::Bind {
        path: path.to_owned(),
        error,
    })
}

fn family(fd: &OwnedFd) -> io::Result<i32> {
    let option = |name: libc::c_int| -> io::Result<i32> {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `value`, which is that long.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        match result {
            0 => Ok(value),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if option(libc::SO_TYPE)? != libc::SOCK_STREAM || option(libc::SO_ACCEPTCONN)? == 0 {
        return Err(io::Error::other("a socket that does not listen for streams"));
    }
    option(libc::SO_DOMAIN)
}
