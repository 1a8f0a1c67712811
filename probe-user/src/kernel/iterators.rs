//! What is there now: processes and holders of sockets, from BPF iterators. Much faster than walking `/proc`, and without
//! races between reading a descriptor's number and what it leads to.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{Ebpf, programs::Iter};
use probe_abi::{ALL_SOCKETS, FileEntry, TaskEntry};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    decode::process,
    maps::WantedInodes,
    task_files::{HeldUnix, TaskFiles},
};
use crate::{clock::Nanos, event::ProcId, sources::observer::Task};

/// More than the 32 KiB that the kernel gives in one read.
const CHUNK: usize = 64 * 1024;
/// An answer that is larger is no answer: some four million open sockets.
const LIMIT: usize = 96 << 20;

/// The iterators of a loaded [`super::Kernel`]. They keep its programs loaded.
pub struct Iterators {
    pub(super) ebpf: Arc<Mutex<Ebpf>>,
    pub(super) wanted: WantedInodes,
    /// Asks about single files.
    pub(super) files: TaskFiles,
}

impl Iterators {
    /// Every process of this pid namespace, without arguments and with the name in place of the path of the executable.
    ///
    /// # Errors
    /// If the kernel refuses the iterator, or gives something other than whole entries.
    pub fn tasks(&mut self) -> io::Result<Vec<Task>> {
        let entries: Vec<TaskEntry> = self.run("iter_task")?;
        let task = |e: &TaskEntry| Task {
            process: process(&e.task, None),
            ends: e.live == 0,
            exe_name: e.exe_name.iter().copied().take_while(|b| *b != 0).collect(),
        };
        Ok(entries.iter().map(task).collect())
    }

    /// Who holds the sockets of these inode numbers, as (inode, process, descriptor). A socket on its way between two
    /// processes is held by none.
    ///
    /// # Errors
    /// If there are more inodes than the map has room for (65536), or as for [`Self::tasks`].
    pub fn holders(&mut self, inodes: &BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
        if inodes.is_empty() {
            return Ok(Vec::new());
        }
        let mut inodes = inodes.clone();
        inodes.remove(&ALL_SOCKETS);
        self.files(inodes)
    }

    /// [`TaskFiles::unix`]
    pub fn unix(&mut self, pid: u32, inode: u64) -> Option<HeldUnix> {
        self.files.unix(pid, inode).ok()
    }

    /// [`TaskFiles::has_no_other`]
    pub fn has_no_other(&mut self, inode: u64, holders: &[(ProcId, i32)]) -> bool {
        self.files.has_no_other(inode, holders)
    }

    /// Who holds any socket at all.
    ///
    /// # Errors
    /// As for [`Self::tasks`].
    pub fn all_holders(&mut self) -> io::Result<Vec<(u64, ProcId, i32)>> {
        self.files(BTreeSet::from([ALL_SOCKETS]))
    }

    fn files(&mut self, inodes: BTreeSet<u64>) -> io::Result<Vec<(u64, ProcId, i32)>> {
        self.wanted.replace(inodes).map_err(io::Error::other)?;
        let entries: Vec<FileEntry> = self.run("iter_task_file")?;
        Ok(entries
            .iter()
            .map(|e| {
                (
                    e.inode,
                    ProcId::new(e.pid, Nanos(e.start)),
                    e.fd.min(i32::MAX as u32) as i32,
                )
            })
            .collect())
    }

    fn run<T: FromBytes + KnownLayout + Immutable>(&mut self, program: &'static str) -> io::Result<Vec<T>> {
        let mut file = {
            // Another thread that panicked has left the programs as they were.
            let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
            let iter: &mut Iter = ebpf
                .program_mut(program)
                .ok_or_else(|| io::Error::other(format!("the eBPF object has no program {program}")))?
                .try_into()
                .map_err(io::Error::other)?;
            // The link is used up by opening it: one for each run.
            let link = iter.attach().map_err(io::Error::other)?;
            iter.take_link(link)
                .map_err(io::Error::other)?
                .into_file()
                .map_err(io::Error::other)?
        };
        let mut bytes = Vec::new();
        loop {
            let end = bytes.len();
            bytes.resize(end + CHUNK, 0);
            let read = file.read(&mut bytes[end..]);
            bytes.truncate(end + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) if bytes.len() > LIMIT => {
                    return Err(io::Error::other(format!(
                        "{program} gave more than {LIMIT} bytes"
                    )));
                }
                Ok(_) => {}
                // EAGAIN: the kernel has looked at a million objects that were not wanted, and lets others run.
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e),
            }
        }
        let entries = bytes.chunks_exact(size_of::<T>());
        if !entries.remainder().is_empty() {
            return Err(io::Error::other(format!(
                "{program} gave {} bytes, no whole number of entries",
                bytes.len()
            )));
        }
        Ok(entries.filter_map(|e| T::read_from_bytes(e).ok()).collect())
    }
}
