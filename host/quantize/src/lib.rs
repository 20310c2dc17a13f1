//! ONNX in, bundle out: what `graft inspect` and `graft quantize` do.
//!
//! ```text
//! onnx_file  bytes -> checked model            (sizes, external data, order of nodes)
//! qoperator  operators on integers -> dequantize, operator, quantize
//! qdq        already quantized -> float model   (scales kept)
//! known      tract's shapes and constants
//! lower*     ONNX nodes -> float_graph          (view: layouts; unary: activations; norms and clamps folded)
//! pieces     operators without another form -> models that tract runs, if that is allowed
//! cuts       where to cut
//! inputs, input_spec                            preprocessing, calibration files
//! float_run, calibrate, ranges                  tract runs the float network, statistics
//! scales, conv_weights, integer                 -> graph of a bundle
//! prepared, fallback, search                    layers held finer than int8 to keep a budget
//! verify, report                                integers against float
//! ```
//!
//! [`inspect`] and [`quantize`] are the two ways in. Models come from outside: nothing in them panics us, tract's own
//! panics are caught at its edge.
#![deny(clippy::unwrap_used, clippy::expect_used)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod attributes;
mod calibrate;
mod conv_weights;
mod cuts;
mod equalize;
pub mod error;
mod fallback;
pub mod float_graph;
mod float_run;
pub mod input_spec;
pub mod inputs;
mod inspect;
mod integer;
mod known;
mod lower;
mod lower_layers;
mod lower_nodes;
mod lower_resize;
mod model;
mod onnx_file;
mod pieces;
mod prepared;
mod qdq;
mod qoperator;
mod quantize;
mod ranges;
mod report;
mod scales;
mod search;
pub mod unary;
pub mod verify;
pub mod view;

pub use cuts::Cut;
pub use error::{ImportError, QuantizeError, Refused, SpecError, three_digits};
pub use float_run::{FloatBackbone, FloatRun};
pub use input_spec::{InputOptions, Norm, Resize};
pub use inspect::{InspectedInput, Inspection, OperatorCount, inspect};
pub use lower::{ClassifiedNode, NodeClass};
pub use model::{ImportOptions, Model, ModelInput};
pub use onnx_file::MODEL_BYTES_MAX;
pub use quantize::{CALIBRATION_FEW, CALIBRATION_MAX, Progress, QuantizeOptions, Quantized, quantize};
pub use report::{Expectation, FallbackReport, InexactReport, LayerReport, Report, Timings};
pub use scales::RangeMethod;

#[cfg(test)]
mod test_models;
#[cfg(test)]
mod tests;
