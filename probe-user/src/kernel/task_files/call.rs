//! The system call behind it: the loader's library takes no program that is assembled here.

use std::{
    fs::File,
    io::{self, Read as _},
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use zerocopy::{Immutable, IntoBytes};

use super::{TaskFilesError, assemble::Instruction};

/// More than the 32 KiB that the kernel gives in one read.
const CHUNK: usize = 64 * 1024;
/// Some four million open sockets.
const LIMIT: usize = 96 << 20;

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_ITER_CREATE: i32 = 33;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_ITER: u32 = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// `union bpf_attr` as `BPF_PROG_LOAD` takes it, up to the last field that is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    btf: u32,
    function_info_size: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

/// As `BPF_MAP_CREATE` takes it, up to the last field that is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    most: u32,
    flags: u32,
}

/// As `BPF_MAP_UPDATE_ELEM` takes it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapUpdate {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// As `BPF_LINK_CREATE` takes it for an iterator.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_size: u32,
    unused: u32,
}

/// As `BPF_ITER_CREATE` takes it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

const _: () = assert!(offset_of!(ProgramLoad, attach_btf_id) == 108);
const _: () = assert!(offset_of!(LinkCreate, info) == 16);

/// `union bpf_iter_link_info` for one process.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct OfTask {
    thread: u32,
    process: u32,
    pidfd: u32,
}

/// Loads an iterator.
pub(super) fn load(target: u32, program: &[Instruction]) -> Result<OwnedFd, TaskFilesError> {
    let license = c"Dual MIT/GPL";
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"probe_holders");
    bpf(
        "load",
        BPF_PROG_LOAD,
        &ProgramLoad {
            kind: BPF_PROG_TYPE_TRACING,
            instruction_count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name,
            interface: 0,
            expected_attach_type: BPF_TRACE_ITER,
            btf: 0,
            function_info_size: 0,
            function_info: 0,
            function_info_count: 0,
            line_info_size: 0,
            line_info: 0,
            line_info_count: 0,
            attach_btf_id: target,
        },
    )
}

/// An array with one value of 8 bytes.
pub(super) fn value() -> Result<OwnedFd, TaskFilesError> {
    bpf(
        "map",
        BPF_MAP_CREATE,
        &MapCreate {
            kind: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 8,
            most: 1,
            flags: 0,
        },
    )
}

/// Sets it.
pub(super) fn set(map: BorrowedFd<'_>, value: u64) -> Result<(), TaskFilesError> {
    let key = 0_u32;
    let update = MapUpdate {
        map: map.as_raw_fd() as u32,
        unused: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    call("value", BPF_MAP_UPDATE_ELEM, &update).map(drop)
}

/// Runs an iterator, over the files of one process only where one is named, and adds what it shows to `bytes`.
pub(super) fn run(
    program: BorrowedFd<'_>,
    of: Option<u32>,
    bytes: &mut Vec<u8>,
) -> Result<(), TaskFilesError> {
    // Kernels before 6.1 know the first word only, and refuse what has more than zeroes behind it: they would take no process
    // for every process.
    let task = of.map(|pid| OfTask {
        thread: 0,
        process: pid,
        pidfd: 0,
    });
    let link = bpf(
        "link",
        BPF_LINK_CREATE,
        &LinkCreate {
            program: program.as_raw_fd() as u32,
            target: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            info: task.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
            info_size: task.as_ref().map_or(0, |_| size_of::<OfTask>() as u32),
            unused: 0,
        },
    )?;
    let iterator = bpf(
        "create",
        BPF_ITER_CREATE,
        &IterCreate {
            link: link.as_raw_fd() as u32,
            flags: 0,
        },
    )?;
    read_all(File::from(iterator), bytes).map_err(TaskFilesError::Broken)
}

fn read_all(mut from: File, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let end = bytes.len();
        bytes.resize(end + CHUNK, 0);
        let read = from.read(&mut bytes[end..]);
        bytes.truncate(end + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) if bytes.len() > LIMIT => {
                return Err(io::Error::other(format!("it gave more than {LIMIT} bytes")));
            }
            Ok(_) => {}
            // EAGAIN: the kernel has looked at a million objects that were not wanted, and lets others run.
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
}

/// A command that gives a descriptor.
fn bpf<T: IntoBytes + Immutable>(
    step: &'static str,
    command: i32,
    attributes: &T,
) -> Result<OwnedFd, TaskFilesError> {
    let fd = call(step, command, attributes)?;
    // SAFETY: each of these commands returns a new descriptor (with O_CLOEXEC) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<T: IntoBytes + Immutable>(
    step: &'static str,
    command: i32,
    attributes: &T,
) -> Result<i32, TaskFilesError> {
    let bytes = attributes.as_bytes();
    // SAFETY: the kernel reads `bytes.len()` bytes; the pointers in them lead to what the caller keeps alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_ptr(), bytes.len()) };
    if result < 0 {
        return Err(TaskFilesError::Refused {
            step,
            source: io::Error::last_os_error(),
        });
    }
    Ok(result as i32)
}
