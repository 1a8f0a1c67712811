//! The least eBPF program that there is, for floors: what the kernel takes to call one at all.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::Context;

/// `r0 = 0; exit`
const EMPTY: [u64; 2] = [0xb7, 0x95];

const BPF_PROG_LOAD: i32 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `union bpf_attr` as `BPF_PROG_LOAD` takes it, up to the last field that is used.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
struct TracepointOpen {
    name: u64,
    program: u32,
    unused: u32,
}

/// An empty program at a raw tracepoint, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Empty {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    pub(crate) fn at(tracepoint: &str) -> anyhow::Result<Self> {
        let license = c"GPL";
        let program = bpf(
            BPF_PROG_LOAD,
            &ProgramLoad {
                kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
                instruction_count: 2,
                instructions: EMPTY.as_ptr() as u64,
                license: license.as_ptr() as u64,
            },
        )
        .context("load an empty program")?;
        let name = CString::new(tracepoint)?;
        let link = bpf(
            BPF_RAW_TRACEPOINT_OPEN,
            &TracepointOpen {
                name: name.as_ptr() as u64,
                program: program.as_raw_fd().cast_unsigned(),
                unused: 0,
            },
        )
        .with_context(|| format!("attach to {tracepoint}"))?;
        Ok(Self {
            _program: program,
            _link: link,
        })
    }
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the structure and what its pointers lead to, which the caller keeps alive; neither has padding.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}
