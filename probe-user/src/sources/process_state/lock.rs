//! Files that a process holds a lock on: `/proc/locks`, and which of its descriptors lead there.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt};

/// Descriptors that are compared with the locks.
const MOST_FDS: usize = 4096;
/// Paths that are told.
const MOST_LOCKS: usize = 16;

/// The paths, sorted. What can't be read is left out: locks are evidence, no verdict rests on them alone.
///
/// A flock belongs to an open file, and the kernel tells the process that took it, which may have passed it on.
pub(super) fn held_by(pid: u32) -> Vec<String> {
    let Ok(locks) = procfs::locks() else {
        return Vec::new();
    };
    let mine: BTreeSet<(u32, u32, u64)> = locks
        .into_iter()
        .filter(|l| l.pid == i32::try_from(pid).ok())
        .map(|l| (l.devmaj, l.devmin, l.inode))
        .collect();
    if mine.is_empty() {
        return Vec::new();
    }
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut paths = BTreeSet::new();
    for fd in fds.flatten().take(MOST_FDS) {
        // A lock can only stand on a file or directory: nothing that could hang is asked for its status.
        let Ok(target) = fs::read_link(fd.path()) else {
            continue;
        };
        if !target.starts_with("/") || target.starts_with("/dev") {
            continue;
        }
        let Ok(status) = fs::metadata(fd.path()) else {
            continue;
        };
        let device = (
            nix::sys::stat::major(status.dev()) as u32,
            nix::sys::stat::minor(status.dev()) as u32,
        );
        if mine.contains(&(device.0, device.1, status.ino())) {
            paths.insert(target.to_string_lossy().into_owned());
        }
        if paths.len() == MOST_LOCKS {
            break;
        }
    }
    paths.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sources::testing::TempDir;

    #[test]
    fn a_locked_file_is_named_until_it_is_unlocked() {
        let dir = TempDir::new("lock");
        let path = dir.path().join("d.lock");
        let file = File::create(&path).unwrap();
        let name = path.to_string_lossy().into_owned();
        assert!(!held_by(std::process::id()).contains(&name));
        file.lock().unwrap();
        assert!(held_by(std::process::id()).contains(&name));
        file.unlock().unwrap();
        assert!(!held_by(std::process::id()).contains(&name));
    }
}
