//! Answers and arguments that own their bytes; on the wire they borrow from the receive buffer.

use std::path::Path;

use graft_wire::message::{
    BenchSummary, ClassCounts, ClassScore, ConfusionCell, DoubtfulSample, DuplicatePair, EvaluationSummary,
    HeadComparison, HeadInfo, Input, LayerCost, Prediction, Record, RejectionInfo, ReviewCounts,
};
use graft_wire::{Digest, Label, LabelKind, Part, SampleId, SampleMeta, SessionId, SpaceId};
use graftd::bench::Bench;

/// What a sample or a prediction is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputRef<'a> {
    /// The bundle's input tensor, row-major.
    Tensor(&'a [i8]),
    /// A finished embedding, `[D]`.
    Embedding(&'a [i8]),
}

impl InputRef<'_> {
    /// The bytes for the wire.
    pub(crate) fn to_bytes(self) -> InputBytes {
        match self {
            InputRef::Tensor(values) => InputBytes { bytes: to_bytes(values), embedding: false },
            InputRef::Embedding(values) => InputBytes { bytes: to_bytes(values), embedding: true },
        }
    }
}

/// An input in the wire's bytes.
pub(crate) struct InputBytes {
    bytes: Vec<u8>,
    embedding: bool,
}

impl InputBytes {
    pub(crate) fn input(&self) -> Input<'_> {
        if self.embedding { Input::Embedding(&self.bytes) } else { Input::Tensor(&self.bytes) }
    }
}

/// A sample to be stored, but for its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSample {
    /// Space in which the input was prepared.
    pub space: SpaceId,
    /// Class, or name of a kind of negative.
    pub label: Label,
    /// What was taken in one go.
    pub session: SessionId,
    /// BLAKE3 of the input's original bytes.
    pub digest: Digest,
    /// Which part of the input.
    pub part: Part,
    /// Class or negative.
    pub kind: LabelKind,
}

/// Outcome of storing or relabelling one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The sample.
    pub id: SampleId,
    /// False: it was live already; nothing changed.
    pub added: bool,
    /// Time to embed on the board, in µs; 0 if an embedding came along.
    pub embed_us: u32,
}

/// Outcome of forgetting samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Samples that were live before.
    pub n_removed: u32,
    /// Tombstones added.
    pub n_tombstones: u32,
}

/// Outcome of pushing a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Records that were new.
    pub n_added: u32,
    /// Live samples that a tombstone removed.
    pub n_removed: u32,
    /// Records set aside: same id, other content, or damaged.
    pub n_set_aside: u32,
}

/// A labelled embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Everything but the embedding.
    pub meta: SampleMeta,
    /// `[D]`.
    pub embedding: Vec<i8>,
}

impl OwnedRecord {
    /// The record's id, which follows from `meta`.
    pub fn id(&self) -> SampleId {
        self.meta.sample_id()
    }
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> Self {
        Self { meta: record.meta, embedding: record.embedding.iter().map(|byte| *byte as i8).collect() }
    }
}

/// A prediction with the scores of the best classes.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionReport {
    /// The prediction.
    pub prediction: Prediction,
    /// Class scores, best first, at most 16.
    pub scores: Vec<ClassScore>,
}

/// A trained head with what was measured on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainReport {
    /// The head, active now.
    pub head: HeadInfo,
    /// How it rejects; `None` where nothing can be left out.
    pub rejection: Option<RejectionInfo>,
    /// Against the head of before; `None` if there was none, or too little in common.
    pub comparison: Option<HeadComparison>,
}

/// Samples that deserve a look.
#[derive(Clone, Debug, PartialEq)]
pub struct ReviewReport {
    /// What was looked at and found.
    pub counts: ReviewCounts,
    /// Samples that are taken for another class, worst first.
    pub doubtful: Vec<DoubtfulSample>,
    /// Near duplicates, contradictions first.
    pub duplicates: Vec<DuplicatePair>,
}

/// How fast a bundle runs on one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchReport {
    /// Whole inferences, and memory.
    pub summary: BenchSummary,
    /// Every layer in execution order.
    pub layers: Vec<OwnedLayer>,
}

/// As [`LayerCost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLayer {
    /// Name of the ONNX node.
    pub name: String,
    /// Name of the op.
    pub op: String,
    /// Multiply-accumulates of one inference.
    pub n_macs: u64,
    /// Median over the runs, in ns.
    pub median_ns: u64,
}

impl BenchReport {
    /// Times the bundle at `path` on this machine.
    ///
    /// # Errors
    /// What is wrong with the bundle.
    pub fn of_file(path: &Path, n_runs: usize, n_threads: usize) -> Result<Self, String> {
        let bench = Bench::run(path, n_runs, n_threads)?;
        Ok(Self { summary: bench.summary(), layers: bench.layer_costs().map(OwnedLayer::from).collect() })
    }

    /// Multiply-accumulates of one inference.
    pub fn n_macs(&self) -> u64 {
        self.layers.iter().map(|layer| layer.n_macs).sum()
    }
}

impl From<LayerCost<'_>> for OwnedLayer {
    fn from(LayerCost { name, op, n_macs, median_ns }: LayerCost<'_>) -> Self {
        Self { name: name.to_owned(), op: op.to_owned(), n_macs, median_ns }
    }
}

/// An evaluation with its counts.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationReport {
    /// The figures.
    pub summary: EvaluationSummary,
    /// Every class with its counts, by label.
    pub classes: Vec<ClassCounts>,
    /// Cells of the confusion matrix that are not zero; indices into `classes`, checked.
    pub confusion: Vec<ConfusionCell>,
}

pub(crate) fn to_bytes(values: &[i8]) -> Vec<u8> {
    values.iter().map(|value| *value as u8).collect()
}
