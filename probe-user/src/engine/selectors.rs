//! Which services may select a process, without asking each of ten thousand.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::Service,
    event::{FileId, Process},
};

use super::{membership, roster::Quick};

/// The selectors of all services. What is looked up by words is only asked, never walked over.
#[derive(Debug, Default)]
pub struct Selectors {
    exe_ids: Vec<Option<FileId>>,
    by_exe_id: BTreeMap<FileId, Vec<usize>>,
    by_exe_path: Quick<String, Vec<usize>>,
    by_unit: Quick<String, Vec<usize>>,
    by_pid: BTreeMap<u32, Vec<usize>>,
    /// Services that name a script but no interpreter.
    by_script: Quick<String, Vec<usize>>,
}

impl Selectors {
    /// `file`: what the path of an executable leads to now.
    pub fn new(services: &[Service], file: impl Fn(&str) -> Option<FileId>) -> Self {
        let mut selectors = Self::default();
        for (i, s) in services.iter().enumerate() {
            let exe_id = s.exe.as_deref().and_then(&file);
            selectors.exe_ids.push(exe_id);
            if let Some(id) = exe_id {
                selectors.by_exe_id.entry(id).or_default().push(i);
            }
            if let Some(exe) = &s.exe {
                selectors.by_exe_path.entry(exe.clone()).or_default().push(i);
            }
            if let Some(unit) = &s.unit {
                selectors.by_unit.entry(unit.clone()).or_default().push(i);
            }
            if let Some(pid) = s.pid {
                selectors.by_pid.entry(pid).or_default().push(i);
            }
            if let (Some(script), None) = (&s.script, &s.exe) {
                selectors.by_script.entry(script.clone()).or_default().push(i);
            }
        }
        selectors
    }

    /// The path of an executable leads to another file now.
    pub fn replace_exe(&mut self, path: &str, file: Option<FileId>) {
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

    /// What the path of a service's executable leads to.
    pub fn exe_id(&self, service: usize) -> Option<FileId> {
        self.exe_ids.get(service).copied().flatten()
    }

    /// Whether a service declares the executable of this file.
    pub fn declares_file(&self, file: FileId) -> bool {
        self.by_exe_id.contains_key(&file)
    }

    /// Services whose declaration has something in common with this process; whether it selects the process is for
    /// [`membership::selects`] to say.
    pub fn candidates(&self, process: &Process) -> BTreeSet<usize> {
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

    /// Those of `services`, which this was made of, that select the process.
    pub fn selecting<'a>(
        &'a self,
        services: &'a [Service],
        process: &'a Process,
    ) -> impl Iterator<Item = usize> + 'a {
        let selects = move |i: &usize| {
            let service = services.get(*i);
            service.is_some_and(|s| membership::selects(s, self.exe_id(*i), process))
        };
        self.candidates(process).into_iter().filter(selects)
    }

    pub fn of_unit(&self, unit: &str) -> &[usize] {
        self.by_unit.get(unit).map_or(&[], Vec::as_slice)
    }
}
