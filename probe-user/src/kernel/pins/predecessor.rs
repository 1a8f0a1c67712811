//! What a daemon of another build has left: its ring buffer is drained, the rest is removed.

use std::{thread, time::Duration};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use probe_abi::{ABI_VERSION, NameKey, RECORD_KINDS, Supervised};

use super::{
    Pins,
    directory::{LINKS, MAPS, PinError, remove_pins},
};
use crate::{
    clock::{self, Nanos},
    event::{Event, FileId},
    kernel::{
        decode::{decode, socket_file},
        maps::{Maps, source, source_key},
    },
};

/// Both generations have told what happened then, each with a time of its own: what is told twice does no harm.
const OVERLAP: Duration = Duration::from_millis(1);

/// What was left, as far as it can be used.
#[derive(Debug, Default)]
pub struct Predecessor {
    /// Its name, and why it was not gone on with.
    pub name: String,
    /// What its programs have told and nobody has read.
    pub(in crate::kernel) records: Vec<(Event, Option<FileId>)>,
    /// Records that its version of the ABI keeps this one from reading.
    pub unreadable: u64,
    /// What it has lost and told nobody, by source.
    pub(in crate::kernel) lost: Vec<(String, u64)>,
    /// From here on the new programs tell what happens.
    pub(in crate::kernel) until: Nanos,
}

impl Pins {
    /// Drains and removes every other generation. The programs of this one must be attached already, and what is in `maps` is
    /// made as it was: from then on nothing is missed.
    pub(in crate::kernel) fn predecessors(&self, maps: &mut Maps) -> Result<Vec<Predecessor>, PinError> {
        let mut all = Vec::new();
        for generation in self.directory.generations()? {
            if generation == self.generation {
                continue;
            }
            let path = self.directory.of(&generation);
            let mut left = Predecessor {
                name: generation.name(),
                ..Predecessor::default()
            };
            let readable = generation.abi == ABI_VERSION;
            let map = |name: &str| MapData::from_pin(path.join(MAPS).join(name));
            if readable && let Err(error) = hand_over(&map, maps) {
                tracing::warn!(%error, "which processes {} has followed is not known", left.name);
            }
            left.until = clock::now();
            remove_pins(&path.join(LINKS))?;
            match map("EVENTS").and_then(|ring| RingBuf::try_from(Map::RingBuf(ring))) {
                Ok(ring) => left.drain(ring, readable),
                Err(error) => {
                    tracing::warn!(%error, "the events that {} has left cannot be read", left.name);
                    left.unreadable += 1;
                }
            }
            if readable && let Err(error) = left.count(&map) {
                tracing::warn!(%error, "what {} has lost is not known", left.name);
                left.unreadable += 1;
            }
            self.directory.remove(&generation)?;
            all.push(left);
        }
        Ok(all)
    }
}

/// Opens a map of another generation by its name.
pub(in crate::kernel) type Open<'a> = dyn Fn(&str) -> Result<MapData, MapError> + 'a;

/// The processes that are followed.
fn hand_over(open: &Open<'_>, maps: &mut Maps) -> Result<(), MapError> {
    let followed: HashMap<MapData, u32, Supervised> = HashMap::try_from(Map::HashMap(open("SUPERVISED")?))?;
    for entry in followed.iter() {
        let (pid, value) = entry?;
        maps.inherit(pid, value)?;
    }
    // The configuration is told only later, and changes them then.
    maps.inherit_wanted(open)?;
    maps.inherit_members(open("MEMBERS")?)
}

impl Predecessor {
    fn drain(&mut self, mut ring: RingBuf<MapData>, readable: bool) {
        // The kernel lets go of a link a moment after its last pin is gone.
        let settled = self.until + OVERLAP * 2;
        loop {
            let last = clock::now() >= settled;
            while let Some(item) = ring.next() {
                match decode(&item) {
                    Ok(event) if readable => {
                        if event.at < self.until + OVERLAP {
                            self.records.push((event, socket_file(&item)));
                        }
                    }
                    _ => self.unreadable += 1,
                }
            }
            if last {
                return;
            }
            thread::sleep(OVERLAP);
        }
    }

    fn count(&mut self, open: &Open<'_>) -> Result<(), MapError> {
        let lost: PerCpuArray<MapData, u64> = PerCpuArray::try_from(Map::PerCpuArray(open("LOST")?))?;
        let told: HashMap<MapData, NameKey, u64> = HashMap::try_from(Map::HashMap(open("TOLD")?))?;
        for slot in 0..RECORD_KINDS {
            let name = source(slot);
            let all: u64 = lost.get(&slot, 0)?.iter().sum();
            let before = told.get(&source_key(&name), 0).unwrap_or(0);
            if all > before {
                self.lost.push((name, all - before));
            }
        }
        Ok(())
    }
}

impl Predecessor {
    /// How many records were waiting.
    pub fn records(&self) -> usize {
        self.records.len()
    }
}
