//! The only reads of kernel and user memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user};
use probe_abi::{ABSENT, Offsets, Settings};
use zerocopy::FromBytes;

/// Written by user space before load; the verifier then knows the values, and drops what an absent member makes dead.
#[unsafe(no_mangle)]
pub(super) static OFFSETS: Offsets = Offsets::ALL_ABSENT;

/// Written by user space before load.
#[unsafe(no_mangle)]
pub(super) static SETTINGS: Settings = Settings::NONE;

/// The offset of a member of a kernel structure. Volatile, so that the compiler does not use the initial value.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: the static is valid for reads and never written while the program runs.
        unsafe { core::ptr::read_volatile(&raw const $crate::bpf::read::OFFSETS.$field) }
    };
}
pub(super) use offset;

/// A setting, read like an offset.
macro_rules! setting {
    ($field:ident) => {
        // SAFETY: the static is valid for reads and never written while the program runs.
        unsafe { core::ptr::read_volatile(&raw const $crate::bpf::read::SETTINGS.$field) }
    };
}
pub(super) use setting;

/// A kernel object, by address. Reads of what is not there give zero: a chain of them ends in zeroes, not in a fault.
#[derive(Clone, Copy)]
pub(super) struct Object(pub(super) u64);

impl Object {
    #[inline(always)]
    pub(super) fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The object that lies `offset` bytes further inside this one.
    #[inline(always)]
    pub(super) fn inside(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(u64::from(offset)))
    }

    /// The member at `offset`. All zero where it cannot be read, or where this kernel has none.
    #[inline(always)]
    pub(super) fn read<T: FromBytes>(self, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        if offset != ABSENT {
            // SAFETY: the destination is valid for the size. The helper checks the source, and writes zeroes on error.
            unsafe {
                bpf_probe_read_kernel(
                    value.as_mut_ptr().cast(),
                    size_of::<T>() as u32,
                    self.inside(offset).0 as *const _,
                )
            };
        }
        // SAFETY: initialised with zeroes or by the helper, and every bit pattern is valid.
        unsafe { value.assume_init() }
    }

    /// The object that the pointer at `offset` leads to.
    #[inline(always)]
    pub(super) fn follow(self, offset: u32) -> Self {
        Self(self.read(offset))
    }

    /// Copies the NUL-terminated text at this address. `to` must be zeroed before; it stays so after the NUL.
    #[inline(always)]
    pub(super) fn text<const N: usize>(self, to: *mut [u8; N]) {
        // SAFETY: the destination is valid for N bytes. The helper checks the source.
        unsafe { bpf_probe_read_kernel_str(to.cast(), N as u32, self.0 as *const _) };
    }

    /// Copies `len` bytes, at most `N`, without looking for a NUL.
    #[inline(always)]
    pub(super) fn bytes<const N: usize>(self, to: *mut [u8; N], len: u32) {
        let len = if len > N as u32 { N as u32 } else { len };
        // SAFETY: the destination is valid for N bytes. The helper checks the source.
        unsafe { bpf_probe_read_kernel(to.cast(), len, self.0 as *const _) };
    }
}

/// Copies `len` bytes of the current process's memory, at most `N`. Gives the number of bytes copied: all or none.
#[inline(always)]
pub(super) fn user_bytes<const N: usize>(address: u64, to: *mut [u8; N], len: u32) -> u32 {
    let len = if len > N as u32 { N as u32 } else { len };
    // SAFETY: the destination is valid for N bytes. The helper checks the source.
    match unsafe { bpf_probe_read_user(to.cast(), len, address as *const _) } {
        0 => len,
        _ => 0,
    }
}
