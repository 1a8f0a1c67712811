//! The silences of a running daemon: kept in the history, asked by the API, hooks and heal.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Notify;

use super::{Silence, SilenceError, Silences};
use crate::{
    api::types,
    clock::{self, Nanos, Wall},
    history::Store,
    hooks,
    stream::{Action, ActionKind, Outcome, Said, Stream},
};

/// The longest sleep until the next silence ends: the wall clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A clone is the same one.
#[derive(Debug, Clone)]
pub struct Book(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    silences: Mutex<Silences>,
    changed: Notify,
    store: Store,
    stream: Stream,
}

impl Book {
    /// With those that were kept. Whatever begins or ends is kept and said.
    pub fn new(kept: Vec<Silence>, store: Store, stream: Stream) -> Self {
        Self(Arc::new(Shared {
            silences: Mutex::new(Silences::restore(kept)),
            changed: Notify::new(),
            store,
            stream,
        }))
    }

    /// Silences a service, which must be a declared one.
    ///
    /// # Errors
    /// When it would last too long, has no reason, or there are too many.
    pub fn add(
        &self,
        service: &str,
        lasts: Duration,
        reason: &str,
        uid: Option<u32>,
    ) -> Result<Silence, SilenceError> {
        let silence = self
            .lock()
            .add(service, clock::wall(), lasts, reason, uid)?
            .clone();
        if let Err(e) = self.0.store.put_silence(silence.clone()) {
            tracing::warn!("silence {} will not survive a restart of probe: {e}", silence.id);
        }
        let until = rfc3339(silence.until);
        self.say(
            &silence,
            format!("{service} is silenced until {until}: {}", silence.reason),
        );
        self.0.changed.notify_one();
        Ok(silence)
    }

    /// Ends a silence before its time.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn end(&self, id: u64) -> Result<Silence, SilenceError> {
        let silence = self.lock().end(id)?;
        self.forget(&silence, "was ended");
        self.0.changed.notify_one();
        Ok(silence)
    }

    /// The silence of a service.
    pub fn active(&self, service: &str) -> Option<Silence> {
        self.lock().active(service, clock::wall()).cloned()
    }

    /// All that are not over, by id.
    pub fn list(&self) -> Vec<Silence> {
        self.lock().list(clock::wall()).cloned().collect()
    }

    /// Ends silences at their time. Sleeps while there is none.
    pub async fn run(self) {
        loop {
            let over = self.lock().expire(clock::wall());
            for silence in over {
                self.forget(&silence, "is over");
            }
            let next = self.lock().deadline();
            match next {
                Some(at) => {
                    let pause = at.since(clock::wall()).min(LOOK_AGAIN);
                    // Whichever comes first.
                    _ = tokio::time::timeout(pause, self.0.changed.notified()).await;
                }
                None => self.0.changed.notified().await,
            }
        }
    }

    fn forget(&self, silence: &Silence, how: &str) {
        if let Err(e) = self.0.store.remove_silence(silence.id) {
            tracing::warn!("silence {} may come again: {e}", silence.id);
        }
        self.say(silence, format!("the silence of {} {how}", silence.service));
    }

    fn say(&self, silence: &Silence, summary: String) {
        let facts = json!({"until": rfc3339(silence.until), "reason": silence.reason, "by_uid": silence.uid});
        self.0.stream.push(Said::Action(Box::new(Action {
            at: clock::now(),
            service: Some(silence.service.clone()),
            what: ActionKind::Silence,
            subject: Some(silence.id.to_string()),
            cause: None,
            outcome: Outcome::Ok,
            summary,
            facts: facts.as_object().cloned().unwrap_or_default(),
        })));
    }

    fn lock(&self) -> MutexGuard<'_, Silences> {
        self.0.silences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl hooks::pending::Silences for Book {
    fn until(&self, service: &str) -> Option<Nanos> {
        let silence = self.active(service)?;
        Some(clock::now() + silence.until.since(clock::wall()))
    }
}

impl From<&Silence> for types::Silence {
    fn from(s: &Silence) -> Self {
        Self {
            id: s.id,
            service: s.service.clone(),
            reason: s.reason.clone(),
            by_uid: s.uid,
            since: rfc3339(s.since),
            until: rfc3339(s.until),
        }
    }
}

fn rfc3339(at: Wall) -> String {
    let at = Timestamp::from_nanosecond(at.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.9}")
}
