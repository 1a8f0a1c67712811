//! Sockets of other network namespaces. `sock_diag` lists those of the asker's only, but a UNIX path is one name for all:
//! a service with a private network still answers behind its socket file.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns};

use super::{
    process,
    sock_diag::{Diag, UnixName, UnixSocket},
};

/// Namespaces looked into; a host with more gets no verdict on a path that none of these explains.
const NAMESPACES: usize = 256;

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

/// Lists in a thread of its own, since a namespace belongs to a thread and this one's must stay.
fn list(namespace: File) -> Result<Vec<UnixSocket>, String> {
    let work = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;
        let mut diag = Diag::open().map_err(|e| e.to_string())?;
        let mut sockets = diag.unix().map_err(|e| e.to_string())?;
        sockets.extend(diag.unix_connected_datagram().map_err(|e| e.to_string())?);
        Ok(sockets)
    };
    let thread = std::thread::Builder::new()
        .name("netns".into())
        .spawn(work)
        .map_err(|e| e.to_string())?;
    thread
        .join()
        .unwrap_or_else(|_| Err("the thread that listed them panicked".into()))
}
