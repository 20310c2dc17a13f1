//! Samples on a board: collect, list, forget, relabel.

use graft_wire::message::{SampleRow, push_item};
use graft_wire::{Batch, Label, LabelKind, Request, Response, SampleId};

use super::{Board, CallError, items, other_kind};
use crate::owned::{Collected, InputRef, NewSample, Removed};

/// Ids in one request: 16 KiB.
const IDS_PER_REQUEST: usize = 1024;

impl Board {
    /// Stores one sample; when this returns, it is durable.
    ///
    /// # Errors
    /// [`CallError`]; nothing was stored if the board refused.
    pub fn collect(&mut self, sample: &NewSample, input: InputRef<'_>) -> Result<Collected, CallError> {
        let bytes = input.to_bytes();
        let NewSample { space, label, session, digest, part, kind } = sample.clone();
        let request = Request::Collect { space, label, session, digest, part, kind, input: bytes.input() };
        self.call(request, read_collected)
    }

    /// Live samples of the active space, ascending by id.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn samples(&mut self) -> Result<Vec<SampleRow>, CallError> {
        let read = |response: Response<'_>| match response {
            Response::Samples { samples } => items(&samples),
            _ => Err(other_kind()),
        };
        self.pages(|after| Request::ListSamples { after }, read, |row| row.id)
    }

    /// Forgets samples for good, also those that the board does not hold yet.
    ///
    /// # Errors
    /// [`CallError`]; a part of the ids may have been forgotten.
    pub fn remove(&mut self, ids: &[SampleId]) -> Result<Removed, CallError> {
        let mut sum = Removed::default();
        for ids in ids.chunks(IDS_PER_REQUEST) {
            let batch = encode_ids(ids)?;
            let removed = self.call(Request::RemoveSamples { ids: Batch::new(&batch) }, |response| match response {
                Response::Removed { n_removed, n_tombstones } => Ok(Removed { n_removed, n_tombstones }),
                _ => Err(other_kind()),
            })?;
            sum.n_removed = sum.n_removed.saturating_add(removed.n_removed);
            sum.n_tombstones = sum.n_tombstones.saturating_add(removed.n_tombstones);
        }
        Ok(sum)
    }

    /// Gives a sample another label; it becomes another sample.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn relabel(&mut self, id: SampleId, label: &Label, kind: LabelKind) -> Result<Collected, CallError> {
        self.call(Request::Relabel { id, label: label.clone(), kind }, read_collected)
    }
}

/// Ids as a batch holds them.
pub(super) fn encode_ids(ids: &[SampleId]) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    for id in ids {
        push_item(&mut bytes, id).map_err(CallError::Protocol)?;
    }
    Ok(bytes)
}

fn read_collected(response: Response<'_>) -> Result<Collected, CallError> {
    match response {
        Response::Collected { id, added, embed_us } => Ok(Collected { id, added, embed_us }),
        _ => Err(other_kind()),
    }
}
