//! What stays in the kernel while no daemon runs: maps and links, pinned on bpffs.
//!
//! Below the configured directory lies one directory for each *generation* of programs and maps that fit each other. A daemon
//! goes on with the generation that it would make itself, where its predecessor has left that: nothing is loaded anew, the
//! programs never stop, and the ring buffer knows how far it was read. What another build has left is drained and removed by
//! [`predecessor`].

mod directory;
mod object;
mod predecessor;

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::MapInfo,
    programs::links::{FdLink, PinnedLink},
};
use aya_obj::Object;

use self::directory::{Directory, Generation, LINKS, MAPS};
pub(super) use self::predecessor::Open;
pub use self::{directory::PinError, predecessor::Predecessor};

/// The maps that the next daemon needs. What only programs use lives as long as they do.
const KEPT: [&str; 14] = [
    "EVENTS",
    "LOST",
    "RECORDS",
    "CROWDED",
    "TOLD",
    "SUPERVISED",
    "MEMBERS",
    "WANTED_EXE",
    "WANTED_UNIT",
    "WANTED_PORT",
    "WANTED_NAME",
    "PAST",
    "CHANGERS",
    "CONTROL",
];

/// Where to keep programs and maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinOptions {
    /// On bpffs.
    pub directory: PathBuf,
    /// `false`: what is pinned is taken over, and nothing is left pinned.
    pub keep: bool,
}

/// Removes everything that any daemon has left in a directory, and the directory. Gives how many pins there were.
///
/// # Errors
/// If a daemon uses it, or it is not probe's.
pub fn remove_all(path: &Path) -> Result<usize, PinError> {
    let Some(directory) = Directory::open(path)? else {
        return Ok(0);
    };
    let mut removed = 0;
    for generation in directory.generations()? {
        removed += directory.remove(&generation)?;
    }
    directory.remove_if_empty();
    Ok(removed)
}

/// The pins of this daemon.
pub(super) struct Pins {
    directory: Directory,
    generation: Generation,
    keep: bool,
    /// The maps and links of this generation were there already.
    adopted: bool,
    /// Why what was there could not be used.
    unfit: Option<PinError>,
    maps: BTreeMap<&'static str, OwnedFd>,
    /// Links by program.
    links: BTreeMap<&'static str, OwnedFd>,
    /// Links that the kernel refuses to pin, and why: they end with this process.
    unpinned: BTreeMap<&'static str, (FdLink, String)>,
}

impl Pins {
    /// Opens the directory for programs of this object. `None`: nothing is to be kept, and nothing was.
    pub(super) fn open(
        options: &PinOptions,
        object: &[u8],
        settings: &[&[u8]],
        sizes: &[(&str, u32)],
    ) -> Result<Option<Self>, PinError> {
        let directory = match options.keep {
            true => Directory::make(&options.directory)?,
            false => match Directory::open(&options.directory)? {
                Some(directory) => directory,
                None => return Ok(None),
            },
        };
        let parts: Vec<&[u8]> = [object].into_iter().chain(settings.iter().copied()).collect();
        let mut pins = Self {
            generation: Generation::of(&parts),
            directory,
            keep: options.keep,
            adopted: false,
            unfit: None,
            maps: BTreeMap::new(),
            links: BTreeMap::new(),
            unpinned: BTreeMap::new(),
        };
        if pins.parent(MAPS).exists() {
            match pins.check(object, sizes) {
                Ok(()) => pins.adopted = true,
                Err(unfit) => {
                    pins.directory.remove(&pins.generation)?;
                    pins.unfit = Some(unfit);
                }
            }
        }
        // Nothing is to be left, so what is new is not pinned at all.
        if pins.keep || pins.adopted {
            pins.make_parents()?;
        }
        Ok(Some(pins))
    }

    fn parent(&self, part: &str) -> PathBuf {
        self.directory.of(&self.generation).join(part)
    }

    fn make_parents(&self) -> Result<(), PinError> {
        for part in [MAPS, LINKS] {
            let path = self.parent(part);
            fs::create_dir_all(&path).map_err(|error| PinError::Io { path, error })?;
        }
        Ok(())
    }

    /// aya uses what is pinned as if it were what the object says, and would read and write beyond it where it is not.
    ///
    /// `sizes`: of maps that get another one than the object says.
    fn check(&self, object: &[u8], sizes: &[(&str, u32)]) -> Result<(), PinError> {
        let object = Object::parse(object).map_err(|e| PinError::Map {
            map: "EVENTS",
            error: e.to_string(),
        })?;
        for map in KEPT {
            let fail = |error: String| PinError::Map { map, error };
            let Some(expected) = object.maps.get(map) else {
                return Err(fail("the eBPF object has no such map".to_owned()));
            };
            let found = MapInfo::from_pin(self.parent(MAPS).join(map)).map_err(|e| fail(e.to_string()))?;
            let size = sizes.iter().find(|(of, _)| *of == map);
            let entries = match size {
                // As the loader rounds it.
                Some((_, bytes)) if map == "EVENTS" => bytes.next_power_of_two().max(page_size()),
                Some((_, entries)) => *entries,
                None => expected.max_entries(),
            };
            let kind = found.map_type().map_err(|e| fail(e.to_string()))? as u32;
            for (what, found, expected) in [
                ("type", kind, expected.map_type()),
                ("key size", found.key_size(), expected.key_size()),
                ("value size", found.value_size(), expected.value_size()),
                ("size", found.max_entries(), entries),
            ] {
                if found != expected {
                    return Err(PinError::Unfit {
                        map,
                        what,
                        found,
                        expected,
                    });
                }
            }
        }
        Ok(())
    }

    /// Where the loader is to find or to pin each map. Empty: nowhere.
    pub(super) fn map_paths(&self) -> Vec<(&'static str, PathBuf)> {
        if !self.keep && !self.adopted {
            return Vec::new();
        }
        let parent = self.parent(MAPS);
        KEPT.iter().map(|map| (*map, parent.join(map))).collect()
    }

    /// To be called once the maps are loaded.
    pub(super) fn hold_maps(&mut self) -> Result<(), PinError> {
        for (map, path) in self.map_paths() {
            let held = object::get(&path).map_err(|e| PinError::Map {
                map,
                error: e.to_string(),
            })?;
            self.maps.insert(map, held);
        }
        Ok(())
    }

    /// Whether programs and maps of this generation were there already.
    pub(super) fn adopted(&self) -> bool {
        self.adopted
    }

    pub(super) fn unfit(&self) -> Option<&PinError> {
        self.unfit.as_ref()
    }

    /// Goes on with the link of a program that is attached already.
    pub(super) fn adopt_link(&mut self, program: &'static str) -> bool {
        if !self.adopted {
            return false;
        }
        match object::get(&self.parent(LINKS).join(program)) {
            Ok(link) => {
                self.links.insert(program, link);
                true
            }
            Err(error) => {
                tracing::debug!(program, %error, "no pinned link");
                false
            }
        }
    }

    /// Keeps a link. `false`: the kernel has refused to pin it, and it is gone; [`Self::hold_link`] another one.
    pub(super) fn pin_link(&mut self, program: &'static str, link: FdLink) -> Result<(), String> {
        if !self.keep {
            self.hold_link(program, link, "nothing is to be kept".to_owned());
            return Ok(());
        }
        let path = self.parent(LINKS).join(program);
        link.pin(&path).map_err(|e| e.to_string())?;
        let held = object::get(&path).map_err(|e| e.to_string())?;
        self.links.insert(program, held);
        Ok(())
    }

    /// Keeps a link for as long as this process lives.
    pub(super) fn hold_link(&mut self, program: &'static str, link: FdLink, why: String) {
        self.unpinned.insert(program, (link, why));
    }

    /// Programs that end with this process, and why.
    pub(super) fn unpinned(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.unpinned
            .iter()
            .map(|(program, (_, why))| (*program, why.as_str()))
    }

    /// Removes links that are in nobody's plan any more; and everything, where nothing is to be kept.
    pub(super) fn tidy(&mut self) -> Result<(), PinError> {
        if !self.keep {
            // The descriptors keep what is attached until this process ends.
            self.directory.remove(&self.generation)?;
            return Ok(());
        }
        let parent = self.parent(LINKS);
        let io = |error| PinError::Io {
            path: parent.clone(),
            error,
        };
        for entry in fs::read_dir(&parent).map_err(io)? {
            let entry = entry.map_err(io)?;
            if !self.links.keys().any(|program| entry.file_name() == *program) {
                fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        Ok(())
    }

    /// The programs of the links that are pinned, by name.
    pub(super) fn programs(&self) -> Vec<(&'static str, OwnedFd)> {
        let parent = self.parent(LINKS);
        let of = |name: &'static str| {
            let link = FdLink::from(PinnedLink::from_pin(parent.join(name)).ok()?);
            let id = link.info().ok()?.program_id();
            Some((name, object::program(id).ok()?))
        };
        self.links.keys().filter_map(|name| of(name)).collect()
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn keeps(&self) -> bool {
        self.keep
    }

    /// Makes sure that everything is pinned: bpffs can be unmounted and mounted again. `true`: something had to be pinned anew.
    pub(super) fn renew(&mut self) -> Result<bool, PinError> {
        if !self.keep {
            return Ok(false);
        }
        if !self.directory.is_there() {
            self.directory = Directory::make(self.directory.path())?;
        }
        let mut renewed = false;
        self.make_parents()?;
        for (part, objects) in [(MAPS, &self.maps), (LINKS, &self.links)] {
            let parent = self.parent(part);
            for (name, held) in objects {
                let path = parent.join(name);
                if !path.exists() {
                    object::pin(held.as_fd(), &path).map_err(|error| PinError::Io { path, error })?;
                    renewed = true;
                }
            }
        }
        Ok(renewed)
    }
}

fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(4096)
}
