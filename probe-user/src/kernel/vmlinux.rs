//! The kernel's own types, as it shows them in `/sys/kernel/btf/vmlinux`.

use std::{
    fs::{self, File},
    io,
    num::NonZeroUsize,
    ops::Deref,
    os::fd::AsFd,
    ptr::NonNull,
    slice,
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::offsets::VMLINUX;

/// The bytes of that file.
pub(super) enum Vmlinux {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl Vmlinux {
    /// Mapped where the kernel allows that (from 6.16): 5 MB are given a page at a time otherwise, which takes some 9 ms.
    pub(super) fn open() -> io::Result<Self> {
        let file = File::open(VMLINUX)?;
        let length = file.metadata()?.len();
        let length = usize::try_from(length).ok().and_then(NonZeroUsize::new);
        match length.map(|length| Mapping::new(&file, length)) {
            Some(Ok(mapping)) => Ok(Self::Mapped(mapping)),
            _ => fs::read(VMLINUX).map(Self::Read),
        }
    }
}

impl Deref for Vmlinux {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Read(bytes) => bytes,
        }
    }
}

pub(super) struct Mapping {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    fn new(file: impl AsFd, length: NonZeroUsize) -> nix::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses touches no other.
        let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0)? };
        Ok(Self { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: it is mapped for reading with this length until this is dropped. The kernel refuses a mapping of more than
        // there is, and its types neither change nor shrink while it runs.
        unsafe { slice::from_raw_parts(self.start.cast().as_ptr(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows it any more.
        _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

// SAFETY: it is only read.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_reading_gives() {
        let Ok(read) = fs::read(VMLINUX) else {
            eprintln!("skipped: this kernel has no {VMLINUX}");
            return;
        };
        assert!(*Vmlinux::open().unwrap() == *read);
    }
}
