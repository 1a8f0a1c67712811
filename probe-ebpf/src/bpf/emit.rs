//! Writing records. What finds no room is counted.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use probe_abi::{Header, RecordKind};
use zerocopy::{FromBytes, IntoBytes};

use super::maps::{EVENTS, LOST, RECORDS, count};

/// Reserves a record, zeroes it, writes the header, lets `fill` write the rest, and submits it.
///
/// A record must start with a [`Header`].
#[inline(always)]
pub(super) fn emit<T: FromBytes + IntoBytes + 'static>(kind: RecordKind, fill: impl FnOnce(&mut T)) {
    const { assert!(size_of::<T>() >= size_of::<Header>()) };
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        count(&LOST, kind as u32);
        return;
    };
    let record = entry.as_mut_ptr();
    zero(record);
    // SAFETY: the reservation is as large as `T` and aligned to 8 bytes; zeroes are a valid `T`, which starts with a
    // header.
    unsafe {
        record.cast::<Header>().write(Header {
            kind: kind as u32,
            cpu: bpf_get_smp_processor_id(),
            at: bpf_ktime_get_boot_ns(),
        });
        fill(&mut *record);
    }
    entry.submit(0);
    count(&RECORDS, kind as u32);
}

/// Writes zeroes, eight bytes at a time. Memory of the ring and of scratch slots still holds what was there before.
#[inline(always)]
pub(super) fn zero<T: FromBytes>(at: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: inside of `T`. Volatile, because the compiler would make a byte-wise memset out of it.
        unsafe { at.cast::<u64>().add(word).write_volatile(0) };
    }
}
