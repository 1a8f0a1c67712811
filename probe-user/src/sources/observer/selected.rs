//! The processes of a snapshot: what declarations select, whom sockets and PID files name, and all their descendants.

use std::collections::{BTreeMap, BTreeSet};

use super::KernelTables;
use crate::{
    config::Config,
    engine::membership,
    event::{FileId, ProcId, Process},
    sources::{path, process},
};

/// How often processes that began during a listing are added to it.
const ROUNDS: usize = 3;

/// `roots`: processes that belong to it whatever the declarations say.
pub(super) fn processes(
    config: &Config,
    roots: &BTreeSet<ProcId>,
    tables: Option<&mut (dyn KernelTables + 'static)>,
) -> Vec<Process> {
    let exes: Vec<Option<FileId>> = config
        .services
        .iter()
        .map(|s| path::file_id(s.exe.as_deref()?.as_ref()).ok())
        .collect();
    let by_argument = config
        .services
        .iter()
        .any(|s| s.script.is_some() || s.argument.is_some());
    let by_exe = config
        .services
        .iter()
        .any(|s| s.exe.is_some() || s.script.is_some());
    let mut all = list(tables, |process| {
        // Each costs a look into `/proc`, and there may be many. What is chosen is completed below.
        if by_argument {
            process::complete(process);
        } else if by_exe {
            process::complete_executable(process);
        }
    });

    // Everything descends from process 1, which may hold sockets for others: it is listed alone.
    let (first, mut chosen): (BTreeSet<ProcId>, BTreeSet<ProcId>) = roots.iter().partition(|id| id.pid == 1);
    for process in all.values() {
        if config
            .services
            .iter()
            .zip(&exes)
            .any(|(service, exe)| membership::selects(service, *exe, process))
        {
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

/// All processes; `complete` adds what only `/proc` tells of them.
fn list(
    tables: Option<&mut (dyn KernelTables + 'static)>,
    complete: impl Fn(&mut Process),
) -> BTreeMap<ProcId, Process> {
    let mut all = BTreeMap::new();
    let mut pids = BTreeSet::new();
    for mut process in tables.and_then(|t| t.processes().ok()).unwrap_or_default() {
        // Kernel threads run no file, and belong to nobody.
        if process.exe_id.is_some() {
            complete(&mut process);
        }
        pids.insert(process.id.pid);
        all.insert(process.id, process);
    }
    // What an iterator does not show, and what has begun meanwhile: a child may have a lower pid than its parent.
    for _ in 0..ROUNDS {
        let new: Vec<u32> = process::all_pids()
            .unwrap_or_default()
            .into_iter()
            .filter(|p| pids.insert(*p))
            .collect();
        if new.is_empty() {
            break;
        }
        for process in new
            .into_iter()
            .filter_map(|pid| process::read(pid).ok().flatten())
        {
            all.insert(process.id, process);
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
            let found = processes(&Config::default(), &roots, None);
            found.into_iter().map(|p| p.id).collect()
        };
        assert_eq!(listed(roots(&[first])), [first]);
        let both = listed(roots(&[first, me]));
        assert!(both.contains(&first) && both.contains(&me), "{both:?}");
    }
}
