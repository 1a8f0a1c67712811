//! What the eBPF programs of probe and user space share: records, map keys and values, offsets.
//!
//! A record is a plain C structure that starts with a [`Header`]. Times are nanoseconds on the boot clock
//! (`CLOCK_BOOTTIME`), pids are thread group ids as the initial pid namespace sees them, text is NUL-padded bytes.
#![no_std]

pub mod abi;
pub use abi::*;
