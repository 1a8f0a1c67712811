//! What the programs tell besides the subject of their hook. Each needs members of the kernel's structures; where this kernel
//! lacks one, the programs leave that part empty, and it is said here which.

use std::fmt;

use probe_abi::Offsets;

use super::offsets::missing;

/// A part of what is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Feature {
    pub gives: &'static str,
    /// Fields of [`Offsets`].
    pub needs: &'static [&'static str],
}

/// A part that is not told on this kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    pub feature: &'static Feature,
    /// As `structure.member`.
    pub members: Vec<String>,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: this kernel has no {}",
            self.feature.gives,
            self.members.join(", ")
        )
    }
}

pub const FEATURES: [Feature; 16] = [
    Feature {
        gives: "the user of a process",
        needs: &["task_cred", "cred_uid"],
    },
    Feature {
        gives: "the unit of a process",
        needs: &[
            "task_cgroups",
            "css_set_dfl_cgrp",
            "cgroup_kn",
            "kernfs_node_id",
            "kernfs_node_name",
            "kernfs_node_parent",
        ],
    },
    Feature {
        gives: "which executable a process runs",
        needs: &[
            "task_mm",
            "mm_exe_file",
            "file_f_inode",
            "inode_i_ino",
            "inode_i_sb",
            "sb_s_dev",
        ],
    },
    Feature {
        gives: "the path of an executable",
        needs: &[
            "task_mm",
            "mm_exe_file",
            "file_path_dentry",
            "file_path_mnt",
            "dentry_d_name",
            "dentry_d_name_len",
            "dentry_d_parent",
            "mount_mnt",
            "mount_mnt_parent",
            "mount_mnt_mountpoint",
            "vfsmount_mnt_root",
        ],
    },
    Feature {
        gives: "the arguments at exec",
        needs: &["task_mm", "mm_arg_start", "mm_arg_end"],
    },
    Feature {
        gives: "which listeners a process held when it ended",
        needs: &[
            "task_files",
            "files_fdt",
            "fdtable_max_fds",
            "fdtable_fd",
            "file_f_inode",
            "file_private_data",
            "inode_i_ino",
            "inode_i_sb",
            "sb_s_magic",
            "socket_sk",
            "sock_family",
            "sock_state",
            "sock_type",
            "sock_num",
            "unix_sock_addr",
        ],
    },
    Feature {
        gives: "the address of a fault",
        needs: &["siginfo_addr"],
    },
    Feature {
        gives: "whose thread was signalled",
        needs: &["task_pid"],
    },
    Feature {
        gives: "signals to a child that is just being made",
        needs: &["task_state"],
    },
    Feature {
        gives: "how much memory a victim of the OOM killer had",
        needs: &["task_mm", "mm_rss_stat", "mm_total_vm"],
    },
    Feature {
        gives: "which socket it is that was bound, listens or was closed",
        needs: &[
            "sock_cookie",
            "sock_sk_socket",
            "socket_file",
            "file_f_inode",
            "inode_i_ino",
        ],
    },
    Feature {
        gives: "the network namespace of a socket",
        needs: &["sock_net", "net_ns_inum"],
    },
    Feature {
        gives: "the addresses of IPv4 sockets",
        needs: &["sock_family", "sock_rcv_saddr"],
    },
    Feature {
        gives: "the addresses of IPv6 sockets",
        needs: &["sock_family", "sock_v6_rcv_saddr"],
    },
    Feature {
        gives: "the end of a TCP listener whose port the kernel chose",
        needs: &["inet_sport"],
    },
    Feature {
        gives: "which file a UNIX socket is bound to, by other names of it too",
        needs: &[
            "unix_sock_dentry",
            "dentry_d_inode",
            "dentry_d_name",
            "inode_i_ino",
            "inode_i_sb",
            "sb_s_dev",
        ],
    },
];

/// What this kernel lacks the members for.
pub(super) fn lacks(offsets: &Offsets) -> Vec<Lack> {
    FEATURES
        .iter()
        .filter_map(|feature| {
            let members = missing(offsets, feature.needs);
            (!members.is_empty()).then_some(Lack { feature, members })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use probe_abi::ABSENT;
    use zerocopy::{FromBytes as _, IntoBytes as _};

    use super::*;
    use crate::kernel::plan::{HOOKS, IDENTITY};

    /// A kernel that has all members but one.
    fn without(field: &str) -> Offsets {
        let words: Vec<u32> = Offsets::FIELDS
            .iter()
            .map(|(name, ..)| if *name == field { ABSENT } else { 0 })
            .collect();
        Offsets::read_from_bytes(words.as_bytes()).unwrap()
    }

    #[test]
    fn a_complete_kernel_lacks_nothing() {
        assert_eq!(lacks(&without("")), []);
    }

    #[test]
    fn each_member_that_is_missing_costs_something_that_is_said() {
        for (field, structure, member) in Offsets::FIELDS {
            let offsets = without(field);
            let lacks = lacks(&offsets);
            for lack in &lacks {
                assert_eq!(lack.members, [format!("{structure}.{member}")]);
            }
            let is_needed = IDENTITY.contains(field)
                || HOOKS
                    .iter()
                    .flat_map(|h| h.candidates)
                    .any(|c| c.needs.contains(field));
            assert!(is_needed || !lacks.is_empty(), "nobody says what {field} is for");
        }
    }

    #[test]
    fn every_need_is_a_field() {
        for need in FEATURES.iter().flat_map(|f| f.needs) {
            assert!(Offsets::FIELDS.iter().any(|(field, ..)| field == need), "{need}");
        }
    }
}
