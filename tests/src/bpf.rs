//! What the kernel holds of eBPF, whoever loaded it.

use std::{collections::BTreeSet, io};

/// Objects of eBPF that can be listed; the numbers are the commands of bpf(2) that do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfObjects {
    Programs = 11,
    Maps = 12,
    Links = 31,
}

/// The part of `union bpf_attr` that these commands read and write.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start: u32,
    next: u32,
    flags: u32,
}

/// The ids of all there are now. Needs root.
#[track_caller]
pub fn bpf_objects(of: BpfObjects) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut attr = NextId::default();
    loop {
        // SAFETY: the command reads and writes the structure, whose size is given.
        let outcome = unsafe { libc::syscall(libc::SYS_bpf, of as i32, &raw mut attr, size_of::<NextId>()) };
        if outcome != 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "list {of:?}: {error}");
            return ids;
        }
        ids.insert(attr.next);
        attr.start = attr.next;
    }
}
