//! Which services a process may belong to, without asking each of ten thousand.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    address::{Address, Site},
    config::Service,
    event::{FileId, Process},
};

#[derive(Debug, Default)]
pub(super) struct Index {
    exe_ids: Vec<Option<FileId>>,
    by_exe_id: BTreeMap<FileId, Vec<usize>>,
    by_exe_path: BTreeMap<String, Vec<usize>>,
    by_unit: BTreeMap<String, Vec<usize>>,
    by_pid: BTreeMap<u32, Vec<usize>>,
    /// Services that name a script but no interpreter.
    by_script: BTreeMap<String, Vec<usize>>,
    by_pid_file: BTreeMap<String, Vec<usize>>,
    names: BTreeMap<String, usize>,
    /// Declared TCP and UDP addresses.
    by_port: BTreeMap<(Transport, u16), BTreeSet<Site>>,
    /// The others.
    by_name: BTreeMap<Address, BTreeSet<Site>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Tcp,
    Udp,
}

fn port(address: &Address) -> Option<(Transport, u16)> {
    let transport = match address {
        Address::Tcp(_) => Transport::Tcp,
        Address::Udp(_) => Transport::Udp,
        Address::Unix(_) | Address::Abstract(_) => return None,
    };
    Some((transport, address.inet()?.port))
}

impl Index {
    pub(super) fn new(services: &[Service], sites: &[Vec<Site>], exes: &BTreeMap<String, FileId>) -> Self {
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
            for site in sites.get(i).into_iter().flatten() {
                let alike = match port(&site.address) {
                    Some(port) => index.by_port.entry(port).or_default(),
                    None => index.by_name.entry(site.address.clone()).or_default(),
                };
                alike.insert(site.clone());
            }
            if let Some(path) = &s.pid_file {
                index.by_pid_file.entry(path.clone()).or_default().push(i);
            }
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

    /// The declared addresses of the same name, or transport and port.
    pub(super) fn alike(&self, address: &Address) -> impl Iterator<Item = &Site> {
        match port(address) {
            Some(port) => self.by_port.get(&port),
            None => self.by_name.get(address),
        }
        .into_iter()
        .flatten()
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
