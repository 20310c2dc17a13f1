//! The numbers of a head, for whoever runs it elsewhere.

use crate::head::{Head, Model};

/// How scores `[C]` follow from an int8 embedding `x` `[D]` and the numbers of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum HeadNumbers<'a> {
    /// `matrix x + offsets`.
    Linear {
        /// `[C, D]`, row-major.
        matrix: &'a [f32],
        /// `[C]`.
        offsets: &'a [f64],
    },
    /// `matrix (x - centre) / |x - centre| + offsets`; the offsets alone where `x` is the centre.
    Cosine {
        /// `[D]`.
        centre: &'a [f64],
        /// `[C, D]`, row-major.
        matrix: &'a [f32],
        /// `[C]`.
        offsets: &'a [f64],
    },
}

impl Head {
    /// The numbers behind [`Head::classify`]; None for neighbours and for a projection, which no matrix is.
    pub fn numbers(&self) -> Option<HeadNumbers<'_>> {
        Some(match &self.model {
            Model::Ncm(ncm) | Model::NcmTrimmed(ncm) => {
                HeadNumbers::Cosine { centre: &ncm.centre, matrix: &ncm.prototypes, offsets: &ncm.offsets }
            }
            Model::NcmEuclidean(linear)
            | Model::Ridge { ridge: linear, .. }
            | Model::Lda { lda: linear, .. }
            | Model::Logistic { logistic: linear, .. } => {
                HeadNumbers::Linear { matrix: &linear.weights, offsets: &linear.biases }
            }
            Model::Knn(_) | Model::Rp { .. } => return None,
        })
    }
}
