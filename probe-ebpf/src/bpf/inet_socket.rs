//! TCP listeners and bound UDP sockets of declared ports.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::{bpf_get_current_task, generated::bpf_get_socket_cookie},
    macros::{cgroup_sock, fentry, fexit, raw_tracepoint},
    programs::{FEntryContext, FExitContext, RawTracePointContext, SockContext},
};
use aya_log_ebpf::debug;
use probe_abi::{ABSENT, CONTROL_INET_LISTEN, InetRecord, PortKey, RecordKind};

use super::{
    emit::emit,
    maps::{WANTED_PORT, control},
    read::{Object, offset},
    task,
};

const AF_INET: u16 = 2;
/// Where the port and the address lie in `sockaddr_in` and `sockaddr_in6`.
const SIN_PORT: u32 = 2;
const SIN_ADDR: u32 = 4;
const SIN6_ADDR: u32 = 8;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

#[inline(always)]
fn is_wanted(protocol: u16, port: u16) -> bool {
    // SAFETY: only whether there is an entry counts.
    port != 0 && unsafe { WANTED_PORT.get(&PortKey { protocol, port }) }.is_some()
}

/// What a record says about a `struct sock *`.
#[inline(never)]
fn describe(to: *mut InetRecord, sock: Object) {
    // SAFETY: every caller passes a whole zeroed record.
    let to = unsafe { &mut *to };
    to.cookie = sock.read(offset!(sock_cookie));
    to.inode = sock
        .follow(offset!(sock_sk_socket))
        .follow(offset!(socket_file))
        .follow(offset!(file_f_inode))
        .read(offset!(inode_i_ino));
    to.netns = sock.follow(offset!(sock_net)).read(offset!(net_ns_inum));
    to.family = sock.read(offset!(sock_family));
    // IPv4 leaves the rest of the zeroed address as it is.
    if to.family == AF_INET {
        sock.inside(offset!(sock_rcv_saddr)).bytes(&raw mut to.addr, 4);
    } else if offset!(sock_v6_rcv_saddr) != ABSENT {
        sock.inside(offset!(sock_v6_rcv_saddr))
            .bytes(&raw mut to.addr, 16);
    }
}

/// TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)
///
/// From LISTEN to anything but CLOSE is a connection request, mostly in an interrupt. The port is still 0 when a socket
/// listens without a bind: no declared port is ever that.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(super) fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let old: u32 = ctx.arg(1);
    let new: u32 = ctx.arg(2);
    let listens = new == TCP_LISTEN;
    if !listens && !(old == TCP_LISTEN && new == TCP_CLOSE) || listens && control(CONTROL_INET_LISTEN) {
        return 0;
    }
    let sock = Object(ctx.arg(0));
    let mut port: u16 = sock.read(offset!(sock_num));
    if port == 0 && !listens {
        // A port that the kernel chose is given back before the state changes; its copy for headers is left.
        port = u16::from_be(sock.read(offset!(inet_sport)));
    }
    if !is_wanted(IPPROTO_TCP, port) {
        return 0;
    }
    debug!(&ctx, "tcp port {} from state {} to {}", port, old, new);
    let kind = if listens {
        RecordKind::InetListen
    } else {
        RecordKind::InetUnlisten
    };
    emit(kind, |record: &mut InetRecord| {
        describe(record, sock);
        if listens {
            // SAFETY: gives the current task, which lives as long as the program runs.
            task::describe(&raw mut record.task, Object(unsafe { bpf_get_current_task() }));
        }
        record.protocol = IPPROTO_TCP;
        record.port = port;
        record.old_state = old as u16;
        record.new_state = new as u16;
    });
    0
}

/// After a bind, in the process that called it. `bpf_sock.src_port` is in host order.
#[inline(always)]
fn bound(ctx: &SockContext) {
    // SAFETY: the verifier turns these into checked reads of the context.
    let (protocol, port) = unsafe { ((*ctx.sock).protocol as u16, (*ctx.sock).src_port as u16) };
    if !is_wanted(protocol, port) {
        return;
    }
    // A cookie is made when it is first asked for: ask, so that the hooks on the TCP state find it.
    // SAFETY: the context of this program type.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if protocol != IPPROTO_UDP {
        return;
    }
    debug!(ctx, "udp port {} bound", port);
    emit(RecordKind::InetBind, |record: &mut InetRecord| {
        describe(record, kernel_sock(ctx.sock));
        // SAFETY: gives the current task, which lives as long as the program runs.
        task::describe(&raw mut record.task, Object(unsafe { bpf_get_current_task() }));
        record.protocol = protocol;
        record.port = port;
    });
}

/// The context of a cgroup socket program is the `struct sock` itself: what `bpf_sock` does not show can be read there.
#[inline(always)]
fn kernel_sock(sock: *mut bpf_sock) -> Object {
    Object(sock as u64)
}

#[cgroup_sock(post_bind4)]
pub(super) fn post_bind4(ctx: SockContext) -> i32 {
    bound(&ctx);
    1
}

#[cgroup_sock(post_bind6)]
pub(super) fn post_bind6(ctx: SockContext) -> i32 {
    bound(&ctx);
    1
}

/// Runs for every socket of the internet families, connections too.
#[cgroup_sock(sock_release)]
pub(super) fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the verifier turns this into a checked read of the context.
    if unsafe { (*ctx.sock).protocol } as u16 != IPPROTO_UDP {
        return 1;
    }
    let sock = kernel_sock(ctx.sock);
    let port: u16 = sock.read(offset!(sock_num));
    if !is_wanted(IPPROTO_UDP, port) {
        return 1;
    }
    debug!(&ctx, "udp port {} released", port);
    emit(RecordKind::InetRelease, |record: &mut InetRecord| {
        describe(record, sock);
        record.protocol = IPPROTO_UDP;
        record.port = port;
    });
    1
}

/// The `struct socket *` that a traced function of the protocol family gets first.
#[inline(always)]
fn sock_of(socket: *const core::ffi::c_void) -> Object {
    Object(socket as u64).follow(offset!(socket_sk))
}

/// `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`, and its result. The address is the kernel's
/// copy of what the caller gave.
#[inline(always)]
fn bind_ended(ctx: &FExitContext) {
    let sock = sock_of(ctx.arg(0));
    let given = Object(ctx.arg::<*const core::ffi::c_void>(1) as u64);
    let error: i32 = ctx.arg(3);
    let protocol: u16 = sock.read(offset!(sock_protocol));
    let port = if error == 0 {
        sock.read(offset!(sock_num))
    } else {
        u16::from_be(given.read(SIN_PORT))
    };
    if !is_wanted(protocol, port) {
        return;
    }
    debug!(ctx, "port {} of protocol {} bound: {}", port, protocol, error);
    let kind = if error == 0 && protocol == IPPROTO_UDP {
        RecordKind::InetBind
    } else {
        RecordKind::InetBound
    };
    emit(kind, |record: &mut InetRecord| {
        describe(record, sock);
        if error != 0 {
            record.error = error;
            if record.family == AF_INET {
                given.inside(SIN_ADDR).bytes(&raw mut record.addr, 4);
            } else {
                given.inside(SIN6_ADDR).bytes(&raw mut record.addr, 16);
            }
        }
        // SAFETY: gives the current task, which lives as long as the program runs.
        task::describe(&raw mut record.task, Object(unsafe { bpf_get_current_task() }));
        record.protocol = protocol;
        record.port = port;
    });
}

#[fexit(function = "inet_bind")]
pub(super) fn fexit_inet_bind(ctx: FExitContext) -> i32 {
    bind_ended(&ctx);
    0
}

#[fexit(function = "inet6_bind")]
pub(super) fn fexit_inet6_bind(ctx: FExitContext) -> i32 {
    bind_ended(&ctx);
    0
}

/// `int inet_listen(struct socket *sock, int backlog)`, and its result. The port is known here also where nothing was
/// bound before.
#[fexit(function = "inet_listen")]
pub(super) fn fexit_inet_listen(ctx: FExitContext) -> i32 {
    let error: i32 = ctx.arg(2);
    let sock = sock_of(ctx.arg(0));
    let protocol: u16 = sock.read(offset!(sock_protocol));
    let port: u16 = sock.read(offset!(sock_num));
    if error != 0 || protocol != IPPROTO_TCP || !is_wanted(protocol, port) {
        return 0;
    }
    debug!(&ctx, "tcp port {} listens", port);
    emit(RecordKind::InetListen, |record: &mut InetRecord| {
        describe(record, sock);
        // SAFETY: gives the current task, which lives as long as the program runs.
        task::describe(&raw mut record.task, Object(unsafe { bpf_get_current_task() }));
        record.protocol = protocol;
        record.port = port;
        record.new_state = TCP_LISTEN as u16;
    });
    0
}

/// `int inet_release(struct socket *sock)`, which `inet6_release` calls too. UDP only: of a TCP listener the hook on the
/// state tells, which sees `shutdown` as well.
#[fentry(function = "inet_release")]
pub(super) fn fentry_inet_release(ctx: FEntryContext) -> i32 {
    let sock = sock_of(ctx.arg(0));
    if sock.is_null() || sock.read::<u16>(offset!(sock_protocol)) != IPPROTO_UDP {
        return 0;
    }
    let port: u16 = sock.read(offset!(sock_num));
    if !is_wanted(IPPROTO_UDP, port) {
        return 0;
    }
    debug!(&ctx, "udp port {} released", port);
    emit(RecordKind::InetRelease, |record: &mut InetRecord| {
        describe(record, sock);
        record.protocol = IPPROTO_UDP;
        record.port = port;
    });
    0
}
