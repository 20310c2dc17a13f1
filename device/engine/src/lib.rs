//! Bundle in, embedding out; the only device crate that names tract.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod arena;
mod check;
mod engine;
mod error;
mod isa;
mod kernel;
mod lower;
mod program;
mod region;

pub use check::{ARENA_BYTES_MAX, OPS, STEPS_MAX, TENSOR_BYTES_MAX, WINDOW_MAX};
pub use engine::{Engine, StepCost};
pub use error::{EmbedError, Fault, IsaError, LoadError, STEP_NAME_SHOWN, SelfTestError};
pub use graft_kernels::Isa;
pub use isa::detect_isa;
