//! What must outlive us: which runs there are, who their children are, and how often they were restarted.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::{event::ProcId, tree::Handle};

/// Additive: each adds to what the ones before made, and none is ever changed. `user_version` counts them.
const MIGRATIONS: [&str; 2] = [
    "CREATE TABLE run (
        service TEXT PRIMARY KEY NOT NULL,
        identity TEXT NOT NULL,
        command TEXT NOT NULL,
        phase TEXT NOT NULL,
        boot TEXT,
        pid INTEGER,
        start_ticks INTEGER,
        pidfd_inode INTEGER,
        exit TEXT
    ) STRICT",
    "ALTER TABLE run ADD COLUMN restart_count INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE run ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE run ADD COLUMN started INTEGER NOT NULL DEFAULT 0",
];

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the directory {} can't be made: {source}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{}: {source}", .path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("{} was made by a later version of probe (schema {found}, known are up to {})", .path.display(), MIGRATIONS.len())]
    Later { path: PathBuf, found: usize },
    #[error("{} holds what this version cannot read: {problem}", .path.display())]
    Content { path: PathBuf, problem: String },
    #[error("this boot has no id: {0}")]
    Boot(io::Error),
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Cleaning up and starting, or between two starts. There is no child, or it has not been let go.
    Starting,
    Running,
    /// A stop was asked for.
    Stopping,
    /// It is over, in good order or for good.
    Ended,
}

/// What was asked for, so that it can be asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Bytes as they were given; most are text.
    pub argv: Vec<Argument>,
    pub directory: Option<Argument>,
    pub restart: Restart,
    #[serde(default, with = "maybe_span", skip_serializing_if = "Option::is_none")]
    pub limit: Option<Duration>,
    #[serde(default)]
    pub notify: bool,
    #[serde(default)]
    pub inherit_output: bool,
}

/// Text, or bytes that are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    Text(String),
    Bytes(Vec<u8>),
}

/// When a child that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    Never,
    OnFailure,
    Always,
}

/// A child, as it is known after we have forgotten everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    pub id: ProcId,
    /// See [`crate::tree::inode`].
    pub inode: Option<u64>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub service: String,
    /// The same for all its children, and for all of us who kept it.
    pub identity: String,
    pub command: Command,
    pub phase: Phase,
    /// Of this boot only: pids mean nothing in another one.
    pub child: Option<Recorded>,
    /// There was a first start.
    pub started: bool,
    /// Starts after the first.
    pub restart_count: u64,
    /// Failures in a row.
    pub failures: u32,
    /// How the last child ended, in words.
    pub exit: Option<String>,
}

/// `runs.db`.
#[derive(Debug)]
pub struct Runs {
    connection: Connection,
    path: PathBuf,
    boot: String,
}

impl Runs {
    /// # Errors
    /// When the directory can't be made, or the database is none or of a later version.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Directory { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
        let path = directory.join("runs.db");
        // Commands may hold secrets. SQLite gives its other files the same mode.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed(&path))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(StoreError::Boot)?;
        let connection = Connection::open(&path).map_err(|source| StoreError::Database {
            path: path.clone(),
            source,
        })?;
        let mut runs = Self {
            connection,
            path,
            boot: boot.trim().to_owned(),
        };
        runs.prepare()?;
        Ok(runs)
    }

    fn prepare(&mut self) -> Result<(), StoreError> {
        let fail = database(&self.path);
        self.connection
            .busy_timeout(Duration::from_secs(10))
            .map_err(&fail)?;
        let wal = self.connection.pragma_update(None, "journal_mode", "WAL");
        wal.map_err(&fail)?;
        self.connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(&fail)?;
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(&fail)?;
        let version: i64 = transaction
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(&fail)?;
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        let Some(todo) = MIGRATIONS.get(done..) else {
            return Err(StoreError::Later {
                path: self.path.clone(),
                found: done,
            });
        };
        for migration in todo {
            transaction.execute_batch(migration).map_err(&fail)?;
        }
        transaction
            .pragma_update(None, "user_version", MIGRATIONS.len() as i64)
            .map_err(&fail)?;
        transaction.commit().map_err(&fail)
    }

    /// # Errors
    /// When the database can't be read, or holds what this version does not know.
    pub fn get(&self, service: &str) -> Result<Option<Row>, StoreError> {
        let rows = self.read("WHERE service = ?1", params![service])?;
        Ok(rows.into_iter().next())
    }

    /// Every run that is not over, by name.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn unfinished(&self) -> Result<Vec<Row>, StoreError> {
        self.read("WHERE phase <> 'ended' ORDER BY service", params![])
    }

    fn read(&self, which: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Row>, StoreError> {
        let fail = database(&self.path);
        let sql = format!(
            "SELECT service, identity, command, phase, boot, pid, start_ticks, pidfd_inode, exit, restart_count, failures,
                started FROM run {which}"
        );
        let mut statement = self.connection.prepare(&sql).map_err(&fail)?;
        let mut rows = statement.query(values).map_err(&fail)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(&fail)? {
            found.push(self.row(row)?);
        }
        Ok(found)
    }

    fn row(&self, row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
        let fail = database(&self.path);
        let content = |problem: String| StoreError::Content {
            path: self.path.clone(),
            problem,
        };
        let get = |i: usize| row.get::<_, String>(i).map_err(&fail);
        let number = |i: usize| row.get::<_, Option<i64>>(i).map_err(&fail);
        let (service, identity, command, phase) = (get(0)?, get(1)?, get(2)?, get(3)?);
        let boot: Option<String> = row.get(4).map_err(&fail)?;
        let id = match (number(5)?, number(6)?) {
            (Some(pid), Some(start)) => u32::try_from(pid).ok().zip(Some(start.cast_unsigned())),
            _ => None,
        };
        let inode = number(7)?.map(i64::cast_unsigned);
        let child = id.filter(|_| boot.as_ref() == Some(&self.boot));
        Ok(Row {
            command: serde_json::from_str(&command)
                .map_err(|e| content(format!("the command of {service}: {e}")))?,
            phase: serde_json::from_value(phase.clone().into())
                .map_err(|_| content(format!("{service} is {phase:?}")))?,
            child: child.map(|(pid, start_ticks)| Recorded {
                id: ProcId { pid, start_ticks },
                inode,
            }),
            exit: row.get(8).map_err(&fail)?,
            restart_count: number(9)?.and_then(|n| n.try_into().ok()).unwrap_or(0),
            failures: number(10)?.and_then(|n| n.try_into().ok()).unwrap_or(0),
            started: number(11)?.is_some_and(|n| n != 0),
            service,
            identity,
        })
    }

    /// Writes a run down. It is on the disk when this returns.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put(&self, row: &Row) -> Result<(), StoreError> {
        let fail = database(&self.path);
        let content = |e: serde_json::Error| StoreError::Content {
            path: self.path.clone(),
            problem: e.to_string(),
        };
        let command = serde_json::to_string(&row.command).map_err(content)?;
        let phase = serde_json::to_value(row.phase).map_err(content)?;
        let child = row.child;
        self.connection
            .execute(
                "INSERT INTO run (service, identity, command, phase, boot, pid, start_ticks, pidfd_inode, exit,
                    restart_count, failures, started)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (service) DO UPDATE SET identity = ?2, command = ?3, phase = ?4, boot = ?5, pid = ?6,
                    start_ticks = ?7, pidfd_inode = ?8, exit = ?9, restart_count = ?10, failures = ?11,
                    started = ?12",
                params![
                    row.service,
                    row.identity,
                    command,
                    phase.as_str(),
                    child.map(|_| &self.boot),
                    child.map(|c| c.id.pid),
                    child.map(|c| c.id.start_ticks.cast_signed()),
                    child.and_then(|c| c.inode).map(u64::cast_signed),
                    row.exit,
                    row.restart_count.cast_signed(),
                    row.failures,
                    row.started,
                ],
            )
            .map(drop)
            .map_err(fail)
    }

    /// The child that a run had, if it lives.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub fn adopt(row: &Row) -> Result<Option<Handle>, crate::tree::OpenError> {
        let Some(recorded) = row.child else {
            return Ok(None);
        };
        let handle = Handle::open_as(recorded.id)?;
        // A pid can be given away anew within one tick of the clock; the kernel's own number cannot.
        Ok(handle.filter(|h| recorded.inode.is_none() || h.inode() == recorded.inode))
    }
}

impl Recorded {
    pub fn of(handle: &Handle) -> Self {
        Self {
            id: handle.id(),
            inode: handle.inode(),
        }
    }
}

fn database(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Database {
        path: path.clone(),
        source,
    }
}

mod maybe_span {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Duration;
    use crate::config::Span;

    pub(super) fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        d.map(Span).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Span>::deserialize(d)?.map(|s| s.0))
    }
}

impl From<&std::ffi::OsStr> for Argument {
    fn from(text: &std::ffi::OsStr) -> Self {
        match text.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(text.as_encoded_bytes().to_vec()),
        }
    }
}

impl From<&Argument> for std::ffi::OsString {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Text(text) => text.into(),
            Argument::Bytes(bytes) => std::os::unix::ffi::OsStringExt::from_vec(bytes.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::TempDir;

    fn row() -> Row {
        Row {
            service: "annad".into(),
            identity: "x".into(),
            command: Command {
                argv: vec![Argument::Text("a".into()), Argument::Bytes(vec![0xff])],
                directory: None,
                restart: Restart::Always,
                limit: Some(Duration::from_secs(3)),
                notify: false,
                inherit_output: false,
            },
            phase: Phase::Running,
            child: Some(Recorded {
                id: ProcId {
                    pid: 7,
                    start_ticks: u64::MAX,
                },
                inode: Some(u64::MAX),
            }),
            started: true,
            restart_count: 3,
            failures: 1,
            exit: Some("code 0".into()),
        }
    }

    #[test]
    fn what_was_written_is_read_by_the_next() {
        let dir = TempDir::new("runs");
        let mut row = row();
        Runs::open(dir.path()).unwrap().put(&row).unwrap();
        let mut runs = Runs::open(dir.path()).unwrap();
        assert_eq!(runs.get("annad").unwrap().unwrap(), row);
        assert_eq!(runs.unfinished().unwrap(), [row.clone()]);
        // In another boot the pid means nothing.
        runs.boot = "another".into();
        assert_eq!(runs.get("annad").unwrap().unwrap().child, None);
        row.phase = Phase::Ended;
        runs.put(&row).unwrap();
        assert_eq!(runs.unfinished().unwrap(), []);
        assert_eq!(runs.get("b").unwrap(), None);
    }

    #[test]
    fn an_old_database_is_brought_up_to_date() {
        let dir = TempDir::new("runs-old");
        let old = Connection::open(dir.path().join("runs.db")).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        let command = serde_json::to_string(&row().command).unwrap();
        let insert =
            "INSERT INTO run (service, identity, command, phase) VALUES ('annad', 'x', ?1, 'running')";
        old.execute(insert, [command]).unwrap();
        drop(old);
        let found = Runs::open(dir.path()).unwrap().get("annad").unwrap().unwrap();
        assert_eq!(
            (found.restart_count, found.failures, found.started, found.child),
            (0, 0, false, None)
        );
        let new = Connection::open(dir.path().join("runs.db")).unwrap();
        new.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(
            Runs::open(dir.path()),
            Err(StoreError::Later { found: 99, .. })
        ));
    }

    #[test]
    fn only_the_very_child_is_adopted() {
        let mut row = row();
        let me = Handle::open(std::process::id()).unwrap().unwrap();
        row.child = Some(Recorded::of(&me));
        assert_eq!(Runs::adopt(&row).unwrap().unwrap().id(), me.id());
        let child = row.child.as_mut().unwrap();
        child.id.start_ticks += 1;
        assert!(Runs::adopt(&row).unwrap().is_none());
        // Another one in the same tick.
        let child = row.child.as_mut().unwrap();
        child.id.start_ticks -= 1;
        child.inode = child.inode.map(|i| i + 1);
        assert_eq!(Runs::adopt(&row).unwrap().is_none(), me.inode().is_some());
    }
}
