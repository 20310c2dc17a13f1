//! A head that is one matrix: score = bias + weights . x.

use alloc::vec::Vec;

use crate::vector::dot_f32;

/// A solved linear head.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    /// `[C]`.
    pub biases: Vec<f64>,
    /// `[C, D]`, in single precision: half the bytes, and the error of a ridge score stays under 1e-6.
    pub weights: Vec<f32>,
}

impl Linear {
    /// Scores `[C]`. `embedding`: int8 `[D]`.
    pub fn scores(&self, embedding: &[i8]) -> Vec<f64> {
        let query: Vec<f64> = embedding.iter().map(|x| f64::from(*x)).collect();
        let rows = self.weights.chunks_exact(query.len().max(1));
        self.biases.iter().zip(rows).map(|(bias, row)| bias + dot_f32(&query, row)).collect()
    }
}
