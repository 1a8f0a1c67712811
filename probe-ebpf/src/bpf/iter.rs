//! Iterators: what is there now, read by user space through a file descriptor.
//!
//! aya has no macro for them. The context is a structure of pointers that the verifier types; only those are read with
//! plain loads. They are null in the closing call. Returning 1 makes the kernel show the same object again.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use probe_abi::{ALL_SOCKETS, FileEntry, SOCKFS_MAGIC, TaskEntry};
use zerocopy::IntoBytes;

use super::{
    emit::zero,
    maps::WANTED_INODE,
    read::{Object, offset},
    task,
};

/// `struct bpf_iter_meta { struct seq_file *seq; … }`
#[repr(C)]
pub(super) struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; }`
#[repr(C)]
pub(super) struct TaskContext {
    meta: *const Meta,
    task: u64,
}

/// `struct bpf_iter__task_file { struct bpf_iter_meta *meta; struct task_struct *task; u32 fd; struct file *file; }`
#[repr(C)]
pub(super) struct FileContext {
    meta: *const Meta,
    task: u64,
    fd: u32,
    file: u64,
}

#[inline(always)]
fn write<T: IntoBytes>(meta: *const Meta, entry: &T) -> i32 {
    // SAFETY: `meta` is valid in every call; the entry has no padding.
    let failed = unsafe {
        bpf_seq_write(
            (*meta).seq,
            core::ptr::from_ref(entry).cast(),
            size_of::<T>() as u32,
        )
    };
    i32::from(failed != 0)
}

/// Every process; threads are left out.
///
/// # Safety
/// Called by the kernel with its context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub(super) unsafe extern "C" fn iter_task(ctx: *const TaskContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let (meta, address) = unsafe { ((*ctx).meta, (*ctx).task) };
    if address == 0 {
        return 0;
    }
    let of = Object(address);
    if of.read::<u32>(offset!(task_pid)) != task::pid(of) {
        return 0;
    }
    let mut entry = MaybeUninit::<TaskEntry>::uninit();
    zero(entry.as_mut_ptr());
    // SAFETY: all zero is a valid entry.
    let entry = unsafe { entry.assume_init_mut() };
    task::describe(&raw mut entry.task, of);
    task::exe_name(task::exe(of), &raw mut entry.exe_name);
    entry.live = of.follow(offset!(task_signal)).read(offset!(signal_live));
    write(meta, entry)
}

/// Every open socket of a wanted inode. Threads that share their leader's files are left out by the kernel.
///
/// # Safety
/// Called by the kernel with its context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(super) unsafe extern "C" fn iter_task_file(ctx: *const FileContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let (meta, address, fd, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).fd, (*ctx).file) };
    if address == 0 || file == 0 {
        return 0;
    }
    let inode = Object(file).follow(offset!(file_f_inode));
    if inode.follow(offset!(inode_i_sb)).read::<u64>(offset!(sb_s_magic)) != SOCKFS_MAGIC {
        return 0;
    }
    let number: u64 = inode.read(offset!(inode_i_ino));
    // SAFETY: only whether there is an entry counts.
    if unsafe { WANTED_INODE.get(&number).is_none() && WANTED_INODE.get(&ALL_SOCKETS).is_none() } {
        return 0;
    }
    let of = Object(address);
    write(
        meta,
        &FileEntry {
            pid: task::pid(of),
            fd,
            inode: number,
            start: task::start(of),
        },
    )
}
