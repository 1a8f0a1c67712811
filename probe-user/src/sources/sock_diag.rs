//! Sockets as the kernel's `sock_diag` lists them: one dump a family, of this process's network namespace or another one.
//!
//! Requests and answers are laid out here rather than taken from the netlink crates: `netlink-packet-sock-diag` keeps
//! the inode and device of `UNIX_DIAG_VFS` private, has no flag for state 7, does not name
//! `INET_DIAG_SKV6ONLY`, and gives up a whole dump over one socket that it can't parse.

mod wire;

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};
use zerocopy::{FromBytes, IntoBytes};

use crate::event::{FileId, SocketId, SocketState};

/// How long the kernel may take for one message.
const TIMEOUT_SECONDS: i64 = 2;
/// How often a dump is begun anew that the kernel says was interrupted.
const ATTEMPTS: u32 = 5;
/// The kernel builds messages as large as the reader's buffer, up to 32 KiB.
const BUFFER: usize = 32 * 1024;
/// A dump of more sockets than that ends with an error instead of eating the memory.
const MAX_SOCKETS: usize = 1 << 20;

/// States as the kernel numbers them for every family (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
pub(super) const LISTEN: u8 = 10;
const BOUND_INACTIVE: u8 = 13;

const RCV_SHUTDOWN: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    #[error("no netlink socket for socket diagnosis: {0}")]
    Open(io::Error),
    #[error("the kernel took no request for {what}: {source}")]
    Send { what: &'static str, source: io::Error },
    #[error("the kernel's list of {what} broke off: {source}")]
    Receive { what: &'static str, source: io::Error },
    #[error("the kernel did not list {what} within {TIMEOUT_SECONDS} s")]
    TimedOut { what: &'static str },
    #[error("the kernel refuses to list {what}: {source}{hint}")]
    Refused {
        what: &'static str,
        source: io::Error,
        hint: &'static str,
    },
    #[error("the list of {what} changed under the reader {ATTEMPTS} times in a row")]
    Interrupted { what: &'static str },
    #[error("the kernel's answer about {what} is malformed: {problem}")]
    Malformed {
        what: &'static str,
        problem: &'static str,
    },
    #[error("there are more than {MAX_SOCKETS} {what}")]
    TooMany { what: &'static str },
}

/// The name that a UNIX socket was bound to, as given to bind(2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnixName {
    /// May be relative to what was the working directory then.
    Path(PathBuf),
    /// Without its leading NUL; bytes that are no printable UTF-8 written as `\xNN`.
    Abstract(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnixType {
    Stream,
    Datagram,
    SeqPacket,
}

/// A bound UNIX socket that is not a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    pub id: SocketId,
    /// The number in `socket:[N]`.
    pub inode: u64,
    pub kind: UnixType,
    pub state: SocketState,
    pub name: UnixName,
    /// The file that bind(2) made, with the lower 32 bits of its inode. `None` for abstract names.
    pub file: Option<FileId>,
    /// Connections not yet accepted, and how many may be. 0 for datagram sockets.
    pub queue: u32,
    pub backlog: u32,
    /// Inode of the peer that has waited longest to be accepted.
    pub head: Option<u64>,
}

/// A TCP listener, or a bound UDP socket that is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InetSocket {
    pub id: SocketId,
    /// The number in `socket:[N]`.
    pub inode: u64,
    pub ip: IpAddr,
    pub port: u16,
    /// A wildcard that takes no IPv4.
    pub v6only: bool,
    /// Connections not yet accepted, and how many may be. 0 for UDP.
    pub queue: u32,
    pub backlog: u32,
}

/// A netlink socket for socket diagnosis, opened anew after any disturbance so that no late answer is taken for
/// another one.
pub struct Diag {
    socket: OwnedFd,
    /// Where the socket is made anew. `None`: in this process's network namespace.
    namespace: Option<File>,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What ends one reading of a dump.
enum Ended {
    Whole,
    Again,
}

impl Diag {
    /// # Errors
    /// [`DiagError::Open`], on kernels without netlink or out of descriptors.
    pub fn open() -> Result<Self, DiagError> {
        Ok(Self {
            socket: open()?,
            namespace: None,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Lists the sockets of another network namespace, and keeps that alive until it is dropped.
    ///
    /// # Errors
    /// [`DiagError::Open`]; without the right to enter the namespace (`CAP_SYS_ADMIN`) too.
    pub fn open_in(namespace: File) -> Result<Self, DiagError> {
        Ok(Self {
            socket: open_in(&namespace)?,
            namespace: Some(namespace),
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    fn open_again(&mut self) -> Result<(), DiagError> {
        self.socket = match &self.namespace {
            None => open()?,
            Some(namespace) => open_in(namespace)?,
        };
        Ok(())
    }

    /// Bound UNIX sockets: listeners, stream sockets that do not listen (yet), datagram sockets. No connections.
    ///
    /// # Errors
    /// When the kernel can't be asked or did not answer in peace.
    pub fn unix(&mut self) -> Result<Vec<UnixSocket>, DiagError> {
        self.unix_in_states(1 << LISTEN | 1 << CLOSE, "UNIX sockets")
    }

    /// Bound datagram sockets that the kernel counts as connected: since 5.14 a connect(2) marks both ends so, and with
    /// it the server that never connected itself. The kernel can't select them by type, so this is a dump of all
    /// connections, and asked for only when [`Self::unix`] does not explain a socket file.
    ///
    /// # Errors
    /// As for [`Self::unix`].
    pub fn unix_connected_datagram(&mut self) -> Result<Vec<UnixSocket>, DiagError> {
        self.unix_in_states(1 << ESTABLISHED, "connected UNIX sockets")
    }

    /// The one socket of this inode number and identity. `None`: it is gone. The kernel walks through its table until it is
    /// found, and through all of it where it is not there; nothing else is copied out.
    ///
    /// # Errors
    /// As for [`Self::unix`].
    pub fn unix_exact(&mut self, id: SocketId, inode: u64) -> Result<Option<UnixSocket>, DiagError> {
        let Ok(inode) = u32::try_from(inode) else {
            return Ok(None);
        };
        let request = wire::UnixRequest::exact(inode, id.0);
        let mut found = Vec::new();
        match self.ask(
            "a UNIX socket",
            wire::ONE,
            request.as_bytes(),
            &mut found,
            unix_socket,
        ) {
            Ok(()) => Ok(found.pop()),
            // Another one has its number.
            Err(DiagError::Refused { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn unix_in_states(&mut self, states: u32, what: &'static str) -> Result<Vec<UnixSocket>, DiagError> {
        let request = wire::UnixRequest::new(states);
        let mut found = Vec::new();
        self.ask(what, wire::ALL, request.as_bytes(), &mut found, unix_socket)?;
        Ok(found)
    }

    /// `IPPROTO_TCP`: listeners. `IPPROTO_UDP`: bound sockets that are not connected. `family`: `AF_INET` or `AF_INET6`;
    /// a host without IPv6 has none of the latter.
    ///
    /// # Errors
    /// When the kernel can't be asked or did not answer in peace.
    pub fn inet(&mut self, protocol: u16, family: u8) -> Result<Vec<InetSocket>, DiagError> {
        self.inet_at(protocol, family, None)
    }

    /// The same of one local port: the kernel compares it, and tells of no other.
    ///
    /// # Errors
    /// As for [`Self::inet`].
    pub fn inet_at(
        &mut self,
        protocol: u16,
        family: u8,
        port: Option<u16>,
    ) -> Result<Vec<InetSocket>, DiagError> {
        let (what, state) = match i32::from(protocol) {
            libc::IPPROTO_TCP => ("TCP listeners", LISTEN),
            _ => ("UDP sockets", CLOSE),
        };
        self.inet_in_state(what, protocol, family, port, state)
    }

    /// TCP sockets that are bound to a local port, and neither listen nor are connected. Kernels before 6.8 show none.
    ///
    /// # Errors
    /// As for [`Self::inet`].
    pub fn tcp_bound(&mut self, family: u8, port: u16) -> Result<Vec<InetSocket>, DiagError> {
        let protocol = libc::IPPROTO_TCP as u16;
        self.inet_in_state("bound TCP sockets", protocol, family, Some(port), BOUND_INACTIVE)
    }

    fn inet_in_state(
        &mut self,
        what: &'static str,
        protocol: u16,
        family: u8,
        port: Option<u16>,
        state: u8,
    ) -> Result<Vec<InetSocket>, DiagError> {
        let mut request = wire::InetRequest::new(family, protocol as u8, 1 << state);
        if let Some(port) = port {
            request = request.at_port(port);
        }
        let mut found = Vec::new();
        let is_listening = state == LISTEN;
        self.ask(what, wire::ALL, request.as_bytes(), &mut found, |payload| {
            inet_socket(payload, is_listening)
        })?;
        // Port 0: a raw or a just created socket.
        found.retain(|s: &InetSocket| s.port != 0);
        Ok(found)
    }

    /// The oldest connection to a local TCP port that waits to be accepted, by its cookie. Cookies are given in ascending
    /// order, the first time that somebody asks, and a connection has no inode before it is accepted: as long as the same
    /// one is the oldest, nothing was accepted that came after it.
    ///
    /// # Errors
    /// When the kernel can't be asked or did not answer in peace.
    pub fn oldest_waiting(&mut self, family: u8, port: u16) -> Result<Option<u64>, DiagError> {
        // A peer that has given up in the meantime still waits in the queue.
        let states = 1 << ESTABLISHED | 1 << CLOSE_WAIT;
        let request = wire::InetRequest::new(family, libc::IPPROTO_TCP as u8, states).at_port(port);
        let mut found = Vec::new();
        self.ask(
            "TCP connections",
            wire::ALL,
            request.as_bytes(),
            &mut found,
            |payload| {
                Ok(inet_socket(payload, true)?
                    .filter(|s| s.inode == 0)
                    .map(|s| s.id.0))
            },
        )?;
        Ok(found.into_iter().min())
    }

    /// `flags`: [`wire::ALL`] or [`wire::ONE`].
    fn ask<T>(
        &mut self,
        what: &'static str,
        flags: u16,
        request: &[u8],
        found: &mut Vec<T>,
        parse: impl Fn(&[u8]) -> Result<Option<T>, &'static str>,
    ) -> Result<(), DiagError> {
        for _ in 0..ATTEMPTS {
            found.clear();
            match self.ask_once(what, flags, request, found, &parse) {
                Ok(Ended::Whole) => return Ok(()),
                Ok(Ended::Again) => self.open_again()?,
                Err(e) => {
                    self.open_again()?;
                    return Err(e);
                }
            }
        }
        Err(DiagError::Interrupted { what })
    }

    fn ask_once<T>(
        &mut self,
        what: &'static str,
        flags: u16,
        request: &[u8],
        found: &mut Vec<T>,
        parse: impl Fn(&[u8]) -> Result<Option<T>, &'static str>,
    ) -> Result<Ended, DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = wire::message(self.sequence, flags, request);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty()).map_err(|e| DiagError::Send {
            what,
            source: e.into(),
        })?;
        let mut interrupted = false;
        loop {
            // MSG_TRUNC: the real length, also where it did not fit.
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => length,
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => return Err(DiagError::TimedOut { what }),
                // Messages were dropped because the reader's buffer was full.
                Err(nix::Error::ENOBUFS) => return Ok(Ended::Again),
                Err(e) => {
                    return Err(DiagError::Receive {
                        what,
                        source: e.into(),
                    });
                }
            };
            let Some(datagram) = self.buffer.get(..length).filter(|d| !d.is_empty()) else {
                return Err(DiagError::Malformed {
                    what,
                    problem: "a message larger than 32 KiB, or an empty one",
                });
            };
            if let Some(ended) = take(what, datagram, self.sequence, &mut interrupted, found, &parse)? {
                return Ok(ended);
            }
        }
    }
}

/// Takes what one datagram says of the dump with this number. `None`: there is more to come.
fn take<T>(
    what: &'static str,
    datagram: &[u8],
    sequence: u32,
    interrupted: &mut bool,
    found: &mut Vec<T>,
    parse: impl Fn(&[u8]) -> Result<Option<T>, &'static str>,
) -> Result<Option<Ended>, DiagError> {
    for message in wire::Messages::new(datagram) {
        let message = message.map_err(|problem| DiagError::Malformed { what, problem })?;
        if message.header.sequence.get() != sequence {
            continue;
        }
        *interrupted |= message.header.flags.get() & libc::NLM_F_DUMP_INTR as u16 != 0;
        match i32::from(message.header.kind.get()) {
            libc::NLMSG_DONE if *interrupted => return Ok(Some(Ended::Again)),
            libc::NLMSG_DONE => return Ok(Some(Ended::Whole)),
            libc::NLMSG_ERROR => return refused(what, message.payload).map(Some),
            wire::SOCK_DIAG_BY_FAMILY => {
                let socket =
                    parse(message.payload).map_err(|problem| DiagError::Malformed { what, problem })?;
                found.extend(socket);
                if found.len() > MAX_SOCKETS {
                    return Err(DiagError::TooMany { what });
                }
                // The answer about one socket is nothing but that.
                if message.header.flags.get() & libc::NLM_F_MULTI as u16 == 0 {
                    return Ok(Some(Ended::Whole));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The sockets of an answer to question 1, for fuzzing: of every family.
pub(crate) fn answer(datagram: &[u8]) -> (Vec<UnixSocket>, Vec<InetSocket>) {
    let (mut unix, mut tcp, mut udp) = (Vec::new(), Vec::new(), Vec::new());
    // What is wrong with an answer ends it; what came before counts.
    _ = take("UNIX sockets", datagram, 1, &mut false, &mut unix, unix_socket);
    _ = take("TCP listeners", datagram, 1, &mut false, &mut tcp, |p| {
        inet_socket(p, true)
    });
    _ = take("UDP sockets", datagram, 1, &mut false, &mut udp, |p| {
        inet_socket(p, false)
    });
    tcp.append(&mut udp);
    (unix, tcp)
}

fn open() -> Result<OwnedFd, DiagError> {
    let fail = |e: nix::Error| DiagError::Open(e.into());
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
    .map_err(fail)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_SECONDS)).map_err(fail)?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(TIMEOUT_SECONDS)).map_err(fail)?;
    Ok(fd)
}

/// In a thread of its own, since a network namespace is a thread's and this one's must stay. A socket remains in the one
/// that it was made in. Neither call waits.
fn open_in(namespace: &File) -> Result<OwnedFd, DiagError> {
    let work = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| DiagError::Open(e.into()))?;
        open()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into());
        let thread = thread.spawn_scoped(scope, work).map_err(DiagError::Open)?;
        thread.join().unwrap_or_else(|_| {
            Err(DiagError::Open(io::Error::other(
                "the thread that made it panicked",
            )))
        })
    })
}

fn refused(what: &'static str, payload: &[u8]) -> Result<Ended, DiagError> {
    let Ok((errno, _)) = i32::read_from_prefix(payload) else {
        return Err(DiagError::Malformed {
            what,
            problem: "an error message without an error",
        });
    };
    match errno.saturating_neg() {
        0 => Ok(Ended::Whole),
        libc::EBUSY => Ok(Ended::Again),
        code => {
            let hint = match code {
                libc::ENOENT => " (is the module unix_diag, tcp_diag or udp_diag missing?)",
                _ => "",
            };
            Err(DiagError::Refused {
                what,
                source: io::Error::from_raw_os_error(code),
                hint,
            })
        }
    }
}

/// `Ok(None)`: a socket that is no one's address.
fn unix_socket(payload: &[u8]) -> Result<Option<UnixSocket>, &'static str> {
    let Ok((header, attributes)) = wire::UnixAnswer::ref_from_prefix(payload) else {
        return Err("an answer about a UNIX socket is too short");
    };
    let kind = match i32::from(header.kind) {
        libc::SOCK_STREAM => UnixType::Stream,
        libc::SOCK_DGRAM => UnixType::Datagram,
        libc::SOCK_SEQPACKET => UnixType::SeqPacket,
        _ => return Ok(None),
    };
    // An accepted connection has its listener's name and file.
    if header.state == ESTABLISHED && kind != UnixType::Datagram {
        return Ok(None);
    }
    let (mut name, mut file, mut queue, mut shutdown, mut head) = (None, None, (0, 0), 0, None);
    for (attribute, value) in wire::Attributes::new(attributes) {
        match attribute {
            wire::UNIX_DIAG_NAME => name = unix_name(value),
            wire::UNIX_DIAG_VFS => {
                file = <[u32; 2]>::read_from_prefix(value)
                    .ok()
                    .map(|([ino, dev], _)| FileId {
                        dev,
                        ino: u64::from(ino),
                    });
            }
            wire::UNIX_DIAG_RQLEN => {
                queue = <[u32; 2]>::read_from_prefix(value)
                    .map_or((0, 0), |([waiting, limit], _)| (waiting, limit));
            }
            wire::UNIX_DIAG_ICONS => {
                head = u32::read_from_prefix(value)
                    .ok()
                    .map(|(inode, _)| u64::from(inode));
            }
            wire::UNIX_DIAG_SHUTDOWN => shutdown = value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    let Some(name) = name else { return Ok(None) };
    let listening = header.state == LISTEN;
    let state = match (listening, kind) {
        // The state stays LISTEN after shutdown(2). Receiving shut down is enough for connect(2) to be refused.
        (true, _) | (_, UnixType::Datagram) if shutdown & RCV_SHUTDOWN != 0 => SocketState::ShutDown,
        (true, _) | (_, UnixType::Datagram) => SocketState::Listening,
        _ => SocketState::Bound,
    };
    // Of other sockets these are bytes.
    let (queue, backlog) = if listening { queue } else { (0, 0) };
    let id = SocketId(wire::cookie(header.cookie));
    Ok(Some(UnixSocket {
        id,
        inode: u64::from(header.inode.get()),
        kind,
        state,
        name,
        file,
        queue,
        backlog,
        head: head.filter(|_| listening),
    }))
}

fn unix_name(bytes: &[u8]) -> Option<UnixName> {
    match bytes.split_first()? {
        (0, []) => None,
        (0, name) => Some(UnixName::Abstract(abstract_name(name))),
        _ => {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            Some(UnixName::Path(
                Path::new(std::ffi::OsStr::from_bytes(&bytes[..end])).into(),
            ))
        }
    }
}

/// The bytes of an abstract name as [`crate::address::Address::Abstract`] writes them.
pub fn abstract_name(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                for byte in c.to_string().bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn inet_socket(payload: &[u8], is_tcp: bool) -> Result<Option<InetSocket>, &'static str> {
    let Ok((header, attributes)) = wire::InetAnswer::ref_from_prefix(payload) else {
        return Err("an answer about an internet socket is too short");
    };
    let source = header.id.source;
    let ip = match i32::from(header.family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(source[0], source[1], source[2], source[3])),
        // An IPv4 address in an IPv6 socket is an IPv4 address.
        libc::AF_INET6 => Ipv6Addr::from(source).to_canonical(),
        _ => return Ok(None),
    };
    let v6only = wire::Attributes::new(attributes)
        .any(|(kind, value)| kind == wire::INET_DIAG_SKV6ONLY && value.first() == Some(&1));
    let (queue, backlog) = if is_tcp {
        (header.receive_queue.get(), header.send_queue.get())
    } else {
        (0, 0)
    };
    Ok(Some(InetSocket {
        id: SocketId(wire::cookie(header.id.cookie)),
        inode: u64::from(header.inode.get()),
        ip,
        port: header.id.source_port.get(),
        v6only,
        queue,
        backlog,
    }))
}

#[cfg(test)]
mod tests;
