//! Opening the database: for writing with a check of its integrity, or for reading only.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, migrations, place::Place};
use crate::clock::Wall;

/// How long a lock of another connection is waited for.
const BUSY: Duration = Duration::from_secs(1);

/// What an administrator should know about the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The database was damaged; the history begins anew.
    SetAside { as_path: PathBuf, why: String },
    /// A newer probe has worked with it.
    Newer { version: i64 },
    /// Nothing is written until that has changed; it is tried again.
    NotWriting { why: String },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside { as_path, why } => write!(
                f,
                "the history was damaged ({why}) and begins anew; what was there is now {}",
                as_path.display()
            ),
            Self::Newer { version } => write!(
                f,
                "the history was last written by a newer probe (version {version} of its tables, this one knows {})",
                migrations::VERSION
            ),
            Self::NotWriting { why } => write!(f, "the history is not written: {why}; it is tried again"),
        }
    }
}

/// Opens the database for writing. A damaged one is set aside, and a new one begun.
pub(super) fn open(place: &Place, now: Wall) -> Result<(Connection, Vec<Notice>), StoreError> {
    match try_open(place) {
        Err(StoreError::Damaged { why, .. }) => {
            let stamp = Timestamp::from_nanosecond(now.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
            let as_path = place.set_aside(&stamp.strftime("%Y%m%dT%H%M%S.%9fZ").to_string())?;
            let (db, mut notices) = try_open(place)?;
            notices.insert(0, Notice::SetAside { as_path, why });
            Ok((db, notices))
        }
        other => other,
    }
}

fn try_open(place: &Place) -> Result<(Connection, Vec<Notice>), StoreError> {
    place.prepare()?;
    let path = place.database();
    let wrap = |e| StoreError::database(&path, e);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut db = Connection::open_with_flags(&path, flags).map_err(wrap)?;
    let newer = set_up(&mut db).map_err(wrap)?;
    let check: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(wrap)?;
    if check != "ok" {
        return Err(StoreError::Damaged {
            path,
            why: check.lines().collect::<Vec<_>>().join("; "),
        });
    }
    let notices = newer.map(|version| Notice::Newer { version });
    Ok((db, notices.into_iter().collect()))
}

fn set_up(db: &mut Connection) -> rusqlite::Result<Option<i64>> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // KiB. Appending needs few pages.
    db.pragma_update(None, "cache_size", -1024)?;
    // Before the journal mode: that writes the first page.
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // Survives the end of probe at any moment; what must also survive that of the machine is written with FULL.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
    migrations::migrate(db)
}

/// Opens the database for reading, while somebody else may write to it.
pub(super) fn open_to_read(place: &Place) -> Result<Connection, StoreError> {
    place.check()?;
    let path = place.database();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let open = |name: PathBuf, flags| -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(name, flags)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "query_only", true)?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
        // The first access, which fails where the files beside the database can't be made.
        db.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0))?;
        Ok(db)
    };
    match open(path.clone(), flags) {
        Ok(db) => Ok(db),
        // On a read-only or full disk SQLite can't make them. Without a log there is nothing to be coordinated.
        Err(_) if place.is_settled() => {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            open(immutable(&path), flags).map_err(|e| StoreError::database(&path, e))
        }
        Err(e) => Err(StoreError::database(&path, e)),
    }
}

/// SQLite's name for a file that nobody writes to.
fn immutable(path: &std::path::Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/-_.".contains(b);
    let encode = |b: &u8| match plain(b) {
        true => char::from(*b).to_string(),
        false => format!("%{b:02X}"),
    };
    let path: String = path.as_os_str().as_bytes().iter().map(encode).collect();
    format!("file://{path}?immutable=1").into()
}

/// Whether a database says by this error that it is damaged.
pub(super) fn is_damage(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether it is about what is written, so that the same would fail again.
pub(super) fn is_of_content(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}
