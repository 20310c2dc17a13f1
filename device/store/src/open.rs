//! The store itself: opening a state directory, transactions, and what to do when the disk is full.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use graft_wire::{DeviceId, Digest};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::error::{OpenError, StoreError};
use crate::hardware::{Binding, Hardware};
use crate::lock::{self, Lock};
use crate::place::{self, Place};
use crate::reserve::Reserve;
use crate::schema;
use crate::uploads::Upload;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this program, for whoever finds the directory locked.
    pub program: String,
    /// How long to wait for another holder of the directory.
    pub lock_wait: Duration,
    /// What the device id is bound to.
    pub hardware: Hardware,
    /// Size of the reserve that deleting on a full disk lives from; 0 for none.
    pub reserve_bytes: u64,
    /// Most pages (4 KiB each) the database may have; for tests of a full disk.
    pub pages_max: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: "graftd".to_owned(),
            lock_wait: Duration::from_secs(5),
            hardware: Hardware::Detect,
            reserve_bytes: 1 << 20,
            pages_max: None,
        }
    }
}

/// Something a user should hear about, found while opening.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Notice {
    /// No journal below us.
    #[error("state lies on a FAT file system; a power cut may damage it, ext4 is safer")]
    FatFileSystem,
    /// The card came from another board.
    #[error(
        "this is other hardware: device id {old} stays with its old board, this one is now {new}; samples keep their origin"
    )]
    OtherHardware {
        /// Id of the board the state was made on.
        old: DeviceId,
        /// Id minted now.
        new: DeviceId,
    },
    /// Power went while a bundle was tried.
    #[error("bundle {0:.12} was on trial when the board stopped; it is not active")]
    TrialInterrupted(Digest),
}

/// The durable state of one board. One per state directory, see [`OpenError::Locked`].
pub struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) upload: Option<Upload>,
    reserve: Option<Reserve>,
    device: DeviceId,
    notices: Vec<Notice>,
    // Last: fields drop in order, and the lock must outlive the connection.
    _lock: Lock,
}

/// A transaction: everything done on it is kept, or nothing is.
pub struct Tx<'a> {
    pub(crate) inner: Transaction<'a>,
    /// Something was removed, so the log is emptied after the commit.
    pub(crate) removes: Cell<bool>,
}

impl Store {
    /// Opens or makes the state in `dir`; missing folders are made.
    ///
    /// # Errors
    /// [`OpenError`]: locked, on a network file system, written by a newer graft, or the system refused.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, OpenError> {
        for folder in [dir.to_path_buf(), dir.join("bundles"), dir.join("uploads")] {
            fs::create_dir_all(&folder).map_err(OpenError::io("make folder", &folder))?;
        }
        let mut notices = Vec::new();
        match place::look(dir) {
            Place::Local => {}
            Place::Fat => notices.push(Notice::FatFileSystem),
            Place::Network(kind) => return Err(OpenError::NetworkFileSystem { dir: dir.to_path_buf(), kind }),
        }
        let lock = lock::take(dir, &options.program, options.lock_wait)?;

        let reserve = (options.reserve_bytes > 0).then(|| Reserve::new(dir, options.reserve_bytes));
        let (connection, device) = match open_database(dir, options, &mut notices) {
            // A board with a full disk must come up, or nothing could be deleted on it.
            Err(OpenError::Database { source: StoreError::DiskFull, .. })
                if reserve.as_ref().is_some_and(Reserve::release) =>
            {
                open_database(dir, options, &mut notices)?
            }
            opened => opened?,
        };
        let dir = dir.to_path_buf();
        let mut store = Self { dir, connection, upload: None, reserve, device, notices, _lock: lock };
        store.settle_bundles().map_err(|source| OpenError::Database { dir: store.dir.clone(), source })?;
        store.keep_reserve();
        Ok(store)
    }

    /// The board's id.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// What was found while opening.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Free bytes where the state lies.
    pub fn free_bytes(&self) -> u64 {
        place::free_bytes(&self.dir)
    }

    /// Runs `work` and commits; when this returns `Ok`, it is on the medium, and content that was removed is overwritten
    /// and gone from the log.
    ///
    /// # Errors
    /// Those of `work`, [`StoreError::DiskFull`] and [`StoreError::Database`]; then nothing has changed. While there is
    /// no room for the reserve, the disk counts as full: what the reserve gave back is for deleting.
    pub fn transaction<T, E: From<StoreError>>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        if !self.keep_reserve() {
            return Err(StoreError::DiskFull.into());
        }
        self.transact(work)
    }

    fn transact<T, E: From<StoreError>>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        let (value, removes) = {
            let inner =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
            let tx = Tx { inner, removes: Cell::new(false) };
            // An error drops the transaction, which rolls it back.
            let value = work(&tx)?;
            let removes = tx.removes.get();
            tx.inner.commit().map_err(StoreError::from)?;
            (value, removes)
        };
        if removes {
            // The removal is committed; a log that cannot be emptied now is emptied by the next one.
            let _ = schema::compact(&self.connection);
        }
        Ok(value)
    }

    /// As [`Store::transaction`], for work that removes: on a full disk the reserve is given up and `work` runs again.
    ///
    /// # Errors
    /// As [`Store::transaction`].
    pub fn transaction_freeing<T>(
        &mut self,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let first = self.transact(&mut work);
        let released =
            matches!(first, Err(StoreError::DiskFull)) && self.reserve.as_ref().is_some_and(Reserve::release);
        let value = if released { self.transact(&mut work)? } else { first? };
        if !self.keep_reserve() {
            let _ = schema::shrink(&self.connection);
            self.keep_reserve();
        }
        Ok(value)
    }

    /// True if the reserve is there, or none is wanted.
    fn keep_reserve(&self) -> bool {
        self.reserve.as_ref().is_none_or(|reserve| reserve.keep(self.free_bytes()))
    }
}

/// Opens the database with its settings and reads whose it is.
fn open_database(
    dir: &Path,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<(Connection, DeviceId), OpenError> {
    let database = |source: StoreError| OpenError::Database { dir: dir.to_path_buf(), source };
    let sqlite = |error: rusqlite::Error| database(error.into());
    let mut connection = Connection::open(dir.join("graft.db")).map_err(sqlite)?;
    schema::prepare(&mut connection, dir)?;
    if let Some(pages) = options.pages_max {
        connection.query_row(&format!("PRAGMA max_page_count={pages}"), [], |_| Ok(())).map_err(sqlite)?;
    }
    let device = device_id(&mut connection, &options.hardware, notices, &database)?;
    Ok((connection, device))
}

/// Reads the device id, mints one at the first start, and another one on other hardware.
fn device_id(
    connection: &mut Connection,
    hardware: &Hardware,
    notices: &mut Vec<Notice>,
    database: &dyn Fn(StoreError) -> OpenError,
) -> Result<DeviceId, OpenError> {
    let stored = connection
        .query_row("SELECT device_id, hardware_source, hardware_hash FROM device", [], |row| {
            let (source, hash): (Option<String>, Option<[u8; 32]>) = (row.get(1)?, row.get(2)?);
            let binding = source.zip(hash).map(|(source, hash)| Binding { source, hash });
            Ok((DeviceId(row.get(0)?), binding))
        })
        .optional()
        .map_err(|error| database(error.into()))?;
    let old = match stored {
        Some((id, Some(binding))) if hardware.contradicts(&binding) => Some(id),
        Some((id, _)) => return Ok(id),
        None => None,
    };
    let mut bytes = [0u8; DeviceId::LEN];
    getrandom::fill(&mut bytes).map_err(OpenError::Random)?;
    let new = DeviceId(bytes);
    let (source, hash) = hardware.bind().map(|binding| (binding.source, binding.hash)).unzip();
    connection
        .execute("INSERT OR REPLACE INTO device VALUES (1, ?1, ?2, ?3)", params![new.0, source, hash])
        .map_err(|error| database(error.into()))?;
    if let Some(old) = old {
        notices.push(Notice::OtherHardware { old, new });
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn on(hardware: &str) -> Options {
        Options { hardware: Hardware::Fixed(hardware.to_owned()), lock_wait: Duration::ZERO, ..Options::default() }
    }

    #[test]
    fn device_id_survives_reopening() {
        let dir = TestDir::new();
        let id = Store::open(dir.path(), &on("a")).unwrap().device();
        let store = Store::open(dir.path(), &on("a")).unwrap();
        assert_eq!(store.device(), id);
        assert_eq!(store.notices(), []);
    }

    #[test]
    fn a_cloned_card_mints_a_new_id_and_says_so() {
        let dir = TestDir::new();
        let old = Store::open(dir.path(), &on("a")).unwrap().device();
        let store = Store::open(dir.path(), &on("b")).unwrap();
        let new = store.device();
        assert_ne!(old, new);
        assert_eq!(store.notices(), [Notice::OtherHardware { old, new }]);
        drop(store);
        let store = Store::open(dir.path(), &on("b")).unwrap();
        assert_eq!((store.device(), store.notices()), (new, &[][..]));
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = TestDir::new();
        drop(Store::open(dir.path(), &on("a")).unwrap());
        let connection = Connection::open(dir.path().join("graft.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let error = Store::open(dir.path(), &on("a")).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("state in {} has format 99; this graft knows up to 1", dir.path().display())
        );
    }

    #[test]
    fn settings_are_the_durable_ones() {
        let dir = TestDir::new();
        let store = Store::open(dir.path(), &on("a")).unwrap();
        let text = |name: &str| -> String {
            store.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
        };
        let number = |name: &str| -> i64 {
            store.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!((text("journal_mode"), text("locking_mode")), ("wal".into(), "exclusive".into()));
        assert_eq!((number("synchronous"), number("secure_delete"), number("foreign_keys")), (2, 1, 1));
        assert_eq!(number("auto_vacuum"), 2);
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let dir = TestDir::new();
        let mut store = Store::open(dir.path(), &on("a")).unwrap();
        let result: Result<(), StoreError> = store.transaction(|tx| {
            tx.inner.execute("INSERT INTO tombstones VALUES (x'00')", [])?;
            Err(StoreError::Damaged("test"))
        });
        assert!(result.is_err());
        let n: i64 = store.connection.query_row("SELECT count(*) FROM tombstones", [], |row| row.get(0)).unwrap();
        assert_eq!(n, 0);
    }
}
