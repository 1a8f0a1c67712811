//! The thread that writes. It sleeps until something is to be written; while that fails, what comes waits in the inbox and
//! it tries again, at first soon and then more seldom.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::Connection;

use super::{
    Health, Loaded, StoreError,
    database::{self, Notice},
    inbox::{Batch, Inbox},
    place::Place,
    read, retention, write,
};
use crate::{
    clock::{self, Wall},
    config::Retention,
};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the thread and everybody else look at.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something is to be done.
    work: Condvar,
    /// Something was done.
    done: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) inbox: Inbox,
    pub(super) health: Health,
    pub(super) retention: Retention,
    /// Everything up to here was written.
    pub(super) written_to: u64,
    /// Lines written.
    pub(super) written: u64,
    /// Attempts to write that failed.
    pub(super) failures: u64,
    /// Bytes of the database, and the oldest line, when that was last looked at.
    pub(super) bytes: u64,
    pub(super) oldest: Option<Wall>,
    /// What the first opening gave, until it is fetched.
    pub(super) loaded: Option<Loaded>,
    /// The inbox is empty and stays so: write and end.
    pub(super) stop: bool,
    pub(super) ended: bool,
    /// The thread sleeps until there is work. Otherwise it looks for itself, and is not woken for each line.
    idle: bool,
}

impl Shared {
    pub(super) fn new(retention: Retention) -> Arc<Self> {
        let mut inbox = Inbox::default();
        inbox.change(|c| c.abandon = true);
        Arc::new(Self {
            state: Mutex::new(State {
                inbox,
                health: Health::Opening,
                retention,
                written_to: 0,
                written: 0,
                failures: 0,
                bytes: 0,
                oldest: None,
                loaded: None,
                stop: false,
                ended: false,
                idle: false,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that the thread should look at.
    pub(super) fn tell<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let told = f(&mut state);
        let wake = state.idle || state.stop;
        state.idle = false;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        told
    }

    /// Waits until `is_so`, at most for so long; returns whether it is so.
    pub(super) fn wait(&self, limit: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let state = self.lock();
        let (state, _) = self
            .done
            .wait_timeout_while(state, limit, |s| !is_so(s))
            .unwrap_or_else(PoisonError::into_inner);
        is_so(&state)
    }

    fn report(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.lock());
        self.done.notify_all();
    }
}

/// The thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    dir: PathBuf,
    db: Option<Connection>,
    pause: Duration,
    /// Something failed: not before this pause is over.
    resting: bool,
    /// Since old lines were last looked for.
    trimmed: clock::Nanos,
    bytes_since: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, dir: PathBuf) -> Self {
        Self {
            shared,
            dir,
            db: None,
            pause: FIRST_PAUSE,
            resting: false,
            trimmed: clock::Nanos::ZERO,
            bytes_since: 0,
        }
    }

    pub(super) fn run(mut self) {
        let mut loaded = Loaded::default();
        if let Err(e) = self.open(&mut loaded) {
            loaded.notices.push(Notice::NotWriting { why: e.to_string() });
            self.load_read_only(&mut loaded);
            self.failed(&e);
        }
        self.shared.report(|s| s.loaded = Some(loaded));
        while let Some(batch) = self.next() {
            match self.write(&batch) {
                Ok(()) => self.succeeded(&batch),
                Err(e) => {
                    self.give_back(batch, &e);
                    self.failed(&e);
                }
            }
        }
        // Closing moves what stands in the log into the database.
        self.db = None;
        self.shared.report(|s| s.ended = true);
    }

    /// Waits for work. `None`: the end.
    fn next(&mut self) -> Option<Batch> {
        let mut state = self.shared.lock();
        if self.resting {
            // Only the wish to stop is worth more than the pause.
            let (s, _) = self
                .shared
                .work
                .wait_timeout_while(state, self.pause, |s| !s.stop)
                .unwrap_or_else(PoisonError::into_inner);
            state = s;
            self.resting = false;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            if state.stop {
                // One last attempt was made already.
                return None;
            }
        }
        while state.inbox.is_empty() && !state.stop {
            state.idle = true;
            state = self
                .shared
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        (!state.inbox.is_empty()).then(|| state.inbox.take())
    }

    fn open(&mut self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let place = Place::open(&self.dir)?;
        let (db, notices) = database::open(&place, clock::wall())?;
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        loaded.notices.extend(notices);
        let wrap = |e| StoreError::database(&place.database(), e);
        loaded.read(&db).map_err(wrap)?;
        self.db = Some(db);
        self.trim();
        Ok(())
    }

    /// What can't be written may still be read.
    fn load_read_only(&self, loaded: &mut Loaded) {
        let mut read = || {
            let place = Place::open(&self.dir)?;
            let db = database::open_to_read(&place)?;
            loaded
                .read(&db)
                .map_err(|e| StoreError::database(&place.database(), e))
        };
        if let Err(e) = read() {
            tracing::warn!("generations and silences are not known from before: {e}");
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if self.db.is_none() {
            self.open(&mut Loaded::default())?;
        }
        let Some(db) = &mut self.db else {
            return Ok(());
        };
        write::batch(db, batch, clock::wall())
            .map_err(|e| StoreError::database(&self.dir.join(super::place::DATABASE), e))
    }

    fn succeeded(&mut self, batch: &Batch) {
        self.pause = FIRST_PAUSE;
        self.bytes_since += batch.rows().map(|r| r.json.len() as u64).sum::<u64>();
        let due = clock::now().since(self.trimmed) >= retention::EVERY;
        let often = retention::every_bytes(self.shared.lock().retention);
        if due || self.bytes_since >= often {
            self.trim();
        }
        let mut was_failing = false;
        self.shared.report(|s| {
            was_failing = matches!(s.health, Health::Failing { .. });
            s.health = Health::Writing;
            s.written += batch.len() as u64;
            s.written_to = s.written_to.max(batch.mark);
        });
        if was_failing {
            tracing::info!(
                "the history is written again; {} lines of it are missing",
                batch.lost
            );
        }
    }

    fn give_back(&self, mut batch: Batch, e: &StoreError) {
        let inbox = &mut self.shared.lock().inbox;
        if matches!(e, StoreError::Database { source, .. } if database::is_of_content(source)) {
            inbox.lose(batch.len() as u64);
            batch.chunks.clear();
            batch.changes = super::inbox::Changes::default();
        }
        inbox.put_back(batch);
    }

    /// Closes the database, because the next attempt shall begin from the start: it may have been damaged or replaced.
    fn failed(&mut self, e: &StoreError) {
        self.db = None;
        self.resting = true;
        let why = e.to_string();
        let mut first = false;
        self.shared.report(|s| {
            s.failures += 1;
            first = !matches!(s.health, Health::Failing { .. });
            match &mut s.health {
                Health::Failing { why: w, .. } => *w = why.clone(),
                health => {
                    *health = Health::Failing {
                        since: clock::wall(),
                        why: why.clone(),
                    };
                }
            }
        });
        if first {
            tracing::error!("the history is not written: {why}; it is tried again");
        }
    }

    fn trim(&mut self) {
        let retention = self.shared.lock().retention;
        let Some(db) = &mut self.db else { return };
        // A failure shows again when something is written.
        if let Err(e) = retention::trim(db, retention, clock::wall()) {
            tracing::warn!("old lines of the history stay: {e}");
        }
        let (bytes, oldest) = (retention::used(db).unwrap_or(0), read::oldest(db).ok().flatten());
        self.shared.report(|s| {
            s.bytes = bytes;
            s.oldest = oldest;
        });
        self.trimmed = clock::now();
        self.bytes_since = 0;
    }
}
