//! The processes of a snapshot: what declarations select, whom sockets and PID files name, and all their descendants.

use std::collections::{BTreeMap, BTreeSet};

use super::{KernelTables, Task};
use crate::{
    config::Config,
    engine::{membership, selectors::Selectors},
    event::{ProcId, Process},
    sources::{path, process},
};

/// How often processes that began during a listing are added to it.
const ROUNDS: usize = 3;

/// `roots`: processes that belong to it whatever the declarations say. `newborn`: those that began during the listing too.
pub(super) fn processes(
    config: &Config,
    roots: &BTreeSet<ProcId>,
    tables: Option<&mut (dyn KernelTables + 'static)>,
    newborn: bool,
) -> Vec<Process> {
    let selectors = Selectors::new(&config.services, |path| path::file_id(path.as_ref()).ok());
    let mut all = list(tables, &Declared::new(config, &selectors), newborn);

    // Everything descends from process 1, which may hold sockets for others: it is listed alone.
    let (first, mut chosen): (BTreeSet<ProcId>, BTreeSet<ProcId>) = roots.iter().partition(|id| id.pid == 1);
    for process in all.values() {
        if selectors.selecting(&config.services, process).next().is_some() {
            chosen.insert(process.id);
        }
    }
    let mut chosen = process::with_descendants(&chosen, &all);
    chosen.extend(first);
    let mut found = Vec::with_capacity(chosen.len());
    for id in chosen {
        // A process that ended since then is none of the snapshot.
        if let Some(mut process) = all.remove(&id) {
            process::complete(&mut process);
            if process::identity(id.pid) == Some(id) {
                found.push(process);
            }
        }
    }
    found
}

/// What of a process tells, without a look into `/proc`, that no declaration selects it by what it runs.
struct Declared<'a> {
    selectors: &'a Selectors,
    /// Names of the declared executables, as far as the kernel's side tells names.
    names: BTreeSet<&'a [u8]>,
    /// An interpreter is told by its arguments.
    scripts: bool,
    arguments: bool,
}

impl<'a> Declared<'a> {
    fn new(config: &'a Config, selectors: &'a Selectors) -> Self {
        let paths = config.services.iter().filter_map(|s| s.exe.as_deref());
        let names = paths
            .filter_map(|path| path.rsplit('/').next())
            .map(str::as_bytes);
        Self {
            selectors,
            names: names.map(told).collect(),
            scripts: config.services.iter().any(|s| s.script.is_some()),
            arguments: config.services.iter().any(|s| s.argument.is_some()),
        }
    }

    /// Adds what a declaration may ask for and only `/proc` tells: each look costs, and there may be many processes.
    fn complete(&self, task: &mut Task) {
        let process = &mut task.process;
        // Kernel threads run no file, and belong to nobody.
        let Some(file) = process.exe_id else { return };
        // Other files of the name: one that was replaced.
        let runs_declared = self.selectors.declares_file(file)
            || task.exe_name.is_empty()
            || self.names.contains(task.exe_name.as_slice());
        let interprets = self.scripts
            && (task.exe_name.is_empty()
                || str::from_utf8(&task.exe_name).is_ok_and(membership::is_interpreter_name));
        if interprets || runs_declared && (self.scripts || self.arguments) {
            process::complete(process);
        } else if runs_declared {
            process::complete_executable(process);
        }
    }
}

fn told(name: &[u8]) -> &[u8] {
    &name[..name.len().min(path::NAME_BYTES)]
}

/// All processes.
fn list(
    tables: Option<&mut (dyn KernelTables + 'static)>,
    declared: &Declared<'_>,
    newborn: bool,
) -> BTreeMap<ProcId, Process> {
    let mut all = BTreeMap::new();
    let mut pids = BTreeSet::new();
    for mut task in tables.and_then(|t| t.processes().ok()).unwrap_or_default() {
        declared.complete(&mut task);
        pids.insert(task.process.id.pid);
        all.insert(task.process.id, task.process);
    }
    if !newborn && !all.is_empty() {
        return all;
    }
    // What an iterator does not show, and what has begun meanwhile: a child may have a lower pid than its parent.
    for _ in 0..ROUNDS {
        let new: Vec<u32> = process::all_pids()
            .unwrap_or_default()
            .into_iter()
            .filter(|p| pids.insert(*p))
            .collect();
        let before = all.len();
        for process in new
            .into_iter()
            .filter_map(|pid| process::read(pid).ok().flatten())
        {
            all.insert(process.id, process);
        }
        // Whoever has ended, and waits to be reaped, begins nothing.
        if all.len() == before {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_1_brings_no_descendants() {
        let first = process::identity(1).unwrap();
        let me = process::identity(std::process::id()).unwrap();
        let roots = |ids: &[ProcId]| ids.iter().copied().collect();
        let listed = |roots| -> Vec<ProcId> {
            let found = processes(&Config::default(), &roots, None, true);
            found.into_iter().map(|p| p.id).collect()
        };
        assert_eq!(listed(roots(&[first])), [first]);
        let both = listed(roots(&[first, me]));
        assert!(both.contains(&first) && both.contains(&me), "{both:?}");
    }
}
