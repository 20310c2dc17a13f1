//! Samples: records, their embeddings per space, tombstones, and what is set aside.
//!
//! The live set is what lies in `records`: a tombstone removes its record in the same transaction and keeps it from
//! coming back. Where one sample has two embeddings in one space, which only inexact bundles and damage can bring
//! about, the smaller bytes stay and the others are set aside: so every order of merging ends alike.

use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleId, SampleMeta, SessionId, SpaceId};
use rusqlite::{OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::open::{Store, Tx};

/// What is noted beside a sample on this board alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Seconds since 1970 when it was stored; `None` if the clock could not be trusted.
    pub stored_s: Option<u64>,
    /// Name of its source.
    pub source: Option<String>,
}

/// Outcome of [`Tx::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The sample is new in this space.
    New,
    /// The same sample with the same embedding was there, or had been set aside already.
    Known,
    /// The sample was removed before and stays so.
    Tombstoned,
    /// Its embedding differs from the one there; the stored one stays, the other was set aside.
    SetAside,
    /// Its embedding differs from the one there; it took its place, and that one was set aside.
    Replaced,
}

/// Outcome of [`Tx::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The sample was live.
    pub was_live: bool,
    /// The tombstone is new.
    pub is_new: bool,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live records.
    pub n_records: u32,
    /// Live records with an embedding in the space asked for.
    pub n_in_space: u32,
    /// Labels of kind class among all live records.
    pub n_classes: u32,
    /// Tombstones.
    pub n_tombstones: u32,
    /// Damaged or contradictory records and embeddings.
    pub n_set_aside: u32,
}

impl Store {
    /// Reads all samples of `space` with sound embeddings of `embedding_len` components, ascending by id. A damaged
    /// one is set aside, so that a sync can bring a sound copy back. Returns how many were set aside.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn load_space(
        &mut self,
        space: &SpaceId,
        embedding_len: usize,
        mut visit: impl FnMut(SampleMeta, &[i8]),
    ) -> Result<u32, StoreError> {
        let mut damaged = Vec::new();
        let mut embedding = Vec::with_capacity(embedding_len);
        {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {META}, e.rowid, e.sample_id, e.bytes, e.crc
                 FROM embeddings e LEFT JOIN records r USING (sample_id) WHERE e.space = ?1 ORDER BY e.sample_id"
            ))?;
            let mut rows = statement.query(params![space.0])?;
            while let Some(row) = rows.next()? {
                match read_sample(row, embedding_len, &mut embedding) {
                    Some(meta) => visit(meta, &embedding),
                    None => damaged.push(row.get::<_, i64>(10)?),
                }
            }
        }
        if !damaged.is_empty() {
            self.transaction(|tx| damaged.iter().try_for_each(|row_id| tx.set_aside_damaged(*row_id)))?;
        }
        Ok(u32::try_from(damaged.len()).unwrap_or(u32::MAX))
    }

    /// Counts; `space` decides about [`Counts::n_in_space`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn counts(&self, space: Option<&SpaceId>) -> Result<Counts, StoreError> {
        let counts = self
            .connection
            .prepare_cached(
                "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM embeddings WHERE space = ?1),
                 (SELECT count(DISTINCT label) FROM records WHERE kind = 0), (SELECT count(*) FROM tombstones),
                 (SELECT count(*) FROM set_aside)",
            )?
            .query_row(params![space.map(|space| space.0)], |row| {
                Ok(Counts {
                    n_records: row.get(0)?,
                    n_in_space: row.get(1)?,
                    n_classes: row.get(2)?,
                    n_tombstones: row.get(3)?,
                    n_set_aside: row.get(4)?,
                })
            })?;
        Ok(counts)
    }

    /// Visits tombstones, ascending, from the one after `after`, until `visit` returns false.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub fn tombstones(
        &self,
        after: Option<&SampleId>,
        mut visit: impl FnMut(SampleId) -> bool,
    ) -> Result<(), StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT sample_id FROM tombstones WHERE ?1 IS NULL OR sample_id > ?1 ORDER BY sample_id")?;
        let mut rows = statement.query(params![after.map(|id| id.0)])?;
        while let Some(row) = rows.next()? {
            if !visit(SampleId(row.get(0).map_err(|_| StoreError::Damaged("tombstone"))?)) {
                break;
            }
        }
        Ok(())
    }

    /// The local note of a sample.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn note(&self, id: &SampleId) -> Result<Option<Note>, StoreError> {
        let note = self
            .connection
            .prepare_cached("SELECT stored_s, source FROM notes WHERE sample_id = ?1")?
            .query_row(params![id.0], |row| {
                let stored_s: Option<i64> = row.get(0)?;
                Ok(Note { stored_s: stored_s.and_then(|s| u64::try_from(s).ok()), source: row.get(1)? })
            })
            .optional()?;
        Ok(note)
    }
}

impl Tx<'_> {
    /// Adds a sample with its embedding in `space`. `note` is kept for a record that is new.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn add(
        &self,
        meta: &SampleMeta,
        space: &SpaceId,
        embedding: &[i8],
        note: Option<&Note>,
    ) -> Result<Added, StoreError> {
        let id = meta.sample_id();
        if self.is_tombstoned(&id)? {
            return Ok(Added::Tombstoned);
        }
        self.put_record(&id, meta, note)?;
        let bytes: Vec<u8> = embedding.iter().map(|component| component.cast_unsigned()).collect();
        let stored: Option<Vec<u8>> = self
            .inner
            .prepare_cached("SELECT bytes FROM embeddings WHERE sample_id = ?1 AND space = ?2")?
            .query_row(params![id.0, space.0], |row| row.get(0))
            .optional()?;
        match stored {
            None => {
                self.put_embedding(&id, space, &bytes)?;
                Ok(Added::New)
            }
            Some(stored) if stored == bytes => Ok(Added::Known),
            Some(stored) if stored < bytes => {
                let is_new = self.set_aside_contradiction(meta, space, &bytes)?;
                Ok(if is_new { Added::SetAside } else { Added::Known })
            }
            Some(stored) => {
                self.set_aside_contradiction(meta, space, &stored)?;
                self.put_embedding(&id, space, &bytes)?;
                Ok(Added::Replaced)
            }
        }
    }

    /// Forgets a sample in every space: record, embeddings, notes and what was set aside of it go, a tombstone stays.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub fn remove(&self, id: &SampleId) -> Result<Removed, StoreError> {
        // Deleting first gives pages free that the tombstone may need.
        self.removes.set(true);
        let was_live =
            self.inner.prepare_cached("DELETE FROM records WHERE sample_id = ?1")?.execute(params![id.0])? > 0;
        self.inner.prepare_cached("DELETE FROM set_aside WHERE sample_id = ?1")?.execute(params![id.0])?;
        let is_new =
            self.inner.prepare_cached("INSERT OR IGNORE INTO tombstones VALUES (?1)")?.execute(params![id.0])? > 0;
        Ok(Removed { was_live, is_new })
    }

    /// True if the sample was removed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn is_tombstoned(&self, id: &SampleId) -> Result<bool, StoreError> {
        let mut statement = self.inner.prepare_cached("SELECT 1 FROM tombstones WHERE sample_id = ?1")?;
        Ok(statement.exists(params![id.0])?)
    }

    /// A live record, in whatever spaces it has embeddings.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Damaged`] if the record is not what its id says.
    pub fn record_of(&self, id: &SampleId) -> Result<Option<SampleMeta>, StoreError> {
        let mut statement = self.inner.prepare_cached(&format!("SELECT {META} FROM records r WHERE sample_id = ?1"))?;
        let mut rows = statement.query(params![id.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        match read_meta(row) {
            Some(meta) if meta.sample_id() == *id => Ok(Some(meta)),
            _ => Err(StoreError::Damaged("record")),
        }
    }

    /// Live samples of one part of one input, ascending by id, in whatever spaces they have embeddings.
    ///
    /// # Errors
    /// [`StoreError::Database`]. Damaged records are passed over.
    pub fn samples_of_input(&self, digest: &Digest, part: &Part) -> Result<Vec<(SampleId, SampleMeta)>, StoreError> {
        let mut statement =
            self.inner.prepare_cached(&format!("SELECT {META} FROM records r WHERE digest = ?1 ORDER BY sample_id"))?;
        let mut rows = statement.query(params![digest.0])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.extend(read_meta(row).filter(|meta| meta.part == *part).map(|meta| (meta.sample_id(), meta)));
        }
        Ok(found)
    }

    /// All sound embeddings of a sample, by space.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn embeddings_of(&self, id: &SampleId) -> Result<Vec<(SpaceId, Vec<i8>)>, StoreError> {
        let mut statement = self
            .inner
            .prepare_cached("SELECT space, bytes, crc FROM embeddings WHERE sample_id = ?1 ORDER BY space")?;
        let mut rows = statement.query(params![id.0])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (Ok(space), Ok(bytes), Ok(crc)) = (row.get(0), row.get::<_, Vec<u8>>(1), row.get::<_, i64>(2)) else {
                continue;
            };
            if embedding_crc(id, &bytes) == crc {
                found.push((SpaceId(space), bytes.iter().map(|byte| byte.cast_signed()).collect()));
            }
        }
        Ok(found)
    }

    fn put_record(&self, id: &SampleId, meta: &SampleMeta, note: Option<&Note>) -> Result<(), StoreError> {
        let (part, [a, b, c, d]) = part_columns(&meta.part);
        let n_new = self
            .inner
            .prepare_cached("INSERT OR IGNORE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
            .execute(params![
                id.0,
                meta.label.as_str(),
                kind_column(meta.kind),
                meta.session.0,
                meta.origin.0,
                meta.digest.0,
                part,
                a,
                b,
                c,
                d
            ])?;
        if let (1.., Some(note)) = (n_new, note) {
            let stored_s = note.stored_s.and_then(|s| i64::try_from(s).ok());
            self.inner.prepare_cached("INSERT INTO notes VALUES (?1, ?2, ?3)")?.execute(params![
                id.0,
                stored_s,
                note.source
            ])?;
        }
        Ok(())
    }

    fn put_embedding(&self, id: &SampleId, space: &SpaceId, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.prepare_cached("INSERT OR REPLACE INTO embeddings VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            id.0,
            space.0,
            bytes,
            embedding_crc(id, bytes)
        ])?;
        Ok(())
    }

    /// The same contradiction brought again by a later sync is no new row; returns whether it is.
    fn set_aside_contradiction(&self, meta: &SampleMeta, space: &SpaceId, bytes: &[u8]) -> Result<bool, StoreError> {
        let id = meta.sample_id();
        let (part, [a, b, c, d]) = part_columns(&meta.part);
        let n_new = self
            .inner
            .prepare_cached(
                "INSERT OR IGNORE INTO set_aside
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                id.0,
                meta.label.as_str(),
                kind_column(meta.kind),
                meta.session.0,
                meta.origin.0,
                meta.digest.0,
                part,
                a,
                b,
                c,
                d,
                space.0,
                bytes,
                embedding_crc(&id, bytes)
            ])?;
        Ok(n_new > 0)
    }

    /// Moves an embedding, and its record if that is the damaged part, as they are found.
    fn set_aside_damaged(&self, row_id: i64) -> Result<(), StoreError> {
        self.inner
            .prepare_cached(&format!(
                "INSERT OR IGNORE INTO set_aside SELECT 0, e.sample_id, {META}, e.space, e.bytes, e.crc
                 FROM embeddings e LEFT JOIN records r USING (sample_id) WHERE e.rowid = ?1"
            ))?
            .execute(params![row_id])?;
        let id: Option<Vec<u8>> = self
            .inner
            .prepare_cached("DELETE FROM embeddings WHERE rowid = ?1 RETURNING sample_id")?
            .query_row(params![row_id], |row| row.get(0))
            .optional()?;
        let Some(id) = id.as_deref().and_then(SampleId::from_slice) else { return Ok(()) };
        if matches!(self.record_of(&id), Err(StoreError::Damaged(_))) {
            // Embeddings in other spaces hang on the damaged record; without it nobody knows what they show.
            self.inner
                .prepare_cached(&format!(
                    "INSERT OR IGNORE INTO set_aside SELECT 0, e.sample_id, {META}, e.space, e.bytes, e.crc
                     FROM embeddings e JOIN records r USING (sample_id) WHERE e.sample_id = ?1"
                ))?
                .execute(params![id.0])?;
            self.inner.prepare_cached("DELETE FROM records WHERE sample_id = ?1")?.execute(params![id.0])?;
        }
        Ok(())
    }
}

/// Columns of a record in the order in which [`read_meta`] takes them and `set_aside` holds them; 10 in all.
const META: &str = "r.label, r.kind, r.session, r.origin, r.digest, r.part, r.part_0, r.part_1, r.part_2, r.part_3";

/// A row of [`META`], rowid, sample id, bytes, crc; `None` if anything in it is damaged.
fn read_sample(row: &Row<'_>, embedding_len: usize, embedding: &mut Vec<i8>) -> Option<SampleMeta> {
    let meta = read_meta(row)?;
    let id = SampleId(row.get(11).ok()?);
    let bytes = row.get_ref(12).ok()?.as_blob().ok()?;
    let crc: i64 = row.get(13).ok()?;
    embedding.clear();
    embedding.extend(bytes.iter().map(|byte| byte.cast_signed()));
    let sound = meta.sample_id() == id && bytes.len() == embedding_len && embedding_crc(&id, bytes) == crc;
    sound.then_some(meta)
}

fn read_meta(row: &Row<'_>) -> Option<SampleMeta> {
    let text = row.get_ref(0).ok()?.as_str().ok()?;
    let label = Label::new(text).ok().filter(|label| label.as_str() == text)?;
    let kind = match row.get(1).ok()? {
        0u8 => LabelKind::Class,
        1 => LabelKind::Negative,
        _ => return None,
    };
    let numbers: [u32; 4] = [row.get(6).ok()?, row.get(7).ok()?, row.get(8).ok()?, row.get(9).ok()?];
    let part = match (row.get(5).ok()?, numbers) {
        (0u8, [0, 0, 0, 0]) => Part::Whole,
        (1, [start_ms, len_ms, 0, 0]) => Part::Window { start_ms, len_ms },
        (2, [x, y, width, height]) => Part::Box { x, y, width, height },
        _ => return None,
    };
    Some(SampleMeta {
        label,
        session: SessionId(row.get(2).ok()?),
        origin: DeviceId(row.get(3).ok()?),
        digest: Digest(row.get(4).ok()?),
        part,
        kind,
    })
}

fn kind_column(kind: LabelKind) -> u8 {
    match kind {
        LabelKind::Class => 0,
        LabelKind::Negative => 1,
    }
}

fn part_columns(part: &Part) -> (u8, [u32; 4]) {
    match *part {
        Part::Whole => (0, [0; 4]),
        Part::Window { start_ms, len_ms } => (1, [start_ms, len_ms, 0, 0]),
        Part::Box { x, y, width, height } => (2, [x, y, width, height]),
    }
}

/// CRC-32C over id and embedding: an embedding that slipped to another sample is damaged, too.
fn embedding_crc(id: &SampleId, bytes: &[u8]) -> i64 {
    i64::from(crc32c::crc32c_append(crc32c::crc32c(&id.0), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::Options;
    use crate::test_dir::TestDir;

    const SPACE: SpaceId = SpaceId([1; 32]);
    const OTHER: SpaceId = SpaceId([2; 32]);

    fn meta(n: u8) -> SampleMeta {
        SampleMeta {
            label: Label::new("bolt").unwrap(),
            session: SessionId([n; 8]),
            origin: DeviceId([2; 16]),
            digest: Digest([3; 32]),
            part: Part::Box { x: 1, y: 2, width: 3, height: u32::MAX },
            kind: LabelKind::Negative,
        }
    }

    fn open(dir: &TestDir) -> Store {
        Store::open(dir.path(), &Options { reserve_bytes: 0, ..Options::default() }).unwrap()
    }

    fn add(store: &mut Store, meta: &SampleMeta, space: &SpaceId, embedding: &[i8]) -> Added {
        let note = Note { stored_s: Some(7), source: Some("a.png".to_owned()) };
        store.transaction::<_, StoreError>(|tx| tx.add(meta, space, embedding, Some(&note))).unwrap()
    }

    fn load(store: &mut Store, space: &SpaceId) -> (Vec<(SampleMeta, Vec<i8>)>, u32) {
        let mut samples = Vec::new();
        let n = store.load_space(space, 3, |meta, embedding| samples.push((meta, embedding.to_vec()))).unwrap();
        (samples, n)
    }

    #[test]
    fn samples_come_back_as_they_went_in() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let window = SampleMeta { part: Part::Window { start_ms: 5, len_ms: 9 }, kind: LabelKind::Class, ..meta(2) };
        let whole = SampleMeta { part: Part::Whole, ..meta(3) };
        for sample in [meta(1), window.clone(), whole.clone()] {
            assert_eq!(add(&mut store, &sample, &SPACE, &[-127, 0, 127]), Added::New);
            assert_eq!(add(&mut store, &sample, &SPACE, &[-127, 0, 127]), Added::Known);
        }
        drop(store);
        let mut store = open(&dir);
        let mut expected = vec![meta(1), window, whole.clone()];
        expected.sort_by_key(SampleMeta::sample_id);
        let (samples, n_set_aside) = load(&mut store, &SPACE);
        assert_eq!(samples, expected.into_iter().map(|meta| (meta, vec![-127, 0, 127])).collect::<Vec<_>>());
        assert_eq!(n_set_aside, 0);
        let note = Note { stored_s: Some(7), source: Some("a.png".to_owned()) };
        assert_eq!(store.note(&whole.sample_id()).unwrap(), Some(note));
        let found = store.transaction(|tx| tx.samples_of_input(&Digest([3; 32]), &Part::Whole)).unwrap();
        assert_eq!(found, [(whole.sample_id(), whole)]);
    }

    #[test]
    fn removal_reaches_every_space_and_is_final() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let id = meta(1).sample_id();
        add(&mut store, &meta(1), &SPACE, &[1, 2, 3]);
        add(&mut store, &meta(1), &SPACE, &[9, 2, 3]);
        add(&mut store, &meta(1), &OTHER, &[4, 5]);
        let counts = store.counts(Some(&SPACE)).unwrap();
        assert_eq!((counts.n_records, counts.n_in_space, counts.n_set_aside), (1, 1, 1));
        let removed = store.transaction_freeing(|tx| tx.remove(&id)).unwrap();
        assert_eq!(removed, Removed { was_live: true, is_new: true });
        let again = store.transaction_freeing(|tx| tx.remove(&id)).unwrap();
        assert_eq!(again, Removed { was_live: false, is_new: false });
        assert_eq!(add(&mut store, &meta(1), &SPACE, &[1, 2, 3]), Added::Tombstoned);
        let expected = Counts { n_tombstones: 1, ..Counts::default() };
        assert_eq!(store.counts(Some(&SPACE)).unwrap(), expected);
        assert_eq!(store.note(&id).unwrap(), None);
        assert!(store.transaction(|tx| tx.embeddings_of(&id)).unwrap().is_empty());
        let mut tombstones = Vec::new();
        let mut visit = |id| {
            tombstones.push(id);
            true
        };
        store.tombstones(None, &mut visit).unwrap();
        store.tombstones(Some(&id), &mut visit).unwrap();
        assert_eq!(tombstones, [id]);
    }

    #[test]
    fn of_two_contents_the_smaller_stays_in_either_order() {
        for order in [[[1i8, 2, 3], [-1, 2, 3]], [[-1, 2, 3], [1, 2, 3]]] {
            let dir = TestDir::new();
            let mut store = open(&dir);
            assert_eq!(add(&mut store, &meta(1), &SPACE, &order[0]), Added::New);
            assert!(matches!(add(&mut store, &meta(1), &SPACE, &order[1]), Added::SetAside | Added::Replaced));
            // Unsigned bytes compare: -1 is 0xff.
            assert_eq!(load(&mut store, &SPACE).0, [(meta(1), vec![1, 2, 3])]);
            assert_eq!(add(&mut store, &meta(1), &SPACE, &[-1, 2, 3]), Added::Known);
            assert_eq!(store.counts(None).unwrap().n_set_aside, 1);
        }
    }

    #[test]
    fn removed_content_is_nowhere_in_the_files() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let pattern: Vec<i8> = (0..100).map(|i| (i * 37 % 101) as i8).collect();
        let bytes: Vec<u8> = pattern.iter().map(|v| *v as u8).collect();
        let holds = || {
            ["graft.db", "graft.db-wal"].iter().any(|name| {
                let content = std::fs::read(dir.path().join(name)).unwrap_or_default();
                content.windows(bytes.len()).any(|window| window == bytes)
            })
        };
        add(&mut store, &meta(1), &SPACE, &pattern);
        assert!(holds());
        store.transaction_freeing(|tx| tx.remove(&meta(1).sample_id())).unwrap();
        assert!(!holds());
    }

    #[test]
    fn a_damaged_byte_is_set_aside_and_counted_and_a_sound_copy_comes_back() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        add(&mut store, &meta(1), &SPACE, &[101, 102, 103]);
        add(&mut store, &meta(2), &SPACE, &[4, 5, 6]);
        drop(store);
        let path = dir.path().join("graft.db");
        let mut file = std::fs::read(&path).unwrap();
        let at = file.windows(3).position(|window| window == [101, 102, 103]).unwrap();
        file[at + 1] ^= 4;
        std::fs::write(&path, file).unwrap();

        let mut store = open(&dir);
        assert_eq!(load(&mut store, &SPACE), (vec![(meta(2), vec![4, 5, 6])], 1));
        let counts = store.counts(Some(&SPACE)).unwrap();
        assert_eq!((counts.n_records, counts.n_in_space, counts.n_set_aside), (2, 1, 1));
        assert_eq!(add(&mut store, &meta(1), &SPACE, &[101, 102, 103]), Added::New);
        assert_eq!(load(&mut store, &SPACE).0.len(), 2);
    }

    #[test]
    fn a_damaged_record_is_set_aside_with_all_its_embeddings() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        add(&mut store, &meta(1), &SPACE, &[1, 2, 3]);
        add(&mut store, &meta(1), &OTHER, &[1, 2]);
        store.connection.execute("UPDATE records SET label = 'nut'", []).unwrap();
        assert_eq!(load(&mut store, &SPACE), (vec![], 1));
        let expected = Counts { n_set_aside: 2, ..Counts::default() };
        assert_eq!(store.counts(Some(&SPACE)).unwrap(), expected);
        assert_eq!(add(&mut store, &meta(1), &SPACE, &[1, 2, 3]), Added::New);
    }
}
