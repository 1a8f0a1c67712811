//! One fanotify group with directory handles and names. nix sets it up; its reader drops the records that matter here,
//! so they are parsed here.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::sys::fanotify::{EventFFlags, InitFlags, MarkFlags, MaskFlags};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, byteorder::NativeEndian};

use super::{Change, Mark, Queued, What, file_name};
use crate::event::PathChange;

type U16 = zerocopy::U16<NativeEndian>;
type U32 = zerocopy::U32<NativeEndian>;
type U64 = zerocopy::U64<NativeEndian>;

const BUFFER: usize = 64 * 1024;
/// Most bytes of a file handle (`MAX_HANDLE_SZ`).
const HANDLE_BYTES: usize = 128;
/// Linux 6.5: a handle that only identifies, which every file system gives. The kind that fanotify reports.
const AT_HANDLE_FID: i32 = 0x200;

/// What a directory is: its file system and its file handle, which includes a generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle {
    file_system: [u8; 8],
    kind: u32,
    bytes: Vec<u8>,
}

pub(super) struct Fanotify {
    group: nix::sys::fanotify::Fanotify,
    mask: MaskFlags,
    buffer: Vec<u8>,
}

impl Fanotify {
    /// # Errors
    /// Where the kernel or a lack of `CAP_SYS_ADMIN` refuses it.
    pub(super) fn new() -> io::Result<Self> {
        // nix has no name for these two.
        let names = InitFlags::from_bits_retain(libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME);
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK | names;
        let group =
            nix::sys::fanotify::Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
        let mask = MaskFlags::FAN_CREATE
            | MaskFlags::FAN_DELETE
            | MaskFlags::FAN_RENAME
            | MaskFlags::FAN_DELETE_SELF
            | MaskFlags::FAN_MOVE_SELF
            | MaskFlags::FAN_ONDIR;
        Ok(Self {
            group,
            mask,
            buffer: vec![0; BUFFER],
        })
    }

    /// Marks a directory; doing so again changes nothing.
    ///
    /// # Errors
    /// Where its file system gives no handles, or the kernel refuses the mark.
    pub(super) fn mark(&mut self, directory: &File) -> io::Result<Handle> {
        let handle = handle_of(directory)?;
        let add = |mask| {
            self.group
                .mark(MarkFlags::FAN_MARK_ADD, mask, directory, None::<&CStr>)
        };
        match add(self.mask) {
            Ok(()) => Ok(handle),
            // FAN_RENAME came with Linux 5.17; before, a rename is two events.
            Err(nix::Error::EINVAL) if self.mask.contains(MaskFlags::FAN_RENAME) => {
                let older = self.mask.difference(MaskFlags::FAN_RENAME) | MaskFlags::FAN_MOVE;
                add(older)?;
                self.mask = older;
                Ok(handle)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Takes the mark away if `directory` still is what was marked.
    pub(super) fn unmark(&mut self, directory: &File, handle: &Handle) {
        if handle_of(directory).is_ok_and(|now| now == *handle) {
            let _ = self
                .group
                .mark(MarkFlags::FAN_MARK_REMOVE, self.mask, directory, None::<&CStr>);
        }
    }

    pub(super) fn drain(&mut self, f: &mut impl FnMut(Queued)) {
        while let Ok(length) = nix::unistd::read(&self.group, &mut self.buffer) {
            let whole = self.buffer.get(..length).unwrap_or_default();
            if whole.is_empty() {
                return;
            }
            if parse(whole, f).is_none() {
                // What could not be understood is lost.
                f(Queued::Overflow);
            }
        }
    }
}

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// `struct fanotify_event_metadata`
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Metadata {
    length: U32,
    version: u8,
    reserved: u8,
    metadata_length: U16,
    mask: U64,
    fd: U32,
    pid: U32,
}

/// `struct fanotify_event_info_header`, and of records with a file handle what follows: `__kernel_fsid_t` and the head of
/// `struct file_handle`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Info {
    kind: u8,
    pad: u8,
    length: U16,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fid {
    file_system: [u8; 8],
    handle_bytes: U32,
    handle_kind: U32,
}

/// Events of one read. `None` at the first that is malformed; what was before it has been reported.
pub(super) fn parse(mut bytes: &[u8], f: &mut impl FnMut(Queued)) -> Option<()> {
    while !bytes.is_empty() {
        let (metadata, _) = Metadata::ref_from_prefix(bytes).ok()?;
        let length = metadata.length.get() as usize;
        let head = usize::from(metadata.metadata_length.get());
        if metadata.version != libc::FANOTIFY_METADATA_VERSION || head < size_of::<Metadata>() {
            return None;
        }
        let records = bytes.get(head..length)?;
        let mask = metadata.mask.get();
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            f(Queued::Overflow);
        } else {
            // 0: a process outside of this pid namespace.
            let pid = Some(metadata.pid.get()).filter(|pid| *pid != 0);
            event(mask, pid, records, f)?;
        }
        bytes = bytes.get(length..)?;
    }
    Some(())
}

fn event(mask: u64, pid: Option<u32>, mut records: &[u8], f: &mut impl FnMut(Queued)) -> Option<()> {
    while !records.is_empty() {
        let (info, _) = Info::ref_from_prefix(records).ok()?;
        let length = usize::from(info.length.get());
        let body = records.get(size_of::<Info>()..length)?;
        records = records.get(length..)?;
        let renamed = match info.kind {
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => None,
            libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => Some(PathChange::RenamedAway),
            libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => Some(PathChange::RenamedTo),
            _ => continue,
        };
        let (fid, rest) = Fid::ref_from_prefix(body).ok()?;
        let (handle, name) = rest.split_at_checked(fid.handle_bytes.get() as usize)?;
        let handle = Handle {
            file_system: fid.file_system,
            kind: fid.handle_kind.get(),
            bytes: handle.to_vec(),
        };
        let mut tell = |what| {
            f(Queued::Change(Change {
                mark: Mark::Fanotify(handle.clone()),
                what,
                pid,
            }))
        };
        let Some(name) = file_name(name) else {
            // The name is `.`: the directory itself.
            if mask & libc::FAN_DELETE_SELF != 0 {
                tell(What::Gone);
            }
            if mask & libc::FAN_MOVE_SELF != 0 {
                tell(What::Moved);
            }
            continue;
        };
        match renamed {
            Some(change) => tell(What::Name(name, change)),
            // Merged events have several bits, in an order that nobody knows.
            None => {
                for (bit, change) in [
                    (libc::FAN_DELETE, PathChange::Removed),
                    (libc::FAN_MOVED_FROM, PathChange::RenamedAway),
                    (libc::FAN_CREATE, PathChange::Created),
                    (libc::FAN_MOVED_TO, PathChange::RenamedTo),
                ] {
                    if mask & bit != 0 {
                        tell(What::Name(name.clone(), change));
                    }
                }
            }
        }
    }
    Some(())
}

/// As name_to_handle_at(2) wants it.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_BYTES],
}

fn handle_of(directory: &File) -> io::Result<Handle> {
    let (bytes, kind) = match raw_handle(directory, AT_HANDLE_FID) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => raw_handle(directory, 0)?,
        other => other?,
    };
    let statfs = rustix::fs::fstatfs(directory)?;
    // SAFETY: the kernel's type of the id is two 32-bit words, whatever a library calls its members; both types have
    // 8 bytes, which transmute checks, and every bit pattern is a byte array.
    let file_system = unsafe { std::mem::transmute::<rustix::fs::Fsid, [u8; 8]>(statfs.f_fsid) };
    Ok(Handle {
        file_system,
        kind,
        bytes,
    })
}

fn raw_handle(directory: &File, flags: i32) -> io::Result<(Vec<u8>, u32)> {
    let mut raw = RawHandle {
        bytes: HANDLE_BYTES as u32,
        kind: 0,
        handle: [0; HANDLE_BYTES],
    };
    let mut mount = 0;
    // SAFETY: the path is a C string; `raw` has the layout of a file_handle with as many bytes behind it as it says.
    let result = unsafe {
        libc::name_to_handle_at(
            directory.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH | flags,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = raw.handle.get(..raw.bytes as usize).unwrap_or_default().to_vec();
    Ok((bytes, raw.kind as u32))
}
