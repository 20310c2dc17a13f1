//! What a bundle says about itself.

use graft_wire::{Digest, SpaceId};
use serde::{Deserialize, Serialize};

use crate::graph::Blob;
use crate::input::InputSpec;

/// Version of the integer arithmetic; part of every space id. It changes when any kernel's definition does.
pub const ARITHMETIC_VERSION: u32 = 1;

/// The manifest, postcard-encoded between header and payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Given when it was quantized; at most 64 bytes.
    pub name: String,
    /// The embedding space, see [`space_id`].
    pub space: SpaceId,
    /// How inputs are prepared.
    pub input: InputSpec,
    /// Length D of the embedding.
    pub embedding_len: u32,
    /// Integer steps per unit of the L2-normalised embedding.
    pub inv_scale: f64,
    /// Same bits on every CPU: integer and exact float ops only.
    pub exact: bool,
    /// Names of the ops in the graph, sorted, so that a board can refuse by name before it reads the graph.
    pub ops: Vec<String>,
    /// The graph, postcard-encoded, in the payload.
    pub graph: Blob,
    /// The bundle's own cases.
    pub self_tests: Vec<SelfTest>,
    /// Length of the payload.
    pub payload_bytes: u64,
    /// BLAKE3 of each [`crate::file::PAYLOAD_CHUNK_BYTES`] of the payload.
    pub chunks: Vec<Digest>,
    /// Where the backbone came from, free text.
    pub origin: String,
    /// Licence of the weights, free text; empty if not stated.
    pub licence: String,
    /// Smallest class of board it is meant for, free text; empty for any.
    pub board_class: String,
    /// Counts releases of one backbone; a signed downgrade is refused by it.
    pub epoch: u64,
    /// Version of graft that made it.
    pub made_by: String,
}

/// An input with the embedding it must give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The input tensor.
    pub input: SelfTestInput,
    /// The embedding, int8 `[D]`.
    pub expected: Blob,
    /// BLAKE3 of the input tensor.
    pub input_hash: Digest,
    /// BLAKE3 of the expected embedding.
    pub expected_hash: Digest,
}

/// Where a self-test's input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelfTestInput {
    /// A calibration input, in the payload.
    Stored(Blob),
    /// Every byte from [`seeded_bytes`]: costs no space and reaches the extremes.
    Seeded(u32),
}

/// Bytes of a seeded self-test input: the top byte of a 32-bit linear congruential sequence
/// (Numerical Recipes constants), one step per byte.
pub fn seeded_bytes(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = seed;
    core::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}

/// Names the embedding space: BLAKE3 over `"graft space v1"`, arithmetic version, canonical preprocessing, graph,
/// embedding scale, and the weights as the graph's blobs name them.
///
/// `graph_bytes` is the postcard-encoded graph, `weights` the payload's weight region (everything before the graph
/// and the self-tests). Names of nodes are part of the graph bytes; re-signing, new self-tests and manifest texts are
/// not part of the space.
pub fn space_id(input: &InputSpec, inv_scale: f64, graph_bytes: &[u8], weights: &[u8]) -> SpaceId {
    let mut hasher = SpaceHasher::new(input, inv_scale, graph_bytes, weights.len() as u64);
    hasher.update(weights);
    hasher.finish()
}

/// [`space_id`] of weights that come in stretches.
#[derive(Debug)]
pub(crate) struct SpaceHasher(blake3::Hasher);

impl SpaceHasher {
    pub fn new(input: &InputSpec, inv_scale: f64, graph_bytes: &[u8], weights_len: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graft space v1");
        hasher.update(&ARITHMETIC_VERSION.to_le_bytes());
        // Postcard of a type of ours into a Vec cannot fail; an empty string would still be a defined id.
        let input_bytes = postcard::to_allocvec(input).unwrap_or_default();
        for part in [&input_bytes[..], &inv_scale.to_le_bytes(), graph_bytes] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&weights_len.to_le_bytes());
        Self(hasher)
    }

    pub fn update(&mut self, weights: &[u8]) {
        self.0.update(weights);
    }

    pub fn finish(&self) -> SpaceId {
        SpaceId(*self.0.finalize().as_bytes())
    }
}
