//! TCP connections whose peer owes an answer, from `/proc/PID/task/TID/net/tcp` and `tcp6`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Most bytes of one table that are read: some 400,000 connections.
const TABLE_BYTES: u64 = 64 * 1024 * 1024;
/// Most descriptors of a process that are looked at.
const DESCRIPTORS: usize = 4096;
/// Retransmissions of the same data before the peer counts as silent: a single one happens on a healthy network.
const RETRANSMITS: u32 = 2;

/// Unanswered connections of a network namespace, by the inode of their socket.
pub(super) struct Connections(BTreeMap<u64, Connection>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connection {
    peer: SocketAddr,
    /// Not accepted from a listener: nothing listens on its local port.
    pub(super) outgoing: bool,
}

impl Connection {
    pub(super) fn peer(&self) -> String {
        format!("tcp:{}", self.peer)
    }
}

impl Connections {
    pub(super) fn read(pid: u32, tid: u32) -> Self {
        let mut rows = Vec::new();
        let mut ports = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            let Ok(file) = File::open(format!("/proc/{pid}/task/{tid}/net/{table}")) else {
                continue;
            };
            let lines = BufReader::new(file.take(TABLE_BYTES)).lines();
            for row in lines.skip(1).map_while(Result::ok).filter_map(|l| Row::parse(&l)) {
                if row.state == Row::LISTEN {
                    ports.insert(row.local.port());
                } else if row.is_unanswered() {
                    rows.push(row);
                }
            }
        }
        Self(
            rows.into_iter()
                .map(|row| {
                    let outgoing = row.state == Row::SYN_SENT || !ports.contains(&row.local.port());
                    let peer = row.peer;
                    (row.inode, Connection { peer, outgoing })
                })
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn unanswered(&self, inode: u64) -> Option<&Connection> {
        self.0.get(&inode)
    }
}

#[derive(Debug)]
pub(super) struct Row {
    local: SocketAddr,
    peer: SocketAddr,
    state: u8,
    /// Bytes not yet acknowledged.
    unacked: u64,
    /// 1: the retransmission timer runs.
    timer: u8,
    retransmits: u32,
    inode: u64,
}

impl Row {
    const ESTABLISHED: u8 = 1;
    const SYN_SENT: u8 = 2;
    const FIN_WAIT1: u8 = 4;
    const CLOSE_WAIT: u8 = 8;
    const LISTEN: u8 = 10;

    /// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …`, as get_tcp4_sock in net/ipv4/tcp_ipv4.c prints.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, peer) = (address(words.next()?)?, address(words.next()?)?);
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        let unacked = u64::from_str_radix(words.next()?.split_once(':')?.0, 16).ok()?;
        let timer = u8::from_str_radix(words.next()?.split_once(':')?.0, 16).ok()?;
        let retransmits = u32::from_str_radix(words.next()?, 16).ok()?;
        let inode = words.nth(2)?.parse().ok()?;
        Some(Self {
            local,
            peer,
            state,
            unacked,
            timer,
            retransmits,
            inode,
        })
    }

    fn is_unanswered(&self) -> bool {
        match self.state {
            Self::SYN_SENT => true,
            Self::ESTABLISHED | Self::CLOSE_WAIT | Self::FIN_WAIT1 => {
                self.unacked > 0 && self.timer == 1 && self.retransmits >= RETRANSMITS
            }
            _ => false,
        }
    }
}

/// `0100007F:1F90`: words of 32 bits in the machine's order, the port in plain hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The inode of the socket that a descriptor is, `None` for anything else.
pub(super) fn socket_inode(pid: u32, fd: i32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The sockets of a process, ascending by descriptor as `/proc` lists them.
pub(super) fn socket_inodes(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    entries
        .take(DESCRIPTORS)
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|fd| socket_inode(pid, fd))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_families_are_read() {
        let row = Row::parse(
            "   0: 0100007F:1F90 0200007F:0050 01 00000005:00000000 01:00000014 00000002     0        0 12345 3 0 20",
        )
        .unwrap();
        assert_eq!(row.local.to_string(), "127.0.0.1:8080");
        assert_eq!(row.peer.to_string(), "127.0.0.2:80");
        assert_eq!((row.inode, row.is_unanswered()), (12345, true));
        let row = Row::parse(
            "   0: 00000000000000000000000001000000:1F90 0000000000000000FFFF00000100007F:0050 02 \
             00000001:00000000 01:00000014 00000000     0        0 7",
        )
        .unwrap();
        assert_eq!(row.local.to_string(), "[::1]:8080");
        assert_eq!(row.peer.to_string(), "127.0.0.1:80");
        assert!(row.is_unanswered());
        for (state, unacked, timer, retransmits) in [(1, 0, 1, 9), (1, 5, 0, 9), (1, 5, 1, 1), (6, 5, 1, 9)] {
            let line = format!(
                "0: 0100007F:1F90 0100007F:0050 {state:02X} {unacked:08X}:0 {timer:02X}:0 {retransmits:08X} 0 0 7"
            );
            assert!(!Row::parse(&line).unwrap().is_unanswered(), "{line}");
        }
        for line in ["", "0: x", "0: 0100007F:1F90 0100007F:0050 01 5:0"] {
            assert!(Row::parse(line).is_none());
        }
    }
}
