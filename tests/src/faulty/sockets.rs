//! The sockets that the daemon holds.

use std::{
    fs,
    io::{IoSlice, IoSliceMut},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
    path::Path,
};

use anyhow::{Context, Result, bail};
use nix::{
    cmsg_space,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
        SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, UnixAddr, accept4, bind, getsockname, listen,
        recvmsg, sendmsg, setsockopt, shutdown, socket, sockopt,
    },
};

use super::uring::Uring;

const BACKLOG: i32 = 16;

/// Open sockets under the address that each was bound to.
#[derive(Debug)]
pub(super) struct Sockets {
    open: Vec<(String, OwnedFd)>,
    reuse_port: bool,
    uring: Option<Uring>,
    /// Where other processes pass sockets to.
    gifts: Option<UnixDatagram>,
}

impl Sockets {
    pub(super) fn new(reuse_port: bool) -> Self {
        Self {
            open: Vec::new(),
            reuse_port,
            uring: None,
            gifts: None,
        }
    }

    /// From now on io_uring binds and listens.
    pub(super) fn through_io_uring(&mut self) -> Result<()> {
        self.uring = Some(Uring::new()?);
        Ok(())
    }

    /// Binds `unix:PATH`, `unix:@NAME`, `tcp:IP:PORT` or `udp:IP:PORT`. Returns the address with the port that it got.
    pub(super) fn bind(&mut self, address: &str) -> Result<String> {
        let (scheme, rest) = address
            .split_once(':')
            .context("expected unix:, tcp: or udp: before the address")?;
        let (fd, bound) = match scheme {
            "unix" => {
                let unix = match rest.strip_prefix('@') {
                    Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
                    None => UnixAddr::new(Path::new(rest))?,
                };
                (
                    self.bound(AddressFamily::Unix, SockType::Stream, &unix)?,
                    address.to_owned(),
                )
            }
            "tcp" | "udp" => {
                let ip: SocketAddr = rest.parse().with_context(|| format!("{rest:?} is no IP:PORT"))?;
                let kind = if scheme == "tcp" {
                    SockType::Stream
                } else {
                    SockType::Datagram
                };
                let fd = match ip {
                    SocketAddr::V4(ip) => self.bound(AddressFamily::Inet, kind, &SockaddrIn::from(ip))?,
                    SocketAddr::V6(ip) => self.bound(AddressFamily::Inet6, kind, &SockaddrIn6::from(ip))?,
                };
                let name: SockaddrStorage = getsockname(fd.as_raw_fd())?;
                (fd, format!("{scheme}:{name}"))
            }
            other => bail!("unknown scheme {other:?}"),
        };
        self.open.push((bound.clone(), fd));
        Ok(bound)
    }

    fn bound(&mut self, family: AddressFamily, kind: SockType, to: &dyn SockaddrLike) -> Result<OwnedFd> {
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        if family != AddressFamily::Unix {
            if kind == SockType::Stream {
                setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            }
            setsockopt(&fd, sockopt::ReusePort, &self.reuse_port)?;
        }
        match &mut self.uring {
            Some(uring) => uring.bind(&fd, to)?,
            None => bind(fd.as_raw_fd(), to)?,
        }
        Ok(fd)
    }

    /// Listens on a socket that is bound already, or binds it first.
    pub(super) fn listen(&mut self, address: &str) -> Result<String> {
        let bound = match self.find(address) {
            Some(_) => address.to_owned(),
            None => self.bind(address)?,
        };
        if !bound.starts_with("udp:") {
            let at = self.open.iter().position(|(a, _)| *a == bound);
            let (_, fd) = &self.open[at.context("just bound")?];
            match &mut self.uring {
                Some(uring) => uring.listen(fd, BACKLOG)?,
                None => listen(fd, Backlog::new(BACKLOG)?)?,
            }
        }
        Ok(bound)
    }

    /// Takes the path from whoever has it, this process included, and listens there.
    pub(super) fn rebind(&mut self, address: &str) -> Result<String> {
        let path = address
            .strip_prefix("unix:")
            .context("only a socket file can be bound again")?;
        fs::remove_file(path).with_context(|| format!("unlink {path}"))?;
        let old = self
            .open
            .iter()
            .position(|(a, _)| a == address)
            .map(|i| self.open.remove(i));
        let bound = self.listen(address)?;
        drop(old);
        Ok(bound)
    }

    pub(super) fn close(&mut self, address: &str) -> Result<()> {
        let before = self.open.len();
        self.open.retain(|(a, _)| a != address);
        if self.open.len() == before {
            bail!("{address} is not open")
        } else {
            Ok(())
        }
    }

    pub(super) fn shutdown(&self, address: &str) -> Result<()> {
        let fd = self
            .find(address)
            .with_context(|| format!("{address} is not open"))?;
        Ok(shutdown(fd.as_raw_fd(), Shutdown::Both)?)
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    /// Removes the socket files.
    pub(super) fn unlink_all(&self) {
        for (address, _) in &self.open {
            if let Some(path) = address.strip_prefix("unix:").filter(|p| !p.starts_with('@')) {
                let _ = fs::remove_file(path);
            }
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(|(a, _)| a.as_str())
    }

    /// Lets the sockets live on over an exec. Returns `ADDRESS=FD` for each.
    pub(super) fn bequeath(&self) -> Result<Vec<String>> {
        self.open
            .iter()
            .map(|(address, fd)| {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                Ok(format!("{address}={}", fd.as_raw_fd()))
            })
            .collect()
    }

    /// The other side of [`Self::bequeath`].
    pub(super) fn inherit(&mut self, item: &str) -> Result<()> {
        let (address, fd) = item.rsplit_once('=').context("expected ADDRESS=FD")?;
        let fd: i32 = fd.parse().context("descriptor")?;
        // SAFETY: the predecessor of this process left this descriptor open for us alone and told its number.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("inherited descriptor")?;
        self.open.push((address.to_owned(), fd));
        Ok(())
    }

    /// Takes the connection at the head of the queue.
    pub(super) fn accept(&self, address: &str) -> Result<()> {
        let listener = self
            .find(address)
            .with_context(|| format!("{address} is not open"))?;
        let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the kernel just made this descriptor for us alone.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(())
    }

    /// Passes a socket on.
    pub(super) fn give(&self, address: &str, path: &str) -> Result<()> {
        let fd = [self
            .find(address)
            .with_context(|| format!("{address} is not open"))?
            .as_raw_fd()];
        let via = UnixDatagram::unbound()?;
        sendmsg(
            via.as_raw_fd(),
            &[IoSlice::new(b"a socket")],
            &[ControlMessage::ScmRights(&fd)],
            MsgFlags::empty(),
            Some(&UnixAddr::new(path)?),
        )?;
        Ok(())
    }

    pub(super) fn receive_at(&mut self, path: &str) -> Result<()> {
        self.gifts = Some(UnixDatagram::bind(path)?);
        Ok(())
    }

    /// Takes the socket that another process passed.
    pub(super) fn receive(&mut self, address: &str) -> Result<()> {
        let via = self.gifts.as_ref().context("nothing is received yet")?;
        let (mut text, mut space) = ([0; 64], cmsg_space!([RawFd; 1]));
        let mut parts = [IoSliceMut::new(&mut text)];
        let message = recvmsg::<UnixAddr>(
            via.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                for fd in fds {
                    // SAFETY: the kernel just made this descriptor for us alone.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    self.open.push((address.to_owned(), fd));
                }
                return Ok(());
            }
        }
        bail!("a message without a socket")
    }

    fn find(&self, address: &str) -> Option<&OwnedFd> {
        self.open.iter().find(|(a, _)| a == address).map(|(_, fd)| fd)
    }
}
