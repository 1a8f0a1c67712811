//! Files that a process holds a lock on: `/proc/locks`, and which of its descriptors lead there.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
};

/// Descriptors that are compared with the locks.
const MOST_FDS: usize = 4096;
/// Paths that are told.
const MOST_LOCKS: usize = 16;

/// The paths, sorted. What can't be read is left out: locks are evidence, no verdict rests on them alone.
///
/// A flock belongs to an open file, and the kernel tells the process that took it, which may have passed it on.
pub(super) fn held_by(pid: u32) -> Vec<String> {
    some_of(pid, MOST_LOCKS)
}

/// So many of them at most.
fn some_of(pid: u32, most: usize) -> Vec<String> {
    let Ok(locks) = read("/proc/locks") else {
        return Vec::new();
    };
    let mine: BTreeSet<_> = locks
        .lines()
        .filter_map(holder)
        .filter(|(holder, _)| *holder == pid)
        .map(|(_, file)| file)
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
        if paths.len() == most {
            break;
        }
    }
    paths.into_iter().collect()
}

/// Reads in large pieces. The kernel goes on in its list by position: what is asked for bit by bit, while others lock and
/// unlock, misses lines.
fn read(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

/// Device and inode number, as `/proc/locks` prints them.
pub(super) type Locked = (u32, u32, u64);

/// Who holds the lock of a line, and on what. `None`: a line of one who waits (`1: -> FLOCK …`), whom procfs takes for a
/// holder too, of an open file description, which is no process's, or that can't be read.
pub(super) fn holder(line: &str) -> Option<(u32, Locked)> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? == "->" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok()?;
    let mut file = words.next()?.split(':');
    let major = u32::from_str_radix(file.next()?, 16).ok()?;
    let minor = u32::from_str_radix(file.next()?, 16).ok()?;
    Some((pid, (major, minor, file.next()?.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::TempDir;

    #[test]
    fn only_who_holds_a_lock_is_its_holder() {
        let file = (0xfe, 0, 10_010_749);
        let holds = "1: FLOCK  ADVISORY  WRITE 22024 fe:00:10010749 0 EOF";
        assert_eq!(holder(holds), Some((22024, file)));
        let posix = "12: POSIX  ADVISORY  WRITE 1279 fe:00:10010749 0 99";
        assert_eq!(holder(posix), Some((1279, file)));
        for other in [
            "1: -> FLOCK  ADVISORY  WRITE 22061 fe:00:10010749 0 EOF",
            "1:     -> FLOCK  ADVISORY  WRITE 22061 fe:00:10010749 0 EOF",
            "7: OFDLCK ADVISORY  READ  -1 00:06:1028 0 EOF",
            "8: POSIX *NOINODE* WRITE 9 <none>:0 0 EOF",
            "9: FLOCK",
            "",
        ] {
            assert_eq!(holder(other), None, "{other}");
        }
    }

    #[test]
    fn a_locked_file_is_named_until_it_is_unlocked() {
        let dir = TempDir::new("lock");
        let path = dir.path().join("d.lock");
        let file = File::create(&path).unwrap();
        let name = path.to_string_lossy().into_owned();
        // Other tests hold locks in this process, too: more than are told.
        let held = || some_of(std::process::id(), usize::MAX).contains(&name);
        assert!(!held());
        file.lock().unwrap();
        assert!(held());
        file.unlock().unwrap();
        assert!(!held());
    }
}
