//! Collecting, listing, removing and relabelling samples.

use graft_store::{StoreError, Tx};
use graft_wire::message::{Input, SampleRow};
use graft_wire::{Batch, Digest, Label, LabelKind, Response, SampleId, SampleMeta, SessionId, SpaceId, WireError};

use crate::answer::{Failure, Page};
use crate::daemon::{Daemon, Exchange};

impl Daemon {
    pub(crate) fn collect(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        meta: SampleMeta,
        input: Input<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let active = self.active_in(space)?;
        if meta.kind == LabelKind::Class {
            active.check_classes([&meta.label])?;
        }
        // By field, so that the store stays free for its transaction.
        let set = self.active.as_ref().map(|active| &active.set);
        let is_here = |id: &SampleId| set.is_some_and(|set| set.get(*id).is_some());
        // Before the backbone runs: an input that is live already costs nothing.
        let seen = self.store.transaction::<_, Failure>(|tx| {
            let twins = live_twins(tx, &meta)?;
            if let Some(id) = twins.iter().map(SampleMeta::sample_id).find(is_here) {
                let response = exchange.encode(Response::Collected { id, added: false, embed_us: 0 });
                tx.record(&exchange.key, &response)?;
                return Ok(Seen::Live(response));
            }
            // A twin that lacks its embedding in this space keeps its id and gets one.
            let wanted = twins.into_iter().next().unwrap_or_else(|| meta.clone());
            match tx.is_tombstoned(&wanted.sample_id())? {
                true => Err(WireError::Tombstoned.into()),
                false => Ok(Seen::Wanted(wanted)),
            }
        })?;
        let meta = match seen {
            Seen::Live(response) => return Ok(response),
            Seen::Wanted(meta) => meta,
        };

        let (embedding, embed_us) = self.embed(input)?;
        let note = self.note();
        let response = exchange.encode(Response::Collected { id: meta.sample_id(), added: true, embed_us });
        self.store.transaction::<_, Failure>(|tx| {
            tx.add(&meta, space, &embedding, Some(&note))?;
            tx.mark_heads_changed(Some(space))?;
            Ok(tx.record(&exchange.key, &response)?)
        })?;
        self.insert([(meta, embedding)]);
        Ok(response)
    }

    pub(crate) fn list_samples(&mut self, exchange: &Exchange, after: Option<SampleId>) -> Result<Vec<u8>, Failure> {
        let mut page = Page::default();
        for (id, meta, _) in self.active()?.set.live().skip_while(|(id, _, _)| Some(*id) <= after) {
            let stored_s = self.store.note(&id)?.and_then(|note| note.stored_s);
            if !page.push(&SampleRow { id, meta: meta.clone(), stored_s }) {
                break;
            }
        }
        Ok(exchange.encode(Response::Samples { samples: Batch::new(page.bytes()) }))
    }

    pub(crate) fn remove_samples(&mut self, exchange: &Exchange, ids: Batch<'_, SampleId>) -> Result<Vec<u8>, Failure> {
        let ids = decoded(ids)?;
        let response = self.store.transaction_freeing(|tx| {
            let (mut n_removed, mut n_tombstones) = (0, 0);
            for id in &ids {
                let removed = tx.remove(id)?;
                n_removed += u32::from(removed.was_live);
                n_tombstones += u32::from(removed.is_new);
            }
            if n_removed > 0 {
                tx.mark_heads_changed(None)?;
            }
            let response = exchange.encode(Response::Removed { n_removed, n_tombstones });
            tx.record(&exchange.key, &response)?;
            Ok(response)
        })?;
        if let Some(active) = &mut self.active {
            ids.iter().for_each(|id| active.forget(*id));
        }
        Ok(response)
    }

    /// Tombstone and add. All embeddings move along, so that no space forgets the sample.
    pub(crate) fn relabel(
        &mut self,
        exchange: &Exchange,
        id: SampleId,
        label: Label,
        kind: LabelKind,
    ) -> Result<Vec<u8>, Failure> {
        if let (Some(active), LabelKind::Class) = (&self.active, kind) {
            active.check_classes([&label])?;
        }
        let note = self.store.note(&id)?.unwrap_or_default();
        let (response, changed) = self.store.transaction::<_, Failure>(|tx| {
            let Some(old) = tx.record_of(&id)? else {
                let gone = if tx.is_tombstoned(&id)? { WireError::Tombstoned } else { WireError::UnknownSample };
                return Err(gone.into());
            };
            if old.label == label && old.kind == kind {
                let response = exchange.encode(Response::Collected { id, added: false, embed_us: 0 });
                tx.record(&exchange.key, &response)?;
                return Ok((response, None));
            }
            let wanted = SampleMeta { label, kind, ..old };
            let twin = live_twins(tx, &wanted)?.into_iter().next();
            let added = twin.is_none();
            let new = match twin {
                Some(twin) => twin,
                None => untombstoned(tx, wanted)?,
            };
            let embeddings = tx.embeddings_of(&id)?;
            if embeddings.is_empty() {
                return Err(WireError::UnknownSample.into());
            }
            for (space, embedding) in &embeddings {
                tx.add(&new, space, embedding, Some(&note))?;
            }
            tx.remove(&id)?;
            tx.mark_heads_changed(None)?;
            let response = exchange.encode(Response::Collected { id: new.sample_id(), added, embed_us: 0 });
            tx.record(&exchange.key, &response)?;
            Ok((response, Some((new, embeddings))))
        })?;
        if let (Some((new, embeddings)), Some(active)) = (changed, &mut self.active) {
            active.forget(id);
            let space = active.row.space;
            self.insert(
                embeddings.into_iter().filter(|(of, _)| *of == space).map(|(_, embedding)| (new.clone(), embedding)),
            );
        }
        Ok(response)
    }

    /// Brings the set in memory in step with committed samples.
    pub(crate) fn insert(&mut self, samples: impl IntoIterator<Item = (SampleMeta, Vec<i8>)>) {
        let Some(active) = &mut self.active else { return };
        let n_refused = samples.into_iter().filter(|(meta, embedding)| !active.insert(meta.clone(), embedding)).count();
        if n_refused > 0 {
            self.log(&format!("{n_refused} stored samples do not fit their set"));
        }
    }
}

/// What the store says about an input before it is embedded.
enum Seen {
    /// It is live under the same label; the recorded response.
    Live(Vec<u8>),
    /// To be stored as this sample.
    Wanted(SampleMeta),
}

/// Live samples of the same part of the same input under the same label, ascending by id.
fn live_twins(tx: &Tx<'_>, wanted: &SampleMeta) -> Result<Vec<SampleMeta>, StoreError> {
    let found = tx.samples_of_input(&wanted.digest, &wanted.part)?.into_iter().map(|(_, meta)| meta);
    Ok(found.filter(|meta| meta.label == wanted.label && meta.kind == wanted.kind).collect())
}

/// `wanted`, in a session of its own if it was removed before.
///
/// A sample that is relabelled back would get its old id, whose tombstone is final. A session derived from the old one
/// gives a new id, the same on every board, and the samples of one session that went this way stay together.
fn untombstoned(tx: &Tx<'_>, mut wanted: SampleMeta) -> Result<SampleMeta, Failure> {
    for _ in 0..RELABELS_MAX {
        if !tx.is_tombstoned(&wanted.sample_id())? {
            return Ok(wanted);
        }
        let mut bytes = b"graft relabel v1".to_vec();
        bytes.extend_from_slice(&wanted.session.0);
        let digest = Digest::of(&bytes);
        wanted.session =
            SessionId::from_slice(digest.0.get(..SessionId::LEN).unwrap_or_default()).unwrap_or(wanted.session);
    }
    Err(WireError::Tombstoned.into())
}

/// How often one sample may go back and forth between two labels.
const RELABELS_MAX: u32 = 1000;

/// The items of a batch; the message was checked as a whole when it was decoded.
pub(crate) fn decoded<'a, T: serde::Deserialize<'a>>(batch: Batch<'a, T>) -> Result<Vec<T>, WireError> {
    batch.iter().collect::<Result<_, _>>().map_err(|_| WireError::Malformed)
}
