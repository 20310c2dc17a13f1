//! The bundle: what `graft quantize` writes, `graft flash` sends and `graftd` runs.
//!
//! - [`mod@file`]: header, manifest, payload, and the checks that turn an [`UncheckedBundle`] into a [`Bundle`];
//! - [`manifest`]: what a bundle says about itself;
//! - [`input`]: how an image or an array becomes the int8 input tensor, as data (`graft-input` executes it);
//! - [`graph`]: the integer graph as data (`graft-kernels` defines its arithmetic, `graft-engine` executes it).
//!
//! Nothing here runs a network or writes to a disk.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod file;
pub mod graph;
pub mod input;
pub mod manifest;
mod source;

pub use file::{Bundle, BundleError, BundleWriter, UncheckedBundle};
pub use graph::{DataType, Graph, Op, Step, Tensor, TensorId};
pub use input::{ArraySpec, ImageSpec, InputSpec};
pub use manifest::{Manifest, SelfTest};
