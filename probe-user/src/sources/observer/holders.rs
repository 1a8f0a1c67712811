//! Which processes hold a socket, and through which descriptor.
//!
//! The kernel keeps no such list. Known holders are verified first. If it is not certain that they are all, the descriptors of
//! processes related to them are read, then everything is searched: by the kernel's iterator over open files, and where that is missing or silent, by a
//! walk of `/proc`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use super::KernelTables;
use crate::{
    event::{Holder, ProcId, Socket, SocketId, SocketState},
    kernel::HeldUnix,
    sources::{
        close_watch, process,
        sock_diag::{self, UnixName, UnixSocket, UnixType},
    },
};

/// Relatives of known holders whose descriptors are read before everything is searched.
const RELATIVES: usize = 64;

/// Finds all open descriptors of some sockets.
pub trait HolderFinder {
    /// Socket inode, process, descriptor: one for each descriptor.
    ///
    /// # Errors
    /// When it can't be asked; `/proc` is walked then.
    fn holders(&mut self, inodes: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>>;

    /// How a UNIX socket is that this process has open, where the kernel can be asked for that.
    fn unix(&mut self, _pid: u32, _inode: u64) -> Option<HeldUnix> {
        None
    }

    /// Whether it is certain that nobody but these holds a socket.
    fn has_no_other(&mut self, _inode: u64, _holders: &[(ProcId, i32)]) -> bool {
        false
    }
}

type Found = BTreeMap<u64, BTreeSet<(ProcId, i32)>>;

/// Who held what when it was last looked at: only sockets of the last look, so it grows with what is declared.
#[derive(Default)]
pub(super) struct Holders {
    last: Found,
}

/// The answer of one search.
pub(super) struct Answer {
    found: Found,
    /// Not finding a holder means that there is none.
    complete: bool,
}

impl Answer {
    pub(super) fn fill(&self, socket: &mut Socket) {
        let holders = self.found.get(&socket.inode).into_iter().flatten();
        socket.holders = holders
            .map(|(process, fd)| Holder {
                process: *process,
                fd: *fd,
            })
            .collect();
        socket.holders_known = self.complete || !socket.holders.is_empty();
    }
}

impl Holders {
    /// `thorough`: searches everything although each socket has a holder that is known still to hold it, unless nobody else can.
    pub(super) fn find(
        &mut self,
        wanted: &BTreeSet<u64>,
        thorough: bool,
        mut tables: Option<&mut (dyn KernelTables + 'static)>,
    ) -> Answer {
        let mut found = self.verified(wanted);
        let mut complete = true;
        let mut all = are_all(wanted, &found, tables.as_deref_mut());
        if !all {
            let before = count(&found);
            self.add_relatives(wanted, &mut found);
            all = count(&found) > before && are_all(wanted, &found, tables.as_deref_mut());
        }
        let is_missing = missing(wanted, &found).next().is_some();
        if is_missing || thorough && !all {
            if let Some(tables) = tables {
                // An error leaves everything to the walk below.
                for (inode, id, fd) in tables.holders(wanted).unwrap_or_default() {
                    if wanted.contains(&inode) {
                        found.entry(inode).or_default().insert((id, fd));
                    }
                }
            }
            // Some kernels hide processes from their iterators: silence is no proof.
            let rest: BTreeSet<u64> = missing(wanted, &found).collect();
            if !rest.is_empty() {
                complete = walk(&rest, &mut found);
            }
        }
        for (inode, holders) in &found {
            self.last.insert(*inode, holders.clone());
        }
        self.last
            .retain(|inode, _| found.contains_key(inode) || !wanted.contains(inode));
        // Sockets of other addresses are kept from one look to the next, up to a bound.
        while self.last.len() > MAX_REMEMBERED {
            self.last.pop_first();
        }
        Answer { found, complete }
    }

    /// A listener that nobody waits for, as the kernel would list it: looked at in the files of who held it when it was last
    /// looked at. `None`: that has to be asked for.
    pub(super) fn quiet_listener(
        &self,
        tables: &mut (dyn KernelTables + 'static),
        (id, inode): (SocketId, u64),
        path: &Path,
    ) -> Option<UnixSocket> {
        let (holder, _) = self.last.get(&inode)?.first()?;
        let held = tables.unix(holder.pid, inode)?;
        let kind = match held.kind {
            libc::SOCK_STREAM => UnixType::Stream,
            libc::SOCK_SEQPACKET => UnixType::SeqPacket,
            _ => return None,
        };
        // Who waits longest is told by the list only.
        let is_quiet = held.state == sock_diag::LISTEN && held.shutdown == 0 && held.queue == 0;
        (held.id == id && is_quiet).then(|| UnixSocket {
            id,
            inode,
            kind,
            state: SocketState::Listening,
            name: UnixName::Path(path.to_owned()),
            file: held.file,
            queue: 0,
            backlog: held.backlog,
            head: None,
        })
    }

    /// Known holders that still are.
    fn verified(&self, wanted: &BTreeSet<u64>) -> Found {
        let mut found = Found::new();
        for inode in wanted {
            for (id, fd) in self.last.get(inode).into_iter().flatten() {
                if holds(*id, *fd, *inode) {
                    found.entry(*inode).or_default().insert((*id, *fd));
                }
            }
        }
        found
    }

    /// What known holders and their relatives hold. A restart or a handover runs in the family: forked children, the parent
    /// that started it.
    fn add_relatives(&self, wanted: &BTreeSet<u64>, found: &mut Found) {
        let last = wanted.iter().filter_map(|inode| self.last.get(inode)).flatten();
        let mut relatives: BTreeSet<ProcId> = last.map(|(id, _)| *id).collect();
        let known: Vec<ProcId> = relatives.iter().copied().collect();
        for id in known {
            let parent = process::parent(id);
            relatives.extend(process::children(id));
            relatives.extend(parent);
            if relatives.len() >= RELATIVES {
                break;
            }
        }
        for id in relatives.into_iter().filter(|id| id.pid != 1).take(RELATIVES) {
            let _ = descriptors(id, wanted, found);
        }
    }
}

/// Sockets of which each is asked about.
const FEW: usize = 16;
/// Sockets remembered.
const MAX_REMEMBERED: usize = 4096;

fn count(found: &Found) -> usize {
    found.values().map(BTreeSet::len).sum()
}

fn missing(wanted: &BTreeSet<u64>, found: &Found) -> impl Iterator<Item = u64> {
    wanted.iter().copied().filter(|inode| !found.contains_key(inode))
}

/// Whether it is certain that nobody else holds these sockets. Beside thousands of processes a search costs more than a few
/// questions.
fn are_all(wanted: &BTreeSet<u64>, found: &Found, tables: Option<&mut (dyn KernelTables + 'static)>) -> bool {
    let Some(tables) = tables.filter(|_| wanted.len() <= FEW && missing(wanted, found).next().is_none())
    else {
        return false;
    };
    wanted.iter().all(|inode| {
        let holders = found.get(inode).into_iter().flatten().copied();
        tables.has_no_other(*inode, &holders.collect::<Vec<_>>())
    })
}

fn holds(id: ProcId, fd: i32, inode: u64) -> bool {
    close_watch::leads_to_socket(Path::new(&format!("/proc/{}/fd/{fd}", id.pid)), inode)
        && process::identity(id.pid) == Some(id)
}

/// Every process's descriptors. `false`: some could not be read.
fn walk(wanted: &BTreeSet<u64>, found: &mut Found) -> bool {
    let Ok(pids) = process::all_pids() else {
        return false;
    };
    let mut complete = true;
    for pid in pids {
        if let Some(id) = process::identity(pid) {
            complete &= descriptors(id, wanted, found).is_ok();
        }
    }
    complete
}

/// Adds the wanted sockets that one process holds.
///
/// # Errors
/// When its descriptors can't be read although it lives.
fn descriptors(id: ProcId, wanted: &BTreeSet<u64>, found: &mut Found) -> io::Result<()> {
    let gone = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH));
    let entries = match fs::read_dir(format!("/proc/{}/fd", id.pid)) {
        Ok(entries) => entries,
        Err(e) if gone(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    let mut held = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) if gone(&e) => break,
            Err(e) => return Err(e),
        };
        let inode = fs::read_link(entry.path())
            .ok()
            .and_then(|target| close_watch::socket_inode(&target));
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(inode), Some(fd)) = (inode.filter(|i| wanted.contains(i)), fd) {
            held.push((inode, fd));
        }
    }
    // The pid may have come to name another process on the way.
    if !held.is_empty() && process::identity(id.pid) == Some(id) {
        for (inode, fd) in held {
            found.entry(inode).or_default().insert((id, fd));
        }
    }
    Ok(())
}
