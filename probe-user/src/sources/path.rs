//! What a path leads to, in terms that `unix_diag` and the kernel's records use too.
//!
//! `st_dev` is not always the device of the super block: overlayfs and btrfs subvolumes show another one. The mount
//! does know it: statx(2) tells the mount's id, and that mount's line in `/proc/PID/mountinfo` the device.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::fd::AsFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use procfs::process::MountInfo;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Statx, StatxFlags, statx};

use super::{
    process,
    root::{Root, Rooted},
};
use crate::{
    clock::{self, Nanos},
    event::{FileId, PathState},
};

/// Bytes of a file's name that the kernel's side tells, at most.
pub const NAME_BYTES: usize = probe_abi::NAME_LEN - 1;
/// Mounts remembered; a host with more forgets all and reads anew.
const CACHE: usize = 4096;
/// Most bytes of a mount table that are read.
const TABLE_BYTES: u64 = 8 << 20;

/// Mount id and `st_dev` to the super block's device. Mount ids are used again after an unmount; together with `st_dev`
/// a stale entry still tells the right device, as both then belong to the same file system.
static DEVICES: Mutex<BTreeMap<(u64, u32, u32), u32>> = Mutex::new(BTreeMap::new());

/// What tells two files of one name apart, even where the inode number was used again at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub state: PathState,
    /// `st_ctime` of the file, seconds and nanoseconds.
    pub changed: Option<(i64, u32)>,
}

impl Stamp {
    /// When a socket file was made or last changed. `None` for anything else.
    pub fn changed_on_boot_clock(&self) -> Option<Nanos> {
        let (seconds, nanos) = self
            .changed
            .filter(|_| matches!(self.state, PathState::Socket(_)))?;
        let wall = seconds.saturating_mul(1_000_000_000).saturating_add(nanos.into());
        Some(clock::since_boot(wall))
    }
}

/// What the last component of `path` is; it is not followed. The inode of a socket file is cut to 32 bits.
pub fn state(path: &Path) -> PathState {
    stamp(path).state
}

/// [`state`] with the file's change time.
pub fn stamp(path: &Path) -> Stamp {
    stamp_at(&Rooted::host(path))
}

/// [`stamp`] of a path that may be looked up from another root directory.
pub fn stamp_at(place: &Rooted) -> Stamp {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = match &place.root {
        Root::Host => {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            statx(CWD, &place.path, flags, mask).map_err(io::Error::from)
        }
        Root::Directory(_) | Root::Process(_) => place
            .open(OFlags::PATH)
            .and_then(|file| Ok(statx(&file, c"", AtFlags::EMPTY_PATH, mask)?)),
    };
    let found = match found {
        Ok(found) => found,
        Err(e) if is_absent(&e) => {
            return Stamp {
                state: PathState::Absent,
                changed: None,
            };
        }
        Err(e) => {
            return Stamp {
                state: PathState::Unknown(e.to_string()),
                changed: None,
            };
        }
    };
    stamp_from(&found, &place.root.mounts())
}

/// The [`Stamp`] of an open file, which `O_PATH` is enough for, and its whole inode number.
///
/// # Errors
/// Those of statx(2).
pub fn stamp_of(file: impl AsFd) -> io::Result<(Stamp, u64)> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = statx(file, c"", AtFlags::EMPTY_PATH, mask)?;
    Ok((stamp_from(&found, "self"), found.stx_ino))
}

fn stamp_from(found: &Statx, whose_mounts: &str) -> Stamp {
    let state = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Socket => {
            let FileId { dev, ino } = identify(found, whose_mounts);
            PathState::Socket(FileId {
                dev,
                ino: ino & 0xffff_ffff,
            })
        }
        FileType::RegularFile => PathState::Other("regular file".into()),
        FileType::Directory => PathState::Other("directory".into()),
        FileType::Symlink => PathState::Other("symbolic link".into()),
        FileType::Fifo => PathState::Other("fifo".into()),
        FileType::CharacterDevice => PathState::Other("character device".into()),
        FileType::BlockDevice => PathState::Other("block device".into()),
        FileType::Unknown => PathState::Other("unknown file".into()),
    };
    Stamp {
        state,
        changed: Some((found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec)),
    }
}

/// The file that `path` leads to, links followed, with its whole inode number.
///
/// # Errors
/// Those of statx(2).
pub fn file_id(path: &Path) -> io::Result<FileId> {
    file_id_in(path, "self")
}

/// The executable of a process. Its mount may exist in that process's mount namespace only.
///
/// # Errors
/// Those of statx(2): not found for kernel threads and for processes that have ended.
pub fn exe_id(pid: u32) -> io::Result<FileId> {
    file_id_in(Path::new(&format!("/proc/{pid}/exe")), &pid.to_string())
}

/// What a process sees under `path`: resolved below its root directory, in its mount namespace, absolute links too.
///
/// # Errors
/// Those of openat2(2) and statx(2).
pub fn file_id_seen_by(pid: u32, path: &Path) -> io::Result<FileId> {
    let id = process::identity(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    file_id_at(&Root::Process(id), path)
}

/// [`file_id`] of a path that is looked up from another root directory.
///
/// # Errors
/// Those of openat2(2) and statx(2).
pub fn file_id_at(root: &Root, path: &Path) -> io::Result<FileId> {
    let file = root.open(path, OFlags::PATH)?;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    Ok(identify(
        &statx(&file, c"", AtFlags::EMPTY_PATH, mask)?,
        &root.mounts(),
    ))
}

/// No such name; also not on the way there.
pub(super) fn is_absent(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn file_id_in(path: &Path, whose_mounts: &str) -> io::Result<FileId> {
    let found = statx(
        CWD,
        path,
        AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )?;
    Ok(identify(&found, whose_mounts))
}

fn identify(found: &Statx, whose_mounts: &str) -> FileId {
    FileId {
        dev: device(found, whose_mounts),
        ino: found.stx_ino,
    }
}

fn device(found: &Statx, whose_mounts: &str) -> u32 {
    let shown = encode(found.stx_dev_major, found.stx_dev_minor);
    // Before 5.8 there is no mount id: st_dev is the best there is.
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return shown;
    }
    let key = (found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor);
    if let Some(dev) = DEVICES.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return *dev;
    }
    // The mount is in this namespace, or in that of the process looked at, or was detached meanwhile.
    let dev = device_of_mount(key.0, "self").or_else(|| match whose_mounts {
        "self" => None,
        other => device_of_mount(key.0, other),
    });
    let Some(dev) = dev else { return shown };
    let mut cache = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= CACHE {
        cache.clear();
    }
    cache.insert(key, dev);
    dev
}

fn device_of_mount(id: u64, whose: &str) -> Option<u32> {
    let table = File::open(format!("/proc/{whose}/mountinfo")).ok()?;
    BufReader::new(table.take(TABLE_BYTES))
        .lines()
        .map_while(Result::ok)
        .find_map(|line| mount_line(&line).filter(|(mount, _)| *mount == id))
        .map(|(_, dev)| dev)
}

/// Mount id and device of a line of mountinfo: `41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw`. Line by line,
/// so that one that procfs does not understand hides no other.
pub(crate) fn mount_line(line: &str) -> Option<(u64, u32)> {
    let mount = MountInfo::from_line(line).ok()?;
    let (major, minor) = mount.majmin.split_once(':')?;
    let id = u64::try_from(mount.mnt_id).ok()?;
    Some((id, encode(major.parse().ok()?, minor.parse().ok()?)))
}

/// As the kernel keeps it (`MKDEV`), and as `unix_diag` shows it.
fn encode(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// Whether the file that holder `pid` would create under the path is the one that is meant: its view of the directory and
/// that of the path's root are the same. A daemon in a chroot or a container may use our names for other files.
pub fn shares_directory(pid: u32, place: &Rooted) -> bool {
    let Some(directory) = place.path.parent() else {
        return true;
    };
    let seen = file_id_seen_by(pid, directory);
    match (file_id_at(&place.root, directory), seen) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (Err(_), Ok(_)) | (Ok(_), Err(_)) => false,
        // Neither sees it: what remains is whether both look at the same tree.
        (Err(_), Err(_)) => match (
            fs::read_link(format!("/proc/{}/ns/mnt", place.root.mounts())),
            fs::read_link(format!("/proc/{pid}/ns/mnt")),
        ) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::MetadataExt, net::UnixListener};

    use super::*;
    use crate::sources::testing::TempDir;

    #[test]
    fn mount_lines() {
        assert_eq!(
            mount_line("41 31 0:38 / /a rw,relatime - cgroup2 cgroup2 rw"),
            Some((41, 38))
        );
        assert_eq!(
            mount_line("27 1 254:3 / / rw - ext4 /dev/vda rw"),
            Some((27, 254 << 20 | 3))
        );
        for line in ["", "x", "1", "1 2", "1 2 3", "1 2 a:b", "1 2 :", "-1 2 0:1"] {
            assert_eq!(mount_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn every_kind_of_file_has_a_name() {
        let dir = TempDir::new("path");
        let at = |name: &str| dir.path().join(name);
        let _listener = UnixListener::bind(at("s")).unwrap();
        fs::write(at("f"), "").unwrap();
        std::os::unix::fs::symlink("s", at("l")).unwrap();
        let ino = fs::metadata(at("s")).unwrap().ino();
        let PathState::Socket(id) = state(&at("s")) else {
            panic!("{:?}", state(&at("s")))
        };
        assert_eq!(id.ino, ino & 0xffff_ffff);
        assert_eq!(file_id(&at("l")).unwrap(), FileId { dev: id.dev, ino });
        assert_eq!(state(&at("f")), PathState::Other("regular file".into()));
        assert_eq!(state(&at("l")), PathState::Other("symbolic link".into()));
        assert_eq!(state(dir.path()), PathState::Other("directory".into()));
        assert_eq!(state(&at("none")), PathState::Absent);
        assert_eq!(state(&at("f/below")), PathState::Absent);
        assert!(matches!(state(&at(&"x".repeat(300))), PathState::Unknown(_)));
    }

    #[test]
    fn this_process_sees_its_own_directories() {
        let dir = TempDir::new("view");
        for name in ["x", "missing/x"] {
            let place = Rooted::host(&dir.path().join(name));
            assert!(shares_directory(std::process::id(), &place), "{name}");
        }
    }
}
