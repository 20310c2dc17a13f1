//! Installed bundles: files named by their hash, and rows that say which one is active.
//!
//! Order of an installation, safe to stop at any point: the upload is checked and marked as on trial, its self-test
//! runs, the file is renamed into place and synced, one transaction gives it its role. A file without a row is swept
//! at the next start; a trial that was cut off is reported, and the active bundle is the one from before.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use graft_wire::{Digest, SpaceId};
use rusqlite::{OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::open::{Notice, Store, Tx};
use crate::uploads::open_hashed;

/// What the store knows about an installed bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRow {
    /// BLAKE3 of the file.
    pub hash: Digest,
    /// Name given when it was quantized.
    pub name: String,
    /// Its embedding space.
    pub space: SpaceId,
    /// Length of its embeddings.
    pub embedding_len: u32,
    /// Length of the file.
    pub bytes: u64,
    /// Same bits on every CPU.
    pub exact: bool,
}

/// What a bundle is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In use.
    Active,
    /// In use before; a rollback goes back to it.
    Previous,
    /// Installed, passed its self-test, not activated yet.
    Standby,
    /// Its self-test is running; the file is still an upload.
    Trial,
}

impl Role {
    fn column(self) -> u8 {
        match self {
            Role::Active => 0,
            Role::Previous => 1,
            Role::Standby => 2,
            Role::Trial => 3,
        }
    }
}

impl Store {
    pub(crate) fn bundle_path(&self, hash: &Digest) -> PathBuf {
        self.dir.join("bundles").join(format!("{hash}.graft"))
    }

    /// The bundle in `role`; `None` for [`Role::Trial`], whose file is no installed bundle.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn bundle(&self, role: Role) -> Result<Option<BundleRow>, StoreError> {
        let row = self
            .connection
            .prepare_cached(&format!("{SELECT} JOIN roles USING (hash) WHERE role = ?1"))?
            .query_row(params![role.column()], read_row)
            .optional()?;
        Ok(row)
    }

    /// The installed bundle of this hash.
    ///
    /// # Errors
    /// [`StoreError::UnknownBundle`], [`StoreError::Database`].
    pub fn installed(&self, hash: &Digest) -> Result<BundleRow, StoreError> {
        let row = self
            .connection
            .prepare_cached(&format!("{SELECT} WHERE hash = ?1"))?
            .query_row(params![hash.0], read_row)
            .optional()?;
        row.ok_or(StoreError::UnknownBundle(*hash))
    }

    /// The file of an installed bundle, checked against its hash.
    ///
    /// # Errors
    /// [`StoreError::UnknownBundle`] without a file, [`StoreError::HashMismatch`] if it is damaged,
    /// [`StoreError::Io`].
    pub fn open_bundle(&self, hash: &Digest) -> Result<File, StoreError> {
        let path = self.bundle_path(hash);
        let (file, found) = open_hashed(&path, StoreError::UnknownBundle(*hash))?;
        if found == *hash { Ok(file) } else { Err(StoreError::HashMismatch { found, expected: *hash }) }
    }

    /// Notes that the self-test of this upload begins.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn begin_trial(&mut self, hash: &Digest) -> Result<(), StoreError> {
        self.transaction(|tx| tx.set_role(Role::Trial, hash))
    }

    /// Notes that the self-test is over without success.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn end_trial(&mut self) -> Result<(), StoreError> {
        self.transaction_freeing(|tx| tx.clear_role(Role::Trial))
    }

    /// Moves a checked upload among the bundles; done already for one that is there. Durable on return.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn promote_upload(&mut self, hash: &Digest) -> Result<(), StoreError> {
        let (from, to) = (self.upload_path(hash), self.bundle_path(hash));
        if to.exists() {
            return Ok(());
        }
        self.upload = None;
        File::open(&from).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &from))?;
        fs::rename(&from, &to).map_err(StoreError::io("rename", &from))?;
        sync_folder(&self.dir.join("bundles"))
    }

    /// Removes bundles that have no role, rows first. Called after an activation; what it leaves, the next start
    /// removes.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`].
    pub fn sweep_bundles(&mut self) -> Result<(), StoreError> {
        self.transaction_freeing(|tx| {
            tx.inner.execute("DELETE FROM bundles WHERE hash NOT IN (SELECT hash FROM roles)", [])?;
            Ok(())
        })?;
        let mut kept = HashSet::new();
        {
            let mut statement = self.connection.prepare_cached("SELECT hash FROM bundles")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                kept.insert(self.bundle_path(&Digest(row.get(0)?)));
            }
        }
        let folder = self.dir.join("bundles");
        for entry in fs::read_dir(&folder).map_err(StoreError::io("list", &folder))? {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            if !kept.contains(&path) {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// At start: reports a trial that was cut off, and sweeps.
    pub(crate) fn settle_bundles(&mut self) -> Result<(), StoreError> {
        let trial: Option<[u8; 32]> = self
            .connection
            .query_row("SELECT hash FROM roles WHERE role = ?1", params![Role::Trial.column()], |row| row.get(0))
            .optional()?;
        if let Some(hash) = trial {
            // A full disk may refuse this; then the next start says it again.
            match self.end_trial() {
                Ok(()) | Err(StoreError::DiskFull) => {}
                Err(error) => return Err(error),
            }
            self.notice(Notice::TrialInterrupted(Digest(hash)));
        }
        match self.sweep_bundles() {
            Err(StoreError::DiskFull) => Ok(()),
            swept => swept,
        }
    }
}

impl Tx<'_> {
    /// Enters an installed bundle.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn put_bundle(&self, row: &BundleRow) -> Result<(), StoreError> {
        let bytes = i64::try_from(row.bytes).unwrap_or(i64::MAX);
        self.inner
            .prepare_cached("INSERT OR REPLACE INTO bundles VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![row.hash.0, row.name, row.space.0, row.embedding_len, bytes, row.exact])?;
        Ok(())
    }

    /// Ends the trial; the bundle waits for its activation. One that is active or previous keeps that role.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn stand_by(&self, hash: &Digest) -> Result<(), StoreError> {
        self.clear_role(Role::Trial)?;
        if self.role_holder(Role::Active)? == Some(*hash) || self.role_holder(Role::Previous)? == Some(*hash) {
            return Ok(());
        }
        self.set_role(Role::Standby, hash)
    }

    /// Makes an installed bundle the active one; the active one becomes the previous one.
    ///
    /// # Errors
    /// [`StoreError::UnknownBundle`], [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn activate(&self, hash: &Digest) -> Result<(), StoreError> {
        if !self.inner.prepare_cached("SELECT 1 FROM bundles WHERE hash = ?1")?.exists(params![hash.0])? {
            return Err(StoreError::UnknownBundle(*hash));
        }
        self.clear_role(Role::Trial)?;
        if self.role_holder(Role::Standby)? == Some(*hash) {
            self.clear_role(Role::Standby)?;
        }
        match self.role_holder(Role::Active)? {
            Some(active) if active == *hash => return Ok(()),
            Some(active) => self.set_role(Role::Previous, &active)?,
            None if self.role_holder(Role::Previous)? == Some(*hash) => self.clear_role(Role::Previous)?,
            None => {}
        }
        self.set_role(Role::Active, hash)
    }

    /// Takes the active role from a bundle that cannot be loaded any more.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn deactivate(&self) -> Result<(), StoreError> {
        self.clear_role(Role::Active)
    }

    fn role_holder(&self, role: Role) -> Result<Option<Digest>, StoreError> {
        let hash = self
            .inner
            .prepare_cached("SELECT hash FROM roles WHERE role = ?1")?
            .query_row(params![role.column()], |row| row.get(0))
            .optional()?;
        Ok(hash.map(Digest))
    }

    fn set_role(&self, role: Role, hash: &Digest) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("INSERT OR REPLACE INTO roles VALUES (?1, ?2)")?
            .execute(params![role.column(), hash.0])?;
        Ok(())
    }

    fn clear_role(&self, role: Role) -> Result<(), StoreError> {
        self.inner.prepare_cached("DELETE FROM roles WHERE role = ?1")?.execute(params![role.column()])?;
        Ok(())
    }
}

const SELECT: &str = "SELECT hash, name, space, embedding_len, bytes, exact FROM bundles";

fn read_row(row: &Row<'_>) -> Result<BundleRow, rusqlite::Error> {
    Ok(BundleRow {
        hash: Digest(row.get(0)?),
        name: row.get(1)?,
        space: SpaceId(row.get(2)?),
        embedding_len: row.get(3)?,
        bytes: row.get::<_, i64>(4)?.unsigned_abs(),
        exact: row.get(5)?,
    })
}

/// A rename is durable when its folder is; Windows has no such call and needs none.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", path))?;
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::Options;
    use crate::test_dir::{TestDir, contents};

    fn open(dir: &TestDir) -> Store {
        Store::open(dir.path(), &Options { reserve_bytes: 0, ..Options::default() }).unwrap()
    }

    fn install(store: &mut Store, content: &[u8]) -> Digest {
        let hash = Digest::of(content);
        store.begin_upload(&hash, content.len() as u64).unwrap();
        store.append_upload(&hash, 0, content).unwrap();
        store.begin_trial(&hash).unwrap();
        store.promote_upload(&hash).unwrap();
        let row = BundleRow {
            hash,
            name: "net".to_owned(),
            space: SpaceId([1; 32]),
            embedding_len: 4,
            bytes: content.len() as u64,
            exact: true,
        };
        store
            .transaction::<_, StoreError>(|tx| {
                tx.put_bundle(&row)?;
                tx.stand_by(&hash)
            })
            .unwrap();
        hash
    }

    fn activate(store: &mut Store, hash: &Digest) {
        store.transaction::<_, StoreError>(|tx| tx.activate(hash)).unwrap();
        store.sweep_bundles().unwrap();
    }

    fn holder(store: &Store, role: Role) -> Option<Digest> {
        store.bundle(role).unwrap().map(|row| row.hash)
    }

    #[test]
    fn active_and_previous_are_kept_and_swapped_by_a_rollback() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let (a, b, c) = (install(&mut store, b"a"), Digest::of(b"b"), Digest::of(b"c"));
        activate(&mut store, &a);
        assert_eq!((holder(&store, Role::Active), holder(&store, Role::Previous)), (Some(a), None));
        install(&mut store, b"b");
        assert_eq!((holder(&store, Role::Active), holder(&store, Role::Standby)), (Some(a), Some(b)));
        activate(&mut store, &b);
        install(&mut store, b"c");
        activate(&mut store, &c);
        assert_eq!((holder(&store, Role::Active), holder(&store, Role::Previous)), (Some(c), Some(b)));
        assert!(matches!(store.open_bundle(&a), Err(StoreError::UnknownBundle(_))));
        assert_eq!(contents(store.open_bundle(&b).unwrap()), b"b");
        activate(&mut store, &b);
        assert_eq!((holder(&store, Role::Active), holder(&store, Role::Previous)), (Some(b), Some(c)));
        activate(&mut store, &b);
        assert_eq!((holder(&store, Role::Active), holder(&store, Role::Previous)), (Some(b), Some(c)));
    }

    #[test]
    fn a_stop_during_the_trial_keeps_the_active_bundle_and_the_upload() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let a = install(&mut store, b"a");
        activate(&mut store, &a);
        let b = Digest::of(b"b");
        store.begin_upload(&b, 1).unwrap();
        store.append_upload(&b, 0, b"b").unwrap();
        store.begin_trial(&b).unwrap();
        drop(store);
        let mut store = open(&dir);
        assert_eq!(store.notices(), [Notice::TrialInterrupted(b)]);
        assert_eq!(holder(&store, Role::Active), Some(a));
        assert_eq!(store.begin_upload(&b, 1).unwrap(), 1);
        drop(store);
        assert_eq!(open(&dir).notices(), []);
    }

    #[test]
    fn a_stop_between_rename_and_row_leaves_no_file_behind() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let hash = Digest::of(b"b");
        store.begin_upload(&hash, 1).unwrap();
        store.append_upload(&hash, 0, b"b").unwrap();
        store.promote_upload(&hash).unwrap();
        let path = store.bundle_path(&hash);
        assert!(path.exists());
        drop(store);
        drop(open(&dir));
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let hash = install(&mut store, b"abc");
        std::fs::write(store.bundle_path(&hash), b"abX").unwrap();
        let error = store.open_bundle(&hash).unwrap_err();
        let expected = format!("file hashes to {:.12}, expected {hash:.12}", Digest::of(b"abX"));
        assert_eq!(error.to_string(), expected);
    }
}
