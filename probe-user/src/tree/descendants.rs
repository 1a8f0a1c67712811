//! What descends from a process, by the kernel's own links and not by numbers alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
};

use super::{Handle, OpenError};
use crate::{
    event::ProcId,
    sources::process::{self, Stat},
};

/// Processes held at once; what a tree has beyond that is found by the next look, after these are gone.
const MOST: usize = 2048;

/// Where a process stands in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    pub id: ProcId,
    pub parent: u32,
    pub state: u8,
    pub threads: u32,
}

impl Links {
    /// `None`: no process has this pid.
    pub fn read(pid: u32) -> Option<Self> {
        let mut line = Vec::with_capacity(512);
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        file.take(4096).read_to_end(&mut line).ok()?;
        let stat = Stat::parse(&line)?;
        Some(Self {
            id: ProcId {
                pid,
                start_ticks: stat.start_ticks,
            },
            parent: stat.ppid,
            state: stat.state,
            threads: stat.threads,
        })
    }

    /// Its first thread has ended and others go on.
    pub fn is_led_by_a_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads > 1
    }

    /// Of all processes.
    ///
    /// # Errors
    /// When `/proc` can't be listed.
    pub fn all() -> io::Result<Vec<Self>> {
        Ok(process::all_pids()?.into_iter().filter_map(Self::read).collect())
    }
}

/// The living descendants of `roots`, nearest first, except those in `known` and what descends from these alone.
///
/// # Errors
/// When `/proc` can't be listed, or there are no descriptors to spare.
pub fn descendants_of(roots: &[&Handle], known: &BTreeSet<ProcId>) -> Result<Vec<Handle>, OpenError> {
    let all = Links::all().map_err(|source| OpenError::Read { pid: 0, source })?;
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for links in &all {
        children.entry(links.parent).or_default().push(links.id.pid);
    }
    let mut found: Vec<Handle> = Vec::new();
    let mut met: BTreeSet<u32> = roots.iter().map(|r| r.pid()).collect();
    for root in roots {
        grow(root, known, &children, &mut met, &mut found)?;
    }
    let mut next = 0;
    while next < found.len() && found.len() < MOST {
        let mut more = Vec::new();
        if let Some(parent) = found.get(next) {
            grow(parent, known, &children, &mut met, &mut more)?;
        }
        found.extend(more);
        next += 1;
    }
    Ok(found)
}

fn grow(
    parent: &Handle,
    known: &BTreeSet<ProcId>,
    children: &BTreeMap<u32, Vec<u32>>,
    met: &mut BTreeSet<u32>,
    found: &mut Vec<Handle>,
) -> Result<(), OpenError> {
    for pid in children.get(&parent.pid()).into_iter().flatten() {
        if met.insert(*pid)
            && let Some(child) = Handle::open_child(*pid, parent.fd(), parent.pid())?
            && !known.contains(&child.id())
        {
            found.push(child);
        }
    }
    Ok(())
}
