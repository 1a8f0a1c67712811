//! All maps. User space finds them by these names.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use probe_abi::{
    CONTROLS, ChangeKey, Changer, Member, NameKey, PAST_SLOTS, Past, PortKey, RECORD_KINDS, SPARED,
    SUN_PATH_LEN, Supervised, UnitKey,
};

/// A hook's program and its spares.
const PROGRAMS: usize = 3;

/// Records for user space. The size is set at load.
#[map]
pub(super) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Records that found no room, by kind; see [`probe_abi::LOST_SUPERVISED`] for slot 0.
#[map]
pub(super) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(RECORD_KINDS, 0);

/// Records written, by kind.
#[map]
pub(super) static RECORDS: PerCpuArray<u64> = PerCpuArray::with_max_entries(RECORD_KINDS, 0);

/// The processes that are watched, by pid. Children inherit it at fork.
#[map]
pub(super) static SUPERVISED: HashMap<u32, Supervised> = HashMap::with_max_entries(32768, 0);

/// Only for user space: which services the watched processes belong to, by pid, for the daemon that comes next.
#[map]
pub(super) static MEMBERS: HashMap<u32, Member> = HashMap::with_max_entries(32768, BPF_F_NO_PREALLOC);

/// Inode numbers of declared executables. Devices are compared in user space: overlayfs and btrfs show two of them.
#[map]
pub(super) static WANTED_EXE: HashMap<u64, u8> = HashMap::with_max_entries(1024, 0);

/// Names of declared units.
#[map]
pub(super) static WANTED_UNIT: HashMap<UnitKey, u8> = HashMap::with_max_entries(1024, 0);

/// Declared ports, TCP and UDP.
#[map]
pub(super) static WANTED_PORT: HashMap<PortKey, u8> = HashMap::with_max_entries(4096, 0);

/// Names of declared UNIX sockets.
#[map]
pub(super) static WANTED_NAME: HashMap<NameKey, u8> = HashMap::with_max_entries(4096, 0);

/// Inode numbers of the sockets whose holders the iterator over open files looks for.
#[map]
pub(super) static WANTED_INODE: HashMap<u64, u8> = HashMap::with_max_entries(65536, 0);

/// Which of the programs of a hook with spares are being run, by hook ([`probe_abi::SPARED_EXIT`] and so on).
#[map]
pub(super) static BUSY: PerCpuArray<[u32; PROGRAMS]> = PerCpuArray::with_max_entries(SPARED, 0);

/// How often all of them were being run at once on a CPU, by hook: an event there can be lost meanwhile.
#[map]
pub(super) static CROWDED: PerCpuArray<u64> = PerCpuArray::with_max_entries(SPARED, 0);

/// Who a process was that has ended, by the lower bits of its pid. Pids are given in turn, so of those that live shortly the
/// oldest makes room; the end of an old daemon makes room for the next one with such a pid. Written in place, since each process of
/// the host pays for it: a hash table of the least recently used costs half as much again.
#[map]
pub(super) static PAST: Array<Past> = Array::with_max_entries(PAST_SLOTS, 0);

/// Who changed a wanted name last, as far as somebody asked for it. The oldest makes room.
#[map]
pub(super) static CHANGERS: LruHashMap<ChangeKey, Changer> = LruHashMap::with_max_entries(4096, 0);

/// Where the values for `CHANGERS` are built, one slot for each program.
#[map]
pub(super) static CHANGER_SCRATCH: PerCpuArray<Changer> = PerCpuArray::with_max_entries(2, 0);

/// Where the programs on UNIX sockets look for the last component of a path. What lies in a map the verifier does not
/// follow, so a loop over it stays one path; on the stack it would be one for each place of a slash.
#[repr(C)]
pub(super) struct NameScratch {
    pub(super) path: [u8; SUN_PATH_LEN],
    /// Where the last component begins.
    pub(super) start: u32,
}

/// One slot for each program that uses it: the kernel does not run one program twice on one CPU at a time, but another may
/// run between.
#[map]
pub(super) static NAME_SCRATCH: PerCpuArray<NameScratch> = PerCpuArray::with_max_entries(4, 0);

/// Only for user space: what it has told of losses already, by source. It outlives a reader as the counters do.
#[map]
pub(super) static TOLD: HashMap<NameKey, u64> = HashMap::with_max_entries(64, 0);

/// Switches that change while the programs run; see `probe_abi::CONTROL_*`.
#[map]
pub(super) static CONTROL: Array<u32> = Array::with_max_entries(CONTROLS, 0);

/// Whether a switch is on.
#[inline(always)]
pub(super) fn control(index: u32) -> bool {
    CONTROL.get(index).is_some_and(|on| *on != 0)
}

/// Adds one to a per-CPU counter.
#[inline(always)]
pub(super) fn count(counters: &PerCpuArray<u64>, slot: u32) {
    if let Some(counter) = counters.get_ptr_mut(slot) {
        // Another program can run on this CPU between a load and a store, so it is one instruction.
        // SAFETY: the slot is there and aligned for as long as the program runs. (The target's atomics only load and store.)
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack)) };
    }
}
