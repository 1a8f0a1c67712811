//! Process lifetime: exec, fork, exit, and the victims of the OOM killer.
//!
//! From 7.0 on a task can be preempted inside of a tracepoint's programs, and a record that wakes the reader is when it is.
//! Meanwhile the kernel skips that program for everything else on the CPU. There each hook has spares, attached behind the
//! first one: they do what the ones before were not run for, and find nothing to do otherwise.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns, macros::raw_tracepoint, programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use probe_abi::{
    CGROUP_NAME_LEN, CONTROL_UNITS, EXIT_FDS, EXIT_LISTENERS, ExecRecord, ExitRecord, ForkRecord,
    LOST_SUPERVISED, OomRecord, PAST_SLOTS, Past, RecordKind, SOCKFS_MAGIC, SPARED_EXEC, SPARED_EXIT,
    SPARED_FORK, Supervised, UnitKey,
};

use super::{
    emit::{emit, zero},
    maps::{BUSY, CROWDED, LOST, PAST, SUPERVISED, WANTED_EXE, WANTED_UNIT, control, count},
    read::{Object, offset, setting, user_bytes},
    task,
};

/// One clock tick of `/proc/PID/stat`, in nanoseconds.
const TICK: u64 = 10_000_000;
/// Descriptors that the verifier follows one by one.
const PORTION: u32 = 64;
/// `SIGNAL_GROUP_EXIT` in `signal_struct.flags`.
const SIGNAL_GROUP_EXIT: u32 = 4;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_DGRAM: u16 = 2;
const TCP_LISTEN: u8 = 10;
const TCP_CLOSE: u8 = 7;

/// Runs one of the programs of a hook that has spares; `NTH` is 0 for the first.
///
/// An event of the hook is lost only if it happens while all of them are being run on its CPU. The last of them to begin
/// sees that, and counts it.
#[inline(always)]
fn run<const NTH: usize>(hook: u32, body: impl FnOnce() -> i32) -> i32 {
    let busy = match setting!(spares) {
        0 => None,
        _ => BUSY.get_ptr_mut(hook),
    };
    if let Some(busy) = busy {
        // SAFETY: the slot belongs to this CPU. Volatile, because other programs run on it before this one has ended.
        let all = unsafe {
            (&raw mut (*busy)[NTH]).write_volatile(1);
            let is_busy = |nth: usize| (&raw const (*busy)[nth]).read_volatile();
            is_busy(0) & is_busy(1) & is_busy(2)
        };
        if all != 0 {
            count(&CROWDED, hook);
        }
    }
    let result = body();
    if let Some(busy) = busy {
        // SAFETY: as above.
        unsafe { (&raw mut (*busy)[NTH]).write_volatile(0) };
    }
    result
}

/// Whether the process of this task is supervised: its pid is in the map, and it is still the one that was meant.
///
/// User space knows start times in clock ticks only, so they are compared as such.
#[inline(always)]
pub(super) fn is_supervised(pid: u32, of: Object) -> bool {
    // SAFETY: an entry that is replaced while it is read gives another start time, which is compared.
    match unsafe { SUPERVISED.get(&pid) } {
        None => false,
        Some(known) => known.start == 0 || known.start / TICK == task::start(of) / TICK,
    }
}

#[inline(always)]
fn supervise(pid: u32, of: Object, exec_mm: u64) {
    if SUPERVISED
        .insert(
            &pid,
            &Supervised {
                start: task::start(of),
                exec_mm,
            },
            0,
        )
        .is_err()
    {
        count(&LOST, LOST_SUPERVISED);
    }
}

/// Whether the executable's inode, or the name of the cgroup or of the one above it, is declared.
#[inline(always)]
fn is_wanted(of: Object) -> bool {
    let inode: u64 = task::exe(of)
        .follow(offset!(file_f_inode))
        .read(offset!(inode_i_ino));
    // SAFETY: only whether there is an entry counts.
    if unsafe { WANTED_EXE.get(&inode) }.is_some() {
        return true;
    }
    if !control(CONTROL_UNITS) {
        return false;
    }
    let node = task::cgroup_node(of);
    is_wanted_unit(node) || is_wanted_unit(task::cgroup_parent(node))
}

#[inline(always)]
fn is_wanted_unit(node: Object) -> bool {
    let mut key = UnitKey {
        name: [0; CGROUP_NAME_LEN],
    };
    task::cgroup_name(node, &raw mut key.name);
    // SAFETY: only whether there is an entry counts.
    unsafe { WANTED_UNIT.get(&key) }.is_some()
}

/// TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub(super) fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    run::<0>(SPARED_EXEC, || executed(&ctx))
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub(super) fn sched_process_exec_spare_1(ctx: RawTracePointContext) -> i32 {
    run::<1>(SPARED_EXEC, || executed(&ctx))
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub(super) fn sched_process_exec_spare_2(ctx: RawTracePointContext) -> i32 {
    run::<2>(SPARED_EXEC, || executed(&ctx))
}

/// Once for each exec, however often it is called.
#[inline(always)]
fn executed(ctx: &RawTracePointContext) -> i32 {
    let of = Object(ctx.arg(0));
    let pid = task::pid(of);
    let mm = of.follow(offset!(task_mm));
    if is_supervised(pid, of) {
        // SAFETY: the entry is that of the task which runs this.
        if let Some(entry) = SUPERVISED.get_ptr_mut(&pid).map(|e| unsafe { &mut *e }) {
            if entry.exec_mm == mm.0 {
                return 0;
            }
            entry.exec_mm = mm.0;
        }
    } else {
        if !is_wanted(of) {
            return 0;
        }
        supervise(pid, of, mm.0);
    }
    debug!(ctx, "exec of {}", pid);
    emit(RecordKind::Exec, |record: &mut ExecRecord| {
        task::describe(&raw mut record.task, of);
        task::exe_path(&raw mut record.exe, task::exe(of));
        let start: u64 = mm.read(offset!(mm_arg_start));
        let end: u64 = mm.read(offset!(mm_arg_end));
        record.argv_total = end.wrapping_sub(start) as u32;
        record.argv_len = user_bytes(start, &raw mut record.argv, record.argv_total);
    });
    0
}

/// TP_PROTO(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(super) fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    run::<0>(SPARED_FORK, || forked(&ctx))
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(super) fn sched_process_fork_spare_1(ctx: RawTracePointContext) -> i32 {
    run::<1>(SPARED_FORK, || forked(&ctx))
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(super) fn sched_process_fork_spare_2(ctx: RawTracePointContext) -> i32 {
    run::<2>(SPARED_FORK, || forked(&ctx))
}

/// Once for each fork, however often it is called.
#[inline(always)]
fn forked(ctx: &RawTracePointContext) -> i32 {
    let parent = Object(ctx.arg(0));
    if !is_supervised(task::pid(parent), parent) {
        return 0;
    }
    let child = Object(ctx.arg(1));
    let pid = task::pid(child);
    if child.read::<u32>(offset!(task_pid)) != pid {
        // A thread.
        return 0;
    }
    // It does not run yet: whoever supervises it already has recorded this.
    if is_supervised(pid, child) {
        return 0;
    }
    supervise(pid, child, 0);
    debug!(ctx, "fork of {}", pid);
    emit(RecordKind::Fork, |record: &mut ForkRecord| {
        task::describe(&raw mut record.task, child)
    });
    0
}

/// TP_PROTO(struct task_struct *p), and from 6.16 bool group_dead. Runs for every thread.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(super) fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    run::<0>(SPARED_EXIT, || exited::<0>(&ctx))
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(super) fn sched_process_exit_spare_1(ctx: RawTracePointContext) -> i32 {
    run::<1>(SPARED_EXIT, || exited::<1>(&ctx))
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(super) fn sched_process_exit_spare_2(ctx: RawTracePointContext) -> i32 {
    run::<2>(SPARED_EXIT, || exited::<2>(&ctx))
}

/// Once for each exit, however often it is called. `NTH`: 0 of the first program, more of a spare.
#[inline(always)]
fn exited<const NTH: usize>(ctx: &RawTracePointContext) -> i32 {
    let of = Object(ctx.arg(0));
    let signal = of.follow(offset!(task_signal));
    if signal.read::<u32>(offset!(signal_live)) != 0 {
        return 0;
    }
    let pid = task::pid(of);
    let status = exit_status(of, signal);
    if let Some(past) = PAST.get_ptr_mut(pid % PAST_SLOTS)
        && !(NTH > 0 && is_past(past, pid, of))
    {
        // SAFETY: a slot of the map. Another end of such a pid may write to it at the same moment, and a reader may read: they are
        // bytes without invalid values, and whoever reads compares two readings and the pid.
        unsafe {
            (&raw mut (*past).whole).write_volatile(0);
            compiler_fence(Ordering::Release);
            zero(past);
            task::describe(&raw mut (*past).task, of);
            (&raw mut (*past).ended).write_volatile(bpf_ktime_get_boot_ns());
            (&raw mut (*past).status).write_volatile(status);
            compiler_fence(Ordering::Release);
            (&raw mut (*past).whole).write_volatile(1);
        }
    }
    // Two last threads can both see `live` at zero (up to 6.12): the one that removes the entry writes the record.
    if !is_supervised(pid, of) || SUPERVISED.remove(&pid).is_err() {
        return 0;
    }
    debug!(ctx, "exit of {} with {}", pid, status);
    emit(RecordKind::Exit, |record: &mut ExitRecord| {
        task::describe(&raw mut record.task, of);
        record.status = status;
        held_listeners(record, of);
    });
    0
}

/// Whether this task's end is noted there.
#[inline(always)]
fn is_past(past: *const Past, pid: u32, of: Object) -> bool {
    // SAFETY: a slot of the map; what is written meanwhile is of another process, which is compared.
    unsafe { (*past).whole == 1 && (*past).task.pid == pid && (*past).task.start == task::start(of) }
}

/// The word that wait(2) gives. On 5.10 a plain exit(3) sets only the leader's `exit_code`.
#[inline(always)]
fn exit_status(of: Object, signal: Object) -> u32 {
    if signal.read::<u32>(offset!(signal_flags)) & SIGNAL_GROUP_EXIT != 0 {
        signal.read(offset!(signal_group_exit_code))
    } else {
        of.follow(offset!(task_group_leader))
            .read(offset!(task_exit_code))
    }
}

/// Notes the listening and bound datagram sockets in the table of open files, which is intact until after the exit hook.
#[inline(never)]
fn held_listeners(record: *mut ExitRecord, of: Object) {
    // SAFETY: the caller passes a whole record.
    let record = unsafe { &mut *record };
    let table = of.follow(offset!(task_files)).follow(offset!(files_fdt));
    let size: u32 = table.read(offset!(fdtable_max_fds));
    let files = table.follow(offset!(fdtable_fd));
    if size > EXIT_FDS || files.is_null() {
        record.listeners_cut = 1;
    }
    let mut fd = 0;
    // Once more than there is room for, to know whether there are more.
    for _ in 0..=EXIT_LISTENERS {
        fd = next_listener(files.0, fd, size);
        if fd >= size {
            return;
        }
        // The count lives in the record, not in a register: the verifier would follow each of its values.
        // SAFETY: inside of the record; the index is checked, and indexing would leave a call to panic in the object.
        unsafe {
            let seen = (&raw const record.listeners_seen).read_volatile();
            if seen < EXIT_LISTENERS as u32 {
                let inode = listener_inode(files.read(fd.wrapping_mul(8)));
                record
                    .listener_inodes
                    .as_mut_ptr()
                    .add(seen as usize)
                    .write(inode);
                record.listeners = seen + 1;
            }
            (&raw mut record.listeners_seen).write_volatile(seen.wrapping_add(1));
        }
        fd += 1;
    }
}

/// The first descriptor from `from` on that is a listener as in [`listener_inode`], looking at [`EXIT_FDS`] of them;
/// `size` if there is none.
///
/// Exported, which makes it a global function in the kernel's sense: the verifier looks at it once, not for every call
/// (5.6 and later).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn next_listener(files: u64, from: u32, size: u32) -> u32 {
    for portion in 0..EXIT_FDS / PORTION {
        let first = from.wrapping_add(portion * PORTION);
        if first >= size {
            break;
        }
        let fd = listener_within(files, first, size);
        if fd < size {
            return fd;
        }
    }
    size
}

/// The same within one portion of them. The verifier follows each turn of a loop: of one loop over all descriptors 50,000
/// instructions, which is most of the time that a start takes.
///
/// Exported like [`next_listener`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn listener_within(files: u64, from: u32, size: u32) -> u32 {
    for step in 0..PORTION {
        let fd = from.wrapping_add(step);
        if fd >= size {
            break;
        }
        if listener_inode(Object(files).read(fd.wrapping_mul(8))) != 0 {
            return fd;
        }
    }
    size
}

/// Inode number of a socket that listens or is a bound datagram socket; 0 for any other file.
///
/// Exported like [`next_listener`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn listener_inode(file: u64) -> u64 {
    if file == 0 {
        return 0;
    }
    let file = Object(file);
    let inode = file.follow(offset!(file_f_inode));
    if inode.follow(offset!(inode_i_sb)).read::<u64>(offset!(sb_s_magic)) != SOCKFS_MAGIC {
        return 0;
    }
    let sock = file.follow(offset!(file_private_data)).follow(offset!(socket_sk));
    let state: u8 = sock.read(offset!(sock_state));
    let datagram = sock.read::<u16>(offset!(sock_type)) == SOCK_DGRAM;
    let holds = match sock.read::<u16>(offset!(sock_family)) {
        AF_UNIX if datagram => !sock.follow(offset!(unix_sock_addr)).is_null(),
        AF_INET | AF_INET6 if datagram => state == TCP_CLOSE && sock.read::<u16>(offset!(sock_num)) != 0,
        AF_UNIX | AF_INET | AF_INET6 => state == TCP_LISTEN,
        _ => false,
    };
    if holds {
        inode.read(offset!(inode_i_ino))
    } else {
        0
    }
}

/// TP_PROTO(int pid) up to 6.1, TP_PROTO(struct task_struct *task, uid_t uid) later
#[raw_tracepoint(tracepoint = "mark_victim")]
pub(super) fn mark_victim(ctx: RawTracePointContext) -> i32 {
    if setting!(oom_arg_is_task) == 0 {
        let pid: u32 = ctx.arg(0);
        // SAFETY: only whether there is an entry counts.
        if unsafe { SUPERVISED.get(&pid) }.is_some() {
            emit(RecordKind::Oom, |record: &mut OomRecord| record.task.pid = pid);
        }
        return 0;
    }
    let of = Object(ctx.arg(0));
    if !is_supervised(task::pid(of), of) {
        return 0;
    }
    emit(RecordKind::Oom, |record: &mut OomRecord| {
        task::describe(&raw mut record.task, of);
        let mm = of.follow(offset!(task_mm));
        record.total_vm = mm.read(offset!(mm_total_vm));
        if offset!(mm_rss_stat) != probe_abi::ABSENT {
            // MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES
            let counters = mm.inside(offset!(mm_rss_stat)).inside(setting!(rss_count));
            let stride = setting!(rss_stride);
            record.file_rss = counters.read(0);
            record.anon_rss = counters.read(stride);
            record.shmem_rss = counters.read(3 * stride);
        }
    });
    0
}
