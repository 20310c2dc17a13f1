//! What all handlers share: encoded responses, bounded pages, and errors as the link knows them.

use graft_heads::{CalibrateError, TrainError};
use graft_store::StoreError;
use graft_wire::message::push_item;
use graft_wire::{Response, ResponseEnvelope, WireError};
use serde::Serialize;

/// A page of a longer list ends after the item that reaches this many bytes.
pub(crate) const PAGE_BYTES: usize = 256 << 10;

/// The bytes of a whole response.
pub(crate) fn encode(request_id: u64, body: Result<Response<'_>, WireError>) -> Vec<u8> {
    let envelope = ResponseEnvelope { request_id, body };
    // Postcard into a Vec fails for types of unknown length only; the link has none. An empty answer is not decodable,
    // so even then nothing false is said.
    postcard::to_allocvec(&envelope).unwrap_or_default()
}

/// Items of a batch up to [`PAGE_BYTES`].
#[derive(Default)]
pub(crate) struct Page {
    bytes: Vec<u8>,
}

impl Page {
    /// Adds an item; false once the page is full.
    pub fn push<T: Serialize>(&mut self, item: &T) -> bool {
        push_item(&mut self.bytes, item).is_ok() && self.bytes.len() < PAGE_BYTES
    }

    /// The items as a batch reads them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A page of as many of `items` as fit.
    pub fn of<T: Serialize>(items: impl IntoIterator<Item = T>) -> Self {
        let mut page = Self::default();
        for item in items {
            if !page.push(&item) {
                break;
            }
        }
        page
    }

    /// All of `items`, for lists whose length other caps bound.
    pub fn all<T: Serialize>(items: impl IntoIterator<Item = T>) -> Self {
        let mut page = Self::default();
        for item in items {
            page.push(&item);
        }
        page
    }
}

/// A store error as a host sees it, with what only the board's log should hold.
pub(crate) struct Failure {
    pub wire: WireError,
    pub log: Option<String>,
}

impl From<WireError> for Failure {
    fn from(wire: WireError) -> Self {
        Self { wire, log: None }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let wire = match error {
            StoreError::DiskFull => WireError::DiskFull,
            StoreError::RequestReused(_) => WireError::RequestReused,
            StoreError::RequestTooOld { .. } => WireError::RequestTooOld,
            StoreError::RequestId(_) => WireError::TooLong,
            StoreError::HashMismatch { found, expected } => WireError::HashMismatch { found, expected },
            StoreError::UploadOffset { found, expected } => WireError::UploadOffset { found, expected },
            StoreError::UploadTooLong { .. } => WireError::TooLong,
            StoreError::UnknownUpload(_) => WireError::UnknownUpload,
            StoreError::UnknownBundle(_) => WireError::UnknownBundle,
            error => return Self { wire: WireError::Storage, log: Some(error.to_string()) },
        };
        Self { wire, log: None }
    }
}

impl From<CalibrateError> for Failure {
    fn from(error: CalibrateError) -> Self {
        match error {
            CalibrateError::Rate { .. } => WireError::BadRate.into(),
            CalibrateError::TooFew { n, n_needed, .. } => WireError::TooFewToPromise { n, n_needed }.into(),
            CalibrateError::Train(error) => error.into(),
            error => Self { wire: WireError::Unsolvable, log: Some(error.to_string()) },
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::TooFewClasses { n_classes, n_samples } => {
                WireError::TooFewClasses { n_classes, n_samples }.into()
            }
            TrainError::TooManyClasses { found, limit } => WireError::TooManyClasses { found, limit }.into(),
            error => Self { wire: WireError::Unsolvable, log: Some(error.to_string()) },
        }
    }
}
