//! What hooks keep over a restart of probe: what waits to be sent, and what was told and is still open.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// A small table, one entry for each hook and key. Called from a thread that may wait.
pub trait Pending: Send + Sync + std::fmt::Debug {
    /// Does all changes of a hook, or none.
    ///
    /// # Errors
    /// Why they could not be kept; the hook goes on without.
    fn change(&self, hook: &str, changes: &[Change]) -> Result<(), PendingError>;

    /// All entries, by hook and then by key.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn load(&self) -> Result<Vec<Entry>, PendingError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Takes the place of an entry of the same key.
    Put {
        key: String,
        body: String,
    },
    Remove {
        key: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub hook: String,
    pub key: String,
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot keep what waits for hooks: {reason}; it would be lost with a restart of probe")]
pub struct PendingError {
    pub reason: String,
}

/// Keeps as long as the process lives.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<(String, String), String>>);

impl Pending for InMemory {
    fn change(&self, hook: &str, changes: &[Change]) -> Result<(), PendingError> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Put { key, body } => {
                    entries.insert((hook.to_owned(), key.clone()), body.clone());
                }
                Change::Remove { key } => {
                    entries.remove(&(hook.to_owned(), key.clone()));
                }
            }
        }
        Ok(())
    }

    fn load(&self) -> Result<Vec<Entry>, PendingError> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = entries.iter().map(|((hook, key), body)| Entry {
            hook: hook.clone(),
            key: key.clone(),
            body: body.clone(),
        });
        Ok(all.collect())
    }
}

/// Maintenance that somebody declared: findings open and show, and hooks and heal rest.
pub trait Silences: Send + Sync + std::fmt::Debug {
    /// Until when the service is silenced, on the boot clock. `None`: it isn't.
    fn until(&self, service: &str) -> Option<crate::clock::Nanos>;
}

/// Nobody declared any.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSilences;

impl Silences for NoSilences {
    fn until(&self, _: &str) -> Option<crate::clock::Nanos> {
        None
    }
}
