//! The least question that the kernel answers about a socket, for a floor.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::ensure;
use probe_user::clock;

use crate::{peer::nanos, stats::Samples};

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const TIMES: usize = 1_000;

/// `struct nlmsghdr` with `struct unix_diag_req`.
#[repr(C)]
struct Question {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    pad: u16,
    states: u32,
    inode: u32,
    show: u32,
    /// None: any.
    cookie: [u32; 2],
}

/// How long it takes to ask for one UNIX socket and to be answered.
pub(crate) fn ask_for(inode: u32) -> anyhow::Result<Samples> {
    // SAFETY: it takes three numbers.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            NETLINK_SOCK_DIAG,
        )
    };
    ensure!(fd >= 0, "netlink: {}", std::io::Error::last_os_error());
    // SAFETY: it is new, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let question = Question {
        length: size_of::<Question>() as u32,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: NLM_F_REQUEST,
        sequence: 1,
        port: 0,
        family: libc::AF_UNIX as u8,
        protocol: 0,
        pad: 0,
        states: u32::MAX,
        inode,
        show: 0,
        cookie: [u32::MAX; 2],
    };
    let mut answer = [0_u8; 4096];
    let mut samples = Samples::default();
    for _ in 0..TIMES {
        let began = clock::now();
        // SAFETY: the kernel reads the structure, which has no padding, and fills the buffer, both within their sizes.
        let got = unsafe {
            let sent = libc::send(
                fd.as_raw_fd(),
                (&raw const question).cast(),
                size_of::<Question>(),
                0,
            );
            match sent {
                0.. => libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0),
                error => error,
            }
        };
        samples.push(nanos(clock::now().since(began)));
        ensure!(got > 0, "netlink: {}", std::io::Error::last_os_error());
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        ensure!(
            kind == SOCK_DIAG_BY_FAMILY,
            "the kernel does not know socket {inode}"
        );
    }
    Ok(samples)
}
