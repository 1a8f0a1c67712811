//! Processes that are ended: held by pidfds, found with all that descends from them, asked, then killed.
//!
//! A pid is only ever a question. Whatever is read of `/proc/PID` counts for the process behind a pidfd that was opened
//! before and had not ended after: while a process has not been waited for, nobody else gets its pid. That does not rest
//! on start times, which are told in steps of 10 ms, in which a pid can be given away anew on purpose.

pub mod cgroup;
mod descendants;
mod end;
mod handle;
mod info;

#[cfg(test)]
mod tests;

pub use self::{
    descendants::{Links, descendants_of},
    end::{End, Left, Limits, Note, Tree},
    handle::{Handle, OpenError, Sent, wait},
    info::{exit_status, inode},
};
