//! The ring buffer that the programs write to. It has one reader.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{MapData, RingBuf};

use super::decode::{decode, socket_file};
use crate::{
    clock::Nanos,
    event::{Event, FileId},
};

/// Readable when there are records.
pub struct Ring {
    pub(super) buffer: RingBuf<MapData>,
    /// Records that could not be decoded; [`super::Kernel::lost`] reports them.
    pub(super) undecoded: Arc<AtomicU64>,
    /// Bytes that it holds.
    pub(super) size: u32,
    /// Records of an earlier generation of the programs, to be told first.
    pub(super) inherited: VecDeque<(Event, Option<FileId>)>,
    /// What happened before is in `inherited`.
    pub(super) since: Nanos,
}

/// Bytes of a record's header; the kernel begins each at a multiple of it.
const HEADER: u64 = 8;

impl Ring {
    /// Hands at most `max` records to `f`, and gives how many were taken from the ring and the bytes that they took there.
    /// Less than `max`: it is empty now. With a UNIX socket comes the file that it is bound to: its path may be relative or another name of the file.
    pub fn drain(&mut self, max: usize, mut f: impl FnMut(Event, Option<FileId>)) -> (usize, u64) {
        let mut bytes = 0;
        for taken in 0..max {
            if let Some((event, file)) = self.inherited.pop_front() {
                f(event, file);
                continue;
            }
            let Some(item) = self.buffer.next() else {
                return (taken, bytes);
            };
            bytes += HEADER + (item.len() as u64).next_multiple_of(HEADER);
            match decode(&item) {
                Ok(event) if event.at < self.since => {}
                Ok(event) => f(event, socket_file(&item)),
                Err(error) => {
                    tracing::warn!(%error, "a record of the kernel is lost");
                    self.undecoded.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        (max, bytes)
    }

    /// Bytes that it holds.
    pub fn size(&self) -> u64 {
        self.size.into()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.buffer.as_fd()
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.buffer.as_raw_fd()
    }
}
