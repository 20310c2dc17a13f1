//! The request log: why a host may repeat a request whose answer it did not get.
//!
//! The outcome of a request that changed something is recorded in the same transaction as the change. A repetition
//! finds it; the same id with another body, or an id from before the log, is refused and never executed.
//!
//! Ids count all requests of a client, reads as well, so the log covers the last [`REQUEST_LOG_LEN`] ids, not rows:
//! what lies behind can be told by comparing numbers, whatever was pruned.

use graft_wire::limits::REQUEST_LOG_LEN;
use graft_wire::{ClientId, Digest};
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::open::{Store, Tx};

/// Most clients remembered; the least recently used one is forgotten first.
pub const CLIENTS_MAX: u32 = 64;

/// What names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Run of the host tool.
    pub client: ClientId,
    /// Its number within the client.
    pub id: u64,
    /// BLAKE3 of the whole request.
    pub hash: Digest,
}

impl Store {
    /// The recorded response of a request that was executed before; `None` if it is new.
    ///
    /// # Errors
    /// [`StoreError::RequestReused`], [`StoreError::RequestTooOld`], [`StoreError::RequestId`]: refused.
    pub fn recorded(&self, key: &RequestKey) -> Result<Option<Vec<u8>>, StoreError> {
        recorded(&self.connection, key)
    }
}

impl Tx<'_> {
    /// Records the response of a request together with whatever else this transaction does.
    ///
    /// # Errors
    /// As [`Store::recorded`], so that a request can never be executed twice.
    pub fn record(&self, key: &RequestKey, response: &[u8]) -> Result<(), StoreError> {
        if recorded(&self.inner, key)?.is_some() {
            return Err(StoreError::RequestReused(key.id));
        }
        let id = signed(key.id)?;
        let client = key.client.0;
        self.inner
            .prepare_cached(
                "INSERT INTO clients VALUES (?1, ?2, (SELECT coalesce(max(used), 0) + 1 FROM clients))
                 ON CONFLICT (client) DO UPDATE SET newest = max(newest, excluded.newest), used = excluded.used",
            )?
            .execute(params![client, id])?;
        self.inner
            .prepare_cached("INSERT INTO requests VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![client, id, key.hash.0, response])?;
        self.inner
            .prepare_cached(
                "DELETE FROM requests WHERE client = ?1
                 AND request_id <= (SELECT newest FROM clients WHERE client = ?1) - ?2",
            )?
            .execute(params![client, REQUEST_LOG_LEN as i64])?;
        self.inner
            .prepare_cached(
                "DELETE FROM clients WHERE client NOT IN (SELECT client FROM clients ORDER BY used DESC LIMIT ?1)",
            )?
            .execute(params![CLIENTS_MAX])?;
        Ok(())
    }
}

fn recorded(connection: &Connection, key: &RequestKey) -> Result<Option<Vec<u8>>, StoreError> {
    let id = signed(key.id)?;
    let row: Option<(Vec<u8>, Vec<u8>)> = connection
        .prepare_cached("SELECT hash, response FROM requests WHERE client = ?1 AND request_id = ?2")?
        .query_row(params![key.client.0, id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((hash, response)) = row {
        return if hash == key.hash.0 { Ok(Some(response)) } else { Err(StoreError::RequestReused(key.id)) };
    }
    let newest: Option<i64> = connection
        .prepare_cached("SELECT newest FROM clients WHERE client = ?1")?
        .query_row(params![key.client.0], |row| row.get(0))
        .optional()?;
    let floor = newest.unwrap_or(0).unsigned_abs().saturating_sub(REQUEST_LOG_LEN);
    if key.id <= floor && newest.is_some() {
        return Err(StoreError::RequestTooOld { id: key.id, floor });
    }
    Ok(None)
}

fn signed(id: u64) -> Result<i64, StoreError> {
    i64::try_from(id).map_err(|_| StoreError::RequestId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::Options;
    use crate::test_dir::TestDir;

    fn key(client: u8, id: u64, body: u8) -> RequestKey {
        RequestKey { client: ClientId([client; 8]), id, hash: Digest([body; 32]) }
    }

    fn record(store: &mut Store, key: &RequestKey, response: &[u8]) -> Result<(), StoreError> {
        store.transaction(|tx| tx.record(key, response))
    }

    #[test]
    fn a_repetition_finds_its_answer_and_another_body_is_refused() {
        let dir = TestDir::new();
        let mut store = Store::open(dir.path(), &Options::default()).unwrap();
        assert_eq!(store.recorded(&key(1, 7, 1)).unwrap(), None);
        record(&mut store, &key(1, 7, 1), b"done").unwrap();
        assert_eq!(store.recorded(&key(1, 7, 1)).unwrap().unwrap(), b"done");
        assert_eq!(store.recorded(&key(2, 7, 1)).unwrap(), None);
        let error = store.recorded(&key(1, 7, 2)).unwrap_err();
        assert_eq!(error.to_string(), "request id 7 was used before with another body");
        assert!(matches!(record(&mut store, &key(1, 7, 1), b""), Err(StoreError::RequestReused(7))));
        drop(store);
        let store = Store::open(dir.path(), &Options::default()).unwrap();
        assert_eq!(store.recorded(&key(1, 7, 1)).unwrap().unwrap(), b"done");
    }

    #[test]
    fn ids_behind_the_log_are_refused() {
        let dir = TestDir::new();
        let mut store = Store::open(dir.path(), &Options::default()).unwrap();
        for id in [1, 2, REQUEST_LOG_LEN + 1] {
            record(&mut store, &key(1, id, 1), b"r").unwrap();
        }
        let error = store.recorded(&key(1, 1, 1)).unwrap_err();
        assert_eq!(error.to_string(), "request id 1 is older than the log, which starts after 1");
        assert!(store.recorded(&key(1, 2, 1)).unwrap().is_some());
        // Never seen, but within the log: the link lost it, it may still be executed.
        assert_eq!(store.recorded(&key(1, 3, 1)).unwrap(), None);
        assert!(matches!(store.recorded(&key(1, u64::MAX, 1)), Err(StoreError::RequestId(_))));
    }

    #[test]
    fn the_least_recently_used_client_goes_first() {
        let dir = TestDir::new();
        let mut store = Store::open(dir.path(), &Options::default()).unwrap();
        for client in 0..CLIENTS_MAX as u8 {
            record(&mut store, &key(client, 1, 1), b"r").unwrap();
        }
        record(&mut store, &key(0, 2, 1), b"r").unwrap();
        record(&mut store, &key(200, 1, 1), b"r").unwrap();
        assert!(store.recorded(&key(0, 1, 1)).unwrap().is_some());
        assert!(store.recorded(&key(1, 1, 1)).unwrap().is_none());
        assert!(store.recorded(&key(2, 1, 1)).unwrap().is_some());
    }
}
