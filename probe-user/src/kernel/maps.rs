//! What user space tells the programs, and what it asks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use probe_abi::{
    CGROUP_NAME_LEN, CHANGE_REMOVED, CHANGE_RENAMED_AWAY, CHANGE_RENAMED_TO, CONTROL_UNITS, ChangeKey,
    Changer, LOST_SUPERVISED, Member, NAME_LEN, NameKey, PAST_SLOTS, Past, PortKey, RECORD_KINDS, RecordKind,
    Supervised, UnitKey,
};
use zerocopy::IntoBytes as _;

use super::{decode::process, members::Membership};
use crate::{
    address::Address,
    clock::Nanos,
    event::{ExitStatus, FileId, PathChange, ProcId, Process},
};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;

#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    #[error("the eBPF object has no map {0}: rebuild it with `cargo xtask build-ebpf`")]
    Absent(&'static str),
    #[error("the kernel refused a change of the map {map}: {source}")]
    Refused { map: &'static str, source: MapError },
    #[error(
        "{wanted} entries are wanted in the map {map}, which was made with room for {room}: restart probe, the maps are made for \
         what is declared at its start"
    )]
    Full {
        map: &'static str,
        wanted: usize,
        room: u32,
    },
}

/// What the hooks are to report although no supervised process is involved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Inode numbers of executables. Compare the device in the event: another file system may have the same number.
    pub exes: BTreeSet<u64>,
    /// Names of systemd units.
    pub units: BTreeSet<String>,
    /// TCP and UDP ports; see [`Self::add_address`].
    pub ports: BTreeSet<PortKey>,
    /// Names of UNIX sockets and of files; see [`Self::add_address`] and [`Self::add_file`].
    pub names: BTreeSet<NameKey>,
}

impl Wanted {
    /// Asks for the TCP or UDP port of an address, or for the sockets of its last component.
    pub fn add_address(&mut self, address: &Address) {
        let (protocol, port) = match address {
            Address::Tcp(inet) => (IPPROTO_TCP, inet.port),
            Address::Udp(inet) => (IPPROTO_UDP, inet.port),
            Address::Unix(path) => return self.add_file(path),
            Address::Abstract(name) => {
                self.names.insert(abstract_key(name.as_bytes()));
                return;
            }
        };
        self.ports.insert(PortKey { protocol, port });
    }

    /// Asks who changes the last component of a path; see [`super::Kernel::follow_changers`].
    pub fn add_file(&mut self, path: &Path) {
        self.names
            .extend(path.file_name().map(|n| path_key(n.as_bytes())));
    }

    /// Room that the maps need, where what the object gives them is not twice as much: a reload may declare more.
    pub(super) fn rooms(&self) -> Rooms {
        let sets = [
            ("WANTED_EXE", self.exes.len()),
            ("WANTED_UNIT", self.units.len()),
            ("WANTED_PORT", self.ports.len()),
            ("WANTED_NAME", self.names.len()),
        ];
        sets.map(|(map, wanted)| {
            let entries = u32::try_from(wanted.saturating_mul(2)).unwrap_or(u32::MAX / 2);
            (map, entries.next_power_of_two())
        })
    }

    fn unit_keys(&self) -> BTreeSet<UnitKey> {
        self.units.iter().map(|name| unit_key(name)).collect()
    }
}

/// Entries by map.
pub(super) type Rooms = [(&'static str, u32); 4];

/// The kernel side copies text with its NUL, so a name is cut to one byte less than the key.
fn unit_key(name: &str) -> UnitKey {
    let mut key = UnitKey {
        name: [0; CGROUP_NAME_LEN],
    };
    for (to, from) in key.name[..CGROUP_NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    key
}

/// Cut like a unit's name.
fn path_key(component: &[u8]) -> NameKey {
    let mut key = NameKey { name: [0; NAME_LEN] };
    for (to, from) in key.name[..NAME_LEN - 1].iter_mut().zip(component) {
        *to = *from;
    }
    key
}

/// The kernel side has the length, so nothing ends it.
fn abstract_key(name: &[u8]) -> NameKey {
    let mut key = NameKey { name: [0; NAME_LEN] };
    for (to, from) in key.name[1..].iter_mut().zip(name) {
        *to = *from;
    }
    key
}

/// Who a process was that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastProcess {
    /// Without an executable on kernels before 6.16.
    pub process: Process,
    pub ended: Nanos,
    pub status: ExitStatus,
}

/// A set in the kernel whose content is known here, so that only differences are written.
struct Set<K: aya::Pod> {
    name: &'static str,
    map: HashMap<MapData, K, u8>,
    content: BTreeSet<K>,
    room: u32,
}

impl<K: aya::Pod + Ord> Set<K> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, MapsError> {
        let map = take(ebpf, name)?;
        let room = match &map {
            Map::HashMap(data) => data.info().map_or(u32::MAX, |i| i.max_entries()),
            _ => u32::MAX,
        };
        let map: HashMap<MapData, K, u8> =
            HashMap::try_from(map).map_err(|source| MapsError::Refused { map: name, source })?;
        // A map that was pinned holds what an earlier daemon wanted.
        let content = map.keys().collect::<Result<_, _>>();
        Ok(Self {
            name,
            content: content.map_err(|source| MapsError::Refused { map: name, source })?,
            map,
            room,
        })
    }

    /// Wants what another map of this name holds.
    fn inherit(&mut self, from: MapData) -> Result<(), MapError> {
        let from: HashMap<MapData, K, u8> = HashMap::try_from(Map::HashMap(from))?;
        for key in from.keys() {
            let key = key?;
            self.map.insert(key, 1, 0)?;
            self.content.insert(key);
        }
        Ok(())
    }

    /// What is wanted before and after is not touched, so that nothing of it is missed.
    fn replace(&mut self, wanted: BTreeSet<K>) -> Result<(), MapsError> {
        if wanted.len() > self.room as usize {
            return Err(MapsError::Full {
                map: self.name,
                wanted: wanted.len(),
                room: self.room,
            });
        }
        let refused = |source| MapsError::Refused {
            map: self.name,
            source,
        };
        for key in self.content.difference(&wanted).copied().collect::<Vec<_>>() {
            remove(&mut self.map, &key).map_err(refused)?;
            self.content.remove(&key);
        }
        for key in wanted {
            if !self.content.contains(&key) {
                self.map.insert(key, 1, 0).map_err(refused)?;
                self.content.insert(key);
            }
        }
        Ok(())
    }
}

/// An entry that is not there is as good as removed.
fn remove<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<(), MapError> {
    match map.remove(key) {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, MapsError> {
    ebpf.take_map(name).ok_or(MapsError::Absent(name))
}

fn typed<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, MapsError> {
    M::try_from(take(ebpf, name)?).map_err(|source| MapsError::Refused { map: name, source })
}

/// The maps that stay with [`super::Kernel`].
pub(super) struct Maps {
    supervised: HashMap<MapData, u32, Supervised>,
    members: HashMap<MapData, u32, Member>,
    past: Array<MapData, Past>,
    changers: HashMap<MapData, ChangeKey, Changer>,
    exes: Set<u64>,
    units: Set<UnitKey>,
    ports: Set<PortKey>,
    names: Set<NameKey>,
    control: Array<MapData, u32>,
    lost: PerCpuArray<MapData, u64>,
    records: PerCpuArray<MapData, u64>,
    crowded: PerCpuArray<MapData, u64>,
    /// What was told of losses already, by source; kept in the kernel, as the counters are.
    told: HashMap<MapData, NameKey, u64>,
    reported: [u64; RECORD_KINDS as usize],
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        let mut maps = Self {
            supervised: typed(ebpf, "SUPERVISED")?,
            members: typed(ebpf, "MEMBERS")?,
            past: typed(ebpf, "PAST")?,
            changers: typed(ebpf, "CHANGERS")?,
            exes: Set::take(ebpf, "WANTED_EXE")?,
            units: Set::take(ebpf, "WANTED_UNIT")?,
            ports: Set::take(ebpf, "WANTED_PORT")?,
            names: Set::take(ebpf, "WANTED_NAME")?,
            control: typed(ebpf, "CONTROL")?,
            lost: typed(ebpf, "LOST")?,
            records: typed(ebpf, "RECORDS")?,
            crowded: typed(ebpf, "CROWDED")?,
            told: typed(ebpf, "TOLD")?,
            reported: [0; RECORD_KINDS as usize],
        };
        for (slot, reported) in (0..).zip(&mut maps.reported) {
            *reported = maps.told.get(&source_key(&source(slot)), 0).unwrap_or(0);
        }
        Ok(maps)
    }

    /// Wants what another generation of maps did.
    pub(super) fn inherit_wanted(&mut self, open: &super::pins::Open<'_>) -> Result<(), MapError> {
        self.exes.inherit(open(self.exes.name)?)?;
        self.units.inherit(open(self.units.name)?)?;
        self.ports.inherit(open(self.ports.name)?)?;
        self.names.inherit(open(self.names.name)?)?;
        self.control
            .set(CONTROL_UNITS, u32::from(!self.units.content.is_empty()), 0)
    }

    /// How much of a loss was told, also by an earlier daemon.
    pub(super) fn told(&self, source: &str) -> u64 {
        self.told.get(&source_key(source), 0).unwrap_or(0)
    }

    /// So much of a loss is told from now on.
    pub(super) fn tell(&mut self, source: &str, count: u64) {
        if let Err(error) = self.told.insert(source_key(source), count, 0) {
            tracing::debug!(%error, "the next daemon will tell of a loss again");
        }
    }

    /// The processes that the programs follow.
    pub(super) fn supervised(&self) -> BTreeSet<u32> {
        self.supervised.keys().filter_map(Result::ok).collect()
    }

    /// Follows a process as another generation of maps did.
    pub(super) fn inherit(&mut self, pid: u32, value: Supervised) -> Result<(), MapError> {
        self.supervised.insert(pid, value, 0)
    }

    /// What is known of the processes that belong to a service.
    pub(super) fn members(&self) -> BTreeMap<ProcId, Membership> {
        let known = |(pid, value): (u32, Member)| {
            let id = ProcId {
                pid,
                start_ticks: value.start_ticks,
            };
            (id, Membership::read(&value))
        };
        self.members.iter().filter_map(Result::ok).map(known).collect()
    }

    /// Keeps that for the next daemon.
    pub(super) fn keep_member(&mut self, id: ProcId, membership: Membership) -> Result<(), MapsError> {
        self.members
            .insert(id.pid, membership.write(id), 0)
            .map_err(|source| MapsError::Refused {
                map: "MEMBERS",
                source,
            })
    }

    /// Keeps what another generation of maps did.
    pub(super) fn inherit_members(&mut self, map: MapData) -> Result<(), MapError> {
        let from: HashMap<MapData, u32, Member> = HashMap::try_from(Map::HashMap(map))?;
        for entry in from.iter() {
            let (pid, value) = entry?;
            self.members.insert(pid, value, 0)?;
        }
        Ok(())
    }

    pub(super) fn supervise(&mut self, id: ProcId, start: Nanos) -> Result<(), MapsError> {
        self.supervised
            .insert(
                id.pid,
                Supervised {
                    start: start.0,
                    exec_mm: 0,
                },
                0,
            )
            .map_err(|source| MapsError::Refused {
                map: "SUPERVISED",
                source,
            })
    }

    pub(super) fn forget(&mut self, id: ProcId) -> Result<(), MapsError> {
        let member = self.members.get(&id.pid, 0);
        let forgotten = match member {
            Ok(m) if m.start_ticks == id.start_ticks => {
                remove(&mut self.members, &id.pid).map_err(|source| MapsError::Refused {
                    map: "MEMBERS",
                    source,
                })
            }
            _ => Ok(()),
        };
        // The pid may belong to another process by now, which the fork or exec hook has put there.
        let let_go = match self.supervised.get(&id.pid, 0) {
            Ok(now) if now.start == 0 || ProcId::new(id.pid, Nanos(now.start)) == id => {
                remove(&mut self.supervised, &id.pid).map_err(|source| MapsError::Refused {
                    map: "SUPERVISED",
                    source,
                })
            }
            _ => Ok(()),
        };
        // Neither keeps the other from being taken out.
        forgotten.and(let_go)
    }

    pub(super) fn want(&mut self, wanted: &Wanted) -> Result<(), MapsError> {
        self.exes.replace(wanted.exes.clone())?;
        self.ports.replace(wanted.ports.clone())?;
        self.names.replace(wanted.names.clone())?;
        self.units.replace(wanted.unit_keys())?;
        self.control(CONTROL_UNITS, !wanted.units.is_empty())
    }

    /// Turns a switch of the programs.
    pub(super) fn control(&mut self, index: u32, on: bool) -> Result<(), MapsError> {
        self.control
            .set(index, u32::from(on), 0)
            .map_err(|source| MapsError::Refused {
                map: "CONTROL",
                source,
            })
    }

    pub(super) fn past(&self, pid: u32) -> Option<PastProcess> {
        let slot = pid % PAST_SLOTS;
        // The kernel copies it while a program may write it for another process. Twice the same was not being written, except by
        // two ends of such a pid at the same moment.
        let (past, again) = (self.past.get(&slot, 0).ok()?, self.past.get(&slot, 0).ok()?);
        if past.whole != 1 || past.task.pid != pid || past.as_bytes() != again.as_bytes() {
            return None;
        }
        Some(PastProcess {
            process: process(&past.task, None),
            ended: Nanos(past.ended),
            status: ExitStatus::from_wait(past.status),
        })
    }

    /// Who did this to a wanted name last.
    pub(super) fn changer(&self, directory: FileId, name: &OsStr, change: PathChange) -> Option<Process> {
        let key = ChangeKey {
            dir_ino: directory.ino,
            dir_dev: directory.dev,
            change: match change {
                PathChange::Created => return None,
                PathChange::Removed => CHANGE_REMOVED,
                PathChange::RenamedAway => CHANGE_RENAMED_AWAY,
                PathChange::RenamedTo => CHANGE_RENAMED_TO,
            },
            name: path_key(name.as_bytes()),
        };
        let by = self.changers.get(&key, 0).ok()?;
        Some(process(&by.task, None))
    }

    /// How often all programs of a hook with spares were being run on one CPU, since load.
    pub(super) fn crowded(&self, slot: u32) -> u64 {
        sum(&self.crowded, slot)
    }

    /// All records written since load.
    pub(super) fn records(&self) -> u64 {
        (0..RECORD_KINDS).map(|slot| sum(&self.records, slot)).sum()
    }

    /// What found no room since the last call, by kind of record.
    pub(super) fn lost(&mut self) -> Vec<(String, u64)> {
        let mut lost = Vec::new();
        for slot in 0..RECORD_KINDS {
            let now = sum(&self.lost, slot);
            let Some(before) = self.reported.get_mut(slot as usize) else {
                continue;
            };
            if now > *before {
                let source = source(slot);
                lost.push((source.clone(), now - *before));
                *before = now;
                self.tell(&source, now);
            }
        }
        lost
    }
}

/// The name under which a loss of this kind is told.
pub(super) fn source(slot: u32) -> String {
    match RecordKind::from_raw(slot) {
        None if slot == LOST_SUPERVISED => "supervised".to_owned(),
        None => format!("ring:{slot}"),
        Some(kind) => format!("ring:{}", kind.name()),
    }
}

/// The key of `TOLD` for a source of losses.
pub(super) fn source_key(name: &str) -> NameKey {
    path_key(name.as_bytes())
}

fn sum(counters: &PerCpuArray<MapData, u64>, slot: u32) -> u64 {
    counters.get(&slot, 0).map_or(0, |values| values.iter().sum())
}

/// The inode numbers that the iterator over open files looks for.
pub(super) struct WantedInodes(Set<u64>);

impl WantedInodes {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Ok(Self(Set::take(ebpf, "WANTED_INODE")?))
    }

    pub(super) fn replace(&mut self, inodes: BTreeSet<u64>) -> Result<(), MapsError> {
        self.0.replace(inodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_last_components_are_wanted() {
        let mut wanted = Wanted::default();
        for address in ["tcp:127.0.0.1:80", "udp:80", "unix:/run/x", "tcp:[::1]:80"] {
            wanted.add_address(&address.parse().unwrap());
        }
        let ports: Vec<_> = wanted.ports.iter().map(|k| (k.protocol, k.port)).collect();
        assert_eq!(ports, [(6, 80), (17, 80)]);
        assert_eq!(wanted.names, BTreeSet::from([path_key(b"x")]));
    }

    #[test]
    fn a_unit_key_always_ends_with_a_nul() {
        assert_eq!(unit_key(&"x".repeat(200)).name[CGROUP_NAME_LEN - 2..], [b'x', 0]);
        assert_eq!(&unit_key("a.service").name[..10], b"a.service\0");
        assert_eq!(path_key(&[b'x'; 200]).name[NAME_LEN - 2..], [b'x', 0]);
        assert_eq!(abstract_key(&[b'x'; 200]).name[NAME_LEN - 2..], [b'x', b'x']);
        assert_eq!(&abstract_key(b"a").name[..3], b"\0a\0");
    }
}
