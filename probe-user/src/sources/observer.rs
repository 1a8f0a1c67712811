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
    rc::Rc,
};

use self::{
    dumps::{Asked, Asker, Dumps},
    holders::Holders,
};
pub use self::{
    holders::HolderFinder,
    listeners::{Found, Listeners},
};
use super::{
    namespace::NetNamespace,
    path::{self, Stamp},
    pid_file, process,
    root::Rooted,
    sock_diag::{Diag, DiagError},
    view::{View, Views},
};
use crate::{
    address::{Address, Site},
    clock,
    config::{Config, Netns},
    event::{AddressState, FileId, PathState, ProcId, Process, Snapshot, SnapshotReason, Socket, SocketId},
    kernel::{HeldUnix, Iterators},
};

/// How often a look is repeated that something moved under.
const ATTEMPTS: usize = 4;
/// Addresses that one looks at again and again and has not declared: more are looked at anew each time.
const SITES: usize = 256;
/// Ancestors of a holder that are told with it.
const ANCESTORS: usize = 2;

/// A process as the kernel's iterator shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What only `/proc` knows (path of the executable, arguments) may be absent.
    pub process: Process,
    /// File name of the executable, or as much of its beginning as [`path::NAME_BYTES`] hold. Empty: it is not known.
    pub exe_name: Vec<u8>,
    /// All its threads have begun to end.
    pub ends: bool,
}

/// Lists all processes faster than a walk of `/proc`.
pub trait ProcessLister {
    /// Every live process.
    ///
    /// # Errors
    /// When it can't be asked; `/proc` is walked then.
    fn processes(&mut self) -> io::Result<Vec<Task>>;
}

/// What the kernel's iterators offer.
pub trait KernelTables: HolderFinder + ProcessLister + Send {}
impl<T: HolderFinder + ProcessLister + Send> KernelTables for T {}

impl HolderFinder for Iterators {
    fn holders(&mut self, inodes: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
        Self::holders(self, inodes)
    }

    fn unix(&mut self, pid: u32, inode: u64) -> Option<HeldUnix> {
        Self::unix(self, pid, inode)
    }

    fn has_no_other(&mut self, inode: u64, holders: &[(ProcId, i32)]) -> bool {
        Self::has_no_other(self, inode, holders)
    }
}

impl ProcessLister for Iterators {
    fn processes(&mut self) -> io::Result<Vec<Task>> {
        self.tasks()
    }
}

/// Sockets, with the inode numbers by which the kernel finds them.
type Sockets = BTreeMap<SocketId, u64>;

/// Looks at addresses, PID files and processes. Remembers per address which sockets it has seen there, and who held them.
pub struct Observer {
    diag: Diag,
    tables: Option<Box<dyn KernelTables>>,
    /// Sockets seen alive for an address: they belong to it as long as they live, whatever becomes of the path.
    seen: BTreeMap<Site, Sockets>,
    /// Socket files that a live socket of this network namespace was bound to, as they were then.
    here: BTreeMap<Site, Stamp>,
    holders: Holders,
    /// TCP sockets that are bound and do not listen are looked for too.
    with_bound: bool,
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
            here: BTreeMap::new(),
            holders: Holders::default(),
            with_bound: false,
        })
    }

    /// From now on TCP sockets that are bound and do not listen belong to their address too: for those who ask why they
    /// can't bind it.
    pub fn with_bound(mut self) -> Self {
        self.with_bound = true;
        self
    }

    /// How an address is now, as the host means it. Errors are part of the state.
    pub fn address(&mut self, address: &Address) -> AddressState {
        self.site(&address.clone().into(), &View::default())
    }

    /// How a declared address is now, as its service means it.
    pub fn site(&mut self, site: &Site, view: &View) -> AddressState {
        let mut states = self.settle(&[(site, view)], false);
        states.pop().unwrap_or_else(|| AddressState {
            address: site.address.clone(),
            of: site.of.clone(),
            netns: None,
            path: None,
            changed: None,
            sockets: Vec::new(),
            processes: Vec::new(),
            error: Some("it was not looked at".into()),
        })
    }

    /// The same, and who holds its sockets is searched for anew although known holders still do.
    pub fn site_anew(&mut self, site: &Site, view: &View) -> Option<AddressState> {
        self.settle(&[(site, view)], true).pop()
    }

    /// Sockets that were seen at this address and have lost its path do not belong to it any more.
    pub fn forget_unless_unchanged(&mut self, site: &Site, view: &View) {
        let now = site.address.path().map(|path| view.find(path).1);
        if now.is_none() || self.here.get(site) != now.as_ref() {
            self.seen.remove(site);
            self.here.remove(site);
        }
        if self.seen.len() > SITES {
            self.seen.clear();
            self.here.clear();
        }
    }

    /// How several declared addresses are now, as one service means them; in their order.
    pub fn sites(&mut self, sites: &[Site], view: &View) -> Vec<AddressState> {
        let wanted: Vec<(&Site, &View)> = sites.iter().map(|site| (site, view)).collect();
        self.settle(&wanted, false)
    }

    /// How everything declared is now: one dump a family, one pass for holders, one for processes.
    pub fn snapshot(&mut self, config: &Config, views: &Views, reason: SnapshotReason) -> Snapshot {
        let began = clock::now();
        let declared: BTreeSet<Site> = config.sites().into_iter().flatten().collect();
        self.seen.retain(|site, _| declared.contains(site));
        self.here.retain(|site, _| declared.contains(site));
        let seen: Vec<(&Site, View)> = declared.iter().map(|site| (site, views.of(site))).collect();
        let wanted: Vec<(&Site, &View)> = seen.iter().map(|(site, view)| (*site, view)).collect();
        let addresses = self.settle(&wanted, true);
        let mut pid_files = BTreeMap::new();
        for (i, path, of) in config.pid_files() {
            pid_files
                .entry((path, of))
                .or_insert_with(|| pid_file::read(path.as_ref(), of, views.service(i)));
        }
        let pid_files: Vec<_> = pid_files.into_values().collect();
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
        let processes = selected::processes(config, &roots, self.tables.as_deref_mut(), true);
        Snapshot {
            began,
            reason,
            processes,
            addresses,
            pid_files,
        }
    }

    /// The processes that the declarations select, and all their descendants; not those that begin at this moment.
    pub fn selected(&mut self, config: &Config) -> Vec<Process> {
        selected::processes(config, &BTreeSet::new(), self.tables.as_deref_mut(), false)
    }

    /// Whether `followed`, of the processes that were `listed` with their executables, have neither ended nor run another
    /// program nor made a child since then. `false` where the kernel's iterators can't tell.
    pub fn are_unchanged(
        &mut self,
        listed: &BTreeMap<ProcId, Option<FileId>>,
        followed: &BTreeSet<ProcId>,
    ) -> bool {
        let Some(Ok(tasks)) = self.tables.as_deref_mut().map(ProcessLister::processes) else {
            return false;
        };
        let mut unchanged = 0;
        for Task { process, ends, .. } in &tasks {
            let known = listed.get(&process.id);
            if followed.contains(&process.id) {
                if *ends || known != Some(&process.exe_id) {
                    return false;
                }
                unchanged += 1;
            } else if known.is_none() && process.parent.is_some_and(|parent| followed.contains(&parent)) {
                return false;
            }
        }
        unchanged == followed.len()
    }

    /// Every listener of this network namespace, with those who hold it and their ancestors.
    ///
    /// # Errors
    /// When the kernel can't be asked for its sockets.
    pub fn listening_everything(&mut self) -> Result<Listeners, DiagError> {
        listeners::everything(&mut self.diag, &mut self.holders, self.tables.as_deref_mut())
    }

    /// Looks until nothing moved. `thorough`: asks who holds the sockets anew, although known holders still do.
    fn settle(&mut self, wanted: &[(&Site, &View)], thorough: bool) -> Vec<AddressState> {
        let mut look = self.look(wanted, thorough);
        for _ in 1..ATTEMPTS {
            if look.unheld.is_empty() && !look.moved.contains(&true) {
                return look.states;
            }
            let before = look;
            look = self.look(wanted, true);
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

    fn look(&mut self, wanted: &[(&Site, &View)], thorough: bool) -> Look {
        let find = || -> Vec<Option<(Rooted, Stamp)>> {
            let paths = wanted.iter().map(|(site, view)| (site.address.path(), view));
            paths.map(|(path, view)| path.map(|p| view.find(p))).collect()
        };
        let asked: Vec<Asked<'_>> = wanted
            .iter()
            .zip(find())
            .map(|((site, _), before)| Asked { site, before })
            .collect();
        let (dumps, netns) = self.dump(wanted, &asked);
        let after = find();
        let moved = asked
            .iter()
            .zip(&after)
            .map(|(a, after)| a.before != *after)
            .collect();

        let mut states = Vec::with_capacity(wanted.len());
        let mut by_name_only = BTreeSet::new();
        let mut places = Vec::with_capacity(wanted.len());
        for (i, found) in after.into_iter().enumerate() {
            let site = wanted[i].0;
            let sockets = match &dumps[i] {
                Ok(Some(dumps)) => dumps.sockets(&asked[i], found.as_ref(), self.seen.get(site)),
                Ok(None) => Ok(Vec::new()),
                Err(e) => Err(e.clone()),
            };
            let (sockets, error): (Vec<Socket>, _) = match sockets {
                Ok(found) => {
                    by_name_only.extend(found.iter().filter(|m| m.by_name_only).map(|m| m.socket.id));
                    (found.into_iter().map(|m| m.socket).collect(), None)
                }
                Err(error) => (Vec::new(), Some(error)),
            };
            if let (Ok(Some(dumps)), Some((_, stamp))) = (&dumps[i], &found)
                && let PathState::Socket(file) = stamp.state
                && asked[i].before == found
            {
                let sockets: &[Socket] = &sockets;
                if dumps.is_from_here(file, sockets) {
                    self.here.insert(site.clone(), stamp.clone());
                } else if !sockets.is_empty() {
                    self.here.remove(site);
                }
            }
            let (place, stamp) = found.unzip();
            places.push(place);
            states.push(AddressState {
                address: site.address.clone(),
                of: site.of.clone(),
                netns: netns[i],
                changed: stamp.as_ref().and_then(Stamp::changed_on_boot_clock),
                path: stamp.map(|s| s.state),
                sockets,
                processes: Vec::new(),
                error,
            });
        }

        let inodes = states.iter().flat_map(|s| &s.sockets).map(|s| s.inode).collect();
        let found = self.holders.find(&inodes, thorough, self.tables.as_deref_mut());
        let mut known = BTreeMap::new();
        let mut unheld = BTreeSet::new();
        for ((state, place), (site, view)) in states.iter_mut().zip(&places).zip(wanted) {
            for socket in &mut state.sockets {
                found.fill(socket);
                if socket.holders.is_empty() {
                    unheld.insert(socket.id);
                }
            }
            if let Some(place) = place {
                // The same name in another chroot or container is another file, and another daemon's address.
                state.sockets.retain(|socket| {
                    !by_name_only.contains(&socket.id) || belongs_here(socket, place, view.process)
                });
            }
            if state.error.is_none() {
                let sockets: Sockets = state.sockets.iter().map(|s| (s.id, s.inode)).collect();
                match sockets.is_empty() {
                    true => self.seen.remove(*site),
                    false => self.seen.insert((*site).clone(), sockets),
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

    /// One dump for each network namespace that is asked about: for every site the one that it is in (`None`: in none
    /// that there is), and that namespace's number.
    #[expect(clippy::type_complexity, reason = "two lists, each with one entry a site")]
    fn dump(
        &mut self,
        wanted: &[(&Site, &View)],
        asked: &[Asked<'_>],
    ) -> (Vec<Result<Option<Rc<Dumps>>, String>>, Vec<Option<u32>>) {
        let mut of: Vec<Result<Option<Rc<Dumps>>, String>> = vec![Ok(None); wanted.len()];
        let mut netns = vec![None; wanted.len()];
        let mut groups: BTreeMap<Option<u32>, (NetNamespace, Vec<usize>)> = BTreeMap::new();
        for (i, (site, view)) in wanted.iter().enumerate() {
            let namespace = match site.address.path() {
                // Names of files are in no network namespace.
                Some(_) => Ok(Some(NetNamespace::Own)),
                None => view.net_namespace(),
            };
            match namespace {
                Ok(Some(namespace)) => {
                    let key = match &namespace {
                        NetNamespace::Own => None,
                        NetNamespace::Other { inode, .. } => Some(*inode),
                    };
                    if site.address.path().is_none() {
                        netns[i] = namespace.inode();
                    }
                    groups.entry(key).or_insert((namespace, Vec::new())).1.push(i);
                }
                Ok(None) => {}
                Err(e) => of[i] = Err(e),
            }
        }
        for (namespace, members) in groups.into_values() {
            let sites: Vec<&Asked<'_>> = members.iter().map(|i| &asked[*i]).collect();
            let mut other = match namespace {
                NetNamespace::Own => Ok(None),
                NetNamespace::Other { file, .. } => Diag::open_in(file).map(Some).map_err(|e| e.to_string()),
            };
            let dumps = other.as_mut().map_err(|e| e.clone()).map(|other| {
                let mut asker = Asker {
                    diag: other.as_mut().unwrap_or(&mut self.diag),
                    tables: self.tables.as_deref_mut(),
                    seen: &self.seen,
                    here: &self.here,
                    holders: &self.holders,
                };
                Some(Rc::new(Dumps::read(&mut asker, &sites, self.with_bound)))
            });
            for i in members {
                let netns = &wanted[i].1.netns;
                of[i] = dumps.clone().map_err(|e| match netns {
                    Netns::Path(path) => format!("network namespace {path}: {e}"),
                    Netns::Host | Netns::Main => e,
                });
            }
        }
        (of, netns)
    }
}

/// `main`: the service's main process, which means the path that it gave to bind(2), whatever its root is by now.
fn belongs_here(socket: &Socket, place: &Rooted, main: Option<ProcId>) -> bool {
    socket.holders.is_empty()
        || socket
            .holders
            .iter()
            .any(|h| main == Some(h.process) || path::shares_directory(h.process.pid, place))
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
