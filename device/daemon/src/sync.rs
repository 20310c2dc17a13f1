//! Sample sets on their way out and in: pages by ascending id, and union.

use std::collections::BTreeSet;

use graft_store::{Added, StoreError, Tx};
use graft_wire::message::Record;
use graft_wire::{Batch, LabelKind, Response, SampleId, SampleMeta, SpaceId};

use crate::answer::{Failure, Page};
use crate::daemon::{Daemon, Exchange};
use crate::samples::decoded;

impl Daemon {
    pub(crate) fn pull_records(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        after: Option<SampleId>,
    ) -> Result<Vec<u8>, Failure> {
        let live = self.active_in(space)?.set.live().skip_while(|(id, _, _)| Some(*id) <= after);
        Ok(records(exchange, live.map(|(_, meta, embedding)| (meta, embedding))))
    }

    pub(crate) fn pull_by_id(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        ids: Batch<'_, SampleId>,
    ) -> Result<Vec<u8>, Failure> {
        let set = &self.active_in(space)?.set;
        let ids = decoded(ids)?;
        Ok(records(exchange, ids.into_iter().filter_map(|id| set.get(id))))
    }

    pub(crate) fn list_ids(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        after: Option<SampleId>,
    ) -> Result<Vec<u8>, Failure> {
        let live = self.active_in(space)?.set.live();
        let page = Page::of(live.map(|(id, _, _)| id).skip_while(|id| Some(*id) <= after));
        Ok(exchange.encode(Response::Ids { ids: Batch::new(page.bytes()) }))
    }

    /// Tombstones are of no space, so no bundle is needed.
    pub(crate) fn pull_tombstones(&mut self, exchange: &Exchange, after: Option<SampleId>) -> Result<Vec<u8>, Failure> {
        let mut page = Page::default();
        self.store.tombstones(after.as_ref(), |id| page.push(&id))?;
        Ok(exchange.encode(Response::Tombstones { ids: Batch::new(page.bytes()) }))
    }

    /// All of it is checked before any of it is stored.
    pub(crate) fn push_records(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        records: Batch<'_, Record<'_>>,
        tombstones: Batch<'_, SampleId>,
    ) -> Result<Vec<u8>, Failure> {
        let active = self.active_in(space)?;
        let mut samples = Vec::new();
        for Record { meta, embedding } in decoded(records)? {
            let embedding = active.check_embedding(embedding)?;
            samples.push((meta, embedding));
        }
        let tombstones = decoded(tombstones)?;
        let labels: BTreeSet<_> =
            samples.iter().filter(|(meta, _)| meta.kind == LabelKind::Class).map(|(meta, _)| &meta.label).collect();
        active.check_classes(labels)?;

        let note = self.note();
        let union = |tx: &Tx<'_>| -> Result<(Vec<u8>, Vec<bool>), StoreError> {
            // Tombstones first, so that what they remove is not counted as added.
            let mut n_removed = 0;
            for id in &tombstones {
                n_removed += u32::from(tx.remove(id)?.was_live);
            }
            let (mut n_added, mut n_set_aside) = (0, 0);
            let mut is_in = Vec::with_capacity(samples.len());
            for (meta, embedding) in &samples {
                let added = tx.add(meta, space, embedding, Some(&note))?;
                n_added += u32::from(added == Added::New);
                n_set_aside += u32::from(matches!(added, Added::SetAside | Added::Replaced));
                is_in.push(matches!(added, Added::New | Added::Replaced));
            }
            if n_removed > 0 {
                tx.mark_heads_changed(None)?;
            } else if is_in.contains(&true) {
                tx.mark_heads_changed(Some(space))?;
            }
            let response = exchange.encode(Response::Merged { n_added, n_removed, n_set_aside });
            tx.record(&exchange.key, &response)?;
            Ok((response, is_in))
        };
        // Tombstones alone may use the reserve of a full disk.
        let (response, is_in) =
            if samples.is_empty() { self.store.transaction_freeing(union)? } else { self.store.transaction(union)? };
        if let Some(active) = &mut self.active {
            tombstones.iter().for_each(|id| active.forget(*id));
        }
        self.insert(samples.into_iter().zip(is_in).filter(|(_, is_in)| *is_in).map(|(sample, _)| sample));
        Ok(response)
    }
}

/// A page of records.
fn records<'a>(exchange: &Exchange, samples: impl Iterator<Item = (&'a SampleMeta, &'a [i8])>) -> Vec<u8> {
    let mut page = Page::default();
    let mut bytes = Vec::new();
    for (meta, embedding) in samples {
        bytes.clear();
        bytes.extend(embedding.iter().map(|component| component.cast_unsigned()));
        if !page.push(&Record { meta: meta.clone(), embedding: &bytes }) {
            break;
        }
    }
    exchange.encode(Response::Records { records: Batch::new(page.bytes()) })
}
