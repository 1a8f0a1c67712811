//! Who removes or renames a declared name. fanotify tells that without a price for anybody else, so these are attached only
//! while a directory refuses it: inotify tells then that it happened, and this who did it.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_ktime_get_boot_ns},
    macros::fexit,
    programs::FExitContext,
};
use probe_abi::{CHANGE_REMOVED, CHANGE_RENAMED_AWAY, CHANGE_RENAMED_TO, ChangeKey, NAME_LEN, NameKey};

use super::{
    emit::zero,
    maps::{CHANGER_SCRATCH, CHANGERS, WANTED_NAME},
    read::{Object, offset},
    task,
};

/// Slots of `CHANGER_SCRATCH`.
const SCRATCH_UNLINK: u32 = 0;
const SCRATCH_RENAME: u32 = 1;

#[inline(never)]
fn note(dir: u64, dentry: u64, change: u32, slot: u32) {
    let (dir, dentry) = (Object(dir), Object(dentry));
    let mut key = ChangeKey {
        dir_ino: 0,
        dir_dev: 0,
        change,
        name: NameKey { name: [0; NAME_LEN] },
    };
    dentry.follow(offset!(dentry_d_name)).text(&raw mut key.name.name);
    // SAFETY: only whether there is an entry counts.
    if unsafe { WANTED_NAME.get(&key.name) }.is_none() {
        return;
    }
    key.dir_ino = dir.read(offset!(inode_i_ino));
    key.dir_dev = dir.follow(offset!(inode_i_sb)).read(offset!(sb_s_dev));
    let Some(by) = CHANGER_SCRATCH.get_ptr_mut(slot) else {
        return;
    };
    zero(by);
    // SAFETY: the slot belongs to this program and this CPU; the current task lives as long as the program runs.
    unsafe {
        task::describe(&raw mut (*by).task, Object(bpf_get_current_task()));
        (*by).at = bpf_ktime_get_boot_ns();
        // A full LRU map evicts; what fails under memory pressure makes one actor unknown, nothing more.
        let _ = CHANGERS.insert(&key, &*by, 0);
    }
}

/// `int security_inode_unlink(struct inode *dir, struct dentry *dentry)`, and its result: the file system removes the name
/// after that. Its arguments are the same on all kernels, unlike those of `vfs_unlink`.
#[fexit(function = "security_inode_unlink")]
pub(super) fn fexit_inode_unlink(ctx: FExitContext) -> i32 {
    let error: i32 = ctx.arg(2);
    if error == 0 {
        let (dir, dentry): (*const c_void, *const c_void) = (ctx.arg(0), ctx.arg(1));
        note(dir as u64, dentry as u64, CHANGE_REMOVED, SCRATCH_UNLINK);
    }
    0
}

/// `int security_inode_rename(struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir, struct dentry
/// *new_dentry, unsigned int flags)`, and its result.
#[fexit(function = "security_inode_rename")]
pub(super) fn fexit_inode_rename(ctx: FExitContext) -> i32 {
    let error: i32 = ctx.arg(5);
    if error == 0 {
        let (from, old): (*const c_void, *const c_void) = (ctx.arg(0), ctx.arg(1));
        let (to, new): (*const c_void, *const c_void) = (ctx.arg(2), ctx.arg(3));
        note(from as u64, old as u64, CHANGE_RENAMED_AWAY, SCRATCH_RENAME);
        note(to as u64, new as u64, CHANGE_RENAMED_TO, SCRATCH_RENAME);
    }
    0
}
