//! What a board knows and what it learns from it: a set of labelled int8 embeddings, and heads as pure functions of
//! that set.
//!
//! `no_std` with `alloc`, no I/O, no clock. From the top down:
//!
//! - [`set`]: the sample set; merge is union, removal is final, nothing depends on order;
//! - [`head`]: training, classification, and the bytes of a head ([`format`](mod@format));
//! - [`mod@evaluate`]: leave-one-session-out and leave-one-out; `auto` chooses a head with it;
//! - [`calibration`]: p-values that reject the unknown at a stated rate (`known` is their score), probabilities;
//! - [`mod@suspects`], [`mod@duplicates`]: samples to look at; [`compare`]: a new head against the old one;
//! - `ncm`, `euclidean` and `trimmed`, `ridge`, `lda`, `logistic`, `knn`, `projection`: the solvers, on integer sums (`sums`) and one symmetric factorisation
//!   (`tridiagonal`); `recipe` has what they share.
//!
//! Same set, same bits, on every CPU: sums are integers, centring happens in integers, and all that is floating
//! point runs in one written-down order (ascending sample id, labels by UTF-8 bytes) with nothing but correctly
//! rounded operations: `+ - * /`, `libm::sqrt`, and `libm::exp` and `log` as they are written there, never a fused multiply-add.
#![no_std]
#![deny(clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod auto;
mod basis;
pub mod calibration;
mod calibration_format;
mod cholesky;
pub mod compare;
pub mod duplicates;
mod euclidean;
pub mod evaluate;
mod folds;
pub mod format;
mod grid;
pub mod head;
mod knn;
mod known;
mod lda;
mod leave_out;
mod linear;
mod logistic;
mod ncm;
mod numbers;
mod projection;
mod recipe;
mod ridge;
pub mod set;
mod sums;
pub mod suspects;
#[cfg(test)]
mod synthetic;
mod temperature;
mod training;
mod tridiagonal;
mod trimmed;
mod vector;

pub use calibration::{CalibrateError, Calibration};
pub use compare::Comparison;
pub use duplicates::{Duplicates, duplicates};
pub use evaluate::{EvaluateError, Evaluation, evaluate, wilson_interval};
pub use format::HeadFormatError;
pub use head::{Classified, Head, Judged};
pub use numbers::HeadNumbers;
pub use set::{Inserted, MergeCounts, SampleSet, SetError};
pub use suspects::{Suspect, Suspects, suspects};
pub use training::TrainError;
