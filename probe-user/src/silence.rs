//! Silences: for a while a service's findings open and show as ever, and hooks and heal rest.
//!
//! A silence ends at a moment of the wall clock, because it must survive a reboot, which the boot clock does not. Whoever
//! sets the wall clock moves the end.

use std::{collections::BTreeMap, time::Duration};

use crate::clock::Wall;

/// The longest that a service may be silenced; maintenance that has no end is a change of the configuration.
pub const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// How many there may be at once.
pub const MOST: usize = 4096;
/// Bytes of a reason.
pub const REASON: usize = 1000;

/// One silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Never used again.
    pub id: u64,
    pub service: String,
    pub since: Wall,
    /// It is over at this moment.
    pub until: Wall,
    pub reason: String,
    /// The user who asked for it.
    pub uid: Option<u32>,
}

/// Why there is no such silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    #[error("no service {0:?} is declared")]
    NoService(String),
    #[error("a silence lasts longer than no time and at most 365 days, not {}", humantime::format_duration(*.0))]
    Duration(Duration),
    #[error("a silence has a reason of at most {REASON} bytes, not {0}")]
    Reason(usize),
    #[error("there are {MOST} silences already; end some of them")]
    TooMany,
    #[error("there is no silence {0}")]
    Unknown(u64),
}

/// All silences. Pure: it is told the time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Silences {
    by_id: BTreeMap<u64, Silence>,
    last_id: u64,
}

impl Silences {
    /// Those that were kept.
    pub fn restore(kept: impl IntoIterator<Item = Silence>) -> Self {
        let by_id: BTreeMap<u64, Silence> = kept.into_iter().map(|s| (s.id, s)).collect();
        let last_id = by_id.last_key_value().map_or(0, |(id, _)| *id);
        Self { by_id, last_id }
    }

    /// Silences a declared service from `now` on.
    ///
    /// # Errors
    /// When it would last too long, has no reason, or there are too many.
    pub fn add(
        &mut self,
        service: &str,
        now: Wall,
        lasts: Duration,
        reason: &str,
        uid: Option<u32>,
    ) -> Result<&Silence, SilenceError> {
        if lasts.is_zero() || lasts > LONGEST {
            return Err(SilenceError::Duration(lasts));
        }
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > REASON {
            return Err(SilenceError::Reason(reason.len()));
        }
        if self.by_id.len() >= MOST {
            return Err(SilenceError::TooMany);
        }
        // After a restart, ids of silences that have ended meanwhile must not come again either: what somebody has noted
        // down would end another one. Microseconds outrun every counter.
        let by_time = u64::try_from(now.0 / 1000).unwrap_or(0);
        self.last_id = by_time.max(self.last_id + 1);
        let silence = Silence {
            id: self.last_id,
            service: service.to_owned(),
            since: now,
            until: now + lasts,
            reason: reason.to_owned(),
            uid,
        };
        Ok(self.by_id.entry(self.last_id).or_insert(silence))
    }

    /// Ends a silence before its time.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn end(&mut self, id: u64) -> Result<Silence, SilenceError> {
        self.by_id.remove(&id).ok_or(SilenceError::Unknown(id))
    }

    /// The silence of a service; of several the one that lasts longest.
    pub fn active(&self, service: &str, now: Wall) -> Option<&Silence> {
        self.by_id
            .values()
            .filter(|s| s.service == service && s.until > now)
            .max_by_key(|s| (s.until, s.id))
    }

    /// All that are not over.
    pub fn list(&self, now: Wall) -> impl Iterator<Item = &Silence> {
        self.by_id.values().filter(move |s| s.until > now)
    }

    /// When the next one ends.
    pub fn deadline(&self) -> Option<Wall> {
        self.by_id.values().map(|s| s.until).min()
    }

    /// Takes out those that are over.
    pub fn expire(&mut self, now: Wall) -> Vec<Silence> {
        self.by_id
            .extract_if(.., |_, s| s.until <= now)
            .map(|(_, s)| s)
            .collect()
    }
}

#[cfg(test)]
mod tests;
