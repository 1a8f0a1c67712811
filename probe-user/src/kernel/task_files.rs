//! Who holds some sockets, asked once and at once: a single iterator over open files, assembled here.
//!
//! Loading the whole object takes the better part of 100 ms: three readings of the kernel's types, two dozen programs. A
//! question that is asked once can't afford that. This program is the body of `iter_task_file` in `probe-ebpf`, with the
//! offsets and the wanted inodes as constants, so that it needs no map, no relocation and no second reading of the types.
//!
//! It also tells how many references an open file has. Whoever knows as many descriptors of it knows all of them, and need not
//! search.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    mem::offset_of,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use probe_abi::{FileEntry, SOCKFS_MAGIC};
use zerocopy::{FromBytes as _, Immutable, IntoBytes};

use super::{
    btf::{Btf, BtfError},
    offsets::VMLINUX,
    vmlinux::Vmlinux,
};
use crate::{clock::Nanos, event::ProcId, sources::process};

/// Inodes that are compared in the kernel; a search for more has it show every socket.
const COMPARED: usize = 256;
/// More than the 32 KiB that the kernel gives in one read.
const CHUNK: usize = 64 * 1024;
/// Some four million open sockets.
const LIMIT: usize = 96 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TaskFilesError {
    #[error("{VMLINUX} can't be read: {0}")]
    Types(io::Error),
    #[error("{VMLINUX} is damaged: {0}")]
    Damaged(#[from] BtfError),
    #[error("this kernel has no {0}: it takes no iterator over open files (Linux 5.8)")]
    Absent(&'static str),
    #[error("the kernel refused the iterator over open files ({step}): {source}")]
    Refused { step: &'static str, source: io::Error },
    #[error("the iterator over open files broke off: {0}")]
    Broken(io::Error),
    #[error("this kernel does not tell how many references an open file has")]
    References,
}

/// What the program must know of this kernel.
#[derive(Debug, Clone, Copy)]
struct Types {
    /// Id of `bpf_iter_task_file`.
    target: u32,
    f_inode: i16,
    i_sb: i16,
    i_ino: i16,
    s_magic: i16,
    tgid: i16,
    group_leader: i16,
    start: i16,
    /// Not every kernel has it under a name that is known.
    references: Option<i16>,
}

/// Asks the kernel who holds which socket, without loading anything else.
#[derive(Debug, Default)]
pub struct TaskFiles {
    types: Option<Types>,
    /// What the kernel's number of references says of a file that has none but the looker's; `None`: not asked yet.
    no_reference: Option<Option<u64>>,
}

impl TaskFiles {
    /// Who holds the sockets of these inode numbers, as (inode, process, descriptor). A socket on its way between two
    /// processes is held by none.
    ///
    /// # Errors
    /// Where the kernel has no such iterator or refuses it; without `CAP_BPF` and `CAP_PERFMON` it does.
    pub fn holders(&mut self, inodes: &BTreeSet<u64>) -> Result<Vec<(u64, ProcId, i32)>, TaskFilesError> {
        if inodes.is_empty() {
            return Ok(Vec::new());
        }
        let types = self.types()?;
        Ok(entries(&types, inodes, Show::Start, None)?
            .into_iter()
            .map(|e| {
                (
                    e.inode,
                    ProcId::new(e.pid, Nanos(e.start)),
                    e.fd.min(i32::MAX as u32) as i32,
                )
            })
            .collect())
    }

    /// How many references the open file of a socket has that this process has open: each entry in a table of descriptors
    /// is one, and so is a message on its way, a registration with io_uring, and a system call of a process with threads
    /// that is waiting at it.
    ///
    /// # Errors
    /// Where the kernel does not tell (before 6.1), and when the process does not have it open any more.
    pub fn references(&mut self, pid: u32, inode: u64) -> Result<u64, TaskFilesError> {
        let types = self.types()?;
        let base = match self.no_reference {
            Some(base) => base,
            None => *self.no_reference.insert(no_reference(&types)),
        };
        let seen = raw_references(&types, pid, inode)?;
        base.and_then(|base| seen.checked_sub(base))
            .ok_or(TaskFilesError::References)
    }

    /// Whether nobody but these, as process and descriptor, has the socket open: its file has as many references as they have
    /// descriptors.
    pub fn has_no_other(&mut self, inode: u64, holders: &[(ProcId, i32)]) -> bool {
        let (Some((first, _)), Some(known)) = (holders.first(), descriptors(holders)) else {
            return false;
        };
        let references = self.references(first.pid, inode);
        tracing::debug!(?references, known, "the socket's file");
        // A descriptor of a process that has ended meanwhile is one too many, and the other way round.
        references.is_ok_and(|n| n == known)
    }

    fn types(&mut self) -> Result<Types, TaskFilesError> {
        match self.types {
            Some(types) => Ok(types),
            None => Ok(*self.types.insert(Types::read()?)),
        }
    }
}

/// Descriptors that these are, each table of descriptors counted once: processes can share one. `None`: that can't be told.
fn descriptors(holders: &[(ProcId, i32)]) -> Option<u64> {
    let mut tables: Vec<(u32, BTreeSet<i32>)> = Vec::new();
    for (process, fd) in holders {
        let mut of = None;
        for (i, (pid, _)) in tables.iter().enumerate() {
            if *pid == process.pid || process::shares_descriptors(*pid, process.pid)? {
                of = Some(i);
                break;
            }
        }
        match of {
            Some(i) => _ = tables[i].1.insert(*fd),
            None => tables.push((process.pid, [*fd].into())),
        }
    }
    Some(tables.iter().map(|(_, fds)| fds.len() as u64).sum())
}

/// The kernel counts from one or from zero, and counts the iterator's own reference: a file whose references are known
/// tells.
fn no_reference(types: &Types) -> Option<u64> {
    let (one, _other) = UnixStream::pair().ok()?;
    let inode = rustix::fs::fstat(&one).ok()?.st_ino;
    let pid = std::process::id();
    let single = raw_references(types, pid, inode).ok()?;
    let _second = one.try_clone().ok()?;
    let double = raw_references(types, pid, inode).ok()?;
    (double == single + 1).then(|| single.checked_sub(1)).flatten()
}

fn raw_references(types: &Types, pid: u32, inode: u64) -> Result<u64, TaskFilesError> {
    let show = Show::References(types.references.ok_or(TaskFilesError::References)?);
    let found = entries(types, &[inode].into(), show, Some(pid))?;
    let first = found.first().ok_or(TaskFilesError::References)?;
    Ok(first.start)
}

/// What stands in an entry beside who and where.
#[derive(Debug, Clone, Copy)]
enum Show {
    /// When the process began.
    Start,
    /// In its place what lies here in the open file.
    References(i16),
}

/// `of`: only the files of this process.
fn entries(
    types: &Types,
    inodes: &BTreeSet<u64>,
    show: Show,
    of: Option<u32>,
) -> Result<Vec<FileEntry>, TaskFilesError> {
    let mut bytes = Vec::new();
    run(types.target, &assemble(types, inodes, show), of, &mut bytes)?;
    let entries = bytes.chunks_exact(size_of::<FileEntry>());
    Ok(entries
        .filter_map(|e| FileEntry::read_from_bytes(e).ok())
        .filter(|e| inodes.contains(&e.inode))
        .collect())
}

impl Types {
    fn read() -> Result<Self, TaskFilesError> {
        let blob = Vmlinux::open().map_err(TaskFilesError::Types)?;
        let types = Btf::parse(&blob)?;
        let offset = |structure: &'static str, member: &'static str| {
            let found = types.member(structure, member);
            found
                .and_then(|m| i16::try_from(m.offset).ok())
                .ok_or(TaskFilesError::Absent(member))
        };
        Ok(Self {
            target: types
                .function("bpf_iter_task_file")
                .ok_or(TaskFilesError::Absent("bpf_iter_task_file"))?,
            f_inode: offset("file", "f_inode")?,
            i_sb: offset("inode", "i_sb")?,
            i_ino: offset("inode", "i_ino")?,
            s_magic: offset("super_block", "s_magic")?,
            tgid: offset("task_struct", "tgid")?,
            group_leader: offset("task_struct", "group_leader")?,
            start: offset("task_struct", "start_boottime")?,
            // `f_ref` from 6.13.
            references: offset("file", "f_ref|f_count").ok(),
        })
    }
}

/// `struct bpf_insn`
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination in the lower half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Codes of `linux/bpf_common.h` and `linux/bpf.h`, put together.
mod code {
    pub(super) const LOAD_64: u8 = 0x79;
    pub(super) const LOAD_32: u8 = 0x61;
    pub(super) const STORE_64: u8 = 0x7b;
    pub(super) const STORE_32: u8 = 0x63;
    pub(super) const MOVE: u8 = 0xbf;
    pub(super) const MOVE_IMMEDIATE: u8 = 0xb7;
    pub(super) const ADD_IMMEDIATE: u8 = 0x07;
    pub(super) const IMMEDIATE_64: u8 = 0x18;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const JUMP_EQUAL: u8 = 0x1d;
    pub(super) const JUMP_NOT_EQUAL: u8 = 0x5d;
    pub(super) const JUMP_ZERO: u8 = 0x15;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// `BPF_FUNC_seq_write`
const SEQ_WRITE: i32 = 127;
/// Fields of `struct bpf_iter__task_file`: meta, task, fd, file, each aligned to 8.
const META: i16 = 0;
const TASK: i16 = 8;
const FD: i16 = 16;
const FILE: i16 = 24;
/// Where the entry lies on the stack.
const ENTRY: i16 = -(size_of::<FileEntry>() as i16);

/// A program with one place to jump to from anywhere: its end.
#[derive(Default)]
struct Assembler {
    program: Vec<Instruction>,
    to_end: Vec<usize>,
    to_found: Vec<usize>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.program.push(Instruction {
            code,
            registers: from << 4 | to,
            offset,
            immediate,
        });
    }

    fn load(&mut self, to: u8, from: u8, offset: i16) {
        self.push(code::LOAD_64, to, from, offset, 0);
    }

    fn constant(&mut self, to: u8, value: u64) {
        self.push(code::IMMEDIATE_64, to, 0, 0, value as u32 as i32);
        self.push(0, 0, 0, 0, (value >> 32) as u32 as i32);
    }

    /// Jumps from instruction `at` to the next one that is pushed.
    fn land(&mut self, from: &[usize]) {
        for at in from {
            // At most some 800 instructions.
            self.program[*at].offset = (self.program.len() - at - 1) as i16;
        }
    }

    fn jump_to_end(&mut self, code: u8, to: u8, from: u8) {
        self.to_end.push(self.program.len());
        self.push(code, to, from, 0, 0);
    }
}

/// Registers: 6 the context, 7 the file, 8 the task, 9 the inode number; 1 to 5 come and go.
fn assemble(types: &Types, inodes: &BTreeSet<u64>, show: Show) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.push(code::MOVE, 6, 1, 0, 0);
    // Both are null in the closing call.
    a.load(7, 6, FILE);
    a.jump_to_end(code::JUMP_ZERO, 7, 0);
    a.load(8, 6, TASK);
    a.jump_to_end(code::JUMP_ZERO, 8, 0);
    // Inode numbers of other file systems must not be taken for sockets.
    a.load(1, 7, types.f_inode);
    a.load(2, 1, types.i_sb);
    a.load(2, 2, types.s_magic);
    a.constant(3, SOCKFS_MAGIC);
    a.jump_to_end(code::JUMP_NOT_EQUAL, 2, 3);
    a.load(9, 1, types.i_ino);
    if inodes.len() <= COMPARED {
        for inode in inodes {
            a.constant(3, *inode);
            a.to_found.push(a.program.len());
            a.push(code::JUMP_EQUAL, 9, 3, 0, 0);
        }
        a.jump_to_end(code::JUMP, 0, 0);
    }
    let found = std::mem::take(&mut a.to_found);
    a.land(&found);
    let field = |offset: usize| ENTRY + offset as i16;
    a.push(code::LOAD_32, 1, 8, types.tgid, 0);
    a.push(code::STORE_32, 10, 1, field(offset_of!(FileEntry, pid)), 0);
    a.push(code::LOAD_32, 1, 6, FD, 0);
    a.push(code::STORE_32, 10, 1, field(offset_of!(FileEntry, fd)), 0);
    a.push(code::STORE_64, 10, 9, field(offset_of!(FileEntry, inode)), 0);
    match show {
        Show::Start => {
            a.load(1, 8, types.group_leader);
            a.load(1, 1, types.start);
        }
        Show::References(offset) => a.load(1, 7, offset),
    }
    a.push(code::STORE_64, 10, 1, field(offset_of!(FileEntry, start)), 0);
    // bpf_seq_write(meta->seq, &entry, sizeof entry). Where it finds no room the kernel shows the same file again.
    a.load(1, 6, META);
    a.load(1, 1, 0);
    a.push(code::MOVE, 2, 10, 0, 0);
    a.push(code::ADD_IMMEDIATE, 2, 0, 0, i32::from(ENTRY));
    a.push(code::MOVE_IMMEDIATE, 3, 0, 0, size_of::<FileEntry>() as i32);
    a.push(code::CALL, 0, 0, 0, SEQ_WRITE);
    let end = std::mem::take(&mut a.to_end);
    a.land(&end);
    a.push(code::MOVE_IMMEDIATE, 0, 0, 0, 0);
    a.push(code::EXIT, 0, 0, 0, 0);
    a.program
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_ITER_CREATE: i32 = 33;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr` as `BPF_PROG_LOAD` takes it, up to the last field that is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    btf: u32,
    function_info_size: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

/// As `BPF_LINK_CREATE` takes it for an iterator.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_size: u32,
    unused: u32,
}

/// As `BPF_ITER_CREATE` takes it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

const _: () = assert!(offset_of!(ProgramLoad, attach_btf_id) == 108);
const _: () = assert!(offset_of!(LinkCreate, info) == 16);

/// `union bpf_iter_link_info` for one process.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct OfTask {
    thread: u32,
    process: u32,
    pidfd: u32,
}

fn run(
    target: u32,
    program: &[Instruction],
    of: Option<u32>,
    bytes: &mut Vec<u8>,
) -> Result<(), TaskFilesError> {
    let task = of.map(|pid| OfTask {
        thread: pid,
        process: 0,
        pidfd: 0,
    });
    let license = c"Dual MIT/GPL";
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"probe_holders");
    let program = bpf(
        "load",
        BPF_PROG_LOAD,
        &ProgramLoad {
            kind: BPF_PROG_TYPE_TRACING,
            instruction_count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name,
            interface: 0,
            expected_attach_type: BPF_TRACE_ITER,
            btf: 0,
            function_info_size: 0,
            function_info: 0,
            function_info_count: 0,
            line_info_size: 0,
            line_info: 0,
            line_info_count: 0,
            attach_btf_id: target,
        },
    )?;
    let link = bpf(
        "link",
        BPF_LINK_CREATE,
        &LinkCreate {
            program: program.as_raw_fd() as u32,
            target: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            info: task.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
            info_size: task.as_ref().map_or(0, |_| size_of::<OfTask>() as u32),
            unused: 0,
        },
    )?;
    let iterator = bpf(
        "create",
        BPF_ITER_CREATE,
        &IterCreate {
            link: link.as_raw_fd() as u32,
            flags: 0,
        },
    )?;
    read_all(File::from(iterator), bytes).map_err(TaskFilesError::Broken)
}

fn read_all(mut from: File, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let end = bytes.len();
        bytes.resize(end + CHUNK, 0);
        let read = from.read(&mut bytes[end..]);
        bytes.truncate(end + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) if bytes.len() > LIMIT => {
                return Err(io::Error::other(format!("it gave more than {LIMIT} bytes")));
            }
            Ok(_) => {}
            // EAGAIN: the kernel has looked at a million objects that were not wanted, and lets others run.
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
}

fn bpf<T: IntoBytes + Immutable>(
    step: &'static str,
    command: i32,
    attributes: &T,
) -> Result<OwnedFd, TaskFilesError> {
    let bytes = attributes.as_bytes();
    // SAFETY: the kernel reads `bytes.len()` bytes; the pointers in them lead to what the caller keeps alive.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_ptr(), bytes.len()) };
    if fd < 0 {
        return Err(TaskFilesError::Refused {
            step,
            source: io::Error::last_os_error(),
        });
    }
    // SAFETY: each of these commands returns a new descriptor (with O_CLOEXEC) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use super::*;
    use crate::sources::{
        process,
        testing::{Child, alone},
    };

    fn inode(socket: &impl std::os::fd::AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    fn ask(inodes: &BTreeSet<u64>) -> Option<Vec<(u64, ProcId, i32)>> {
        match TaskFiles::default().holders(inodes) {
            Ok(found) => Some(found),
            Err(e) => {
                eprintln!("skipped: {e}");
                None
            }
        }
    }

    #[test]
    fn every_descriptor_of_every_holder_is_found() {
        let _alone = alone();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = socket.try_clone().unwrap();
        let child = Child::holding(|| ());
        let me = process::identity(std::process::id()).unwrap();
        let heir = process::identity(child.pid()).unwrap();
        let number = inode(&socket);
        let Some(mut found) = ask(&[number].into()) else {
            return;
        };
        found.sort_unstable();
        let mut expected = Vec::new();
        for id in [me, heir] {
            expected.extend([&socket, &second].map(|s| (number, id, s.as_raw_fd())));
        }
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn many_inodes_are_found_too_and_only_those() {
        let _alone = alone();
        let sockets: Vec<_> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let mut wanted: BTreeSet<u64> = sockets[..2].iter().map(inode).collect();
        let held = wanted.clone();
        // Numbers that no socket has: sockets get them from 1 up, within 32 bits.
        wanted.extend((0..COMPARED as u64).map(|n| u64::MAX - n));
        let Some(found) = ask(&wanted) else { return };
        let found: BTreeSet<u64> = found.into_iter().map(|(inode, ..)| inode).collect();
        assert_eq!(found, held);
    }

    #[test]
    fn an_inode_of_another_file_system_is_no_socket() {
        let _alone = alone();
        let file = File::open("/proc/self/exe").unwrap();
        let Some(found) = ask(&[inode(&file)].into()) else {
            return;
        };
        assert!(found.iter().all(|(.., fd)| *fd != file.as_raw_fd()), "{found:?}");
    }

    #[test]
    fn each_descriptor_of_each_process_is_one_reference() {
        let _alone = alone();
        let mut files = TaskFiles::default();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (me, number) = (std::process::id(), inode(&socket));
        match files.references(me, number) {
            Ok(one) => assert_eq!(one, 1),
            Err(e) => return eprintln!("skipped: {e}"),
        }
        let second = socket.try_clone().unwrap();
        assert_eq!(files.references(me, number).unwrap(), 2);
        let child = Child::holding(|| ());
        assert_eq!(files.references(me, number).unwrap(), 4);
        assert_eq!(files.references(child.pid(), number).unwrap(), 4);
        drop(child);
        drop(second);
        assert_eq!(files.references(me, number).unwrap(), 1);
        // One that waits in a message is held by nobody.
        let (one, other) = UnixStream::pair().unwrap();
        let fds = [socket.as_raw_fd()];
        let message = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        nix::sys::socket::sendmsg::<()>(
            one.as_raw_fd(),
            &[io::IoSlice::new(b"x")],
            &message,
            nix::sys::socket::MsgFlags::empty(),
            None,
        )
        .unwrap();
        assert_eq!(files.references(me, number).unwrap(), 2);
        drop((one, other));
        drop(socket);
        assert!(files.references(me, number).is_err());
    }
}
