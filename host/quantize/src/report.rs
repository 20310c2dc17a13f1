//! What a quantization did, for people and programs.

use std::path::PathBuf;

use serde::Serialize;

use crate::inputs::Skipped;

/// The report of [`crate::quantize`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// ONNX tensor of the cut.
    pub cut: String,
    /// A mean over height and width was added after it.
    pub pooled: bool,
    /// Length D of the embedding.
    pub embedding_len: usize,
    /// Size of the bundle in bytes.
    pub bundle_bytes: usize,
    /// Multiply-accumulates per input.
    pub macs: u64,
    /// Preprocessing in one line; None for arrays.
    pub input: Option<String>,
    /// Same bits on every CPU.
    pub exact: bool,
    /// What tract's own float code runs; empty for exact bundles.
    pub inexact: Vec<InexactReport>,
    /// Calibration inputs used.
    pub n_calibration: usize,
    /// Inputs in the folder.
    pub n_seen: usize,
    /// Files that could not be used.
    pub skipped: Vec<Skipped>,
    /// Inputs that int8 and float were compared on.
    pub n_verified: usize,
    /// Mean cosine between the board's int8 embedding and the float one; None if nothing was verified.
    pub cosine_mean: Option<f64>,
    /// The worst.
    pub cosine_min: Option<f64>,
    /// Its input.
    pub worst_file: Option<PathBuf>,
    /// Largest mean of 1 - cosine that was asked for.
    pub max_loss: Option<f64>,
    /// The same mean with everything in int8, where a largest one was asked for.
    pub loss_int8: Option<f64>,
    /// The least that sixteen bits alone reach, where float had to be used as well.
    pub loss_int16: Option<f64>,
    /// What is held finer than int8 to keep it; all of them are needed.
    pub fallbacks: Vec<FallbackReport>,
    /// Time of an inference over that of one all in int8, on the computer that quantized; None without fallbacks.
    pub slowdown: Option<f64>,
    /// Integer steps per unit of the normalised embedding.
    pub inv_scale: f64,
    /// Share of embedding components that were clipped on the calibration inputs.
    pub clip_rate: f64,
    /// The input states its activations' scales (an already quantized model): how many were taken over.
    pub n_stated_scales: usize,
    /// Tensors whose channels were equalized.
    pub n_equalized: usize,
    /// Output channels with coarser weights for the fast requantization.
    pub n_coarser_channels: usize,
    /// Output channels that need the 64-bit requantization.
    pub n_wide_channels: usize,
    /// Every step.
    pub layers: Vec<LayerReport>,
    /// Remarks, one line each.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub timings: Timings,
    /// Result of `--expect`.
    pub expect: Option<Expectation>,
}

/// Something held finer than int8.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FallbackReport {
    /// ONNX nodes whose results have sixteen bits (whoever reads them reads those), or that are computed in float.
    pub layers: Vec<String>,
    /// `int16` or `float`.
    pub precision: &'static str,
    /// Multiply-accumulates of these layers.
    pub macs: u64,
    /// The loss if this alone were left out; None if the others cannot do without it.
    pub loss_without: Option<f64>,
}

/// Nodes that tract's own float code runs together, between a step into float and one out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InexactReport {
    /// Name of the bundle's step.
    pub layer: String,
    /// ONNX nodes, in order.
    pub nodes: Vec<String>,
    /// Their operators.
    pub operators: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayerReport {
    /// ONNX node.
    pub name: String,
    /// Op of the bundle.
    pub op: &'static str,
    /// Multiply-accumulates.
    pub macs: u64,
    /// `int8`, `int16` or `float`: the widest that it reads or writes; `float (tract)` if tract's own code runs it.
    pub precision: &'static str,
    /// Signal to noise of its output against float, decibels over the verified inputs; None if it was not measured.
    pub snr_db: Option<f64>,
    /// Channels with coarser weights.
    pub n_coarser: usize,
    /// Channels in the 64-bit form.
    pub n_wide: usize,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Reading and lowering the model.
    pub import_ms: f64,
    /// Decoding the calibration inputs.
    pub decode_ms: f64,
    /// Float runs and statistics.
    pub calibrate_ms: f64,
    /// Searching for fallbacks.
    pub search_ms: f64,
    /// Choosing scales, building and writing.
    pub quantize_ms: f64,
    /// Integer and float runs on the verified inputs.
    pub verify_ms: f64,
}

/// Comparison with an embedding that the user made.
#[derive(Clone, Debug, Serialize)]
pub struct Expectation {
    /// Input file.
    pub input: PathBuf,
    /// Cosine between the given embedding and the float backbone's.
    pub cosine_float: f64,
    /// Cosine between the given embedding and the bundle's.
    pub cosine_bundle: f64,
}
