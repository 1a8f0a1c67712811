//! The few calls of bpf(2) that aya has no way to: a descriptor from a pin, a pin for a descriptor, a program from its number.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;

/// The part of `union bpf_attr` that `BPF_OBJ_*` reads.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part that `BPF_*_GET_FD_BY_ID` reads.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a C structure of integers that the kernel reads up to the size that is given with it; a path in it
    // is one of a C string that the caller keeps until this returns.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    match done {
        0.. => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}

fn descriptor(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the call has just made this descriptor for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned map or link.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Object {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    descriptor(bpf(BPF_OBJ_GET, &mut attr)?)
}

/// Pins a map or link. What has the path already is an error.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens a loaded program. The kernel wants `CAP_SYS_ADMIN` for it.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = ById {
        id,
        next: 0,
        flags: 0,
    };
    descriptor(bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)?)
}
