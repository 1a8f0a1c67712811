//! The directory on bpffs, held by one daemon.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs, statfs};
use probe_abi::ABI_VERSION;

/// Why nothing can be pinned, or what is pinned cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error(
        "{} lies on no bpffs; mount one with: mount -t bpf bpf /sys/fs/bpf",
        path.display()
    )]
    NoBpffs { path: PathBuf },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is {found}; expected a directory that only this user can change", path.display())]
    Foreign { path: PathBuf, found: String },
    #[error(
        "another probe daemon uses what is pinned in {}; stop it first, or name another `pin_dir` in [probe]",
        path.display()
    )]
    Taken { path: PathBuf },
    #[error("the pinned map {map} has the {what} {found}, and {expected} is expected")]
    Unfit {
        map: &'static str,
        what: &'static str,
        found: u32,
        expected: u32,
    },
    #[error("the pinned map {map} cannot be opened: {error}")]
    Map { map: &'static str, error: String },
}

/// A directory of pins: what one build of probe has left, or will leave.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation {
    /// The version of the records.
    pub(super) abi: u32,
    /// Of everything else that makes programs and maps fit each other.
    pub(super) digest: u64,
}

impl Generation {
    /// `parts`: the object, and what it is loaded with.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        // FNV-1a: nobody has to be kept from making a collision, and it is the same in every build.
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        for part in parts {
            for byte in part.iter().chain(&[0]) {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        Self {
            abi: ABI_VERSION,
            digest,
        }
    }

    pub(super) fn name(&self) -> String {
        format!("v{}-{:016x}", self.abi, self.digest)
    }

    fn parse(name: &str) -> Option<Self> {
        let (abi, digest) = name.strip_prefix('v')?.split_once('-')?;
        let parsed = Self {
            abi: abi.parse().ok()?,
            digest: u64::from_str_radix(digest, 16).ok()?,
        };
        (parsed.name() == name).then_some(parsed)
    }
}

/// The directory of all generations, locked: a ring buffer has one reader.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it where it is absent, and takes the lock.
    pub(super) fn make(path: &Path) -> Result<Self, PinError> {
        let io = |error| PinError::Io {
            path: path.to_owned(),
            error,
        };
        // Where bpffs is not mounted, nothing must be made in what lies under it.
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let of = statfs(there).map_err(|e| io(e.into()))?;
        if of.filesystem_type() != BPF_FS_MAGIC {
            return Err(PinError::NoBpffs {
                path: path.to_owned(),
            });
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io)?;
        Self::open(path)?.ok_or_else(|| io(io::ErrorKind::NotFound.into()))
    }

    /// Takes the lock. `None`: there is no such directory.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, PinError> {
        let io = |error| PinError::Io {
            path: path.to_owned(),
            error,
        };
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let lock = match opened {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        if fstatfs(&lock).map_err(|e| io(e.into()))?.filesystem_type() != BPF_FS_MAGIC {
            return Err(PinError::NoBpffs {
                path: path.to_owned(),
            });
        }
        let found = lock.metadata().map_err(io)?;
        if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o022 != 0 {
            return Err(PinError::Foreign {
                path: path.to_owned(),
                found: format!(
                    "of user {} with the mode {:o}",
                    found.uid(),
                    found.mode() & 0o7777
                ),
            });
        }
        // SAFETY: the descriptor is open for as long as `lock` lives.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } < 0 {
            let e = io::Error::last_os_error();
            return Err(match e.raw_os_error() {
                Some(libc::EWOULDBLOCK) => PinError::Taken {
                    path: path.to_owned(),
                },
                _ => io(e),
            });
        }
        // Whoever removes it has the lock: by now another one may have the name.
        match fs::symlink_metadata(path) {
            Ok(now) if now.ino() == found.ino() && now.dev() == found.dev() => Ok(Some(Self {
                path: path.to_owned(),
                _lock: lock,
            })),
            _ => Err(PinError::Taken {
                path: path.to_owned(),
            }),
        }
    }

    /// Whether the name still leads here: bpffs can be unmounted.
    pub(super) fn is_there(&self) -> bool {
        let same = || {
            let (held, named) = (
                self._lock.metadata().ok()?,
                fs::symlink_metadata(&self.path).ok()?,
            );
            Some(held.ino() == named.ino() && held.dev() == named.dev())
        };
        same().unwrap_or(false)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn of(&self, generation: &Generation) -> PathBuf {
        self.path.join(generation.name())
    }

    /// What lies in it, in a fixed order. Other names are left alone.
    pub(super) fn generations(&self) -> Result<Vec<Generation>, PinError> {
        let io = |error| PinError::Io {
            path: self.path.clone(),
            error,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            found.extend(
                entry
                    .map_err(io)?
                    .file_name()
                    .to_str()
                    .and_then(Generation::parse),
            );
        }
        found.sort();
        Ok(found)
    }

    /// Removes a generation with all that is pinned in it, links first: nothing is to write into maps that nobody reads.
    pub(super) fn remove(&self, generation: &Generation) -> Result<usize, PinError> {
        let directory = self.of(generation);
        let mut removed = 0;
        for part in [directory.join(LINKS), directory.join(MAPS)] {
            removed += remove_pins(&part)?;
        }
        gone(fs::remove_dir(&directory)).map_err(|error| PinError::Io {
            path: directory,
            error,
        })?;
        Ok(removed)
    }

    /// Removes the directory itself, unless something else lies in it.
    pub(super) fn remove_if_empty(self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::debug!(%error, "{} stays", self.path.display());
        }
    }
}

pub(super) const LINKS: &str = "links";
pub(super) const MAPS: &str = "maps";

/// Removes all pins of a directory, and the directory.
pub(super) fn remove_pins(directory: &Path) -> Result<usize, PinError> {
    let io = |error| PinError::Io {
        path: directory.to_owned(),
        error,
    };
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(io)?,
    };
    let mut removed = 0;
    for entry in entries {
        fs::remove_file(entry.map_err(io)?.path()).map_err(io)?;
        removed += 1;
    }
    gone(fs::remove_dir(directory)).map_err(io)?;
    Ok(removed)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_has_one_name() {
        let one = Generation::of(&[b"object", b"auto"]);
        assert_eq!(Generation::parse(&one.name()), Some(one.clone()));
        assert_ne!(one, Generation::of(&[b"object", b"fentry"]));
        assert_ne!(
            Generation::of(&[b"ab", b"c"]),
            Generation::of(&[b"a", b"bc"]),
            "parts do not run together"
        );
        for name in [
            "v3",
            "v3-",
            "v3-1",
            "3-0000000000000001",
            "v03-0000000000000001",
            "maps",
        ] {
            assert_eq!(Generation::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_bpffs_is_refused_and_left_as_it_was() {
        let dir = crate::sources::testing::TempDir::new("pins");
        let inside = dir.path().join("probe");
        assert!(matches!(Directory::make(&inside), Err(PinError::NoBpffs { .. })));
        assert!(!inside.exists());
    }
}
