//! What hooks keep over a restart of probe, in the database of the history.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Health, Pending, Store};
use crate::{
    clock,
    hooks::pending::{self, Change, Entry, PendingError},
};

/// How long a change may take to reach the disk before it counts as not kept.
const KEPT_WITHIN: Duration = Duration::from_secs(2);

/// As it is on the disk, or will be: bounded by what hooks let wait.
#[derive(Debug, Default)]
pub(super) struct Mirror(Mutex<BTreeMap<(String, String), String>>);

/// Between the name of a hook and its key. It stands in no name, because those have no control characters.
const BETWEEN: char = '\u{1f}';

impl Mirror {
    pub(super) fn new(loaded: &[Pending]) -> Self {
        let entries = loaded.iter().filter_map(|p| {
            let (hook, key) = p.key.split_once(BETWEEN)?;
            Some(((hook.to_owned(), key.to_owned()), p.payload.clone()))
        });
        Self(Mutex::new(entries.collect()))
    }
}

impl pending::Pending for Store {
    fn change(&self, hook: &str, changes: &[Change]) -> Result<(), PendingError> {
        let failed = |reason: String| PendingError { reason };
        let name = |key: &str| format!("{hook}{BETWEEN}{key}");
        let now = clock::wall();
        let taken = self.change(|c| {
            for change in changes {
                match change {
                    Change::Put { key, body } => {
                        let key = name(key);
                        let pending = Pending {
                            key: key.clone(),
                            due: now,
                            payload: body.clone(),
                        };
                        c.pending.insert(key, Some(pending));
                    }
                    Change::Remove { key } => {
                        c.pending.insert(name(key), None);
                    }
                }
            }
        });
        taken.map_err(|e| failed(e.to_string()))?;
        let mut mirror = self.mirror.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Put { key, body } => {
                    mirror.insert((hook.to_owned(), key.clone()), body.clone());
                }
                Change::Remove { key } => {
                    mirror.remove(&(hook.to_owned(), key.clone()));
                }
            }
        }
        drop(mirror);
        if self.flush(KEPT_WITHIN) {
            return Ok(());
        }
        Err(failed(match self.status().health {
            Health::Failing { why, .. } => why,
            _ => format!("the disk has not taken it within {KEPT_WITHIN:?}"),
        }))
    }

    fn load(&self) -> Result<Vec<Entry>, PendingError> {
        let mirror = self.mirror.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |((hook, key), body): (&(String, String), &String)| Entry {
            hook: hook.clone(),
            key: key.clone(),
            body: body.clone(),
        };
        Ok(mirror.iter().map(entry).collect())
    }
}
