//! The head of each space, as bytes. Whether a head that was trained here still fits its set is told by comparing set
//! digests; only for a pushed head, whose set was never here, must a later change be remembered.

use graft_wire::SpaceId;
use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::open::{Store, Tx};

/// A stored head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRow {
    /// As `graft-heads` encodes it.
    pub bytes: Vec<u8>,
    /// It came without its set.
    pub pushed: bool,
    /// The board's set has changed since the head came here.
    pub changed: bool,
}

impl Store {
    /// The head of `space`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn head(&self, space: &SpaceId) -> Result<Option<HeadRow>, StoreError> {
        let row = self
            .connection
            .prepare_cached("SELECT bytes, pushed, changed FROM heads WHERE space = ?1")?
            .query_row(params![space.0], |row| {
                Ok(HeadRow { bytes: row.get(0)?, pushed: row.get(1)?, changed: row.get(2)? })
            })
            .optional()?;
        Ok(row)
    }
}

impl Tx<'_> {
    /// Makes `bytes` the head of `space`.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn put_head(&self, space: &SpaceId, bytes: &[u8], pushed: bool) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("INSERT OR REPLACE INTO heads VALUES (?1, ?2, ?3, 0)")?
            .execute(params![space.0, bytes, pushed])?;
        Ok(())
    }

    /// Notes that the set of `space` has changed, or of every space: a removal touches all.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn mark_heads_changed(&self, space: Option<&SpaceId>) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("UPDATE heads SET changed = 1 WHERE changed = 0 AND space = ifnull(?1, space)")?
            .execute(params![space.map(|space| space.0)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::Options;
    use crate::test_dir::TestDir;

    #[test]
    fn one_head_per_space_and_changes_are_remembered() {
        let dir = TestDir::new();
        let mut store = Store::open(dir.path(), &Options::default()).unwrap();
        let (a, b) = (SpaceId([1; 32]), SpaceId([2; 32]));
        store.transaction::<_, StoreError>(|tx| tx.put_head(&a, b"old", false)).unwrap();
        store.transaction::<_, StoreError>(|tx| tx.put_head(&a, b"new", true)).unwrap();
        let row = HeadRow { bytes: b"new".to_vec(), pushed: true, changed: false };
        assert_eq!(store.head(&a).unwrap(), Some(row.clone()));
        assert_eq!(store.head(&b).unwrap(), None);
        store.transaction::<_, StoreError>(|tx| tx.mark_heads_changed(Some(&b))).unwrap();
        assert_eq!(store.head(&a).unwrap(), Some(row.clone()));
        store.transaction::<_, StoreError>(|tx| tx.mark_heads_changed(None)).unwrap();
        assert_eq!(store.head(&a).unwrap(), Some(HeadRow { changed: true, ..row }));
    }
}
