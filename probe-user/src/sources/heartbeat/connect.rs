//! An answer at an address as a sign of life: the active check, for those who ask for it.
//!
//! Without `send` and `expect` a connection is enough, and the kernel makes one even for a stopped daemon while there is
//! room in its queue. With one of them the daemon itself must answer.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollEvent, EpollFlags},
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, UnixAddr,
            connect, getpeername, getsockopt, recv, send, socket, sockopt,
        },
    },
};

use crate::{
    address::{Address, Inet},
    clock::Nanos,
    config::Heartbeat,
};

const EVERY: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
/// A UNIX listener with a full queue refuses a non-blocking connection at once, and tells nobody when there is room.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Bytes received in one go.
const BUFFER_BYTES: usize = 4096;

pub(super) struct Check {
    address: Address,
    send: Vec<u8>,
    expect: Vec<u8>,
    every: Duration,
    timeout: Duration,
    state: State,
    failure: Option<String>,
}

enum State {
    Resting {
        next: Nanos,
    },
    /// The queue is full.
    Full {
        began: Nanos,
        again: Nanos,
    },
    Open {
        began: Nanos,
        connection: Connection,
    },
}

struct Connection {
    socket: OwnedFd,
    connected: bool,
    sent: usize,
    got: Vec<u8>,
    datagrams: bool,
}

/// What has become of a connection.
enum Outcome {
    Pending,
    Alive,
}

impl Check {
    pub(super) fn new(address: Address, heartbeat: &Heartbeat) -> Self {
        let text = |t: &Option<String>| t.clone().unwrap_or_default().into_bytes();
        Self {
            address,
            send: text(&heartbeat.send),
            expect: text(&heartbeat.expect),
            every: heartbeat.every.map_or(EVERY, |d| d.0),
            timeout: heartbeat.timeout.map_or(TIMEOUT, |d| d.0),
            state: State::Resting { next: Nanos::ZERO },
            failure: None,
        }
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(super) fn deadline(&self) -> Nanos {
        match &self.state {
            State::Resting { next } => *next,
            State::Full { again, .. } => *again,
            State::Open { began, .. } => *began + self.timeout,
        }
    }

    /// Goes on as far as it can without waiting. The time of the answer, once there is one.
    pub(super) fn step(&mut self, now: Nanos, epoll: &Epoll, token: u64) -> Option<Nanos> {
        let (began, connection) =
            match std::mem::replace(&mut self.state, State::Resting { next: Nanos::ZERO }) {
                State::Resting { next } if now < next => {
                    self.state = State::Resting { next };
                    return None;
                }
                State::Resting { .. } => (now, self.open(epoll, token)),
                State::Full { began, again } if now < again => {
                    self.state = State::Full { began, again };
                    return None;
                }
                State::Full { began, .. } => (began, self.open(epoll, token)),
                State::Open { began, connection } => (began, Ok(connection)),
            };
        let late = now >= began + self.timeout;
        let outcome = connection.and_then(|mut c| self.advance(&mut c).map(|outcome| (outcome, c)));
        let failure = match outcome {
            Ok((Outcome::Alive, _)) => {
                self.failure = None;
                self.rest(began, now);
                return Some(now);
            }
            Ok((Outcome::Pending, connection)) if !late => {
                self.state = State::Open { began, connection };
                return None;
            }
            Ok((Outcome::Pending, c)) if c.connected => "no answer".to_owned(),
            Ok((Outcome::Pending, _)) => "no connection".to_owned(),
            Err(e) if is_full(&self.address, &e) && !late => {
                let again = (now + ASK_AGAIN).min(began + self.timeout);
                self.state = State::Full { began, again };
                return None;
            }
            Err(e) if is_full(&self.address, &e) => "its queue is full".to_owned(),
            Err(e) => e.to_string(),
        };
        self.failure = Some(if late {
            format!("{} within {:?}: {failure}", self.address, self.timeout)
        } else {
            format!("{}: {failure}", self.address)
        });
        self.rest(began, now);
        None
    }

    fn rest(&mut self, began: Nanos, now: Nanos) {
        let next = (began + self.every).max(now + ASK_AGAIN);
        self.state = State::Resting { next };
    }

    fn open(&self, epoll: &Epoll, token: u64) -> io::Result<Connection> {
        let types: &[SockType] = match self.address {
            Address::Udp(_) => &[SockType::Datagram],
            Address::Tcp(_) => &[SockType::Stream],
            // A path does not tell of which type its socket is.
            Address::Unix(_) | Address::Abstract(_) => &[SockType::Stream, SockType::SeqPacket],
        };
        let mut result = Err(io::Error::from(Errno::EPROTOTYPE));
        for kind in types {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(family(&self.address), *kind, flags, None)?;
            match begin(&socket, &self.address) {
                Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {
                    result = Ok(Connection {
                        socket,
                        connected: false,
                        sent: 0,
                        got: Vec::new(),
                        datagrams: *kind == SockType::Datagram,
                    });
                    break;
                }
                Err(Errno::EPROTOTYPE) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let connection = result?;
        let events =
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        epoll.add(connection.socket.as_fd(), EpollEvent::new(events, token))?;
        Ok(connection)
    }

    fn advance(&self, c: &mut Connection) -> io::Result<Outcome> {
        if !c.connected {
            let error = getsockopt(&c.socket, sockopt::SocketError)?;
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            match getpeername::<SockaddrStorage>(c.socket.as_raw_fd()) {
                Ok(_) => c.connected = true,
                Err(Errno::ENOTCONN) => return Ok(Outcome::Pending),
                Err(e) => return Err(e.into()),
            }
        }
        let fd = c.socket.as_raw_fd();
        let asks = !self.send.is_empty() || c.datagrams;
        while asks && (c.sent < self.send.len() || c.datagrams && c.sent == 0) {
            match send(fd, &self.send[c.sent..], MsgFlags::MSG_NOSIGNAL) {
                // An empty datagram is a question too.
                Ok(n) => c.sent += n.max(1),
                Err(Errno::EAGAIN) => return Ok(Outcome::Pending),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if !asks && self.expect.is_empty() {
            return Ok(Outcome::Alive);
        }
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let n = match recv(fd, &mut buffer, MsgFlags::empty()) {
                Ok(n) => n,
                Err(Errno::EAGAIN) => return Ok(Outcome::Pending),
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if n == 0 && !c.datagrams {
                return Err(io::Error::other("it closed the connection without the answer"));
            }
            // No more is kept than is compared.
            let wanted = self.expect.len() - c.got.len();
            c.got.extend_from_slice(&buffer[..n.min(wanted)]);
            if !self.expect.starts_with(&c.got) {
                return Err(io::Error::other("its answer begins otherwise than expected"));
            }
            if c.got.len() == self.expect.len() {
                return Ok(Outcome::Alive);
            }
        }
    }
}

fn is_full(address: &Address, e: &io::Error) -> bool {
    matches!(address, Address::Unix(_) | Address::Abstract(_)) && e.raw_os_error() == Some(libc::EAGAIN)
}

fn family(address: &Address) -> AddressFamily {
    match address {
        Address::Unix(_) | Address::Abstract(_) => AddressFamily::Unix,
        Address::Tcp(inet) | Address::Udp(inet) if inet.ip.is_some_and(|ip| ip.is_ipv6()) => {
            AddressFamily::Inet6
        }
        Address::Tcp(_) | Address::Udp(_) => AddressFamily::Inet,
    }
}

fn begin(socket: &OwnedFd, address: &Address) -> nix::Result<()> {
    let fd = socket.as_raw_fd();
    match address {
        Address::Unix(path) => connect(fd, &UnixAddr::new(path)?),
        Address::Abstract(name) => connect(fd, &UnixAddr::new_abstract(&abstract_bytes(name))?),
        Address::Tcp(inet) | Address::Udp(inet) => match socket_addr(inet) {
            SocketAddr::V4(to) => connect(fd, &SockaddrIn::from(to)),
            SocketAddr::V6(to) => connect(fd, &SockaddrIn6::from(to)),
        },
    }
}

/// Where a server that listens on a wildcard is reached.
fn socket_addr(inet: &Inet) -> SocketAddr {
    let ip = match inet.ip {
        None => Ipv4Addr::LOCALHOST.into(),
        Some(ip) if ip.is_unspecified() && ip.is_ipv6() => Ipv6Addr::LOCALHOST.into(),
        Some(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        Some(ip) => ip,
    };
    SocketAddr::new(ip, inet.port)
}

/// The bytes of an abstract name: those that are no text stand as `\xNN` in it.
fn abstract_bytes(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = rest
            .strip_prefix(b"\\x")
            .and_then(|r| std::str::from_utf8(r.get(..2)?).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_name_is_what_the_kernel_has() {
        for bytes in [&b"name"[..], b"\xff\x00a", b"\x01\xc3\xa4", "ä".as_bytes()] {
            let text = crate::sources::sock_diag::abstract_name(bytes);
            assert_eq!(abstract_bytes(&text), bytes, "{text}");
        }
        assert_eq!(abstract_bytes("a\\x"), b"a\\x");
    }

    #[test]
    fn a_wildcard_is_asked_on_this_host() {
        for (declared, asked) in [
            ("tcp:80", "127.0.0.1:80"),
            ("tcp:0.0.0.0:80", "127.0.0.1:80"),
            ("tcp:[::]:80", "[::1]:80"),
            ("tcp:192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let address: Address = declared.parse().unwrap();
            assert_eq!(socket_addr(address.inet().unwrap()).to_string(), asked);
        }
    }
}
