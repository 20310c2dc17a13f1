//! What of the active bundle lies in memory: its set, its head, and its engine once it is needed.

use graft_bundle::Bundle;
use graft_engine::{EmbedError, Engine};
use graft_heads::{Head, SampleSet};
use graft_store::{BundleRow, Store, StoreError};
use graft_wire::message::{ChoiceReason, HeadInfo, Input};
use graft_wire::{Digest, Label, SampleId, SampleMeta, SpaceId, WireError};

use crate::answer::Failure;
use crate::bundles::{load_engine, read_checked};
use crate::daemon::Daemon;

/// The active bundle's side of a daemon.
pub(crate) struct Active {
    pub row: BundleRow,
    /// As encoded, for [`graft_wire::Request::ReadManifest`].
    pub manifest: Vec<u8>,
    /// Live samples with an embedding in the bundle's space. Tombstones are the store's.
    pub set: SampleSet,
    pub head: Option<ActiveHead>,
    /// Loaded at its first use: a board that only syncs or trains never needs it.
    pub engine: Option<Engine>,
}

/// The head of the active space.
pub(crate) struct ActiveHead {
    pub head: Head,
    pub digest: Digest,
    /// It came without its set.
    pub pushed: bool,
    /// The set has changed since it came.
    pub changed: bool,
}

impl Active {
    /// Reads set and head of `row`'s space. Returns how many damaged samples were set aside, too.
    pub fn load(
        store: &mut Store,
        row: BundleRow,
        bundle: &Bundle,
        engine: Option<Engine>,
    ) -> Result<(Self, u32), StoreError> {
        let mut set = SampleSet::new(row.space, row.embedding_len as usize);
        let mut n_refused = 0;
        let n_damaged = store.load_space(&row.space, row.embedding_len as usize, |meta, embedding| {
            // The store has checked the length; -128 was refused on its way in.
            n_refused += u32::from(set.insert(meta, embedding).is_err());
        })?;
        let head = load_head(store, &row.space, row.embedding_len)?;
        let manifest = bundle.manifest_bytes().to_vec();
        Ok((Self { row, manifest, set, head, engine }, n_damaged + n_refused))
    }

    /// What is known about the head; `train_us` is 0 unless it was trained now.
    pub fn head_info(&self, active: &ActiveHead, train_us: u32) -> HeadInfo {
        let stale = self.set.digest() != active.head.set_digest() && (!active.pushed || active.changed);
        active.info(stale, train_us)
    }

    /// Refuses labels that would make more classes than there may be.
    pub fn check_classes<'a>(&'a self, labels: impl IntoIterator<Item = &'a Label>) -> Result<(), WireError> {
        let mut classes = self.set.classes();
        classes.extend(labels);
        let limit = graft_wire::limits::CLASSES_MAX as u32;
        match u32::try_from(classes.len()) {
            Ok(found) if found <= limit => Ok(()),
            found => Err(WireError::TooManyClasses { found: found.unwrap_or(u32::MAX), limit }),
        }
    }

    /// Brings memory in step with a committed sample. Returns whether the set took it: length and components were
    /// checked before the commit.
    pub fn insert(&mut self, meta: SampleMeta, embedding: &[i8]) -> bool {
        if let Some(head) = &mut self.head {
            head.changed = true;
        }
        self.set.insert(meta, embedding).is_ok()
    }

    /// Brings memory in step with a committed removal.
    pub fn forget(&mut self, id: SampleId) {
        if let (true, Some(head)) = (self.set.remove(id), &mut self.head) {
            head.changed = true;
        }
    }

    /// Checks an embedding that came ready-made.
    pub fn check_embedding(&self, bytes: &[u8]) -> Result<Vec<i8>, WireError> {
        let embedding: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
        if embedding.len() != self.set.embedding_len() || embedding.contains(&i8::MIN) {
            let found = u32::try_from(embedding.len()).unwrap_or(u32::MAX);
            return Err(WireError::EmbeddingLength { found, expected: self.row.embedding_len });
        }
        // No input has such an embedding: the engine refuses what has no direction, or is saturated in every element.
        let saturated = embedding.iter().all(|component| component.unsigned_abs() == i8::MAX.unsigned_abs());
        if saturated || embedding.iter().all(|component| *component == 0) {
            Err(WireError::NoSignal)
        } else {
            Ok(embedding)
        }
    }
}

impl ActiveHead {
    pub fn new(head: Head, pushed: bool, changed: bool) -> Self {
        let digest = head.digest();
        Self { head, digest, pushed, changed }
    }

    pub fn info(&self, stale: bool, train_us: u32) -> HeadInfo {
        HeadInfo {
            kind: self.head.kind(),
            digest: self.digest,
            space: self.head.space(),
            set_digest: self.head.set_digest(),
            n_samples: self.head.n_samples(),
            n_classes: u32::try_from(self.head.classes().len()).unwrap_or(u32::MAX),
            lambda_rel: self.head.lambda_rel(),
            reason: if self.pushed { ChoiceReason::Pushed } else { self.head.reason() },
            balanced_accuracy: self.head.balanced_accuracy(),
            stale,
            train_us,
        }
    }
}

/// The stored head of a space; one that cannot be read any more counts as none, training makes another.
pub(crate) fn load_head(store: &Store, space: &SpaceId, embedding_len: u32) -> Result<Option<ActiveHead>, StoreError> {
    let Some(row) = store.head(space)? else { return Ok(None) };
    let head = Head::decode(&row.bytes).ok();
    let head = head.filter(|head| head.space() == *space && head.embedding_len() == embedding_len as usize);
    Ok(head.map(|head| ActiveHead::new(head, row.pushed, row.changed)))
}

impl Daemon {
    /// The active bundle.
    pub(crate) fn active(&self) -> Result<&Active, WireError> {
        self.active.as_ref().ok_or(WireError::NoBundle)
    }

    /// The active bundle, if its space is `space`.
    pub(crate) fn active_in(&self, space: &SpaceId) -> Result<&Active, WireError> {
        let active = self.active()?;
        if active.row.space == *space {
            Ok(active)
        } else {
            Err(WireError::SpaceMismatch { active: active.row.space, requested: *space })
        }
    }

    /// The embedding of an input with the time it took in µs; an embedding that came along costs none.
    pub(crate) fn embed(&mut self, input: Input<'_>) -> Result<(Vec<i8>, u32), Failure> {
        let bytes = match input {
            Input::Embedding(bytes) => return Ok((self.active()?.check_embedding(bytes)?, 0)),
            Input::Tensor(bytes) => bytes,
        };
        self.need_engine()?;
        let Some(engine) = self.active.as_mut().and_then(|active| active.engine.as_mut()) else {
            return Err(WireError::NoBundle.into());
        };
        let tensor: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
        let started = std::time::Instant::now();
        match engine.embed(&tensor) {
            Ok(embedding) => Ok((embedding, micros(started))),
            Err(EmbedError::NoSignal | EmbedError::Saturated) => Err(WireError::NoSignal.into()),
            Err(EmbedError::InputLength { found, expected }) => {
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                Err(WireError::InputLength { found: number(found), expected: number(expected) }.into())
            }
            Err(error) => {
                let fault = graft_wire::error::BundleFault::Unsupported;
                Err(Failure { wire: WireError::BadBundle(fault), log: Some(format!("engine failed: {error}")) })
            }
        }
    }

    fn need_engine(&mut self) -> Result<(), Failure> {
        let hash = match &self.active {
            Some(active) if active.engine.is_none() => active.row.hash,
            _ => return Ok(()),
        };
        let bundle = read_checked(self.store.open_bundle(&hash)?)?;
        let engine = load_engine(&bundle)?;
        if let Some(active) = &mut self.active {
            active.engine = Some(engine);
        }
        Ok(())
    }
}

/// Time since `started` in µs, at least 1 so that 0 can mean "not measured".
pub(crate) fn micros(started: std::time::Instant) -> u32 {
    u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX).max(1)
}
