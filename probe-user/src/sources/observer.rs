//! Joins paths, sockets and processes into the levels that verdicts rest on.
//!
//! Nothing that is read here is read at one moment: names change while sockets are listed, sockets go while their holders
//! are looked for. A look is repeated until nothing moved under it; what keeps moving is told as unknown.

mod dumps;
mod holders;
mod listeners;
mod selected;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
};

use self::{dumps::Dumps, holders::Holders};
pub use self::{
    holders::HolderFinder,
    listeners::{Found, Listeners},
};
use super::{
    path::{self, Stamp},
    pid_file, process,
    sock_diag::{Diag, DiagError},
};
use crate::{
    address::Address,
    clock,
    config::Config,
    event::{AddressState, PathState, ProcId, Process, Snapshot, SnapshotReason, Socket, SocketId},
    kernel::Iterators,
};

/// How often a look is repeated that something moved under.
const ATTEMPTS: usize = 4;
/// Ancestors of a holder that are told with it.
const ANCESTORS: usize = 2;

/// Lists all processes faster than a walk of `/proc`.
pub trait ProcessLister {
    /// Every live process. What only `/proc` knows (path of the executable, arguments) may be absent.
    ///
    /// # Errors
    /// When it can't be asked; `/proc` is walked then.
    fn processes(&mut self) -> io::Result<Vec<Process>>;
}

/// What the kernel's iterators offer.
pub trait KernelTables: HolderFinder + ProcessLister + Send {}
impl<T: HolderFinder + ProcessLister + Send> KernelTables for T {}

impl HolderFinder for Iterators {
    fn holders(&mut self, inodes: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
        Self::holders(self, inodes)
    }
}

impl ProcessLister for Iterators {
    fn processes(&mut self) -> io::Result<Vec<Process>> {
        self.tasks()
    }
}

/// Looks at addresses, PID files and processes. Remembers per address which sockets it has seen there, and who held them.
pub struct Observer {
    diag: Diag,
    tables: Option<Box<dyn KernelTables>>,
    /// Sockets seen alive for an address: they belong to it as long as they live, whatever becomes of the path.
    seen: BTreeMap<Address, BTreeSet<SocketId>>,
    holders: Holders,
}

/// One pass over some addresses.
struct Look {
    states: Vec<AddressState>,
    /// A path changed while the sockets were listed.
    moved: Vec<bool>,
    /// Live sockets of which no holder was found: in flight between processes, or gone a moment later.
    unheld: BTreeSet<SocketId>,
}

impl Observer {
    /// `tables`: the kernel's iterators, where they load.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn new(tables: Option<Box<dyn KernelTables>>) -> Result<Self, DiagError> {
        Ok(Self {
            diag: Diag::open()?,
            tables,
            seen: BTreeMap::new(),
            holders: Holders::default(),
        })
    }

    /// How one address is now. Errors are part of the state.
    pub fn address(&mut self, address: &Address) -> AddressState {
        let mut states = self.settle(&[address], false);
        states.pop().unwrap_or_else(|| AddressState {
            address: address.clone(),
            path: None,
            sockets: Vec::new(),
            processes: Vec::new(),
            error: Some("it was not looked at".into()),
        })
    }

    /// How everything declared is now: one dump a family, one pass for holders, one for processes.
    pub fn snapshot(&mut self, config: &Config, reason: SnapshotReason) -> Snapshot {
        let began = clock::now();
        let declared: BTreeSet<&Address> = config.services.iter().flat_map(|s| &s.listen).collect();
        self.seen.retain(|address, _| declared.contains(address));
        let addresses = self.settle(&declared.into_iter().collect::<Vec<_>>(), true);
        let pid_files = config
            .services
            .iter()
            .filter_map(|s| s.pid_file.as_deref())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|path| pid_file::read(path.as_ref()))
            .collect::<Vec<_>>();
        let mut roots: BTreeSet<ProcId> = pid_files
            .iter()
            .filter_map(|f| Some(f.process.as_ref()?.id))
            .collect();
        roots.extend(
            addresses
                .iter()
                .flat_map(|a| &a.sockets)
                .flat_map(|s| &s.holders)
                .map(|h| h.process),
        );
        let processes = selected::processes(config, &roots, self.tables.as_deref_mut());
        Snapshot {
            began,
            reason,
            processes,
            addresses,
            pid_files,
        }
    }

    /// Every listener of this network namespace, with those who hold it and their ancestors.
    ///
    /// # Errors
    /// When the kernel can't be asked for its sockets.
    pub fn listening_everything(&mut self) -> Result<Listeners, DiagError> {
        listeners::everything(&mut self.diag, &mut self.holders, self.tables.as_deref_mut())
    }

    /// Looks until nothing moved. `thorough`: asks who holds the sockets anew, although known holders still do.
    fn settle(&mut self, addresses: &[&Address], thorough: bool) -> Vec<AddressState> {
        let mut look = self.look(addresses, thorough);
        for _ in 1..ATTEMPTS {
            if look.unheld.is_empty() && !look.moved.contains(&true) {
                return look.states;
            }
            let before = look;
            look = self.look(addresses, true);
            // Twice without a holder, and not for want of looking: it is in flight.
            if !look.moved.contains(&true) && look.unheld == before.unheld {
                return look.states;
            }
        }
        for (state, moved) in look.states.iter_mut().zip(look.moved) {
            if moved {
                state.path = Some(PathState::Unknown(format!(
                    "it changed {ATTEMPTS} times while it was looked at"
                )));
            }
        }
        look.states
    }

    fn look(&mut self, addresses: &[&Address], thorough: bool) -> Look {
        let stamps = |addresses: &[&Address]| -> Vec<Option<Stamp>> {
            addresses.iter().map(|a| a.path().map(path::stamp)).collect()
        };
        let before = stamps(addresses);
        let dumps = Dumps::read(&mut self.diag, addresses, &before, &self.seen);
        let after = stamps(addresses);
        let moved = before.iter().zip(&after).map(|(b, a)| b != a).collect();

        let mut states = Vec::with_capacity(addresses.len());
        let mut by_name_only = BTreeSet::new();
        for (address, stamp) in addresses.iter().zip(after) {
            let path = stamp.map(|s| s.state);
            let found = dumps.sockets(address, path.as_ref(), self.seen.get(*address));
            let (sockets, error) = match found {
                Ok(found) => {
                    by_name_only.extend(found.iter().filter(|m| m.by_name_only).map(|m| m.socket.id));
                    (found.into_iter().map(|m| m.socket).collect(), None)
                }
                Err(error) => (Vec::new(), Some(error)),
            };
            states.push(AddressState {
                address: (*address).clone(),
                path,
                sockets,
                processes: Vec::new(),
                error,
            });
        }

        let wanted = states.iter().flat_map(|s| &s.sockets).map(|s| s.inode).collect();
        let found = self.holders.find(&wanted, thorough, self.tables.as_deref_mut());
        let mut known = BTreeMap::new();
        let mut unheld = BTreeSet::new();
        for state in &mut states {
            for socket in &mut state.sockets {
                found.fill(socket);
                if socket.holders.is_empty() {
                    unheld.insert(socket.id);
                }
            }
            if let Some(path) = state.address.path() {
                // The same name in a chroot or a container is another file, and another daemon's address.
                state
                    .sockets
                    .retain(|socket| !by_name_only.contains(&socket.id) || belongs_here(socket, path));
            }
            if state.error.is_none() {
                let ids: BTreeSet<_> = state.sockets.iter().map(|s| s.id).collect();
                match ids.is_empty() {
                    true => self.seen.remove(&state.address),
                    false => self.seen.insert(state.address.clone(), ids),
                };
            }
            state.processes = with_ancestors(&state.sockets, &mut known);
        }
        Look {
            states,
            moved,
            unheld,
        }
    }
}

fn belongs_here(socket: &Socket, path: &std::path::Path) -> bool {
    socket.holders.is_empty()
        || socket
            .holders
            .iter()
            .any(|h| path::shares_directory(h.process.pid, path))
}

/// The holders of `sockets` and their next ancestors. `known`: read in this look already.
fn with_ancestors(sockets: &[Socket], known: &mut BTreeMap<ProcId, Process>) -> Vec<Process> {
    let mut wanted = BTreeSet::new();
    for holder in sockets.iter().flat_map(|s| &s.holders) {
        let mut next = Some(holder.process);
        for _ in 0..=ANCESTORS {
            let Some(id) = next else { break };
            next = read_known(id, known).and_then(|p| p.parent);
            wanted.insert(id);
        }
    }
    wanted.iter().filter_map(|id| known.get(id)).cloned().collect()
}

fn read_known(id: ProcId, known: &mut BTreeMap<ProcId, Process>) -> Option<&Process> {
    match known.entry(id) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(entry) => {
            let process = process::read(id.pid).ok().flatten().filter(|p| p.id == id)?;
            Some(entry.insert(process))
        }
    }
}

#[cfg(test)]
mod tests;
