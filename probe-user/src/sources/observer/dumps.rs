//! Which live sockets belong to an address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    net::IpAddr,
    path::Path,
};

use super::{KernelTables, Sockets, holders::Holders};
use crate::{
    address::{Address, Inet, Site},
    event::{FileId, PathState, Socket, SocketId, SocketState},
    sources::{
        namespace,
        path::{self, Stamp},
        root::{Root, Rooted},
        sock_diag::{Diag, InetSocket, UnixName, UnixSocket},
    },
};

/// What the kernel listed, of the families that were asked for. An error stands for every address of its family.
#[derive(Default)]
pub(super) struct Dumps {
    unix: Option<Result<UnixDump, String>>,
    tcp: Option<Result<Vec<InetSocket>, String>>,
    udp: Option<Result<Vec<InetSocket>, String>>,
    /// TCP sockets that are bound and do not listen, where they were asked for.
    bound: Vec<InetSocket>,
    /// Those of `unix` that live in other network namespaces.
    elsewhere: BTreeSet<SocketId>,
    /// The oldest waiting connection of TCP listeners that have any, by the listener.
    waiting: BTreeMap<SocketId, u64>,
}

/// UNIX sockets, found by what a site may know of them: there may be ten thousand of both.
#[derive(Default)]
struct UnixDump {
    sockets: Vec<UnixSocket>,
    by_id: HashMap<SocketId, usize>,
    by_file: HashMap<FileId, Vec<usize>>,
    /// The last component of a path.
    by_name: HashMap<OsString, Vec<usize>>,
    by_abstract_name: HashMap<String, Vec<usize>>,
}

impl UnixDump {
    fn of(sockets: Vec<UnixSocket>) -> Self {
        let mut dump = Self::default();
        dump.extend(sockets);
        dump
    }

    fn extend(&mut self, sockets: Vec<UnixSocket>) {
        for socket in sockets {
            let at = self.sockets.len();
            self.by_id.insert(socket.id, at);
            if let Some(file) = socket.file {
                self.by_file.entry(file).or_default().push(at);
            }
            match &socket.name {
                UnixName::Path(path) => {
                    let name = path.file_name().unwrap_or_default().to_owned();
                    self.by_name.entry(name).or_default().push(at);
                }
                UnixName::Abstract(name) => self.by_abstract_name.entry(name.clone()).or_default().push(at),
            }
            self.sockets.push(socket);
        }
    }

    fn has(&self, id: SocketId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Those that may belong to a site, in the order of the list.
    fn candidates(
        &self,
        address: &Address,
        path: Option<&PathState>,
        seen: Option<&Sockets>,
    ) -> Vec<&UnixSocket> {
        let by_name = match address {
            Address::Unix(want) => self.by_name.get(want.file_name().unwrap_or_default()),
            Address::Abstract(want) => self.by_abstract_name.get(want),
            Address::Tcp(_) | Address::Udp(_) => None,
        };
        let by_file = match path {
            Some(PathState::Socket(file)) => self.by_file.get(file),
            _ => None,
        };
        let by_memory = seen
            .into_iter()
            .flat_map(|seen| seen.keys().filter_map(|id| self.by_id.get(id)));
        let places: BTreeSet<usize> = by_name
            .into_iter()
            .chain(by_file)
            .flatten()
            .chain(by_memory)
            .copied()
            .collect();
        places.into_iter().filter_map(|at| self.sockets.get(at)).collect()
    }
}

/// Who is asked, and what is known before.
pub(super) struct Asker<'a> {
    pub(super) diag: &'a mut Diag,
    pub(super) tables: Option<&'a mut (dyn KernelTables + 'static)>,
    /// Sockets that belonged to a site before.
    pub(super) seen: &'a BTreeMap<Site, Sockets>,
    /// Socket files that sockets of this network namespace were bound to.
    pub(super) here: &'a BTreeMap<Site, Stamp>,
    pub(super) holders: &'a Holders,
}

/// A site that is looked at.
pub(super) struct Asked<'a> {
    pub(super) site: &'a Site,
    /// Where its path was found before the kernel was asked, and how it was there.
    pub(super) before: Option<(Rooted, Stamp)>,
}

pub(super) struct Match {
    pub(super) socket: Socket,
    /// Neither its file nor an earlier look says that it belongs here: only the name given to bind(2).
    pub(super) by_name_only: bool,
}

impl Dumps {
    /// Reads the families that `sites` need.
    pub(super) fn read(asker: &mut Asker<'_>, sites: &[&Asked<'_>], with_bound: bool) -> Self {
        let known = known_unix(asker, sites);
        let Asker { diag, seen, here, .. } = asker;
        let any = |f: fn(&Address) -> bool| sites.iter().any(|a| f(&a.site.address));
        let mut dumps = Self::default();
        if let Some(known) = known {
            dumps.unix = Some(Ok(UnixDump::of(known)));
        } else if any(|a| matches!(a, Address::Unix(_) | Address::Abstract(_))) {
            let unix = diag.unix().and_then(|sockets| {
                let mut sockets = UnixDump::of(sockets);
                if sites
                    .iter()
                    .any(|a| is_unexplained(a, seen.get(a.site), &sockets))
                {
                    sockets.extend(diag.unix_connected_datagram()?);
                }
                Ok(sockets)
            });
            dumps.unix = Some(unix.map_err(|e| e.to_string()).and_then(|mut sockets| {
                // A name in the file system is one for all network namespaces, and a socket is listed in its own only. To look
                // into the others is to ask every process where it lives. A socket file has one socket for as long as there
                // is one: where that was seen here and has gone, no other can be bound to the file.
                let is_from_here = |a: &Asked<'_>| {
                    let known = here.get(a.site);
                    known.is_some() && known == a.before.as_ref().map(|(_, stamp)| stamp)
                };
                let mut paths = sites.iter().filter(|a| a.site.address.path().is_some());
                if paths.any(|a| !is_from_here(a) && is_unexplained(a, seen.get(a.site), &sockets)) {
                    let others = namespace::unix_elsewhere()?;
                    dumps.elsewhere = others.iter().map(|s| s.id).collect();
                    sockets.extend(others);
                }
                Ok(sockets)
            }));
        }
        if any(|a| matches!(a, Address::Tcp(_))) {
            let ports = ports(sites, |a| matches!(a, Address::Tcp(_)));
            dumps.tcp = Some(inet(diag, libc::IPPROTO_TCP as u16, &ports));
            if with_bound {
                dumps.bound = bound(diag, &ports);
            }
            dumps.waiting = waiting(diag, sites, dumps.tcp.as_ref());
        }
        if any(|a| matches!(a, Address::Udp(_))) {
            let ports = ports(sites, |a| matches!(a, Address::Udp(_)));
            dumps.udp = Some(inet(diag, libc::IPPROTO_UDP as u16, &ports));
        }
        dumps
    }

    /// Whether a socket of this network namespace is bound to the file, and all others of the address live here too.
    pub(super) fn is_from_here(&self, file: FileId, sockets: &[Socket]) -> bool {
        sockets.iter().any(|s| s.file == Some(file))
            && !sockets.iter().any(|s| self.elsewhere.contains(&s.id))
    }

    /// The live sockets of `address`. `seen`: those that belonged to it before.
    pub(super) fn sockets(
        &self,
        asked: &Asked<'_>,
        found: Option<&(Rooted, Stamp)>,
        seen: Option<&Sockets>,
    ) -> Result<Vec<Match>, String> {
        let dumped = |dump: &Option<Result<Vec<InetSocket>, String>>, want: &Inet| {
            let sockets = dump
                .as_ref()
                .ok_or("it was not asked for")?
                .as_ref()
                .map_err(Clone::clone)?;
            Ok(sockets
                .iter()
                .filter(|s| serves(want, s))
                .map(inet_match)
                .collect())
        };
        match &asked.site.address {
            Address::Tcp(want) => {
                let mut found: Vec<Match> = dumped(&self.tcp, want)?;
                for m in &mut found {
                    m.socket.head = self.waiting.get(&m.socket.id).copied();
                }
                found.extend(self.bound.iter().filter(|s| serves(want, s)).map(|s| {
                    let mut bound = inet_match(s);
                    bound.socket.state = SocketState::Bound;
                    bound
                }));
                Ok(found)
            }
            Address::Udp(want) => dumped(&self.udp, want),
            Address::Unix(_) | Address::Abstract(_) => {
                let sockets = self
                    .unix
                    .as_ref()
                    .ok_or("it was not asked for")?
                    .as_ref()
                    .map_err(Clone::clone)?;
                let address = &asked.site.address;
                let path = found.map(|(_, stamp)| &stamp.state);
                Ok(sockets
                    .candidates(address, path, seen)
                    .into_iter()
                    .filter_map(|s| unix_match(s, address, found, seen))
                    .collect())
            }
        }
    }
}

/// Sites of which each known socket is asked for by itself; more are told by one dump.
const ASKED_ALONE: usize = 4;

/// The sockets of all UNIX sites, where those that were seen before are all that there can be: a socket file has one socket
/// for as long as it is there unchanged, and its name no other. `None`: a dump has to tell.
fn known_unix(asker: &mut Asker<'_>, sites: &[&Asked<'_>]) -> Option<Vec<UnixSocket>> {
    let unix = || {
        sites
            .iter()
            .filter(|a| matches!(a.site.address, Address::Unix(_) | Address::Abstract(_)))
    };
    if unix().count() > ASKED_ALONE {
        return None;
    }
    let mut wanted = BTreeMap::new();
    for asked in unix() {
        let (_, stamp) = asked.before.as_ref()?;
        let sockets = asker.seen.get(asked.site).filter(|s| s.len() <= ASKED_ALONE)?;
        if asker.here.get(asked.site) != Some(stamp) {
            return None;
        }
        let path = asked.site.address.path()?;
        wanted.extend(sockets.iter().map(|(id, inode)| ((*id, *inode), path)));
    }
    let mut found = Vec::with_capacity(wanted.len());
    for (socket, path) in wanted {
        let tables = asker.tables.as_deref_mut();
        let held = tables.and_then(|tables| asker.holders.quiet_listener(tables, socket, path));
        match held {
            Some(held) => found.push(held),
            None => found.extend(asker.diag.unix_exact(socket.0, socket.1).ok()?),
        }
    }
    Some(found)
}

/// Asked only of listeners that have a queue. What can't be read is left out: then no stall is told.
fn waiting(
    diag: &mut Diag,
    sites: &[&Asked<'_>],
    listeners: Option<&Result<Vec<InetSocket>, String>>,
) -> BTreeMap<SocketId, u64> {
    let declared = |s: &&InetSocket| {
        sites
            .iter()
            .any(|a| matches!(&a.site.address, Address::Tcp(want) if serves(want, s)))
    };
    let listeners = listeners
        .and_then(|l| l.as_ref().ok())
        .map_or(&[][..], Vec::as_slice);
    let queueing = listeners.iter().filter(|s| s.queue > 0).filter(declared);
    queueing
        .filter_map(|s| {
            let family = if s.ip.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            Some((s.id, diag.oldest_waiting(family as u8, s.port).ok()??))
        })
        .collect()
}

/// Ports that are asked for one by one; of more than these everything is listed once.
const PORTS: usize = 4;

/// The ports of those addresses; none: too many to ask for each.
fn ports(sites: &[&Asked<'_>], of: fn(&Address) -> bool) -> BTreeSet<u16> {
    let addresses = sites.iter().map(|a| &a.site.address).filter(|a| of(a));
    let ports: BTreeSet<u16> = addresses.filter_map(Address::inet).map(|i| i.port).collect();
    if ports.len() > PORTS {
        return BTreeSet::new();
    }
    ports
}

/// Both families; a host without IPv6 has only the first.
fn families() -> impl Iterator<Item = u8> {
    let six = Path::new("/proc/net/if_inet6").exists();
    [libc::AF_INET as u8]
        .into_iter()
        .chain(six.then_some(libc::AF_INET6 as u8))
}

/// `ports`: only these; none: all.
pub(super) fn inet(diag: &mut Diag, protocol: u16, ports: &BTreeSet<u16>) -> Result<Vec<InetSocket>, String> {
    let mut sockets = Vec::new();
    for family in families() {
        if ports.is_empty() {
            sockets.extend(diag.inet(protocol, family).map_err(|e| e.to_string())?);
        }
        for port in ports {
            let found = diag.inet_at(protocol, family, Some(*port));
            sockets.extend(found.map_err(|e| e.to_string())?);
        }
    }
    Ok(sockets)
}

/// What can't be asked is left out: it decides nothing about who listens.
fn bound(diag: &mut Diag, ports: &BTreeSet<u16>) -> Vec<InetSocket> {
    let asked = families().flat_map(|family| ports.iter().map(move |port| (family, *port)));
    asked
        .filter_map(|(family, port)| diag.tcp_bound(family, port).ok())
        .flatten()
        .collect()
}

/// Whether something is missing that a connected datagram socket would explain.
fn is_unexplained(asked: &Asked<'_>, seen: Option<&Sockets>, sockets: &UnixDump) -> bool {
    if !seen.is_none_or(|ids| ids.keys().all(|id| sockets.has(*id))) {
        return true;
    }
    match (&asked.site.address, asked.before.as_ref().map(|(_, s)| &s.state)) {
        (Address::Unix(_), Some(PathState::Socket(file))) => !sockets.by_file.contains_key(file),
        (Address::Abstract(name), _) => !sockets.by_abstract_name.contains_key(name),
        _ => false,
    }
}

fn unix_match(
    socket: &UnixSocket,
    address: &Address,
    found: Option<&(Rooted, Stamp)>,
    seen: Option<&Sockets>,
) -> Option<Match> {
    let path = found.map(|(_, stamp)| &stamp.state);
    let by_name = match (&socket.name, address) {
        (UnixName::Path(name), Address::Unix(want)) => {
            is_same_name(name, want, found.map(|(place, _)| &place.root))
        }
        (UnixName::Abstract(name), Address::Abstract(want)) => name == want,
        _ => false,
    };
    let by_file = matches!(path, Some(PathState::Socket(file)) if socket.file == Some(*file));
    let by_memory = seen.is_some_and(|ids| ids.contains_key(&socket.id));
    let is_path = address.path().is_some();
    (by_name || by_file || by_memory).then(|| Match {
        socket: unix_socket(socket),
        by_name_only: is_path && !by_file && !by_memory,
    })
}

/// Whether two paths are one name in one directory: `/var/run/x` and `/run/x` mostly are.
fn is_same_name(bound: &Path, declared: &Path, root: Option<&Root>) -> bool {
    if bound == declared {
        return true;
    }
    if !bound.is_absolute() || bound.file_name() != declared.file_name() {
        return false;
    }
    let host = Root::Host;
    let directory = |path: &Path| path::file_id_at(root.unwrap_or(&host), path.parent()?).ok();
    directory(bound).is_some_and(|ours| directory(declared) == Some(ours))
}

pub(super) fn unix_socket(socket: &UnixSocket) -> Socket {
    Socket {
        id: socket.id,
        inode: socket.inode,
        state: socket.state,
        file: socket.file,
        ip: None,
        queue: socket.queue,
        backlog: socket.backlog,
        head: socket.head,
        holders: Vec::new(),
        holders_known: false,
    }
}

fn serves(want: &Inet, socket: &InetSocket) -> bool {
    let refuses_v4 = socket.v6only && matches!(want.ip, Some(IpAddr::V4(_)));
    want.port == socket.port && want.is_served_by(socket.ip) && !refuses_v4
}

fn inet_match(socket: &InetSocket) -> Match {
    Match {
        socket: inet_socket(socket),
        by_name_only: false,
    }
}

pub(super) fn inet_socket(socket: &InetSocket) -> Socket {
    Socket {
        id: socket.id,
        inode: socket.inode,
        state: SocketState::Listening,
        file: None,
        ip: Some(socket.ip),
        queue: socket.queue,
        backlog: socket.backlog,
        head: None,
        holders: Vec::new(),
        holders_known: false,
    }
}
