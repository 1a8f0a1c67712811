//! Which services a process may belong to, without asking each of ten thousand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    address::Address,
    config::Service,
    event::{FileId, Process},
};

use super::{
    addresses::{Addresses, Place},
    roster::Quick,
};

/// What is looked up by words is only asked, never walked over.
#[derive(Debug, Default)]
pub(super) struct Index {
    exe_ids: Vec<Option<FileId>>,
    by_exe_id: BTreeMap<FileId, Vec<usize>>,
    by_exe_path: Quick<String, Vec<usize>>,
    by_unit: Quick<String, Vec<usize>>,
    by_pid: BTreeMap<u32, Vec<usize>>,
    /// Services that name a script but no interpreter.
    by_script: Quick<String, Vec<usize>>,
    by_pid_file: Quick<String, Vec<usize>>,
    names: Quick<String, usize>,
    /// Declared TCP and UDP addresses, and of each port all of them.
    by_inet: Quick<(Port, Option<IpAddr>), Vec<Place>>,
    by_port: Quick<Port, Vec<Place>>,
    /// The others.
    by_name: Quick<Address, Vec<Place>>,
}

type Port = (Transport, u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Transport {
    Tcp,
    Udp,
}

fn port(address: &Address) -> Option<(Port, Option<IpAddr>)> {
    let transport = match address {
        Address::Tcp(_) => Transport::Tcp,
        Address::Udp(_) => Transport::Udp,
        Address::Unix(_) | Address::Abstract(_) => return None,
    };
    let inet = address.inet()?;
    Some(((transport, inet.port), inet.ip))
}

impl Index {
    pub(super) fn new(services: &[Service], addresses: &Addresses, exes: &BTreeMap<String, FileId>) -> Self {
        let mut index = Self::default();
        for (i, s) in services.iter().enumerate() {
            index.names.insert(s.name.clone(), i);
            let exe_id = s.exe.as_ref().and_then(|e| exes.get(e)).copied();
            index.exe_ids.push(exe_id);
            if let Some(id) = exe_id {
                index.by_exe_id.entry(id).or_default().push(i);
            }
            if let Some(exe) = &s.exe {
                index.by_exe_path.entry(exe.clone()).or_default().push(i);
            }
            if let Some(unit) = &s.unit {
                index.by_unit.entry(unit.clone()).or_default().push(i);
            }
            if let Some(pid) = s.pid {
                index.by_pid.entry(pid).or_default().push(i);
            }
            if let (Some(script), None) = (&s.script, &s.exe) {
                index.by_script.entry(script.clone()).or_default().push(i);
            }
            if let Some(path) = &s.pid_file {
                index.by_pid_file.entry(path.clone()).or_default().push(i);
            }
        }
        for (place, site, _) in addresses.iter() {
            let Some((port, ip)) = port(&site.address) else {
                index.by_name.entry(site.address.clone()).or_default().push(place);
                continue;
            };
            index.by_port.entry(port).or_default().push(place);
            index.by_inet.entry((port, ip)).or_default().push(place);
        }
        index
    }

    /// The path of an executable leads to another file now.
    pub(super) fn replace_exe(&mut self, path: &str, file: Option<FileId>) {
        for service in self.by_exe_path.get(path).into_iter().flatten() {
            let Some(known) = self.exe_ids.get_mut(*service) else {
                continue;
            };
            let old = std::mem::replace(known, file);
            if let Some(services) = old.and_then(|id| self.by_exe_id.get_mut(&id)) {
                services.retain(|s| s != service);
            }
            if let Some(id) = file {
                self.by_exe_id.entry(id).or_default().push(*service);
            }
        }
        self.by_exe_id.retain(|_, services| !services.is_empty());
    }

    pub(super) fn exe_id(&self, service: usize) -> Option<FileId> {
        self.exe_ids.get(service).copied().flatten()
    }

    /// Services whose declaration has something in common with this process; whether it selects the process is for
    /// [`super::membership::selects`] to say.
    pub(super) fn candidates(&self, process: &Process) -> BTreeSet<usize> {
        let by_exe = process.exe.as_ref().and_then(|e| self.by_exe_path.get(e));
        let by_id = process.exe_id.and_then(|id| self.by_exe_id.get(&id));
        let by_unit = process.unit.as_ref().and_then(|u| self.by_unit.get(u));
        let by_pid = self.by_pid.get(&process.id.pid);
        let scripts = if self.by_script.is_empty() {
            &[][..]
        } else {
            &process.argv[..]
        };
        [by_exe, by_id, by_unit, by_pid]
            .into_iter()
            .chain(scripts.iter().map(|a| self.by_script.get(a)))
            .flatten()
            .flatten()
            .copied()
            .collect()
    }

    /// The declared addresses that a socket at this one may serve.
    pub(super) fn alike(&self, address: &Address) -> Vec<Place> {
        let Some((port, ip)) = port(address) else {
            return self.by_name.get(address).cloned().unwrap_or_default();
        };
        // One of all addresses serves whatever is declared of its port.
        let Some(ip) = ip.filter(|ip| !ip.is_unspecified()) else {
            return self.by_port.get(&port).cloned().unwrap_or_default();
        };
        let declared = [Some(ip), None].map(|ip| self.by_inet.get(&(port, ip)));
        let mut alike: Vec<Place> = declared.into_iter().flatten().flatten().copied().collect();
        alike.sort_unstable();
        alike
    }

    pub(super) fn of_unit(&self, unit: &str) -> &[usize] {
        self.by_unit.get(unit).map_or(&[], Vec::as_slice)
    }

    /// Services that declare this PID file; of them the one that it is about, where one is named.
    pub(super) fn of_pid_file(&self, path: &str, of: Option<&str>) -> Vec<usize> {
        let all = self.by_pid_file.get(path).map_or(&[][..], Vec::as_slice);
        let one = of.map(|name| self.names.get(name));
        all.iter()
            .filter(|i| one.is_none_or(|one| one == Some(i)))
            .copied()
            .collect()
    }
}
