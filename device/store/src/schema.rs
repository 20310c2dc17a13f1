//! The tables, described once. A change of shape is a new step in [`STEPS`], never an edit of an old one.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{OpenError, StoreError};

/// Every step takes the database from the format of its index to the next.
const STEPS: [&str; 1] = [FORMAT_1];

/// Newest format this code knows, kept in SQLite's `user_version`.
pub(crate) const FORMAT: i64 = STEPS.len() as i64;

/// Ids and hashes are BLOBs of fixed length. Cascades remove whatever hangs on a record with it.
///
/// - `records` and `embeddings`: the live set. A record without an embedding belongs to another space.
/// - `embeddings.crc`: CRC-32C over sample id and bytes.
/// - `notes`: local, never synced.
/// - `set_aside.reason`: 0 damaged, 1 contradiction. Columns as in `records` and `embeddings`, as they were found.
/// - `requests`: the last outcomes per client; `clients.used` orders clients by last use.
/// - `roles.role`: 0 active, 1 previous, 2 standby, 3 trial.
const FORMAT_1: &str = "
CREATE TABLE device (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    device_id BLOB NOT NULL,
    hardware_source TEXT,
    hardware_hash BLOB
) STRICT;
CREATE TABLE records (
    sample_id BLOB PRIMARY KEY,
    label TEXT NOT NULL,
    kind INTEGER NOT NULL,
    session BLOB NOT NULL,
    origin BLOB NOT NULL,
    digest BLOB NOT NULL,
    part INTEGER NOT NULL,
    part_0 INTEGER NOT NULL,
    part_1 INTEGER NOT NULL,
    part_2 INTEGER NOT NULL,
    part_3 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_digest ON records (digest);
CREATE TABLE embeddings (
    sample_id BLOB NOT NULL REFERENCES records ON DELETE CASCADE,
    space BLOB NOT NULL,
    bytes BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (sample_id, space)
) STRICT;
CREATE TABLE tombstones (
    sample_id BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE notes (
    sample_id BLOB PRIMARY KEY REFERENCES records ON DELETE CASCADE,
    stored_s INTEGER,
    source TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE set_aside (
    reason INTEGER NOT NULL,
    sample_id BLOB,
    label TEXT,
    kind INTEGER,
    session BLOB,
    origin BLOB,
    digest BLOB,
    part INTEGER,
    part_0 INTEGER,
    part_1 INTEGER,
    part_2 INTEGER,
    part_3 INTEGER,
    space BLOB,
    bytes BLOB,
    crc INTEGER,
    UNIQUE (sample_id, space, bytes)
) STRICT;
CREATE TABLE clients (
    client BLOB PRIMARY KEY,
    newest INTEGER NOT NULL,
    used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
    client BLOB NOT NULL REFERENCES clients ON DELETE CASCADE,
    request_id INTEGER NOT NULL,
    hash BLOB NOT NULL,
    response BLOB NOT NULL,
    PRIMARY KEY (client, request_id)
) STRICT;
CREATE TABLE bundles (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    space BLOB NOT NULL,
    embedding_len INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    exact INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE roles (
    role INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;
CREATE TABLE heads (
    space BLOB PRIMARY KEY,
    bytes BLOB NOT NULL,
    pushed INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
";

/// Brings a connection to durable settings and the newest format.
///
/// # Errors
/// [`OpenError::Newer`] for a database of a newer graft, which is left untouched.
pub(crate) fn prepare(connection: &mut Connection, dir: &Path) -> Result<(), OpenError> {
    let database = |error: rusqlite::Error| OpenError::Database { dir: dir.to_path_buf(), source: error.into() };
    // Before the first read: exclusive locking keeps the log's index in memory, one file less that a full disk or an odd
    // file system can spoil, and nobody but us opens the database anyway.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(database)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(database)?;
    if found > FORMAT {
        return Err(OpenError::Newer { dir: dir.to_path_buf(), found, known: FORMAT });
    }
    if found == 0 {
        // Before the first table, and only then: on an existing database this pragma writes.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(database)?;
    }
    settings(connection).map_err(database)?;
    // Writing nothing where nothing has changed lets a board with a full disk start.
    if found == FORMAT {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(database)?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step).map_err(database)?;
    }
    transaction.pragma_update(None, "user_version", FORMAT).map_err(database)?;
    transaction.commit().map_err(database)
}

/// The log stays near 1 MiB, what a reserve covers.
fn settings(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 128)?;
    connection.pragma_update(None, "journal_size_limit", 1 << 20)?;
    // Spilling to temporary files would fail on a full disk.
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Empties the write-ahead log, so that removed content is not kept in it, and gives free pages back to the system.
pub(crate) fn compact(connection: &Connection) -> Result<(), StoreError> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Gives free pages of the database back to the file system.
pub(crate) fn shrink(connection: &Connection) -> Result<(), StoreError> {
    {
        // One step moves one page; stepping to the end moves all.
        let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    compact(connection)
}
