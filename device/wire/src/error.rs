//! Errors on the link: a closed enum with fixed numbers, never free text.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, SpaceId};

/// Why received bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not a hello: wrong length or magic.
    #[error("bytes are not a graft hello")]
    Hello,
    /// Longer than the cap for its kind.
    #[error("{what} of {found} is over the limit of {limit}")]
    TooLong {
        /// Which length.
        what: &'static str,
        /// Length seen.
        found: usize,
        /// Length allowed.
        limit: usize,
    },
    /// Postcard could not read it: truncated, an unknown variant, bad text.
    #[error("message is malformed or from a newer version")]
    Malformed,
    /// Bytes are left after a whole message.
    #[error("{0} bytes are left after the message")]
    Trailing(usize),
}

/// Why a board refused or failed a request. Numbers are the order here and never change; new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// 0: the request could not be decoded.
    #[error("board could not decode the request (host and board versions differ?)")]
    Malformed,
    /// 1: no bundle is active.
    #[error("board has no active bundle")]
    NoBundle,
    /// 2: the request names another space than the active one.
    #[error("board works in space {active:.12}, the request in space {requested:.12}")]
    SpaceMismatch {
        /// Space of the active bundle.
        active: SpaceId,
        /// Space named in the request.
        requested: SpaceId,
    },
    /// 3: an input has the wrong number of bytes.
    #[error("input has {found} bytes; the active bundle takes {expected}")]
    InputLength {
        /// Bytes received.
        found: u32,
        /// Bytes wanted.
        expected: u32,
    },
    /// 4: the backbone answered zero or only saturated values, which have no direction.
    #[error("embedding is zero or saturated: the input carries no signal for this backbone")]
    NoSignal,
    /// 5: nothing has been trained for the active space.
    #[error("board has no head for its active space")]
    NoHead,
    /// 6: too little to train on.
    #[error("set has {n_classes} classes with {n_samples} samples; at least 2 classes are needed")]
    TooFewClasses {
        /// Classes in the set.
        n_classes: u32,
        /// Live class samples.
        n_samples: u32,
    },
    /// 7: more classes than the board holds.
    #[error("{found} classes are over the board's limit of {limit}")]
    TooManyClasses {
        /// Classes wanted.
        found: u32,
        /// The board's cap.
        limit: u32,
    },
    /// 8: no live sample has this id.
    #[error("no live sample has this id")]
    UnknownSample,
    /// 9: the id is tombstoned: this sample was forgotten and stays forgotten.
    #[error("sample was removed; collecting its input again in a new session makes a new sample")]
    Tombstoned,
    /// 10: an upload's bytes do not hash to its name.
    #[error("upload hashes to {found:.12}, expected {expected:.12}")]
    HashMismatch {
        /// Hash of what arrived.
        found: Digest,
        /// Hash announced.
        expected: Digest,
    },
    /// 11: a chunk that does not continue its upload.
    #[error("upload continues at byte {expected}, the chunk starts at {found}")]
    UploadOffset {
        /// Where the chunk starts.
        found: u64,
        /// Where the upload stands.
        expected: u64,
    },
    /// 12: no upload of this name is under way.
    #[error("no upload with this hash is under way")]
    UnknownUpload,
    /// 13: the file is not a bundle this board can run; [`BundleFault`] says why.
    #[error("bundle refused: {0}")]
    BadBundle(BundleFault),
    /// 14: the bundle's own cases gave other bytes; the previous bundle is kept.
    #[error("self-test case {case} of the bundle differs in {n_bytes} bytes; the previous bundle is kept")]
    SelfTest {
        /// Index of the failing case.
        case: u32,
        /// Components that differ.
        n_bytes: u32,
    },
    /// 15: nothing to go back to.
    #[error("board has no previous bundle")]
    NoPrevious,
    /// 16: no space left on the board; deleting still works.
    #[error("board's disk is full; nothing was stored")]
    DiskFull,
    /// 17: reading or writing the state failed.
    #[error("board's storage failed; see its log")]
    Storage,
    /// 18: the same request id came with another body.
    #[error("request id was used before with another body")]
    RequestReused,
    /// 19: the request id is older than the log.
    #[error("request is too old to be told apart from a new one; it was not executed")]
    RequestTooOld,
    /// 20: training would shrink what a pushed head knows.
    #[error("active head was trained on {head} samples, the board holds {held}; forced training only")]
    HeadKnowsMore {
        /// Samples behind the head.
        head: u32,
        /// Live samples on the board.
        held: u32,
    },
    /// 21: a message or a part of it is over a cap.
    #[error("request is over one of the board's limits")]
    TooLong,
    /// 22: the head's bytes are not a head of this space.
    #[error("head refused: damaged, or of another space")]
    BadHead,
    /// 23: evaluation has nothing to leave out.
    #[error("cannot be known from this set: {n_samples} samples in {n_sessions} sessions")]
    NothingToLeaveOut {
        /// Live class samples.
        n_samples: u32,
        /// Sessions among them.
        n_sessions: u32,
    },
    /// 24: an embedding of the wrong length or holding -128.
    #[error("embedding has {found} components; the space has {expected}")]
    EmbeddingLength {
        /// Components received.
        found: u32,
        /// Components of the space.
        expected: u32,
    },
    /// 25: the solver failed.
    #[error("head could not be solved from this set")]
    Unsolvable,
    /// 26: another bundle is active than the one the request was made for.
    #[error("no bundle with this hash is installed")]
    UnknownBundle,
    /// 27: too few samples to promise the false-reject rate asked for.
    #[error("this false-reject rate cannot be promised from {n} samples; {n_needed} are needed")]
    TooFewToPromise {
        /// Samples whose class keeps another input without them.
        n: u32,
        /// Least number that can promise the rate.
        n_needed: u32,
    },
    /// 28: no rate.
    #[error("a false-reject rate must be more than 0 and less than 1")]
    BadRate,
    /// 29: the new head does worse than the active one on what both know; it was not activated.
    #[error(
        "new head not activated: of {n} samples of the classes it shares with the active head it gets {n_correct_new} \
         right, the active one {n_correct_old}; allowed are 5 in 100 less"
    )]
    HeadWorse {
        /// Samples asked about.
        n: u32,
        /// Right by the active head.
        n_correct_old: u32,
        /// Right by the new head.
        n_correct_new: u32,
    },
}

/// What is wrong with a bundle file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum BundleFault {
    /// 0: not a bundle, or cut short.
    #[error("not a bundle, or cut short")]
    Format,
    /// 1: made by a newer graft.
    #[error("made by a newer graft")]
    Version,
    /// 2: a hash in the manifest does not match.
    #[error("damaged: a hash does not match")]
    Hash,
    /// 3: operators or sizes that this board's engine does not know.
    #[error("holds operators or sizes this board does not know")]
    Unsupported,
}
