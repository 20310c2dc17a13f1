//! The sample set: what a board knows in one embedding space.
//!
//! State is two grow-only collections, contents by sample id and tombstones, and merge is the union of each. So merge
//! is commutative, associative and idempotent, a removed sample is as if it had never been added, and no order of
//! arrival can be seen afterwards.
//!
//! A sample id does not cover the embedding, so one id can come with two contents (an inexact bundle on two CPUs, a
//! damaged board). Then the smaller bytes are live on every board alike, and the others are set aside: kept, counted,
//! part of the union, never trained on.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Ordering;

use graft_wire::limits::EMBEDDING_LEN_MAX;
use graft_wire::{Digest, Label, LabelKind, SampleId, SampleMeta, SpaceId};

/// Live records, tombstones and set-aside contents of one space.
///
/// Two sets are equal if they hold the same; how they came to it cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSet {
    space: SpaceId,
    embedding_len: usize,
    records: BTreeMap<SampleId, Content>,
    set_aside: BTreeMap<SampleId, BTreeSet<Content>>,
    tombstones: BTreeSet<SampleId>,
}

/// What an id stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    meta: SampleMeta,
    embedding: Box<[i8]>,
}

/// What [`SampleSet::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The sample is new and live.
    Added,
    /// The very same sample was there.
    Known,
    /// The sample was removed before and stays removed.
    Tombstoned,
    /// The id is there with other content. The smaller bytes are live now, the others set aside.
    Conflict,
}

/// What [`SampleSet::merge`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// Samples that became live.
    pub n_added: u32,
    /// Live samples that a tombstone removed.
    pub n_removed: u32,
    /// Contents set aside: same id, other content.
    pub n_set_aside: u32,
    /// Tombstones that were new.
    pub n_tombstones: u32,
}

/// Why a sample or a set does not fit into a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// Not the number of components of this space.
    #[error("embedding has {found} components; the set takes {expected}")]
    EmbeddingLength {
        /// Components seen.
        found: usize,
        /// Components of the space.
        expected: usize,
    },
    /// -128 is no component of an embedding; the definition clamps at -127.
    #[error("embedding holds -128 at component {index}; allowed are -127 to 127")]
    ComponentRange {
        /// First component that is -128.
        index: usize,
    },
    /// The space itself is over the cap.
    #[error("set has embeddings of {found} components; at most {limit} are allowed")]
    TooLong {
        /// Components of the space.
        found: usize,
        /// Most components allowed.
        limit: usize,
    },
    /// Sets of two spaces have no union.
    #[error("set of space {found:.12} cannot be merged into space {expected:.12}")]
    SpaceMismatch {
        /// Space of the other set.
        found: SpaceId,
        /// Space of this set.
        expected: SpaceId,
    },
}

impl SampleSet {
    /// An empty set for embeddings of `embedding_len` components in `space`.
    pub fn new(space: SpaceId, embedding_len: usize) -> Self {
        let (records, set_aside, tombstones) = Default::default();
        Self { space, embedding_len, records, set_aside, tombstones }
    }

    /// Adds a sample unless it is known or tombstoned. `embedding`: int8 `[D]`.
    ///
    /// # Errors
    /// [`SetError`] if `embedding` has not D components, or one of them is -128; the set is unchanged.
    pub fn insert(&mut self, meta: SampleMeta, embedding: &[i8]) -> Result<Inserted, SetError> {
        self.check(embedding)?;
        let id = meta.sample_id();
        Ok(self.insert_content(id, Content { meta, embedding: embedding.into() }))
    }

    /// Forgets a sample for good: a tombstone is set and every content of the id dropped. True if it was live.
    pub fn remove(&mut self, id: SampleId) -> bool {
        self.tombstones.insert(id);
        self.set_aside.remove(&id);
        self.records.remove(&id).is_some()
    }

    /// Adds all that `other` holds: contents, tombstones, and what it has set aside.
    ///
    /// # Errors
    /// [`SetError::SpaceMismatch`] or [`SetError::EmbeddingLength`]; the set is unchanged.
    pub fn merge(&mut self, other: &SampleSet) -> Result<MergeCounts, SetError> {
        if other.space != self.space {
            return Err(SetError::SpaceMismatch { found: other.space, expected: self.space });
        }
        if other.embedding_len != self.embedding_len {
            return Err(SetError::EmbeddingLength { found: other.embedding_len, expected: self.embedding_len });
        }
        let mut counts = MergeCounts::default();
        // Tombstones first, so that what they remove is not counted as added.
        for id in &other.tombstones {
            counts.n_tombstones += u32::from(!self.tombstones.contains(id));
            counts.n_removed += u32::from(self.remove(*id));
        }
        let aside = other.set_aside.iter().flat_map(|(id, contents)| contents.iter().map(move |c| (id, c)));
        for (id, content) in other.records.iter().chain(aside) {
            match self.insert_content(*id, content.clone()) {
                Inserted::Added => counts.n_added += 1,
                Inserted::Conflict => counts.n_set_aside += 1,
                Inserted::Known | Inserted::Tombstoned => {}
            }
        }
        Ok(counts)
    }

    fn insert_content(&mut self, id: SampleId, mut content: Content) -> Inserted {
        if self.tombstones.contains(&id) {
            return Inserted::Tombstoned;
        }
        let Some(live) = self.records.get_mut(&id) else {
            self.records.insert(id, content);
            return Inserted::Added;
        };
        if *live == content {
            return Inserted::Known;
        }
        if content < *live {
            core::mem::swap(live, &mut content);
        }
        // A content that was set aside before can only be larger than the live one, so this covers both cases.
        if self.set_aside.entry(id).or_default().insert(content) { Inserted::Conflict } else { Inserted::Known }
    }

    fn check(&self, embedding: &[i8]) -> Result<(), SetError> {
        if self.embedding_len > EMBEDDING_LEN_MAX {
            return Err(SetError::TooLong { found: self.embedding_len, limit: EMBEDDING_LEN_MAX });
        }
        if embedding.len() != self.embedding_len {
            return Err(SetError::EmbeddingLength { found: embedding.len(), expected: self.embedding_len });
        }
        match embedding.iter().position(|component| *component == i8::MIN) {
            Some(index) => Err(SetError::ComponentRange { index }),
            None => Ok(()),
        }
    }

    /// Live samples, ascending by id.
    pub fn live(&self) -> impl Iterator<Item = (SampleId, &SampleMeta, &[i8])> {
        self.records.iter().map(|(id, content)| (*id, &content.meta, &*content.embedding))
    }

    /// The live sample of this id.
    pub fn get(&self, id: SampleId) -> Option<(&SampleMeta, &[i8])> {
        self.records.get(&id).map(|content| (&content.meta, &*content.embedding))
    }

    /// True if the sample was removed.
    pub fn is_tombstoned(&self, id: SampleId) -> bool {
        self.tombstones.contains(&id)
    }

    /// Tombstones, ascending.
    pub fn tombstones(&self) -> impl Iterator<Item = SampleId> {
        self.tombstones.iter().copied()
    }

    /// Contents that contradict a live sample, ascending by id.
    pub fn set_aside(&self) -> impl Iterator<Item = (SampleId, &SampleMeta, &[i8])> {
        let one = |(id, contents)| core::iter::repeat(id).zip::<&BTreeSet<Content>>(contents);
        self.set_aside.iter().flat_map(one).map(|(id, content)| (*id, &content.meta, &*content.embedding))
    }

    /// Number of contents set aside.
    pub fn n_set_aside(&self) -> usize {
        self.set_aside.values().map(BTreeSet::len).sum()
    }

    /// Number of live samples, negatives included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True if no sample is live.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of live samples that show a class: those a head is trained on.
    pub fn n_class_samples(&self) -> usize {
        self.class_samples().count()
    }

    /// Labels that have a live sample, ascending by UTF-8 bytes. Negatives are not classes.
    pub fn classes(&self) -> BTreeSet<&Label> {
        self.class_samples().map(|meta| &meta.label).collect()
    }

    /// Number of [`Self::classes`].
    pub fn n_classes(&self) -> usize {
        self.classes().len()
    }

    fn class_samples(&self) -> impl Iterator<Item = &SampleMeta> {
        self.records.values().map(|content| &content.meta).filter(|meta| meta.kind == LabelKind::Class)
    }

    /// The embedding space.
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// D, the components of an embedding.
    pub fn embedding_len(&self) -> usize {
        self.embedding_len
    }

    /// Names the live set: BLAKE3 over `"graft set v1"`, space `[32]`, D u32 little-endian, live ids ascending.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graft set v1");
        hasher.update(&self.space.0);
        hasher.update(&(self.embedding_len as u32).to_le_bytes());
        for id in self.records.keys() {
            hasher.update(&id.0);
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

impl Ord for Content {
    /// By the embedding's bytes as they lie in a file (unsigned), then by what is said about it.
    fn cmp(&self, other: &Self) -> Ordering {
        let bytes = self.embedding.iter().map(|component| *component as u8);
        bytes.cmp(other.embedding.iter().map(|component| *component as u8)).then_with(|| self.meta.cmp(&other.meta))
    }
}

impl PartialOrd for Content {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{self, SPACE, meta};
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn digest_is_golden() {
        assert_eq!(format!("{:.16}", SampleSet::new(SPACE, 4).digest()), "e5b4a355dd7cbbc9");
        assert_eq!(format!("{:.16}", synthetic::clusters(2, 3, 8, 1).digest()), "a2a81d5aae305648");
    }

    #[test]
    fn bad_embeddings_are_refused_and_change_nothing() {
        let mut set = SampleSet::new(SPACE, 3);
        let error = set.insert(meta(0, 0), &[1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "embedding has 2 components; the set takes 3");
        let error = set.insert(meta(0, 0), &[1, -128, 2]).unwrap_err();
        assert_eq!(error.to_string(), "embedding holds -128 at component 1; allowed are -127 to 127");
        let error = SampleSet::new(SPACE, 8193).insert(meta(0, 0), &[0; 8193]).unwrap_err();
        assert_eq!(error.to_string(), "set has embeddings of 8193 components; at most 8192 are allowed");
        assert_eq!(set, SampleSet::new(SPACE, 3));
    }

    #[test]
    fn sets_of_two_spaces_do_not_merge() {
        let mut set = SampleSet::new(SPACE, 3);
        let error = set.merge(&SampleSet::new(SpaceId([8; 32]), 3)).unwrap_err();
        assert_eq!(error.to_string(), "set of space 080808080808 cannot be merged into space 070707070707");
        let error = set.merge(&SampleSet::new(SPACE, 4)).unwrap_err();
        assert_eq!(error.to_string(), "embedding has 4 components; the set takes 3");
    }

    #[test]
    fn a_contradiction_is_set_aside_and_the_smaller_bytes_are_live() {
        let mut set = SampleSet::new(SPACE, 2);
        // As bytes -1 is 255 and larger than 1.
        assert_eq!(set.insert(meta(0, 0), &[-1, 0]), Ok(Inserted::Added));
        assert_eq!(set.insert(meta(0, 0), &[1, 0]), Ok(Inserted::Conflict));
        assert_eq!(set.insert(meta(0, 0), &[-1, 0]), Ok(Inserted::Known));
        let id = meta(0, 0).sample_id();
        assert_eq!(set.get(id), Some((&meta(0, 0), &[1, 0][..])));
        assert_eq!(set.set_aside().collect::<Vec<_>>(), [(id, &meta(0, 0), &[-1, 0][..])]);
        assert_eq!((set.len(), set.n_set_aside()), (1, 1));
        assert!(set.remove(id));
        assert_eq!((set.len(), set.n_set_aside()), (0, 0));
    }

    #[test]
    fn a_removed_sample_stays_removed() {
        let mut set = synthetic::clusters(2, 2, 4, 1);
        let (id, meta, embedding) = set.live().next().map(|(id, m, e)| (id, m.clone(), e.to_vec())).unwrap();
        assert!(set.remove(id) && !set.remove(id));
        assert_eq!(set.insert(meta, &embedding), Ok(Inserted::Tombstoned));
        assert!(set.is_tombstoned(id) && set.get(id).is_none() && set.len() == 3);
    }

    #[test]
    fn merge_counts_what_changed() {
        let mut set = synthetic::clusters(2, 3, 4, 1);
        let mut other = SampleSet::new(SPACE, 4);
        other.insert(meta(0, 0), &[9, 9, 9, 9]).unwrap(); // contradicts
        other.insert(meta(5, 50), &[1, 2, 3, 4]).unwrap(); // new
        other.remove(meta(0, 1).sample_id()); // live in `set`
        other.remove(meta(7, 70).sample_id()); // unknown to `set`
        let counts = set.merge(&other).unwrap();
        assert_eq!(counts, MergeCounts { n_added: 1, n_removed: 1, n_set_aside: 1, n_tombstones: 2 });
        assert_eq!(set.merge(&other).unwrap(), MergeCounts::default());
    }

    #[test]
    fn negatives_are_live_but_no_class() {
        let mut set = synthetic::clusters(2, 3, 4, 1);
        set.insert(SampleMeta { kind: LabelKind::Negative, ..meta(9, 9) }, &[1; 4]).unwrap();
        assert_eq!((set.len(), set.n_class_samples(), set.n_classes()), (7, 6, 2));
    }

    /// One thing that happens to a board: insert sample (id, variant of its embedding), or remove it.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Insert(u32, i8),
        Remove(u32),
    }

    fn events(variants: i8) -> impl Strategy<Value = Vec<Event>> {
        let insert = (0..12u32, 0..variants).prop_map(|(number, variant)| Event::Insert(number, variant));
        let remove = (0..12u32).prop_map(Event::Remove);
        proptest::collection::vec(prop_oneof![4 => insert, 1 => remove], 0..30)
    }

    fn board(events: &[Event]) -> SampleSet {
        let mut set = SampleSet::new(SPACE, 2);
        for event in events {
            match *event {
                Event::Insert(number, variant) => {
                    set.insert(meta(number % 3, number), &[variant - 1, 5]).unwrap();
                }
                Event::Remove(number) => {
                    set.remove(meta(number % 3, number).sample_id());
                }
            }
        }
        set
    }

    fn merged(a: &SampleSet, b: &SampleSet) -> SampleSet {
        let mut set = a.clone();
        set.merge(b).unwrap();
        set
    }

    proptest! {
        /// Contradictions and removals included: whatever order, the same set.
        #[test]
        fn order_does_not_matter((events, shuffled) in events(3).prop_flat_map(|e| (Just(e.clone()), Just(e).prop_shuffle()))) {
            prop_assert_eq!(board(&events), board(&shuffled));
            prop_assert_eq!(board(&events).digest(), board(&shuffled).digest());
        }

        #[test]
        fn merge_is_idempotent(a in events(3)) {
            let a = board(&a);
            prop_assert_eq!(&merged(&a, &a), &a);
        }

        #[test]
        fn merge_is_commutative(a in events(3), b in events(3)) {
            let (a, b) = (board(&a), board(&b));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        }

        #[test]
        fn merge_is_associative(a in events(3), b in events(3), c in events(3)) {
            let (a, b, c) = (board(&a), board(&b), board(&c));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }

        /// Two boards merged are one board to which everything happened.
        #[test]
        fn merge_equals_union(a in events(3), b in events(3)) {
            let together: Vec<Event> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(merged(&board(&a), &board(&b)), board(&together));
        }

        /// Live samples after removal are those of a board that never saw the removed ones.
        #[test]
        fn remove_equals_never_added(all in events(3)) {
            let removed = |number: u32| all.iter().any(|event| matches!(event, Event::Remove(n) if *n == number));
            let kept: Vec<Event> = all.iter().copied().filter(|event| matches!(event, Event::Insert(n, _) if !removed(*n))).collect();
            let (with, without) = (board(&all), board(&kept));
            prop_assert!(with.live().eq(without.live()));
            prop_assert!(with.set_aside().eq(without.set_aside()));
            prop_assert_eq!(with.digest(), without.digest());
        }
    }
}
