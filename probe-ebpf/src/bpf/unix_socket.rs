//! UNIX sockets of declared names: bind, listen, shutdown, and the end of a listener. Only trampolines see them: no tracepoint
//! without a price for every system call tells of them.
//!
//! A socket is declared when the last component of its file's name or of the name that it was bound to is, or its abstract
//! name. Which path that is, user space finds out: there can be several of the same last component.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::bpf_get_current_task,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use aya_log_ebpf::debug;
use probe_abi::{NAME_LEN, NameKey, RecordKind, SUN_PATH_LEN, UnixRecord};

use super::{
    emit::emit,
    maps::{NAME_SCRATCH, WANTED_NAME},
    read::{Object, offset},
    task,
};

const SOCK_DGRAM: u16 = 2;
const TCP_LISTEN: u8 = 10;
/// Where `sun_path` lies in `sockaddr_un`.
const SUN_PATH: u32 = 2;
/// `shutdown` of the sending side only: a listener goes on listening.
const SHUT_WR: i32 = 1;

/// Slots of `NAME_SCRATCH`.
const SCRATCH_BIND: u32 = 0;
const SCRATCH_LISTEN: u32 = 1;
const SCRATCH_SHUTDOWN: u32 = 2;
const SCRATCH_RELEASE: u32 = 3;

/// A name that a socket is bound to, or was to be bound to.
#[derive(Clone, Copy)]
struct Name {
    at: Object,
    /// Bytes; for a path as much as the caller gave.
    len: u32,
}

impl Name {
    /// Of a `struct sockaddr_un` with the given length, which counts the family.
    #[inline(always)]
    fn in_sockaddr(sockaddr: Object, len: u32) -> Self {
        let len = len.saturating_sub(SUN_PATH);
        Self {
            at: sockaddr.inside(SUN_PATH),
            len: if len > SUN_PATH_LEN as u32 {
                SUN_PATH_LEN as u32
            } else {
                len
            },
        }
    }

    /// What a socket is bound to; nothing where it is not.
    #[inline(always)]
    fn of(sock: Object) -> Self {
        let address = sock.follow(offset!(unix_sock_addr));
        if address.is_null() {
            return Self { at: address, len: 0 };
        }
        let sockaddr = address.inside(offset!(unix_address_name));
        Self::in_sockaddr(sockaddr, address.read(offset!(unix_address_len)))
    }
}

#[inline(always)]
fn is_declared(key: &NameKey) -> bool {
    // SAFETY: only whether there is an entry counts.
    unsafe { WANTED_NAME.get(key) }.is_some()
}

/// The name of the file as it is now: it may have been renamed since the bind.
#[inline(never)]
fn file_is_wanted(sock: Object) -> bool {
    let dentry = sock.follow(offset!(unix_sock_dentry));
    if dentry.is_null() {
        return false;
    }
    let mut key = NameKey { name: [0; NAME_LEN] };
    dentry.follow(offset!(dentry_d_name)).text(&raw mut key.name);
    is_declared(&key)
}

#[inline(never)]
fn name_is_wanted(at: u64, len: u32, slot: u32) -> bool {
    if len == 0 {
        return false;
    }
    let Some(scratch) = NAME_SCRATCH.get_ptr_mut(slot) else {
        return false;
    };
    let mut key = NameKey { name: [0; NAME_LEN] };
    // SAFETY: the slot belongs to this program and this CPU; every index is below the length.
    unsafe {
        let path = (&raw mut (*scratch).path).cast::<u8>();
        let start = &raw mut (*scratch).start;
        start.write_volatile(0);
        path.write_volatile(0);
        Object(at).bytes(&raw mut (*scratch).path, len);
        if path.read_volatile() == 0 {
            Object(at).bytes(&raw mut key.name, len);
        } else {
            for index in 0..SUN_PATH_LEN {
                let byte = path.add(index).read_volatile();
                // Beyond the length lies what was there before.
                if byte == 0 || index as u32 >= len {
                    break;
                }
                if byte == b'/' {
                    start.write_volatile(index as u32 + 1);
                }
            }
            Object(at.wrapping_add(u64::from(start.read_volatile()))).text(&raw mut key.name);
        }
    }
    is_declared(&key)
}

/// Writes what a record says about a socket and a name. `to` must be zeroed.
#[inline(never)]
fn describe(to: *mut UnixRecord, sock: Object) {
    // SAFETY: every caller passes a whole zeroed record.
    let to = unsafe { &mut *to };
    to.cookie = sock.read(offset!(sock_cookie));
    to.inode = sock
        .follow(offset!(sock_sk_socket))
        .follow(offset!(socket_file))
        .follow(offset!(file_f_inode))
        .read(offset!(inode_i_ino));
    to.netns = sock.follow(offset!(sock_net)).read(offset!(net_ns_inum));
    to.sock_type = u32::from(sock.read::<u16>(offset!(sock_type)));
    let inode = sock
        .follow(offset!(unix_sock_dentry))
        .follow(offset!(dentry_d_inode));
    to.file_ino = inode.read(offset!(inode_i_ino));
    to.file_dev = inode.follow(offset!(inode_i_sb)).read(offset!(sb_s_dev));
}

#[inline(always)]
fn tell(kind: RecordKind, sock: Object, name: Name, error: i32) {
    emit(kind, |record: &mut UnixRecord| {
        describe(record, sock);
        record.error = error;
        record.name_len = name.len;
        name.at.bytes(&raw mut record.name, name.len);
        if kind as u32 != RecordKind::UnixRelease as u32 {
            // SAFETY: gives the current task, which lives as long as the program runs.
            task::describe(&raw mut record.task, Object(unsafe { bpf_get_current_task() }));
        }
    });
}

#[inline(always)]
fn sock_of(socket: *const c_void) -> Object {
    Object(socket as u64).follow(offset!(socket_sk))
}

/// `int unix_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`, and its result. The address is the kernel's
/// copy of what the caller gave; the socket has none where it failed.
#[fexit(function = "unix_bind")]
pub(super) fn fexit_unix_bind(ctx: FExitContext) -> i32 {
    let sock = sock_of(ctx.arg(0));
    let error: i32 = ctx.arg(3);
    let name = if error == 0 {
        Name::of(sock)
    } else {
        Name::in_sockaddr(Object(ctx.arg::<*const c_void>(1) as u64), ctx.arg(2))
    };
    if !name_is_wanted(name.at.0, name.len, SCRATCH_BIND) {
        return 0;
    }
    debug!(&ctx, "unix socket bound: {}", error);
    tell(RecordKind::UnixBind, sock, name, error);
    0
}

/// `int unix_listen(struct socket *sock, int backlog)`, and its result.
#[fexit(function = "unix_listen")]
pub(super) fn fexit_unix_listen(ctx: FExitContext) -> i32 {
    let sock = sock_of(ctx.arg(0));
    let error: i32 = ctx.arg(2);
    if error == 0 {
        tell_if_wanted(RecordKind::UnixListen, sock, SCRATCH_LISTEN);
    }
    0
}

/// `int unix_shutdown(struct socket *sock, int mode)`, and its result: only then a look sees it. Connections share the name
/// of their listener.
#[fexit(function = "unix_shutdown")]
pub(super) fn fexit_unix_shutdown(ctx: FExitContext) -> i32 {
    let sock = sock_of(ctx.arg(0));
    let mode: i32 = ctx.arg(1);
    let error: i32 = ctx.arg(2);
    if error == 0 && mode != SHUT_WR && sock.read::<u8>(offset!(sock_state)) == TCP_LISTEN {
        tell_if_wanted(RecordKind::UnixShutdown, sock, SCRATCH_SHUTDOWN);
    }
    0
}

/// `int unix_release(struct socket *sock)`. Connections share the name of their listener.
#[fentry(function = "unix_release")]
pub(super) fn fentry_unix_release(ctx: FEntryContext) -> i32 {
    let sock = sock_of(ctx.arg(0));
    if sock.is_null() {
        return 0;
    }
    let listens = sock.read::<u8>(offset!(sock_state)) == TCP_LISTEN;
    if listens || sock.read::<u16>(offset!(sock_type)) == SOCK_DGRAM {
        tell_if_wanted(RecordKind::UnixRelease, sock, SCRATCH_RELEASE);
    }
    0
}

#[inline(always)]
fn tell_if_wanted(kind: RecordKind, sock: Object, slot: u32) {
    let name = Name::of(sock);
    if name.len != 0 && (file_is_wanted(sock) || name_is_wanted(name.at.0, name.len, slot)) {
        tell(kind, sock, name, 0);
    }
}
