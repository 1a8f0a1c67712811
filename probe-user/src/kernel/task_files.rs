//! Who holds some sockets, asked once and at once: a single iterator over open files, assembled here.
//!
//! Loading the whole object takes the better part of 100 ms: three readings of the kernel's types, two dozen programs. A
//! question that is asked once can't afford that. This program is the body of `iter_task_file` in `probe-ebpf`, with the
//! offsets and the wanted inodes as constants, so that it needs no map, no relocation and no second reading of the types.
//!
//! Another one tells how one socket of one process is. `sock_diag` walks through the host's whole table to find a socket by
//! its number; this looks at the files of who is known to hold it. It also tells how many references the open file has:
//! whoever knows as many descriptors of it knows all of them, and need not search.

mod assemble;
mod call;

use std::{
    collections::BTreeSet,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use probe_abi::FileEntry;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    btf::{Btf, BtfError},
    offsets::VMLINUX,
    vmlinux::Vmlinux,
};
use crate::{
    clock::Nanos,
    event::{FileId, ProcId, SocketId},
    sources::process,
};

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
    #[error("this kernel does not tell how a socket of a process is")]
    One,
    #[error("the process has no such socket open")]
    NotHeld,
}

impl TaskFilesError {
    /// Asked again, it may be answered: descriptors or memory were lacking.
    fn is_passing(&self) -> bool {
        match self {
            Self::Types(e) | Self::Broken(e) | Self::Refused { source: e, .. } => {
                matches!(
                    e.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
                )
            }
            _ => false,
        }
    }
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
    socket: Option<SocketTypes>,
}

/// What [`assemble::one`] must know besides; of a UNIX socket, some of it.
#[derive(Debug, Clone, Copy)]
struct SocketTypes {
    references: i16,
    private_data: i16,
    sk: i16,
    cookie: i16,
    kind: i16,
    state: i16,
    shutdown: i16,
    queue: i16,
    backlog: i16,
    /// Where UNIX sockets are a module, their type is not among those of the kernel.
    dentry: Option<i16>,
    d_inode: i16,
    s_dev: i16,
}

/// What [`assemble::one`] shows.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OneEntry {
    inode: u64,
    references: u64,
    cookie: u64,
    file_inode: u64,
    file_dev: u32,
    queue: u32,
    backlog: u32,
    kind: u16,
    state: u8,
    shutdown: u8,
}

/// [`assemble::one`], loaded for as long as anybody may ask.
#[derive(Debug)]
struct One {
    program: OwnedFd,
    wanted: OwnedFd,
    /// What the kernel's number of references says of a file that has none but the looker's; `None`: it can't be told.
    no_reference: Option<u64>,
}

/// A UNIX socket that a process has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldUnix {
    pub id: SocketId,
    /// `SOCK_STREAM` and so on.
    pub kind: i32,
    /// As the kernel numbers it.
    pub state: u8,
    /// Which directions are shut down, as the kernel numbers them.
    pub shutdown: u8,
    /// Connections that wait to be accepted, and how many may.
    pub queue: u32,
    pub backlog: u32,
    /// What it was bound to, with the lower 32 bits of its inode.
    pub file: Option<FileId>,
}

/// Asks the kernel who holds which socket, without loading anything else.
#[derive(Debug, Default)]
pub struct TaskFiles {
    types: Option<Types>,
    /// `Some(None)`: the kernel has refused it for good.
    one: Option<Option<One>>,
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
        let program = call::load(types.target, &assemble::holders(&types, inodes))?;
        Ok(entries::<FileEntry>(&program, None)?
            .into_iter()
            .filter(|e| inodes.contains(&e.inode))
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
        let one = self.one()?;
        let seen = one.ask(pid, inode)?.references;
        one.no_reference
            .and_then(|base| seen.checked_sub(base))
            .ok_or(TaskFilesError::One)
    }

    /// How a UNIX socket is that this process has open.
    ///
    /// # Errors
    /// As for [`Self::references`].
    pub fn unix(&mut self, pid: u32, inode: u64) -> Result<HeldUnix, TaskFilesError> {
        let entry = self.one()?.ask(pid, inode)?;
        let file = FileId {
            dev: entry.file_dev,
            ino: entry.file_inode & u64::from(u32::MAX),
        };
        Ok(HeldUnix {
            id: SocketId(entry.cookie),
            kind: entry.kind.into(),
            state: entry.state,
            shutdown: entry.shutdown,
            queue: entry.queue,
            backlog: entry.backlog,
            file: Some(file).filter(|f| f.ino != 0),
        })
    }

    fn one(&mut self) -> Result<&One, TaskFilesError> {
        if self.one.is_none() {
            match self.types().and_then(|types| One::load(&types)) {
                Ok(one) => self.one = Some(Some(one)),
                Err(e) if e.is_passing() => return Err(e),
                Err(e) => {
                    tracing::debug!("sockets are not looked at in the files of one process: {e}");
                    self.one = Some(None);
                }
            }
        }
        self.one
            .as_ref()
            .and_then(Option::as_ref)
            .ok_or(TaskFilesError::One)
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

impl One {
    fn load(types: &Types) -> Result<Self, TaskFilesError> {
        let socket = types.socket.as_ref().ok_or(TaskFilesError::One)?;
        let wanted = call::value()?;
        let program = assemble::one(types, socket, wanted.as_raw_fd());
        let mut one = Self {
            program: call::load(types.target, &program)?,
            wanted,
            no_reference: None,
        };
        one.no_reference = one.no_reference()?;
        Ok(one)
    }

    fn ask(&self, pid: u32, inode: u64) -> Result<OneEntry, TaskFilesError> {
        call::set(self.wanted.as_fd(), inode)?;
        let found = entries::<OneEntry>(&self.program, Some(pid))?;
        // Each of its descriptors shows the same socket.
        found
            .into_iter()
            .find(|e| e.inode == inode)
            .ok_or(TaskFilesError::NotHeld)
    }

    /// The kernel counts from one or from zero, and counts the iterator's own reference: a file whose references are known
    /// tells.
    fn no_reference(&self) -> Result<Option<u64>, TaskFilesError> {
        let open = || -> io::Result<_> {
            let (one, other) = UnixStream::pair()?;
            let inode = rustix::fs::fstat(&one)?.st_ino;
            Ok((one, other, inode))
        };
        let (one, _other, inode) = open().map_err(TaskFilesError::Broken)?;
        let pid = std::process::id();
        let single = self.ask(pid, inode)?.references;
        let _second = one.try_clone().map_err(TaskFilesError::Broken)?;
        let double = self.ask(pid, inode)?.references;
        Ok((double == single + 1).then(|| single.checked_sub(1)).flatten())
    }
}

/// `of`: only the files of this process.
fn entries<T: FromBytes + Immutable + KnownLayout>(
    program: &OwnedFd,
    of: Option<u32>,
) -> Result<Vec<T>, TaskFilesError> {
    let mut bytes = Vec::new();
    call::run(program.as_fd(), of, &mut bytes)?;
    let entries = bytes.chunks_exact(size_of::<T>());
    Ok(entries.filter_map(|e| T::read_from_bytes(e).ok()).collect())
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
            socket: SocketTypes::of(offset).ok(),
        })
    }
}

impl SocketTypes {
    fn of(
        offset: impl Fn(&'static str, &'static str) -> Result<i16, TaskFilesError>,
    ) -> Result<Self, TaskFilesError> {
        Ok(Self {
            // `f_ref` from 6.13.
            references: offset("file", "f_ref|f_count")?,
            private_data: offset("file", "private_data")?,
            sk: offset("socket", "sk")?,
            cookie: offset("sock", "__sk_common.skc_cookie")?,
            kind: offset("sock", "sk_type")?,
            state: offset("sock", "__sk_common.skc_state")?,
            shutdown: offset("sock", "sk_shutdown")?,
            queue: offset("sock", "sk_receive_queue.qlen")?,
            backlog: offset("sock", "sk_max_ack_backlog")?,
            dentry: offset("unix_sock", "path.dentry").ok(),
            d_inode: offset("dentry", "d_inode")?,
            s_dev: offset("super_block", "s_dev")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener, os::unix::net::UnixListener};

    use super::{assemble::COMPARED, *};
    use crate::sources::{
        process,
        sock_diag::Diag,
        testing::{Child, TempDir, alone},
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
    fn a_socket_is_shown_as_the_kernel_lists_it() {
        let _alone = alone();
        let directory = TempDir::new("held");
        let path = directory.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let _waits = UnixStream::connect(&path).unwrap();
        let number = inode(&listener);
        let listed = Diag::open().unwrap().unix().unwrap();
        let listed = listed.into_iter().find(|s| s.inode == number).unwrap();
        let mut files = TaskFiles::default();
        let held = match files.unix(std::process::id(), number) {
            Ok(held) => held,
            Err(e) => return eprintln!("skipped: {e}"),
        };
        assert_eq!(held.id, listed.id);
        assert_eq!((held.queue, held.backlog), (1, listed.backlog));
        assert_eq!(held.file, listed.file);
        assert!(held.file.is_some());
        assert_eq!((held.kind, held.state, held.shutdown), (libc::SOCK_STREAM, 10, 0));
        listener.accept().unwrap();
        nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        let held = files.unix(std::process::id(), number).unwrap();
        assert_eq!((held.queue, held.shutdown), (0, 3));
        drop(listener);
        let gone = files.unix(std::process::id(), number);
        assert!(matches!(gone, Err(TaskFilesError::NotHeld)), "{gone:?}");
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
