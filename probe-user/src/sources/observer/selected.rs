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

/// Paths of executables that are remembered.
const REMEMBERED: usize = 1 << 14;

/// Which path each process's executable had at the last snapshot: to read that anew costs the most of a snapshot beside thousands
/// of processes.
///
/// A path tells only of a file that was replaced or removed under a declared path. Whoever does that changes what the declared
/// path leads to, and then nothing that is remembered counts.
#[derive(Default)]
pub(super) struct Executables {
    /// What the declared paths led to.
    declared: Vec<Option<FileId>>,
    of: BTreeMap<ProcId, (FileId, String, bool)>,
}

impl Executables {
    fn recall(&self, process: &mut Process) {
        if let (Some((file, path, deleted)), Some(running)) = (self.of.get(&process.id), process.exe_id)
            && *file == running
            && process.exe.is_none()
        {
            process.exe = Some(path.clone());
            process.exe_deleted = *deleted;
        }
    }

    fn remember(&mut self, declared: Vec<Option<FileId>>, all: &BTreeMap<ProcId, Process>) {
        let known = all.values().filter_map(|p| {
            let (file, path) = (p.exe_id?, p.exe.clone()?);
            Some((p.id, (file, path, p.exe_deleted)))
        });
        self.of = known.take(REMEMBERED).collect();
        self.declared = declared;
    }
}

/// `roots`: processes that belong to it whatever the declarations say.
pub(super) fn processes(
    config: &Config,
    roots: &BTreeSet<ProcId>,
    executables: &mut Executables,
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
    if executables.declared != exes {
        executables.of.clear();
    }
    let mut all = list(tables, |process| {
        // A file with several names can be run anew under another one, and the name tells an interpreter.
        if !by_argument {
            executables.recall(process);
        }
        // Each costs a look into `/proc`, and there may be many. What is chosen is completed below.
        if by_argument {
            process::complete(process);
        } else if by_exe {
            process::complete_executable(process);
        }
    });

    executables.remember(exes.clone(), &all);
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
            (process.exe, process.exe_deleted) = (None, false);
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
    use std::{fs, io, process::Command};

    use super::*;
    use crate::{
        config::Service,
        sources::{
            observer::{HolderFinder, ProcessLister},
            testing::TempDir,
        },
    };

    /// As the kernel's iterator: it knows no path.
    struct Listed(Vec<u32>);

    impl ProcessLister for Listed {
        fn processes(&mut self) -> io::Result<Vec<Process>> {
            let read = self.0.iter().filter_map(|pid| process::read(*pid).ok().flatten());
            Ok(read
                .map(|p| Process {
                    exe: None,
                    argv: Vec::new(),
                    ..p
                })
                .collect())
        }
    }

    impl HolderFinder for Listed {
        fn holders(&mut self, _: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn an_executable_that_is_replaced_after_its_path_was_remembered_is_still_known() {
        let dir = TempDir::new("replaced");
        let (exe, new) = (dir.path().join("daemon"), dir.path().join("new"));
        for path in [&exe, &new] {
            fs::copy("/bin/sleep", path).unwrap();
        }
        let mut child = Command::new(&exe).arg("60").spawn().unwrap();
        let config = Config {
            services: vec![Service {
                exe: Some(exe.to_string_lossy().into_owned()),
                ..Service::named("daemon")
            }],
            ..Config::default()
        };
        let mut executables = Executables::default();
        let mut look = || {
            let mut tables = Listed(vec![child.id()]);
            let found = processes(&config, &BTreeSet::new(), &mut executables, Some(&mut tables));
            found
                .into_iter()
                .map(|p| (p.id.pid, p.exe_deleted))
                .collect::<Vec<_>>()
        };
        let looks = [look(), look(), {
            fs::rename(&new, &exe).unwrap();
            look()
        }];
        child.kill().unwrap();
        child.wait().unwrap();
        let of = |deleted| vec![(child.id(), deleted)];
        assert_eq!(looks, [of(false), of(false), of(true)]);
    }

    #[test]
    fn process_1_brings_no_descendants() {
        let first = process::identity(1).unwrap();
        let me = process::identity(std::process::id()).unwrap();
        let roots = |ids: &[ProcId]| ids.iter().copied().collect();
        let listed = |roots| -> Vec<ProcId> {
            let found = processes(&Config::default(), &roots, &mut Executables::default(), None);
            found.into_iter().map(|p| p.id).collect()
        };
        assert_eq!(listed(roots(&[first])), [first]);
        let both = listed(roots(&[first, me]));
        assert!(both.contains(&first) && both.contains(&me), "{both:?}");
    }
}
