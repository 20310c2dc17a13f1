//! Sample sets to and from a board: records with embeddings, ids, tombstones.

use std::mem::take;

use graft_wire::message::{Record, push_item};
use graft_wire::{Batch, Request, Response, SampleId, SpaceId};

use super::samples::encode_ids;
use super::{Board, CallError, items, other_kind};
use crate::owned::{Merged, OwnedRecord, to_bytes};

impl Board {
    /// Live records of a space with their embeddings, ascending by id.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn pull_records(&mut self, space: SpaceId) -> Result<Vec<OwnedRecord>, CallError> {
        self.pages(|after| Request::PullRecords { space, after }, read_records, OwnedRecord::id)
    }

    /// Ids of live records of a space, ascending.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn list_ids(&mut self, space: SpaceId) -> Result<Vec<SampleId>, CallError> {
        let read = |response: Response<'_>| match response {
            Response::Ids { ids } => items(&ids),
            _ => Err(other_kind()),
        };
        self.pages(|after| Request::ListIds { space, after }, read, |id| *id)
    }

    /// Live records by id, ascending; ids that are not live on the board are left out.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn pull_by_id(&mut self, space: SpaceId, ids: &[SampleId]) -> Result<Vec<OwnedRecord>, CallError> {
        let mut wanted = ids.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut records = Vec::new();
        let ids_per_request = self.ids_per_request();
        while !wanted.is_empty() {
            let now = wanted.get(..ids_per_request).unwrap_or(&wanted);
            let batch = encode_ids(now)?;
            let page = self.call(Request::PullById { space, ids: Batch::new(&batch) }, read_records)?;
            // An answer may hold fewer than asked, always the first ones; what lies between them is not live.
            let Some(done) = page.last().map(OwnedRecord::id).or(now.last().copied()) else { break };
            let known = |record: &OwnedRecord| now.binary_search(&record.id()).is_ok();
            if !page.iter().all(known) || !page.is_sorted_by(|a, b| a.id() < b.id()) {
                return Err(CallError::Unexpected("it sends records that were not asked for"));
            }
            wanted.retain(|id| *id > done);
            records.extend(page);
        }
        Ok(records)
    }

    /// Tombstones, ascending.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn pull_tombstones(&mut self) -> Result<Vec<SampleId>, CallError> {
        let read = |response: Response<'_>| match response {
            Response::Tombstones { ids } => items(&ids),
            _ => Err(other_kind()),
        };
        self.pages(|after| Request::PullTombstones { after }, read, |id| *id)
    }

    /// Adds records and tombstones by union, tombstones first, so that nothing forgotten comes back in between.
    ///
    /// # Errors
    /// [`CallError`]; a part may have been added, and pushing all again is safe.
    pub fn push_records(
        &mut self,
        space: SpaceId,
        records: &[OwnedRecord],
        tombstones: &[SampleId],
    ) -> Result<Merged, CallError> {
        let mut sum = Merged::default();
        for ids in tombstones.chunks(self.ids_per_request()) {
            self.push_page(space, &[], &encode_ids(ids)?, &mut sum)?;
        }
        let page_bytes = self.link.chunk_bytes();
        let mut page = Vec::new();
        for record in records {
            let embedding = to_bytes(&record.embedding);
            let mut item = Vec::new();
            let record = Record { meta: record.meta.clone(), embedding: &embedding };
            push_item(&mut item, &record).map_err(CallError::Protocol)?;
            if !page.is_empty() && page.len() + item.len() > page_bytes {
                self.push_page(space, &take(&mut page), &[], &mut sum)?;
            }
            page.append(&mut item);
        }
        if !page.is_empty() {
            self.push_page(space, &page, &[], &mut sum)?;
        }
        Ok(sum)
    }

    fn push_page(&mut self, space: SpaceId, records: &[u8], ids: &[u8], sum: &mut Merged) -> Result<(), CallError> {
        let request = Request::PushRecords { space, records: Batch::new(records), tombstones: Batch::new(ids) };
        let merged = self.call(request, |response| match response {
            Response::Merged { n_added, n_removed, n_set_aside } => Ok(Merged { n_added, n_removed, n_set_aside }),
            _ => Err(other_kind()),
        })?;
        sum.n_added = sum.n_added.saturating_add(merged.n_added);
        sum.n_removed = sum.n_removed.saturating_add(merged.n_removed);
        sum.n_set_aside = sum.n_set_aside.saturating_add(merged.n_set_aside);
        Ok(())
    }

    fn ids_per_request(&self) -> usize {
        (self.link.chunk_bytes() / SampleId::LEN).max(1)
    }
}

fn read_records(response: Response<'_>) -> Result<Vec<OwnedRecord>, CallError> {
    match response {
        Response::Records { records } => Ok(items(&records)?.into_iter().map(OwnedRecord::from).collect()),
        _ => Err(other_kind()),
    }
}
