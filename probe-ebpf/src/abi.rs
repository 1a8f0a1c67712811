//! Records, map keys and values, offsets. Every structure is `repr(C)` without implicit padding: zerocopy's
//! `IntoBytes` refuses to compile otherwise.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Raised whenever a structure in this file changes its layout or meaning.
pub const ABI_VERSION: u32 = 4;

/// `TASK_COMM_LEN` of the kernel.
pub const COMM_LEN: usize = 16;
/// Bytes kept of a cgroup's own name, which for systemd units is the unit name.
pub const CGROUP_NAME_LEN: usize = 64;
/// Bytes kept of one component of an executable's path.
pub const COMPONENT_LEN: usize = 32;
/// Components kept of an executable's path, the file name first.
pub const COMPONENTS: usize = 8;
/// Bytes kept of the argument vector at exec.
pub const ARGV_LEN: usize = 512;
/// Listening (or bound datagram) socket inodes kept at exit.
pub const EXIT_LISTENERS: usize = 16;
/// File descriptors looked at when a supervised process ends.
pub const EXIT_FDS: u32 = 2048;
/// `sizeof(sun_path)`.
pub const SUN_PATH_LEN: usize = 108;
/// Bytes kept of the last component of a path, or of an abstract name, to tell whether it is declared.
pub const NAME_LEN: usize = 64;
/// `SOCKFS_MAGIC`: inode numbers of other file systems must not be taken for sockets.
pub const SOCKFS_MAGIC: u64 = 0x534F_434B;

/// What a record is about. The discriminant stands in [`Header::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// [`ExecRecord`], from `sched_process_exec`.
    Exec = 1,
    /// [`ForkRecord`], from `sched_process_fork`.
    Fork = 2,
    /// [`ExitRecord`], from `sched_process_exit` of the last thread.
    Exit = 3,
    /// [`SignalRecord`], from `signal_generate`.
    Signal = 4,
    /// [`OomRecord`], from `mark_victim`.
    Oom = 5,
    /// [`InetRecord`], from `inet_sock_set_state` to `TCP_LISTEN`.
    InetListen = 6,
    /// [`InetRecord`], from `inet_sock_set_state` out of `TCP_LISTEN`, by close or by shutdown.
    InetUnlisten = 7,
    /// [`InetRecord`], UDP only, from the cgroup hooks `post_bind4` and `post_bind6`.
    InetBind = 8,
    /// [`InetRecord`], UDP only, from the cgroup hook `sock_release`.
    InetRelease = 9,
    /// [`InetRecord`], a bind that failed, or that of a TCP socket, from `inet_bind` and `inet6_bind`.
    InetBound = 10,
    /// [`UnixRecord`], from `unix_bind`, also where it failed.
    UnixBind = 11,
    /// [`UnixRecord`], from `unix_listen`.
    UnixListen = 12,
    /// [`UnixRecord`], of a listener or a bound datagram socket, from `unix_release`.
    UnixRelease = 13,
    /// [`UnixRecord`], of a listener that takes no more connections, from `unix_shutdown`.
    UnixShutdown = 14,
}

impl RecordKind {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 14] = [
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::Signal,
        Self::Oom,
        Self::InetListen,
        Self::InetUnlisten,
        Self::InetBind,
        Self::InetRelease,
        Self::InetBound,
        Self::UnixBind,
        Self::UnixListen,
        Self::UnixRelease,
        Self::UnixShutdown,
    ];

    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u32 == raw)
    }

    /// The name under which a loss is reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::InetListen => "inet-listen",
            Self::InetUnlisten => "inet-unlisten",
            Self::InetBind => "inet-bind",
            Self::InetRelease => "inet-release",
            Self::InetBound => "inet-bound",
            Self::UnixBind => "unix-bind",
            Self::UnixListen => "unix-listen",
            Self::UnixRelease => "unix-release",
            Self::UnixShutdown => "unix-shutdown",
        }
    }
}

/// Slots of the counters `LOST` and `RECORDS`: one for each kind of record, and slot [`LOST_SUPERVISED`].
pub const RECORD_KINDS: u32 = 15;

/// Slot of `LOST` that counts the processes for which `SUPERVISED` had no room: nothing they do is reported.
pub const LOST_SUPERVISED: u32 = 0;

/// The start of every record.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// A [`RecordKind`].
    pub kind: u32,
    /// The CPU on which it was written. Order across CPUs is by `at` only.
    pub cpu: u32,
    /// Boot clock, nanoseconds.
    pub at: u64,
}

/// A process, as the kernel knew it at the moment of the record.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Task {
    /// Thread group id. 0 where there is no process (an interrupt).
    pub pid: u32,
    /// Thread group id of the real parent.
    pub ppid: u32,
    /// `start_boottime` of the thread group leader, nanoseconds.
    pub start: u64,
    /// The same of the parent.
    pub parent_start: u64,
    /// Real user id.
    pub uid: u32,
    /// Device of the executable's super block, in the kernel's encoding (major << 20 | minor). 0: no executable.
    pub exe_dev: u32,
    /// Inode number of the executable. 0: no executable (a kernel thread).
    pub exe_ino: u64,
    /// Id of the cgroup in the unified hierarchy.
    pub cgroup: u64,
    pub comm: [u8; COMM_LEN],
    pub parent_comm: [u8; COMM_LEN],
    /// Name of the cgroup's own directory, for example `redis.service`. All zero for the root.
    pub cgroup_name: [u8; CGROUP_NAME_LEN],
    /// Name of the directory above it, for services with sub-cgroups.
    pub cgroup_parent_name: [u8; CGROUP_NAME_LEN],
}

/// The path of an executable as the kernel's dentries spell it, the file name first, the root last.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExePath {
    /// Components that `components` holds.
    pub depth: u32,
    /// 1: the path reaches its root; 0: deeper than [`COMPONENTS`], or not readable.
    pub complete: u32,
    /// NUL-padded; one that has no NUL was cut.
    pub components: [[u8; COMPONENT_LEN]; COMPONENTS],
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExecRecord {
    pub header: Header,
    pub task: Task,
    pub exe: ExePath,
    /// Bytes used in `argv`; arguments are separated by NUL.
    pub argv_len: u32,
    /// Length of the whole argument vector; more than `argv_len` when it was cut.
    pub argv_total: u32,
    pub argv: [u8; ARGV_LEN],
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForkRecord {
    pub header: Header,
    /// The child; its parent is in it.
    pub task: Task,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExitRecord {
    pub header: Header,
    pub task: Task,
    /// As wait(2) gives it: exit code << 8, or the signal, | 0x80 with a core dump.
    pub status: u32,
    /// Sockets in `listeners`.
    pub listeners: u32,
    /// Listening or bound datagram sockets seen, which may be more than fit into `listeners`.
    pub listeners_seen: u32,
    /// 1: the process had more than [`EXIT_FDS`] descriptors, or they could not be read: `listeners` is not all.
    pub listeners_cut: u32,
    /// Socket inode numbers that the process still held open, listening or bound datagram, when it ended.
    pub listener_inodes: [u64; EXIT_LISTENERS],
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SignalRecord {
    pub header: Header,
    /// The process that the signal was sent to.
    pub target: Task,
    /// Thread id of the task that the signal was sent to.
    pub target_tid: u32,
    pub signal: u32,
    /// `si_code`; for `SEND_SIG_NOINFO` 0 and for `SEND_SIG_PRIV` 0x80 (`SI_KERNEL`).
    pub code: i32,
    /// 0 queued, 1 ignored, 2 already pending, 3 overflow, 4 information lost.
    pub result: u32,
    /// 1: to the process, 0: to one thread.
    pub group: u32,
    /// 1: `sender` is the process that sent it; 0: the kernel did, and `sender` is zero.
    pub has_sender: u32,
    /// `sa_handler` of the target at that moment: 0 default, 1 ignore, else caught.
    pub handler: u64,
    /// Bit n-1 set: signal n is blocked in the target task.
    pub blocked: u64,
    /// `si_addr` of a fault, else 0.
    pub fault_addr: u64,
    pub sender: Task,
    pub sender_exe: ExePath,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OomRecord {
    pub header: Header,
    /// The victim. Only `pid` is set where the tracepoint gives no more (kernel 5.10).
    pub task: Task,
    /// Pages of virtual memory, 0 where unknown.
    pub total_vm: u64,
    /// Resident anonymous, file and shared pages, as far as the kernel's counters tell. 0 where unknown.
    pub anon_rss: u64,
    pub file_rss: u64,
    pub shmem_rss: u64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InetRecord {
    pub header: Header,
    /// The process that called. All zero in `InetUnlisten` and `InetRelease`: the closer's identity is no
    /// evidence of who held the socket, and may be a kernel thread's.
    pub task: Task,
    /// Socket cookie, 0 where it was not generated yet.
    pub cookie: u64,
    /// Inode number of the socket, 0 where unknown.
    pub inode: u64,
    /// Inode number of the network namespace, 0 where unknown.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Host order.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u16,
    /// States of `inet_sock_set_state`; 0 from the cgroup hooks.
    pub old_state: u16,
    pub new_state: u16,
    pub pad: u16,
    /// The local address: 4 bytes used for `AF_INET`. Of a bind that failed, the address that was asked for.
    pub addr: [u8; 16],
    /// 0, or `-errno` of a bind that failed.
    pub error: i32,
    pub pad2: u32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnixRecord {
    pub header: Header,
    /// The process that called. All zero in `UnixRelease`: whoever closes a socket last need not have held it.
    pub task: Task,
    /// Socket cookie, 0 where it was not generated yet.
    pub cookie: u64,
    /// Inode number of the socket itself, 0 where unknown.
    pub inode: u64,
    /// The socket file: inode number, and device of its super block in the kernel's encoding. 0: no file.
    pub file_ino: u64,
    pub file_dev: u32,
    /// Inode number of the network namespace, 0 where unknown.
    pub netns: u32,
    /// 0, or `-errno` of a bind that failed.
    pub error: i32,
    /// `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`.
    pub sock_type: u32,
    /// Bytes of the name that count, more than [`SUN_PATH_LEN`] never. A path may end before, at a NUL; an abstract name
    /// begins with one.
    pub name_len: u32,
    /// As it was given to bind: a path can be relative.
    pub name: [u8; SUN_PATH_LEN],
}

/// Slots of `CROWDED`: the hooks that have spares.
pub const SPARED_EXIT: u32 = 0;
pub const SPARED_FORK: u32 = 1;
pub const SPARED_EXEC: u32 = 2;
pub const SPARED: u32 = 3;

/// Value of `SUPERVISED`, keyed by pid.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Supervised {
    /// `start_boottime` in nanoseconds; 0 when user space knew only clock ticks.
    pub start: u64,
    /// Address of the `mm_struct` that its last recorded exec made; 0: none was recorded.
    pub exec_mm: u64,
}

/// Services of one process that [`Member`] has room for.
pub const SERVICES: usize = 3;

/// Value of `MEMBERS`, keyed by pid: what only a daemon that has seen it begin knows of a process.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Member {
    /// In clock ticks, as in `/proc`.
    pub start_ticks: u64,
    /// Whose child it was then; 0 for both: nobody's that is known.
    pub parent_ticks: u64,
    pub parent_pid: u32,
    /// Digests of the services that it belongs to; 0: no more of them.
    pub services: [u32; SERVICES],
}

/// Key of `WANTED_PORT`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortKey {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u16,
    /// Host order.
    pub port: u16,
}

/// Key of `WANTED_UNIT`: a NUL-padded cgroup name, cut so that a NUL ends it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct UnitKey {
    pub name: [u8; CGROUP_NAME_LEN],
}

/// Key of `WANTED_NAME`: the last component of a path, cut so that a NUL ends it; or an abstract name, whose first byte
/// is NUL, cut to the length of the key. NUL-padded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NameKey {
    pub name: [u8; NAME_LEN],
}

/// What is done to a name, in [`ChangeKey`].
pub const CHANGE_REMOVED: u32 = 1;
/// The name is not there any more.
pub const CHANGE_RENAMED_AWAY: u32 = 2;
/// The name is there now.
pub const CHANGE_RENAMED_TO: u32 = 3;

/// Key of `CHANGERS`: a wanted name in a directory, and what is done to it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ChangeKey {
    /// The directory: inode number, and device of its super block in the kernel's encoding.
    pub dir_ino: u64,
    pub dir_dev: u32,
    /// One of `CHANGE_*`.
    pub change: u32,
    pub name: NameKey,
}

/// Value of `CHANGERS`: who did it last.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Changer {
    pub task: Task,
    /// Nanoseconds on the boot clock.
    pub at: u64,
}

/// Slots of `PAST`. A power of two.
pub const PAST_SLOTS: u32 = 16384;

/// Value of `PAST`, at the pid modulo [`PAST_SLOTS`]: who a process was that has ended.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Past {
    /// Without an executable on kernels where the memory is released before the exit hook runs (before 6.16).
    pub task: Task,
    /// Boot clock, nanoseconds.
    pub ended: u64,
    /// As in [`ExitRecord::status`].
    pub status: u32,
    /// 1, written last; 0 while the rest is written.
    pub whole: u32,
}

/// One process, from the iterator over tasks.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskEntry {
    pub task: Task,
    /// File name of the executable, also if it was removed; the first [`NAME_LEN`] - 1 bytes of it, with a NUL. Empty:
    /// there is none.
    pub exe_name: [u8; NAME_LEN],
    /// Threads that have not begun to end. 0: the process ends, or has ended and waits to be reaped.
    pub live: u32,
    pub pad: u32,
}

/// One open socket of a wanted inode, from the iterator over open files.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileEntry {
    pub pid: u32,
    pub fd: u32,
    pub inode: u64,
    pub start: u64,
}

/// Index into `CONTROL`. 1: `WANTED_UNIT` is not empty. The exec hook reads no cgroup name otherwise.
pub const CONTROL_UNITS: u32 = 0;
/// Index into `CONTROL`. 1: `inet_listen` is traced, so the hook on the TCP state does not tell of listeners that begin.
pub const CONTROL_INET_LISTEN: u32 = 1;
/// Size of `CONTROL`.
pub const CONTROLS: u32 = 2;

/// This key in `WANTED_INODE`, which no socket has, stands for every socket.
pub const ALL_SOCKETS: u64 = 0;

/// Marks an [`Offsets`] field that this kernel's BTF does not have. The feature behind it is off.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident = $type:literal . $path:literal;)*) => {
        /// Byte offsets of kernel structure members, read from the kernel's BTF in user space and written to
        /// `.rodata` before load. [`ABSENT`] where the kernel has no such member.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Offsets { $($(#[$doc])* pub $name: u32,)* }

        impl Offsets {
            pub const ALL_ABSENT: Self = Self { $($name: ABSENT,)* };

            /// Field name, kernel structure, member path; in the order of the fields.
            pub const FIELDS: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($name), $type, $path),)*];
        }
    };
}

offsets! {
    task_tgid = "task_struct"."tgid";
    task_pid = "task_struct"."pid";
    task_start_boottime = "task_struct"."start_boottime";
    /// `state` before 5.14.
    task_state = "task_struct"."__state|state";
    task_group_leader = "task_struct"."group_leader";
    task_real_parent = "task_struct"."real_parent";
    task_comm = "task_struct"."comm";
    task_cred = "task_struct"."cred";
    cred_uid = "cred"."uid";
    task_mm = "task_struct"."mm";
    mm_exe_file = "mm_struct"."exe_file";
    mm_arg_start = "mm_struct"."arg_start";
    mm_arg_end = "mm_struct"."arg_end";
    mm_total_vm = "mm_struct"."total_vm";
    mm_rss_stat = "mm_struct"."rss_stat";
    task_signal = "task_struct"."signal";
    signal_live = "signal_struct"."live";
    signal_flags = "signal_struct"."flags";
    signal_group_exit_code = "signal_struct"."group_exit_code";
    task_exit_code = "task_struct"."exit_code";
    task_sighand = "task_struct"."sighand";
    task_blocked = "task_struct"."blocked";
    sighand_action = "sighand_struct"."action";
    siginfo_code = "kernel_siginfo"."si_code";
    siginfo_addr = "kernel_siginfo"."_sifields._sigfault._addr";
    task_cgroups = "task_struct"."cgroups";
    css_set_dfl_cgrp = "css_set"."dfl_cgrp";
    cgroup_kn = "cgroup"."kn";
    kernfs_node_id = "kernfs_node"."id";
    kernfs_node_name = "kernfs_node"."name";
    /// `parent` before 6.15.
    kernfs_node_parent = "kernfs_node"."__parent|parent";
    task_files = "task_struct"."files";
    files_fdt = "files_struct"."fdt";
    fdtable_max_fds = "fdtable"."max_fds";
    fdtable_fd = "fdtable"."fd";
    file_f_inode = "file"."f_inode";
    file_path_dentry = "file"."f_path.dentry";
    file_path_mnt = "file"."f_path.mnt";
    file_private_data = "file"."private_data";
    inode_i_ino = "inode"."i_ino";
    inode_i_sb = "inode"."i_sb";
    sb_s_dev = "super_block"."s_dev";
    sb_s_magic = "super_block"."s_magic";
    dentry_d_name = "dentry"."d_name.name";
    dentry_d_name_len = "dentry"."d_name.len";
    dentry_d_parent = "dentry"."d_parent";
    /// Where the `vfsmount` lies in its `mount`.
    mount_mnt = "mount"."mnt";
    mount_mnt_parent = "mount"."mnt_parent";
    mount_mnt_mountpoint = "mount"."mnt_mountpoint";
    vfsmount_mnt_root = "vfsmount"."mnt_root";
    socket_sk = "socket"."sk";
    socket_file = "socket"."file";
    sock_sk_socket = "sock"."sk_socket";
    sock_family = "sock"."__sk_common.skc_family";
    sock_state = "sock"."__sk_common.skc_state";
    sock_num = "sock"."__sk_common.skc_num";
    sock_rcv_saddr = "sock"."__sk_common.skc_rcv_saddr";
    sock_v6_rcv_saddr = "sock"."__sk_common.skc_v6_rcv_saddr";
    sock_net = "sock"."__sk_common.skc_net";
    sock_cookie = "sock"."__sk_common.skc_cookie";
    sock_type = "sock"."sk_type";
    sock_protocol = "sock"."sk_protocol";
    inet_sport = "inet_sock"."inet_sport";
    net_ns_inum = "net"."ns.inum";
    unix_sock_addr = "unix_sock"."addr";
    unix_sock_dentry = "unix_sock"."path.dentry";
    unix_address_len = "unix_address"."len";
    unix_address_name = "unix_address"."name";
    dentry_d_inode = "dentry"."d_inode";
}

/// Facts about the kernel that are no member offsets, and settings fixed at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// `sizeof(struct k_sigaction)`: the stride of `sighand_struct.action`.
    pub sigaction_size: u32,
    /// 1: the first argument of `mark_victim` is a task (6.1.192 and later), 0: a pid.
    pub oom_arg_is_task: u32,
    /// Whether hooks have spares.
    pub spares: u32,
    /// Bytes between the resident set counters of `mm_struct.rss_stat`, and where the count lies in one.
    pub rss_stride: u32,
    pub rss_count: u32,
}

impl Settings {
    pub const NONE: Self = Self {
        sigaction_size: 0,
        oom_arg_is_task: 0,
        spares: 0,
        rss_stride: 0,
        rss_count: 0,
    };
}

#[cfg(feature = "aya")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($t:ty),*) => {$(
            // SAFETY: repr(C), no padding (zerocopy's IntoBytes proves it), every bit pattern is valid (FromBytes).
            unsafe impl aya::Pod for $t {}
        )*};
    }
    pod!(
        Supervised, Member, PortKey, UnitKey, NameKey, ChangeKey, Changer, Past, Offsets, Settings
    );
}
