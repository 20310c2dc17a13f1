//! Bundle in, embedding out; the only device crate that names tract.
//!
//! [`Engine::load`] turns a bundle's graph, which nobody vouches for, into a program: every index, shape, type, range
//! and blob is checked (`check`, `lower`), weights are packed, and the activations get their places in an arena
//! (`arena`); convolutions whose intermediates would leave the cache are joined (`chain`). Then [`Engine::embed`] runs it as *one* tract op (`region`) in a model source -> region -> output. The
//! arithmetic is `graft-kernels`'.
//!
//! # How a graph is stored and executed, and why
//! The bundle holds our own description ([`graft_bundle::graph`]), from which the tract model is built at load; not a
//! tract-nnef archive with registered ops.
//! - Size: a graph shaped as MobileNetV2-1.0-224 with random int8 weights makes a bundle of 2.33 MB. The real float
//!   one as a tract-nnef archive has 14.1 MB (with its classifier; f32 weights).
//! - Cold start, file in the page cache, x86-64, one thread, tract 0.23.9, dependencies at opt-level 3: ours is read,
//!   hash-checked, validated, packed and planned in 3.1 ms (0.7 + 2.4; 5.8 in a fresh process). The archive is parsed
//!   in 17-19 ms and optimised, which tract asks for before it runs, by 46-48 ms. The weights differ in volume by
//!   six, so per byte parsing alone costs the same; what the board is spared is the rewriting.
//! - Checks: a closed set of ops as plain data can be validated in one pass, with the step's name in every refusal.
//!   The archive's text would be parsed and its fragments expanded first.
//!
//! What tract is here for are ops that are not ours: a step may be an ONNX model that tract runs (`onnx`, with the feature
//! `inexact`), which is not the same bits on every CPU. Around a region tract costs nothing that can be measured: input and
//! output tensors are written in place, and an inference without such steps allocates its result alone.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod arena;
mod chain;
mod check;
mod engine;
mod error;
mod isa;
mod kernel;
mod lower;
#[cfg(feature = "inexact")]
mod onnx;
#[cfg(not(feature = "inexact"))]
#[path = "onnx_missing.rs"]
mod onnx;
mod program;
mod region;
mod trace;

pub use check::{ARENA_BYTES_MAX, MODEL_BYTES_MAX, OPS, STEPS_MAX, TENSOR_BYTES_MAX, WINDOW_MAX};
pub use engine::{Engine, INEXACT_COSINE_MIN, StepCost};
pub use error::{EmbedError, Fault, IsaError, LoadError, STEP_NAME_SHOWN, SelfTestError};
pub use graft_kernels::Isa;
pub use isa::{available_isas, detect_isa};
pub use trace::Tracer;
