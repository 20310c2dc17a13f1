//! What can be wrong with a bundle's graph, and with running it.

use graft_bundle::DataType;
use graft_kernels::{Isa, KernelError};

use crate::isa::available_isas;

/// Why a bundle cannot be run here. Found before anything runs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Ops of a later version.
    #[error("bundle needs ops that this engine does not have: {names}")]
    UnknownOps {
        /// Separated by commas.
        names: String,
    },
    /// Kernels for another machine.
    #[error("this machine lacks the instructions of {isa}")]
    Isa {
        /// Asked for.
        isa: Isa,
    },
    /// The system gives no threads.
    #[error("cannot start {n_threads} threads: {reason}")]
    Threads {
        /// Asked for.
        n_threads: usize,
        /// By the system.
        reason: String,
    },
    /// More steps or tensors than the cap.
    #[error("graph has {found} {what}; allowed: at most {limit}")]
    TooMany {
        /// Steps or tensors.
        what: &'static str,
        /// Seen.
        found: usize,
        /// Allowed.
        limit: usize,
    },
    /// A tensor cannot be.
    #[error("tensor {tensor}: {fault}")]
    Tensor {
        /// Its index.
        tensor: u32,
        /// What is wrong.
        fault: Fault,
    },
    /// A step cannot be.
    #[error("step {step:?} ({op}): {fault}")]
    Step {
        /// Its name, cut to [`STEP_NAME_SHOWN`] characters.
        step: String,
        /// Its op.
        op: &'static str,
        /// What is wrong.
        fault: Fault,
    },
    /// The manifest is wrong about whether every CPU gives the same bits.
    #[error("manifest says exact = {exact}; {n_inexact} of the graph's steps are in tract's float code")]
    Exact {
        /// By the manifest.
        exact: bool,
        /// Steps that are not exact.
        n_inexact: usize,
    },
    /// The manifest says another length than the graph gives.
    #[error("graph's output has {found} elements; the manifest says {expected}")]
    EmbeddingLen {
        /// By the graph.
        found: u64,
        /// By the manifest.
        expected: u64,
    },
    /// Activations need too much memory.
    #[error("graph needs {found} bytes for activations; allowed: at most {limit}")]
    Arena {
        /// Needed.
        found: u64,
        /// Allowed.
        limit: u64,
    },
    /// tract did not take the model that we built.
    #[error("cannot build the model: {0}")]
    Model(String),
}

/// Characters of a step's name in an error; a crafted name must not fill a terminal.
pub const STEP_NAME_SHOWN: usize = 100;

/// What is wrong with a tensor or a step: what was seen, what is allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are named by the messages")]
pub enum Fault {
    /// An index past the end.
    #[error("names tensor {found}; the graph has {n_tensors}")]
    NoTensor { found: u32, n_tensors: usize },
    /// Too few or too many inputs.
    #[error("has {found} inputs; allowed: {allowed}")]
    Inputs { found: usize, allowed: &'static str },
    /// Reads what is not there yet.
    #[error("reads tensor {found} before it is written")]
    Unwritten { found: u32 },
    /// Two writers.
    #[error("writes tensor {found}, which is written already")]
    WrittenTwice { found: u32 },
    /// No writer.
    #[error("no step writes it")]
    NeverWritten,
    /// A type that the op is not defined for.
    #[error("{what} is {found:?}; allowed: {allowed}")]
    Type { what: &'static str, found: DataType, allowed: &'static str },
    /// A shape that does not follow from the others.
    #[error("{what} has shape {found:?}; allowed: {allowed}")]
    Shape { what: &'static str, found: [u32; 3], allowed: String },
    /// An integer out of its range.
    #[error("{what} is {found}; allowed: {low} to {high}")]
    Range { what: &'static str, found: i64, low: i64, high: i64 },
    /// A real number that is none, or out of its range.
    #[error("{what} is {found}; allowed: {allowed}")]
    Number { what: &'static str, found: f64, allowed: &'static str },
    /// Channels do not divide into groups.
    #[error("has {groups} groups for {in_c} input and {out_c} output channels; allowed: a divisor of both")]
    Groups { groups: u32, in_c: usize, out_c: usize },
    /// A kernel larger than its padded input, or a window that lies in the padding alone.
    #[error("window of {kernel:?} does not fit input {input:?} with its padding")]
    Window { kernel: [u32; 2], input: [u32; 3] },
    /// Not a permutation.
    #[error("axes are {found:?}; allowed: a permutation of [0, 1, 2]")]
    Axes { found: [u32; 3] },
    /// A blob that is not there.
    #[error("{what} at byte {offset} with {bytes} bytes is not aligned or leaves the payload")]
    BlobPlace { what: &'static str, offset: u64, bytes: u64 },
    /// The bundle's file does not give a blob, or no longer.
    #[error("{what} cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    /// A blob of another length than the shapes need.
    #[error("{what} has {found} bytes; allowed: {allowed}")]
    BlobLength { what: &'static str, found: u64, allowed: u64 },
    /// i32 sums could wrap.
    #[error("sum of output channel {channel} can reach {bound}; allowed: less than 2147483648")]
    Accumulator { channel: usize, bound: i64 },
    /// Elements are moved, so their meaning must stay.
    #[error(
        "output has scale {found} and zero point {found_zero_point}, input {scale} and {zero_point}; allowed: equal"
    )]
    Meaning { found: f64, found_zero_point: i32, scale: f64, zero_point: i32 },
    /// An ONNX model that cannot be run here; the reason is cut to some hundred characters.
    #[error("model {reason}")]
    Model { reason: String },
    /// An ONNX model where there is nothing to run it.
    #[error("this engine is built without tract's float code (cargo feature `inexact`)")]
    NotBuilt,
}

/// Why an input has no embedding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// Not an input of this bundle.
    #[error("input tensor has {found} values; this bundle takes {expected}")]
    InputLength {
        /// Seen.
        found: usize,
        /// Allowed.
        expected: usize,
    },
    /// Nothing to normalise.
    #[error("backbone output is zero in every element; the input has no embedding")]
    NoSignal,
    /// Nothing left to tell apart.
    #[error("backbone output is saturated in every element; the input has no embedding")]
    Saturated,
    /// A fault of ours: the loader let something pass.
    #[error("engine failed: {0}")]
    Engine(String),
}

impl From<KernelError> for EmbedError {
    fn from(error: KernelError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// Why the bundle's own cases did not pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// Other bytes than expected.
    #[error("self-test case {case}: {n_bytes} of {embedding_len} embedding bytes differ")]
    Differs {
        /// Index of the case.
        case: u32,
        /// How many differ.
        n_bytes: u32,
        /// Of how many.
        embedding_len: u32,
    },
    /// Another direction than expected, of a bundle that is not exact.
    #[error("self-test case {case}: cosine to the expected embedding is {cosine}; allowed: at least {allowed}")]
    Far {
        /// Index of the case.
        case: u32,
        /// Seen.
        cosine: f64,
        /// Allowed.
        allowed: f64,
    },
    /// No embedding at all.
    #[error("self-test case {case}: {error}")]
    Embed {
        /// Index of the case.
        case: u32,
        /// Why.
        error: EmbedError,
    },
    /// A case that the bundle does not hold.
    #[error("self-test case {case}: its input or expected embedding is not in the bundle")]
    Unreadable {
        /// Index of the case.
        case: u32,
    },
}

/// `GRAFT_ISA` names what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("GRAFT_ISA is {found:?}; this machine has: {}", available_isas().map(Isa::name).collect::<Vec<_>>().join(", "))]
pub struct IsaError {
    /// Its value.
    pub found: String,
}
