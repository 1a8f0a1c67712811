//! Pids of other pid namespaces: a daemon in a container writes the number that it knows itself by.

use std::{fs, path::PathBuf};

use super::{
    process::{self, read},
    root::Root,
};
use crate::event::{ProcId, Process};

/// Most processes that are asked whether they are the one; a namespace with more is told as having none.
const PROCESSES: usize = 1 << 16;

/// The process that `written` means to one in `main`'s pid namespace, as the host knows it.
///
/// `None`: the number is the host's, because `main` is in our pid namespace, has ended, or because somebody outside of the
/// namespace wrote the file: it lies on the host, and its number is the host's for a process of that namespace.
pub(super) fn translate(written: u32, main: ProcId, root: &Root) -> Option<Option<Process>> {
    let namespace = of(main.pid)?;
    if namespace == fs::read_link("/proc/self/ns/pid").ok()? || process::identity(main.pid) != Some(main) {
        return None;
    }
    if *root == Root::Host && of(written).as_ref() == Some(&namespace) {
        return None;
    }
    // The main process is the likely one.
    let others = process::all_pids().unwrap_or_default();
    let candidates = std::iter::once(main.pid).chain(others).take(PROCESSES);
    for pid in candidates {
        let is_it = || of(pid).as_ref() == Some(&namespace) && innermost(pid) == Some(written);
        if is_it()
            && let Ok(Some(process)) = read(pid)
            // The pid may have come to name another process meanwhile.
            && is_it()
            && process::identity(pid) == Some(process.id)
        {
            return Some(Some(process));
        }
    }
    Some(None)
}

/// Whether a process is in another pid namespace than ours.
pub(super) fn is_foreign(pid: u32) -> bool {
    match (of(pid), fs::read_link("/proc/self/ns/pid")) {
        (Some(theirs), Ok(ours)) => theirs != ours,
        _ => false,
    }
}

/// The pid namespace of a process, by its name.
fn of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// The pid in the process's own namespace: `NSpid` lists it from ours inwards.
fn innermost(pid: u32) -> Option<u32> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    u32::try_from(*process.status().ok()?.nspid?.last()?).ok()
}
