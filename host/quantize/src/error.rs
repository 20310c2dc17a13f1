//! What can go wrong between an ONNX file and a bundle.

use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

/// A node that cannot go into a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The ONNX node's name, or its first output's where it has none.
    pub node: String,
    /// ONNX operator type.
    pub op: String,
    /// Why.
    pub reason: String,
}

/// Why a model cannot be read or cut.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file system said no.
    #[error("cannot read {}: {message}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// From the system.
        message: String,
    },
    /// A file or tensor larger than the limit.
    #[error("{what} takes {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// File or tensor.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Not an ONNX file, or a damaged one.
    #[error("{} is not a readable ONNX file: {reason}", path.display())]
    NotOnnx {
        /// Which file.
        path: PathBuf,
        /// What the decoder saw.
        reason: String,
    },
    /// External data outside the model's folder.
    #[error("tensor `{tensor}` wants its data from `{location}`; only files inside the model's own folder are read")]
    ExternalPath {
        /// Tensor.
        tensor: String,
        /// As the file states it.
        location: String,
    },
    /// External data that is missing or too short.
    #[error("external data of tensor `{tensor}` in {}: {reason}", path.display())]
    ExternalData {
        /// Tensor.
        tensor: String,
        /// The data file.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// A tensor whose bytes do not fit its shape.
    #[error("tensor `{tensor}` holds {found} bytes; its shape {shape:?} needs {expected}")]
    TensorData {
        /// Tensor.
        tensor: String,
        /// Stated shape.
        shape: Vec<i64>,
        /// Bytes that are there.
        found: u64,
        /// Bytes that the shape needs.
        expected: u64,
    },
    /// A graph that is none.
    #[error("the graph is broken at `{node}`: {reason}")]
    Graph {
        /// Node or tensor.
        node: String,
        /// What was seen.
        reason: String,
    },
    /// More than one input and none named.
    #[error("the model has {} inputs ({}); name one", names.len(), names.join(", "))]
    SeveralInputs {
        /// All of them.
        names: Vec<String>,
    },
    /// No such input.
    #[error("the model has no input `{name}`; it has {}", names.join(", "))]
    UnknownInput {
        /// As given.
        name: String,
        /// What there is.
        names: Vec<String>,
    },
    /// The cut needs inputs besides the chosen one.
    #[error("`{cut}` also depends on input {}; choose a cut that depends on `{input}` alone", others.join(", "))]
    OtherInputs {
        /// The cut.
        cut: String,
        /// The chosen input.
        input: String,
        /// The others.
        others: Vec<String>,
    },
    /// Dimensions that the file leaves open.
    #[error("input `{input}` has shape [{shape}]; only the batch may be open")]
    OpenShape {
        /// Input.
        input: String,
        /// As the file states it.
        shape: String,
    },
    /// A given shape that cannot be the input's.
    #[error("input shape {given:?} does not fit input `{input}` [{shape}]: {reason}")]
    BadShape {
        /// Input.
        input: String,
        /// As the file states it.
        shape: String,
        /// As given.
        given: Vec<usize>,
        /// Why.
        reason: String,
    },
    /// An input whose first axis is fixed at more than one.
    #[error(
        "input `{input}` has shape [{shape}]: its first axis, the batch, is fixed at {n}; one input at a time is embedded"
    )]
    Batch {
        /// Input.
        input: String,
        /// As the file states it.
        shape: String,
        /// The first axis.
        n: usize,
    },
    /// No such tensor.
    #[error("the model has no tensor `{name}` to cut at; candidates are {}", candidates.join(", "))]
    UnknownCut {
        /// As given.
        name: String,
        /// Suggestions.
        candidates: Vec<String>,
    },
    /// Nothing to suggest.
    #[error("no tensor of this model looks like an embedding; name one")]
    NoCut,
    /// The cut does not depend on the input, or is no vector or picture.
    #[error("cannot cut at `{name}`: {reason}")]
    BadCut {
        /// Tensor.
        name: String,
        /// Why.
        reason: String,
    },
    /// tract refused the graph or failed on it.
    #[error("the float network does not run: {message}")]
    Float {
        /// From tract.
        message: String,
    },
    /// Operators that have no integer or exact form, all at once.
    #[error("{} of the nodes before the cut cannot be quantized: {}", refused.len(), list(refused))]
    Refused {
        /// All of them.
        refused: Vec<Refused>,
        /// tract's own float code can run each ([`ImportOptions::allow_inexact`](crate::ImportOptions::allow_inexact)).
        tract_can: bool,
    },
}

/// Why a model was not quantized.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The model.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The preprocessing.
    #[error(transparent)]
    Input(#[from] SpecError),
    /// A folder that cannot be listed.
    #[error("cannot read folder {}: {message}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// From the system.
        message: String,
    },
    /// Nothing to calibrate on.
    #[error("no usable calibration input in {}: {n_seen} files seen, {n_skipped} skipped{}", path.display(), first(first_reason))]
    NoCalibration {
        /// The folder.
        path: PathBuf,
        /// Files seen.
        n_seen: usize,
        /// Files that could not be used.
        n_skipped: usize,
        /// Why the first was skipped, empty if none was.
        first_reason: String,
    },
    /// An input to compare with that cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    Expect {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor with values that are no numbers.
    #[error("tensor `{tensor}` is not finite on {input}; the weights or the preprocessing are wrong")]
    NotFinite {
        /// ONNX tensor.
        tensor: String,
        /// Calibration input.
        input: String,
    },
    /// The embedding is zero on every calibration input.
    #[error("the embedding is zero on every calibration input; choose another cut or check the preprocessing")]
    NoSignal,
    /// A budget that nothing keeps.
    #[error(
        "with all that can be held finer than int8 the loss on {n_inputs} inputs is still {}; at most {budget} is asked \
         for{}", three_digits(*least), stated(*n_stated_scales)
    )]
    Loss {
        /// As asked.
        budget: f64,
        /// Least that was reached.
        least: f64,
        /// Inputs that it was measured on.
        n_inputs: usize,
        /// Scales that the model states, which are kept.
        n_stated_scales: usize,
    },
    /// A number that the integer form cannot hold.
    #[error("layer `{layer}` cannot be quantized: {reason}")]
    Layer {
        /// ONNX node.
        layer: String,
        /// Why.
        reason: String,
    },
    /// The bundle could not be written or does not load.
    #[error("the bundle made from this model does not load: {message}")]
    Bundle {
        /// From the bundle writer or the engine.
        message: String,
    },
}

/// Why a preprocessing was refused.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SpecError {
    /// Image options for a model that takes no images.
    #[error("the model's input [{shape}] is no picture; image options do not apply")]
    NotAPicture {
        /// Input shape.
        shape: String,
    },
    /// Images need a normalisation; a wrong guess would cost points in silence.
    #[error("the model takes pictures, but how they are normalised is not stated")]
    NormMissing,
    /// A value that makes no sense.
    #[error("{option} is {seen}; allowed is {allowed}")]
    Value {
        /// Which option.
        option: &'static str,
        /// As given.
        seen: String,
        /// What is allowed.
        allowed: String,
    },
    /// A preprocessor_config.json that cannot be followed.
    #[error("preprocessor_config.json: {reason}")]
    Config {
        /// What was seen.
        reason: String,
    },
}

/// A loss with three digits that say something.
pub fn three_digits(loss: f64) -> String {
    let decimals = if loss > 0.0 { (2.0 - loss.log10().floor()).clamp(2.0, 12.0) as usize } else { 2 };
    format!("{loss:.decimals$}")
}

fn stated(n: usize) -> &'static str {
    if n == 0 {
        ""
    } else {
        "; the scales that the model states are kept, so that its float original can be quantized better"
    }
}

/// The first few by name.
fn list(refused: &[Refused]) -> String {
    let mut text = String::new();
    for (i, node) in refused.iter().take(8).enumerate() {
        if i > 0 {
            text.push_str("; ");
        }
        text.push_str(&format!("{} `{}` ({})", node.op, node.node, node.reason));
    }
    if refused.len() > 8 {
        text.push_str(&format!("; and {} more", refused.len() - 8));
    }
    text
}

fn first(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!("; the first: {reason}") }
}
