//! The history: what happened to declared services, the lives of findings, and what must survive a restart of probe:
//! generations, silences, notifications that wait. One SQLite database in the state directory.
//!
//! A thread of its own writes. Whoever has something to be written hands it over and goes on: a slow, full or read-only
//! disk slows nobody, what can't be kept is counted, and writing goes on by itself once it can.

mod database;
pub mod exporter;
mod inbox;
mod migrations;
mod place;
mod read;
mod retention;
mod row;
mod write;
mod writer;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::Connection;

pub use self::{
    database::Notice,
    read::{Life, PAGE, Page, Query, Record},
    row::{Row, RowType, Turn},
};
use self::{
    place::Place,
    writer::{Shared, Writer},
};
use crate::{clock::Wall, config::Retention, event::ProcId, silence::Silence};

/// How long the start waits for the check of the database; a very large one on a slow disk goes on being checked.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Why the history can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}", path.display())]
    Files { path: PathBuf, source: io::Error },
    #[error("{} is {found}; expected one of this user's that nobody else can write to: remove it or name another `state_dir`", path.display())]
    Foreign { path: PathBuf, found: &'static str },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("too much waits to be written to the history already")]
    Full,
    #[error("the thread that writes the history cannot be started: {0}")]
    Thread(io::Error),
}

impl StoreError {
    fn database(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if database::is_damage(&source) {
            Self::Damaged {
                path,
                why: source.to_string(),
            }
        } else {
            Self::Database { path, source }
        }
    }
}

/// What is known of a service from before probe was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    pub generation: u64,
    /// The main process of that generation, if that was in this boot: where it still lives, the generation goes on.
    pub main: Option<ProcId>,
}

/// A notification of a hook that waits: for its time, or to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub key: String,
    pub due: Wall,
    /// JSON.
    pub payload: String,
}

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    pub services: BTreeMap<String, Remembered>,
    pub silences: Vec<Silence>,
    /// In the order of their times.
    pub pending: Vec<Pending>,
    pub notices: Vec<Notice>,
}

impl Loaded {
    fn read(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.services = read::remembered(db, boot())?.into_iter().collect();
        self.silences = read::silences(db)?;
        self.pending = read::pending(db)?;
        Ok(())
    }
}

/// Whether the history is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The database is being checked.
    Opening,
    Writing,
    /// It is tried again.
    Failing {
        since: Wall,
        why: String,
    },
}

/// How the history does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub health: Health,
    /// Lines written, and lines that never will be, since the start.
    pub written: u64,
    pub lost: u64,
    /// Attempts to write that failed, since the start.
    pub failures: u64,
    /// Lines that wait to be written.
    pub waiting: usize,
    /// Bytes of the database and its oldest line, at most a minute ago.
    pub bytes: u64,
    pub oldest: Option<Wall>,
}

/// The history. A clone means the same one.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    reader: Arc<Reader>,
}

impl Store {
    /// Begins to write in `dir`, which is made if what it lies in exists. A history that can't be written is no error but
    /// a [`Notice`]; writing begins once it can be.
    ///
    /// Waits until the database was checked, ten seconds at most.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(dir: &Path, retention: Retention) -> Result<(Self, Loaded), StoreError> {
        let shared = Shared::new(retention);
        let writer = Writer::new(Arc::clone(&shared), dir.to_owned());
        thread::Builder::new()
            .name("probe-history".into())
            .spawn(move || writer.run())
            .map_err(StoreError::Thread)?;
        shared.wait(OPEN_WITHIN, |s| s.loaded.is_some());
        let loaded = shared.lock().loaded.take().unwrap_or_else(|| Loaded {
            notices: vec![Notice::NotWriting {
                why: "the check of the database takes long".into(),
            }],
            ..Loaded::default()
        });
        let reader = Arc::new(Reader::new(dir));
        Ok((Self { shared, reader }, loaded))
    }

    /// Hands lines over to be written. Never waits.
    pub fn write(&self, rows: impl IntoIterator<Item = Row>) {
        self.shared
            .tell(|s| rows.into_iter().for_each(|r| s.inbox.push(r)));
    }

    /// Lines were missed before they could be handed over.
    pub fn missed(&self, count: u64) {
        self.shared.tell(|s| s.inbox.lose(count));
    }

    /// Keeps the generation of a service.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn remember(&self, service: &str, remembered: Remembered) -> Result<(), StoreError> {
        self.change(|c| {
            c.services.insert(service.to_owned(), remembered);
        })
    }

    /// Keeps a silence.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn put_silence(&self, silence: Silence) -> Result<(), StoreError> {
        self.change(|c| {
            c.silences.insert(silence.id, Some(silence));
        })
    }

    /// Forgets a silence that has ended.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn remove_silence(&self, id: u64) -> Result<(), StoreError> {
        self.change(|c| {
            c.silences.insert(id, None);
        })
    }

    /// Keeps a notification that waits, in the place of one with the same key.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn put_pending(&self, pending: Pending) -> Result<(), StoreError> {
        self.change(|c| {
            c.pending.insert(pending.key.clone(), Some(pending));
        })
    }

    /// Forgets a notification.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn remove_pending(&self, key: &str) -> Result<(), StoreError> {
        self.change(|c| {
            c.pending.insert(key.to_owned(), None);
        })
    }

    fn change(&self, change: impl FnOnce(&mut inbox::Changes)) -> Result<(), StoreError> {
        let taken = self.shared.tell(|s| s.inbox.change(change));
        taken.then_some(()).ok_or(StoreError::Full)
    }

    /// The configuration was read anew.
    pub fn retain(&self, retention: Retention) {
        self.shared.lock().retention = retention;
    }

    pub fn status(&self) -> Status {
        let s = self.shared.lock();
        Status {
            health: s.health.clone(),
            written: s.written,
            lost: s.inbox.lost_ever,
            failures: s.failures,
            waiting: s.inbox.len(),
            bytes: s.bytes,
            oldest: s.oldest,
        }
    }

    /// Waits until everything that was handed over so far is written. Blocks.
    ///
    /// Returns whether it is, after `limit` at the latest; at once where writing fails.
    pub fn flush(&self, limit: Duration) -> bool {
        let mark = self.shared.lock().inbox.mark();
        self.shared.wait(limit, |s| {
            s.written_to >= mark || matches!(s.health, Health::Failing { .. })
        });
        self.shared.lock().written_to >= mark
    }

    /// Writes what waits, closes the database and ends the thread. Blocks.
    ///
    /// Returns whether it has ended, after `limit` at the latest.
    pub fn close(&self, limit: Duration) -> bool {
        self.shared.tell(|s| s.stop = true);
        self.shared.wait(limit, |s| s.ended)
    }

    /// Some of the lines. Blocks.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn query(&self, query: &Query) -> Result<Page, StoreError> {
        self.reader.query(query)
    }

    /// The lives of findings, those that opened first first; `types`, `after` and `kinds` of events don't count. Blocks.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn lives(&self, query: &Query) -> Result<Vec<Life>, StoreError> {
        self.reader.lives(query)
    }
}

/// Reads a history, also one that nobody writes.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// One question at a time: each has a connection with its memory.
    turn: Mutex<()>,
}

impl Reader {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            turn: Mutex::new(()),
        }
    }

    /// Some of the lines. Blocks.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn query(&self, query: &Query) -> Result<Page, StoreError> {
        self.with(|db| read::lines(db, query))
    }

    /// The lives of findings. Blocks.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn lives(&self, query: &Query) -> Result<Vec<Life>, StoreError> {
        self.with(|db| read::lives(db, query))
    }

    fn with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::open_existing(&self.dir)?;
        let db = database::open_to_read(&place)?;
        f(&db).map_err(|e| StoreError::database(&place.database(), e))
    }
}

/// Changes with every boot; empty where that can't be read.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or(String::new(), |id| id.trim().to_owned())
    })
}

#[cfg(test)]
mod tests;
