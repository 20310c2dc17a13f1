//! Requests and responses, version 1.
//!
//! Postcard enums that borrow from the receive buffer: long byte strings are never copied while decoding, and every
//! length is checked here. Variants and fields are frozen once released; golden bytes below hold them.
//!
//! A request that changes state is recorded by the board under (client, request id) together with its effect, so
//! that a repeated one returns the recorded answer. Reads are simply run again.

use core::fmt;
use core::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, WireError};
use crate::ids::{ClientId, DeviceId, Digest, SampleId, SessionId, SpaceId};
use crate::label::Label;
pub use crate::learning::{
    ChoiceReason, ClassCounts, ClassScore, ConfusionCell, DoubtfulSample, DuplicatePair, EvaluationSummary, HeadChoice,
    HeadComparison, HeadInfo, HeadKind, Prediction, Protocol, RejectionInfo, ReviewCounts,
};
use crate::limits::{BUNDLE_BYTES_MAX, CHUNK_BYTES_MAX, EMBEDDING_LEN_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};
use crate::sample::{LabelKind, Part, SampleMeta};
pub use crate::speed::{BENCH_RUNS_MAX, BENCH_THREADS_MAX, BenchSummary, LayerCost};

/// A short name: device, bundle, instruction set.
pub type Name = heapless::String<NAME_BYTES_MAX>;

/// One request with the names that make its retries safe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestEnvelope<'a> {
    /// Run of the host tool.
    pub client: ClientId,
    /// Counts up from 1 within the client.
    pub request_id: u64,
    /// What is asked.
    #[serde(borrow)]
    pub body: Request<'a>,
}

/// The answer to the request of the same id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponseEnvelope<'a> {
    /// Id of the request; 0 if it could not be read.
    pub request_id: u64,
    /// Answer or refusal.
    #[serde(borrow)]
    pub body: Result<Response<'a>, WireError>,
}

/// What a host asks of a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Reads [`DeviceInfo`].
    DeviceInfo,
    /// Reads bytes of the active bundle's manifest from `offset`; answered by [`Response::Bytes`].
    ReadManifest {
        /// First byte wanted.
        offset: u32,
    },
    /// Starts or resumes an upload named by the BLAKE3 of its bytes; answered by [`Response::UploadAt`].
    UploadBegin {
        /// Length of the file.
        bytes: u64,
        /// BLAKE3 of the file.
        hash: Digest,
    },
    /// Continues an upload; answered by [`Response::UploadAt`].
    UploadChunk {
        /// Names the upload.
        hash: Digest,
        /// Where these bytes belong.
        offset: u64,
        /// At most [`CHUNK_BYTES_MAX`].
        bytes: &'a [u8],
    },
    /// Checks hash and format of a finished upload, runs its self-test, and activates it if asked. Changes state;
    /// answered by [`Response::BundleInstalled`].
    BundleInstall {
        /// Names the upload.
        hash: Digest,
        /// False: stop after the self-test.
        activate: bool,
    },
    /// Activates an installed bundle. Changes state; answered by [`Response::BundleInstalled`].
    BundleActivate {
        /// Hash of the bundle file.
        hash: Digest,
    },
    /// Goes back to the previous bundle. Changes state; answered by [`Response::BundleInstalled`].
    BundleRollback,
    /// Stores one sample. Changes state; answered by [`Response::Collected`] after the commit.
    Collect {
        /// Space in which `input` was prepared.
        space: SpaceId,
        /// Class, or name of a kind of negative.
        label: Label,
        /// What was taken in one go.
        session: SessionId,
        /// BLAKE3 of the input's original bytes.
        digest: Digest,
        /// Which part of the input.
        part: Part,
        /// Class or negative.
        kind: LabelKind,
        /// What to embed.
        #[serde(borrow)]
        input: Input<'a>,
    },
    /// Lists live samples of the active space, ascending by id, after `after`; answered by [`Response::Samples`].
    ListSamples {
        /// Last id of the page before; `None` for the first page.
        after: Option<SampleId>,
    },
    /// Forgets samples. Changes state; answered by [`Response::Removed`]. Unknown ids are tombstoned as well.
    RemoveSamples {
        /// Sample ids.
        #[serde(borrow)]
        ids: Batch<'a, SampleId>,
    },
    /// Gives a sample another label: tombstone and add. Changes state; answered by [`Response::Collected`].
    Relabel {
        /// The sample.
        id: SampleId,
        /// Its new label.
        label: Label,
        /// Its new kind.
        kind: LabelKind,
    },
    /// Trains a head from the stored embeddings and activates it. Changes state; answered by [`Response::Head`].
    Train {
        /// Which head.
        head: HeadChoice,
        /// Train although the active head was pushed and knows more samples than the board holds.
        force: bool,
    },
    /// Embeds and classifies; answered by [`Response::Prediction`].
    Predict {
        /// Space in which `input` was prepared.
        space: SpaceId,
        /// What to classify.
        #[serde(borrow)]
        input: Input<'a>,
    },
    /// Evaluates a head by leaving out samples of the set; answered by [`Response::Evaluation`].
    Evaluate {
        /// Which head.
        head: HeadChoice,
    },
    /// Reads live records with their embeddings in the active space, ascending by id; answered by
    /// [`Response::Records`].
    PullRecords {
        /// Space wanted.
        space: SpaceId,
        /// Last id of the page before; `None` for the first page.
        after: Option<SampleId>,
    },
    /// Reads tombstones, ascending; answered by [`Response::Tombstones`].
    PullTombstones {
        /// Last id of the page before; `None` for the first page.
        after: Option<SampleId>,
    },
    /// Adds records and tombstones by union. Changes state; answered by [`Response::Merged`]. Any active head of a
    /// changed set becomes stale.
    PushRecords {
        /// Space of the embeddings.
        space: SpaceId,
        /// Records to add.
        #[serde(borrow)]
        records: Batch<'a, Record<'a>>,
        /// Tombstones to add.
        tombstones: Batch<'a, SampleId>,
    },
    /// Reads the active head's bytes; answered by [`Response::Bytes`].
    PullHead {
        /// First byte wanted.
        offset: u32,
    },
    /// Activates a head without its set. Changes state; answered by [`Response::Head`].
    PushHead {
        /// A whole head as `graft-heads` encodes it.
        head: &'a [u8],
    },
    /// Ids of live records of the active space, ascending; answered by [`Response::Ids`].
    ListIds {
        /// Space wanted.
        space: SpaceId,
        /// Last id of the page before; `None` for the first page.
        after: Option<SampleId>,
    },
    /// Reads live records by id; answered by [`Response::Records`], which may hold fewer than asked: ask again.
    PullById {
        /// Space wanted.
        space: SpaceId,
        /// Wanted ids, ascending.
        #[serde(borrow)]
        ids: Batch<'a, SampleId>,
    },
    /// As [`Request::Train`], with rejection of unknown inputs, and the new head held against the active one: refused
    /// with [`WireError::HeadWorse`] if it loses on what both know. Changes state; answered by [`Response::Trained`].
    TrainChecked {
        /// Which head.
        head: HeadChoice,
        /// Activate although the active head knows more samples or does better on what both know.
        force: bool,
        /// Rate of false rejects to promise, over 0 and under 1; `None`: nothing is rejected.
        unknown: Option<f64>,
    },
    /// Looks for samples that may carry a wrong label, and for near duplicates; answered by [`Response::Review`].
    Review,
    /// Times the active bundle; answered by [`Response::Bench`].
    Bench {
        /// Inferences to time; the board brings it into 1..=[`BENCH_RUNS_MAX`].
        n_runs: u32,
        /// Threads to run them; the board brings it into 1..=[`BENCH_THREADS_MAX`].
        n_threads: u32,
    },
}

/// What a board answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // One lives at a time, on the stack of the exchange that reads it.
pub enum Response<'a> {
    /// To [`Request::DeviceInfo`].
    DeviceInfo(DeviceInfo),
    /// A stretch of a longer byte string.
    Bytes {
        /// Length of the whole.
        total: u32,
        /// The bytes from the offset asked for; at most [`CHUNK_BYTES_MAX`].
        bytes: &'a [u8],
    },
    /// How far an upload has come.
    UploadAt {
        /// Bytes safely on the board.
        offset: u64,
    },
    /// A bundle passed its self-test.
    BundleInstalled(BundleInstalled),
    /// To [`Request::Collect`] and [`Request::Relabel`].
    Collected {
        /// The sample.
        id: SampleId,
        /// False: the input was live under the same label already; nothing changed.
        added: bool,
        /// Time to embed, in µs; 0 if an embedding came along.
        embed_us: u32,
    },
    /// A page of samples; an empty page ends the list.
    Samples {
        /// Ascending by id.
        #[serde(borrow)]
        samples: Batch<'a, SampleRow>,
    },
    /// To [`Request::RemoveSamples`].
    Removed {
        /// Samples that were live before.
        n_removed: u32,
        /// Tombstones added.
        n_tombstones: u32,
    },
    /// A head was trained or activated.
    Head(HeadInfo),
    /// To [`Request::Predict`].
    Prediction {
        /// The prediction.
        prediction: Prediction,
        /// Class scores, best first, at most 16.
        #[serde(borrow)]
        scores: Batch<'a, ClassScore>,
    },
    /// To [`Request::Evaluate`].
    Evaluation {
        /// The figures.
        summary: EvaluationSummary,
        /// Every class with its counts, by label.
        #[serde(borrow)]
        classes: Batch<'a, ClassCounts>,
        /// Cells of the confusion matrix that are not zero; indices into `classes`.
        #[serde(borrow)]
        confusion: Batch<'a, ConfusionCell>,
    },
    /// A page of records; an empty page ends the list.
    Records {
        /// Ascending by id.
        #[serde(borrow)]
        records: Batch<'a, Record<'a>>,
    },
    /// A page of tombstones; an empty page ends the list.
    Tombstones {
        /// Ascending.
        #[serde(borrow)]
        ids: Batch<'a, SampleId>,
    },
    /// To [`Request::PushRecords`].
    Merged {
        /// Records that were new.
        n_added: u32,
        /// Live samples that a tombstone removed.
        n_removed: u32,
        /// Records set aside: same id, other content, or damaged.
        n_set_aside: u32,
    },
    /// A page of ids; an empty page ends the list.
    Ids {
        /// Ascending.
        #[serde(borrow)]
        ids: Batch<'a, SampleId>,
    },
    /// To [`Request::TrainChecked`].
    Trained {
        /// The head, active now.
        head: HeadInfo,
        /// How it rejects; `None` where nothing can be left out.
        rejection: Option<RejectionInfo>,
        /// Against the head of before; `None` if there was none, or too little in common.
        comparison: Option<HeadComparison>,
    },
    /// To [`Request::Review`].
    Review {
        /// What was looked at and found.
        counts: ReviewCounts,
        /// Samples that are taken for another class, worst first; the first ones of `counts.n_doubtful`.
        #[serde(borrow)]
        doubtful: Batch<'a, DoubtfulSample>,
        /// Pairs of near duplicates, contradictions first; the first ones of `counts.n_duplicates`.
        duplicates: Batch<'a, DuplicatePair>,
    },
    /// To [`Request::Bench`].
    Bench {
        /// Whole inferences, and memory.
        summary: BenchSummary,
        /// Every layer in execution order; of a very long network the first ones.
        #[serde(borrow)]
        layers: Batch<'a, LayerCost<'a>>,
    },
}

/// What a sample is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// The bundle's input tensor, int8, row-major.
    Tensor(&'a [u8]),
    /// The finished embedding, int8, in the space named beside it.
    Embedding(&'a [u8]),
}

/// A labelled embedding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Everything but the embedding; its `sample_id()` is the record's id.
    pub meta: SampleMeta,
    /// int8, `[D]`.
    pub embedding: &'a [u8],
}

/// A live sample as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// Its id.
    pub id: SampleId,
    /// What it is.
    pub meta: SampleMeta,
    /// Seconds since 1970 by the board's clock when it was stored, a local note; `None` if unknown.
    pub stored_s: Option<u64>,
}

/// What a board is and holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Random id made at first start.
    pub device: DeviceId,
    /// Its name, for people.
    pub name: Name,
    /// Version of `graftd`.
    pub version: Name,
    /// `x86_64`, `aarch64`, `arm`.
    pub arch: Name,
    /// Instruction set its kernels use, as `GRAFT_ISA` names it.
    pub isa: Name,
    /// The active bundle.
    pub bundle: Option<BundleInfo>,
    /// The bundle that a rollback would activate.
    pub previous: Option<BundleInfo>,
    /// The active head.
    pub head: Option<HeadInfo>,
    /// Live samples with an embedding in the active space (all spaces if no bundle is active).
    pub n_samples: u32,
    /// Classes among them.
    pub n_classes: u32,
    /// Live samples that have no embedding in the active space.
    pub n_other_space: u32,
    /// Tombstones.
    pub n_tombstones: u32,
    /// Records set aside as damaged or contradictory.
    pub n_set_aside: u32,
    /// Digest of the live set in the active space: sample ids ascending, hashed.
    pub set_digest: Digest,
    /// Free bytes where the state lies.
    pub free_bytes: u64,
}

/// A bundle on a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleInfo {
    /// Name given when it was quantized.
    pub name: Name,
    /// BLAKE3 of the file.
    pub hash: Digest,
    /// Its embedding space.
    pub space: SpaceId,
    /// Length of its embeddings.
    pub embedding_len: u32,
    /// Length of the file.
    pub bytes: u64,
    /// Same bits on every CPU.
    pub exact: bool,
}

/// Outcome of an installation or activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleInstalled {
    /// The bundle.
    pub bundle: BundleInfo,
    /// Self-test cases that passed.
    pub n_cases: u32,
    /// True if it is active now.
    pub active: bool,
    /// Live samples that have an embedding in its space.
    pub n_samples: u32,
    /// True if a head for its space became active with it.
    pub has_head: bool,
}

/// Postcard items one after the other in one byte string, read one at a time.
///
/// Decoding is lazy, so a batch costs no memory; [`Batch::iter`] yields an error where the bytes are not items.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Batch<'a, T> {
    bytes: &'a [u8],
    #[serde(skip)]
    item: PhantomData<fn() -> T>,
}

impl<'a, T> Batch<'a, T> {
    /// A batch over `bytes`, which hold items one after the other.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, item: PhantomData }
    }

    /// A batch of nothing.
    pub fn empty() -> Self {
        Self::new(&[])
    }

    /// True if nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a, T: Deserialize<'a>> Batch<'a, T> {
    /// The items; after an error, nothing more.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, DecodeError>> + use<'a, T> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            match postcard::take_from_bytes(rest) {
                // An item of no bytes would repeat for ever.
                Ok((item, after)) if after.len() < rest.len() => {
                    rest = after;
                    Some(Ok(item))
                }
                _ => {
                    rest = &[];
                    Some(Err(DecodeError::Malformed))
                }
            }
        })
    }
}

impl<T> Clone for Batch<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Batch<'_, T> {}

impl<T> PartialEq for Batch<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> fmt::Debug for Batch<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.bytes.len())
    }
}

/// Appends items to a byte string that a [`Batch`] reads; `Buffer` is `Vec<u8>` where there is a heap.
///
/// # Errors
/// [`DecodeError::TooLong`] if the buffer is full.
pub fn push_item<T: Serialize, Buffer: Default + Extend<u8>>(buffer: &mut Buffer, item: &T) -> Result<(), DecodeError> {
    let taken = core::mem::take(buffer);
    let full = DecodeError::TooLong { what: "batch", found: MESSAGE_BYTES_MAX, limit: MESSAGE_BYTES_MAX };
    *buffer = postcard::to_extend(item, taken).map_err(|_| full)?;
    Ok(())
}

impl Request<'_> {
    /// True if the board records this request with its effect, so that a repetition is answered, not run.
    pub fn changes_state(&self) -> bool {
        match self {
            Request::BundleInstall { .. }
            | Request::BundleActivate { .. }
            | Request::BundleRollback
            | Request::Collect { .. }
            | Request::RemoveSamples { .. }
            | Request::Relabel { .. }
            | Request::Train { .. }
            | Request::TrainChecked { .. }
            | Request::PushRecords { .. }
            | Request::PushHead { .. } => true,
            Request::DeviceInfo
            | Request::ReadManifest { .. }
            | Request::UploadBegin { .. }
            | Request::UploadChunk { .. }
            | Request::ListSamples { .. }
            | Request::Predict { .. }
            | Request::Evaluate { .. }
            | Request::Review
            | Request::Bench { .. }
            | Request::PullRecords { .. }
            | Request::PullTombstones { .. }
            | Request::PullHead { .. }
            | Request::ListIds { .. }
            | Request::PullById { .. } => false,
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Request::UploadBegin { bytes, .. } if *bytes > BUNDLE_BYTES_MAX => {
                let found = usize::try_from(*bytes).unwrap_or(usize::MAX);
                Err(DecodeError::TooLong { what: "bundle", found, limit: BUNDLE_BYTES_MAX as usize })
            }
            Request::UploadChunk { bytes, .. } => cap("chunk", bytes.len(), CHUNK_BYTES_MAX),
            Request::Collect { input: Input::Embedding(bytes), .. }
            | Request::Predict { input: Input::Embedding(bytes), .. } => {
                cap("embedding", bytes.len(), EMBEDDING_LEN_MAX)
            }
            Request::PushRecords { records, tombstones, .. } => {
                check_records(records)?;
                check_items(tombstones)
            }
            Request::RemoveSamples { ids } | Request::PullById { ids, .. } => check_items(ids),
            _ => Ok(()),
        }
    }
}

impl Response<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Response::Bytes { bytes, .. } => cap("chunk", bytes.len(), CHUNK_BYTES_MAX),
            Response::Samples { samples } => check_items(samples),
            Response::Prediction { scores, .. } => check_items(scores),
            Response::Evaluation { classes, confusion, .. } => {
                check_items(classes)?;
                check_items(confusion)
            }
            Response::Review { doubtful, duplicates, .. } => {
                check_items(doubtful)?;
                check_items(duplicates)
            }
            Response::Records { records } => check_records(records),
            Response::Tombstones { ids } | Response::Ids { ids } => check_items(ids),
            _ => Ok(()),
        }
    }
}

impl<'a> RequestEnvelope<'a> {
    /// Reads a whole request and checks every length in it.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one request within the caps.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let envelope: Self = decode_message(bytes)?;
        envelope.body.check()?;
        Ok(envelope)
    }
}

impl<'a> ResponseEnvelope<'a> {
    /// Reads a whole response and checks every length in it.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one response within the caps.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let envelope: Self = decode_message(bytes)?;
        if let Ok(body) = &envelope.body {
            body.check()?;
        }
        Ok(envelope)
    }
}

fn decode_message<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    cap("message", bytes.len(), MESSAGE_BYTES_MAX)?;
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(DecodeError::Trailing(rest.len())),
        Err(_) => Err(DecodeError::Malformed),
    }
}

fn check_items<'a, T: Deserialize<'a>>(batch: &Batch<'a, T>) -> Result<(), DecodeError> {
    batch.iter().try_for_each(|item| item.map(drop))
}

fn check_records(records: &Batch<'_, Record<'_>>) -> Result<(), DecodeError> {
    records.iter().try_for_each(|record| cap("embedding", record?.embedding.len(), EMBEDDING_LEN_MAX))
}

fn cap(what: &'static str, found: usize, limit: usize) -> Result<(), DecodeError> {
    if found <= limit { Ok(()) } else { Err(DecodeError::TooLong { what, found, limit }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn round_trip(body: Request<'_>) -> Vec<u8> {
        let envelope = RequestEnvelope { client: ClientId([1; 8]), request_id: 300, body };
        let bytes = postcard::to_allocvec(&envelope).unwrap();
        assert_eq!(RequestEnvelope::decode(&bytes), Ok(envelope));
        bytes
    }

    #[test]
    fn batches_read_what_was_pushed() {
        let mut bytes = Vec::new();
        let ids = [SampleId([1; 16]), SampleId([2; 16])];
        for id in &ids {
            push_item(&mut bytes, id).unwrap();
        }
        let batch = Batch::<SampleId>::new(&bytes);
        assert_eq!(batch.iter().collect::<Result<Vec<_>, _>>().unwrap(), ids);
        bytes.pop();
        let batch = Batch::<SampleId>::new(&bytes);
        assert_eq!(batch.iter().last(), Some(Err(DecodeError::Malformed)));
    }

    #[test]
    fn lengths_are_checked_while_decoding() {
        let long = vec![0u8; CHUNK_BYTES_MAX + 1];
        let body = Request::UploadChunk { hash: Digest([0; 32]), offset: 0, bytes: &long };
        let envelope = RequestEnvelope { client: ClientId([0; 8]), request_id: 1, body };
        let bytes = postcard::to_allocvec(&envelope).unwrap();
        assert!(matches!(RequestEnvelope::decode(&bytes), Err(DecodeError::TooLong { what: "chunk", .. })));
        let body = Request::UploadBegin { bytes: BUNDLE_BYTES_MAX + 1, hash: Digest([0; 32]) };
        let bytes = postcard::to_allocvec(&RequestEnvelope { client: ClientId([0; 8]), request_id: 1, body }).unwrap();
        assert!(matches!(RequestEnvelope::decode(&bytes), Err(DecodeError::TooLong { what: "bundle", .. })));
    }

    #[test]
    fn trailing_and_missing_bytes_are_refused() {
        let mut bytes = round_trip(Request::DeviceInfo);
        bytes.push(0);
        assert_eq!(RequestEnvelope::decode(&bytes), Err(DecodeError::Trailing(1)));
        bytes.truncate(5);
        assert_eq!(RequestEnvelope::decode(&bytes), Err(DecodeError::Malformed));
    }
}
