//! Everything that listens in this network namespace, for discovery.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use super::{KernelTables, dumps, holders::Holders, read_known};
use crate::{
    address::{Address, Inet},
    event::{FileId, PathState, ProcId, Process, Socket, SocketState},
    sources::{
        namespace, path,
        root::Rooted,
        sock_diag::{Diag, DiagError, InetSocket, UnixName, UnixSocket},
    },
};

/// Ancestors followed.
const GENERATIONS: usize = 64;

/// A listening socket under an address that a service may declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub address: Address,
    pub socket: Socket,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    pub sockets: Vec<Found>,
    /// The holders and all their ancestors.
    pub processes: BTreeMap<ProcId, Process>,
    /// Files that live UNIX sockets are bound to, connected and not listening ones among them.
    pub files: BTreeSet<FileId>,
    /// `false`: some network namespaces could not be looked into, so a file that is not in `files` may be in use.
    pub all_files_known: bool,
}

pub(super) fn everything(
    diag: &mut Diag,
    holders: &mut Holders,
    tables: Option<&mut (dyn KernelTables + 'static)>,
) -> Result<Listeners, DiagError> {
    let mut unix = diag.unix()?;
    unix.extend(diag.unix_connected_datagram()?);
    let mut inet: Vec<(bool, InetSocket)> = Vec::new();
    for (protocol, is_tcp) in [(libc::IPPROTO_TCP, true), (libc::IPPROTO_UDP, false)] {
        // A kernel without one of the protocols still has the others.
        let found = dumps::inet(diag, protocol as u16, &BTreeSet::new()).unwrap_or_default();
        inet.extend(found.into_iter().map(|s| (is_tcp, s)));
    }
    let wanted = unix
        .iter()
        .map(|s| s.inode)
        .chain(inet.iter().map(|(_, s)| s.inode))
        .collect();
    let answer = holders.find(&wanted, true, tables);

    // Services with a network namespace of their own are not discovered, but their socket files are not dead either.
    let elsewhere = namespace::unix_elsewhere().ok();
    let mut listeners = Listeners {
        files: unix
            .iter()
            .chain(elsewhere.iter().flatten())
            .filter_map(|s| s.file)
            .collect(),
        all_files_known: elsewhere.is_some(),
        ..Listeners::default()
    };
    let mut add = |address: Option<Address>, socket: Socket| {
        if let Some(address) = address {
            for holder in &socket.holders {
                let mut next = Some(holder.process);
                for _ in 0..GENERATIONS {
                    let Some(process) = next.and_then(|id| read_known(id, &mut listeners.processes)) else {
                        break;
                    };
                    next = process.parent;
                }
            }
            listeners.sockets.push(Found { address, socket });
        }
    };
    for found in unix.iter().filter(|s| s.state == SocketState::Listening) {
        let mut socket = dumps::unix_socket(found);
        answer.fill(&mut socket);
        add(unix_address(found, &socket), socket);
    }
    for (is_tcp, found) in &inet {
        let mut socket = dumps::inet_socket(found);
        answer.fill(&mut socket);
        let inet = Inet {
            ip: Some(found.ip).filter(|ip| !ip.is_unspecified()),
            port: found.port,
        };
        add(
            Some(if *is_tcp {
                Address::Tcp(inet)
            } else {
                Address::Udp(inet)
            }),
            socket,
        );
    }
    Ok(listeners)
}

/// The address under which this host's processes reach it. `None`: through no name of ours.
fn unix_address(found: &UnixSocket, socket: &Socket) -> Option<Address> {
    let name = match &found.name {
        UnixName::Abstract(name) => return Some(Address::Abstract(name.clone())),
        UnixName::Path(name) if name.is_absolute() => name.clone(),
        UnixName::Path(name) => relative(name, socket)?,
    };
    let is_ours = matches!(path::state(&name), PathState::Socket(file) if found.file == Some(file));
    // A live listener whose name leads elsewhere: an orphan, unless its holder's name is not ours at all.
    let is_orphan = || {
        socket
            .holders
            .iter()
            .any(|h| path::shares_directory(h.process.pid, &Rooted::host(&name)))
    };
    (is_ours || is_orphan()).then(|| Address::Unix(name.components().collect()))
}

/// A name relative to what was the working directory at bind(2): taken where it still leads to the socket.
fn relative(name: &PathBuf, socket: &Socket) -> Option<PathBuf> {
    socket.holders.iter().find_map(|holder| {
        let directory = fs::read_link(format!("/proc/{}/cwd", holder.process.pid)).ok()?;
        let path = directory.join(name);
        matches!(path::state(&path), PathState::Socket(file) if socket.file == Some(file)).then_some(path)
    })
}
