//! Who a task is: the one way in which every record describes a process.

use core::ptr;

use probe_abi::{CGROUP_NAME_LEN, COMPONENT_LEN, COMPONENTS, ExePath, NAME_LEN, Task};

use super::read::{Object, offset};

/// Mounts that are crossed between two components of a path.
const MOUNTS: u32 = 4;

/// Thread group id.
#[inline(always)]
pub(super) fn pid(task: Object) -> u32 {
    task.read(offset!(task_tgid))
}

/// `start_boottime` of the process, nanoseconds.
#[inline(always)]
pub(super) fn start(task: Object) -> u64 {
    task.follow(offset!(task_group_leader))
        .read(offset!(task_start_boottime))
}

/// `struct file *` of the executable. Null for kernel threads, and for those that have released their memory.
#[inline(always)]
pub(super) fn exe(task: Object) -> Object {
    task.follow(offset!(task_mm)).follow(offset!(mm_exe_file))
}

/// The last component of the path of a file. `to` must be zeroed.
#[inline(always)]
pub(super) fn exe_name(file: Object, to: *mut [u8; NAME_LEN]) {
    file.follow(offset!(file_path_dentry))
        .follow(offset!(dentry_d_name))
        .text(to);
}

/// `struct kernfs_node *` of the cgroup in the unified hierarchy.
#[inline(always)]
pub(super) fn cgroup_node(task: Object) -> Object {
    task.follow(offset!(task_cgroups))
        .follow(offset!(css_set_dfl_cgrp))
        .follow(offset!(cgroup_kn))
}

#[inline(always)]
pub(super) fn cgroup_parent(node: Object) -> Object {
    node.follow(offset!(kernfs_node_parent))
}

#[inline(always)]
pub(super) fn cgroup_name(node: Object, to: *mut [u8; CGROUP_NAME_LEN]) {
    node.follow(offset!(kernfs_node_name)).text(to);
}

/// Describes the process of a task, which may be any of its threads. `to` must be zeroed.
///
/// Not inlined: every program shares the code, and the verifier still follows each call.
#[inline(never)]
pub(super) fn describe(to: *mut Task, task: Object) {
    // SAFETY: every caller passes a whole zeroed `Task` in a ring record, a map value or its own stack.
    let to = unsafe { &mut *to };
    let leader = task.follow(offset!(task_group_leader));
    let parent = leader
        .follow(offset!(task_real_parent))
        .follow(offset!(task_group_leader));
    to.pid = pid(task);
    to.ppid = pid(parent);
    to.start = leader.read(offset!(task_start_boottime));
    to.parent_start = parent.read(offset!(task_start_boottime));
    to.uid = task.follow(offset!(task_cred)).read(offset!(cred_uid));
    leader.inside(offset!(task_comm)).text(&raw mut to.comm);
    parent.inside(offset!(task_comm)).text(&raw mut to.parent_comm);
    let inode = exe(task).follow(offset!(file_f_inode));
    to.exe_ino = inode.read(offset!(inode_i_ino));
    to.exe_dev = inode.follow(offset!(inode_i_sb)).read(offset!(sb_s_dev));
    let node = cgroup_node(task);
    to.cgroup = node.read(offset!(kernfs_node_id));
    cgroup_name(node, &raw mut to.cgroup_name);
    cgroup_name(cgroup_parent(node), &raw mut to.cgroup_parent_name);
}

/// Writes the path of an executable, from the file name up to the root of its mount namespace. `to` must be zeroed.
#[inline(never)]
pub(super) fn exe_path(to: *mut ExePath, file: Object) {
    if file.is_null() {
        return;
    }
    let mut dentry = file.follow(offset!(file_path_dentry));
    let mut mount = file
        .follow(offset!(file_path_mnt))
        .0
        .wrapping_sub(u64::from(offset!(mount_mnt)));
    for depth in 0..COMPONENTS as u32 + 1 {
        for _ in 0..MOUNTS {
            let at = Object(mount);
            if dentry.0
                != at
                    .inside(offset!(mount_mnt))
                    .read::<u64>(offset!(vfsmount_mnt_root))
            {
                break;
            }
            let parent: u64 = at.read(offset!(mount_mnt_parent));
            if parent == mount || parent == 0 {
                // SAFETY: as above.
                unsafe { (*to).complete = 1 };
                return;
            }
            dentry = at.follow(offset!(mount_mnt_mountpoint));
            mount = parent;
        }
        let above = dentry.follow(offset!(dentry_d_parent));
        // Detached from every mount, or a chain that cannot be read.
        if above.0 == dentry.0 || above.is_null() || depth == COMPONENTS as u32 {
            return;
        }
        let length: u32 = dentry.read(offset!(dentry_d_name_len));
        let name = dentry.follow(offset!(dentry_d_name));
        // SAFETY: `depth` is less than COMPONENTS, so this lies inside of `to`, a whole zeroed ExePath.
        unsafe {
            let component = ptr::from_mut(&mut (*to).components)
                .cast::<[u8; COMPONENT_LEN]>()
                .add(depth as usize);
            name.bytes(component, length);
            (*to).depth = depth + 1;
        }
        dentry = above;
    }
}
