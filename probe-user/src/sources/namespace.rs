//! Network namespaces other than this process's. `sock_diag` lists the sockets of the namespace that the asking netlink
//! socket was made in, so one is made there, and closed again after the look: it would keep the namespace alive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{
    process,
    sock_diag::{Diag, UnixName, UnixSocket},
};
use crate::event::ProcId;

/// Namespaces looked into; a host with more gets no verdict on a path that none of these explains.
const NAMESPACES: usize = 256;

/// A network namespace.
#[derive(Debug)]
pub enum NetNamespace {
    /// This process's.
    Own,
    Other {
        /// Its number, as in `net:[4026531840]`.
        inode: u32,
        file: File,
    },
}

impl NetNamespace {
    /// Its inode number. `None`: this process's own can't be read.
    pub fn inode(&self) -> Option<u32> {
        match self {
            Self::Own => own(),
            Self::Other { inode, .. } => Some(*inode),
        }
    }
}

/// The inode number of this process's network namespace.
pub fn own() -> Option<u32> {
    // It is that of a thread, and no thread that stays ever changes it.
    static OWN: OnceLock<Option<u32>> = OnceLock::new();
    *OWN.get_or_init(|| inode(&open("/proc/self/ns/net".as_ref()).ok()?).ok())
}

/// The namespace that a file stands for, as those in `/run/netns` do.
///
/// # Errors
/// When the file is missing, or stands for no network namespace.
pub fn of_path(path: &Path) -> io::Result<NetNamespace> {
    let file = open(path)?;
    if rustix::fs::fstatfs(&file)?.f_type != NSFS_MAGIC {
        return Err(io::Error::other(
            "this file stands for no namespace; expected one as `ip netns add` makes",
        ));
    }
    known(file)
}

/// The namespace of a living process.
///
/// # Errors
/// When it has ended.
pub fn of_process(id: ProcId) -> io::Result<NetNamespace> {
    let file = open(format!("/proc/{}/ns/net", id.pid).as_ref())?;
    if process::identity(id.pid) == Some(id) {
        known(file)
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// `include/uapi/linux/magic.h`
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

fn known(file: File) -> io::Result<NetNamespace> {
    let inode = inode(&file)?;
    Ok(match own() {
        Some(own) if own == inode => NetNamespace::Own,
        _ => NetNamespace::Other { inode, file },
    })
}

fn open(path: &Path) -> io::Result<File> {
    // A fifo that was put there would be waited for.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    File::options().read(true).custom_flags(flags).open(path)
}

/// Numbers of namespaces have 32 bits in the kernel.
fn inode(file: &impl AsFd) -> io::Result<u32> {
    u32::try_from(rustix::fs::fstat(file)?.st_ino).map_err(io::Error::other)
}

/// Sockets bound to paths in every network namespace that some process lives in, except this one's.
///
/// # Errors
/// When not all of them could be looked into; what is wrong.
pub fn unix_elsewhere() -> Result<Vec<UnixSocket>, String> {
    let mut sockets = Vec::new();
    for link in others()? {
        // A namespace whose last process ended meanwhile has no holder left to speak of.
        let Ok(namespace) = File::open(&link) else {
            continue;
        };
        sockets.extend(list(namespace).map_err(|e| format!("the sockets behind {}: {e}", link.display()))?);
    }
    sockets.retain(|s| matches!(s.name, UnixName::Path(_)));
    Ok(sockets)
}

/// One `/proc/PID/ns/net` for each other namespace.
fn others() -> Result<Vec<PathBuf>, String> {
    let own = fs::read_link("/proc/self/ns/net").map_err(|e| format!("/proc/self/ns/net: {e}"))?;
    let mut found = BTreeMap::new();
    for pid in process::all_pids().map_err(|e| format!("/proc: {e}"))? {
        let link = PathBuf::from(format!("/proc/{pid}/ns/net"));
        // Gone, or a zombie: it holds no socket.
        let Ok(name) = fs::read_link(&link) else { continue };
        if name != own {
            found.entry(name).or_insert(link);
        }
    }
    if found.len() > NAMESPACES {
        return Err(format!(
            "{} network namespaces, more than {NAMESPACES}",
            found.len()
        ));
    }
    Ok(found.into_values().collect())
}

fn list(namespace: File) -> Result<Vec<UnixSocket>, String> {
    let mut diag = Diag::open_in(namespace).map_err(|e| e.to_string())?;
    let mut sockets = diag.unix().map_err(|e| e.to_string())?;
    sockets.extend(diag.unix_connected_datagram().map_err(|e| e.to_string())?);
    Ok(sockets)
}
