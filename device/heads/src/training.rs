//! The view of a set that solvers work on: class samples only, ascending by id, classes numbered by label.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use graft_wire::limits::CLASSES_MAX;
use graft_wire::{Label, LabelKind, SampleMeta};

use crate::set::SampleSet;

/// Class samples of a set in the one order in which everything is computed.
#[derive(Clone)]
pub(crate) struct Training<'a> {
    /// Ascending by UTF-8 bytes; a class number is an index in here.
    pub labels: Vec<&'a Label>,
    /// Ascending by sample id. Negatives are not among them.
    pub samples: Vec<Sample<'a>>,
    /// Samples per class, `[C]`.
    pub counts: Vec<u32>,
    /// D.
    pub embedding_len: usize,
}

/// One class sample.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'a> {
    /// Everything but the embedding.
    pub meta: &'a SampleMeta,
    /// int8 `[D]`.
    pub embedding: &'a [i8],
    /// Index of its label.
    pub class: usize,
}

/// Why no head could be trained.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Nothing to tell apart.
    #[error("set has {n_classes} classes with {n_samples} samples; at least 2 classes are needed")]
    TooFewClasses {
        /// Classes in the set.
        n_classes: u32,
        /// Live class samples.
        n_samples: u32,
    },
    /// More classes than a head may hold.
    #[error("set has {found} classes; a head holds at most {limit}")]
    TooManyClasses {
        /// Classes in the set.
        found: u32,
        /// Most classes allowed.
        limit: u32,
    },
    /// Nothing distinguishes the classes, for instance because every input is the same.
    #[error("embeddings of all {n_classes} classes ({n_samples} samples) have the same mean; they must differ")]
    NoSpread {
        /// Classes in the set.
        n_classes: u32,
        /// Live class samples.
        n_samples: u32,
    },
    /// No such strength.
    #[error("strength {strength} is not one that this head can have")]
    Strength {
        /// Strength given.
        strength: f64,
    },
    /// Rounding made the system singular. Not seen with the lambda grid in use.
    #[error("ridge system of {n_samples} samples is not positive definite at relative lambda {lambda_rel}")]
    NotPositiveDefinite {
        /// Live class samples.
        n_samples: u32,
        /// Relative ridge strength.
        lambda_rel: f64,
    },
}

impl<'a> Training<'a> {
    /// The class samples of `set`.
    ///
    /// # Errors
    /// [`TrainError::TooFewClasses`] under 2 classes, [`TrainError::TooManyClasses`] over the cap.
    pub fn of(set: &'a SampleSet) -> Result<Self, TrainError> {
        let members = || set.live().filter(|(_, meta, _)| meta.kind == LabelKind::Class);
        let mut numbers: BTreeMap<&Label, usize> = members().map(|(_, meta, _)| (&meta.label, 0)).collect();
        for (number, value) in numbers.values_mut().enumerate() {
            *value = number;
        }
        let labels: Vec<&Label> = numbers.keys().copied().collect();
        let mut counts = vec![0; labels.len()];
        let mut samples = Vec::with_capacity(set.len());
        for (_, meta, embedding) in members() {
            let class = numbers[&meta.label];
            counts[class] += 1;
            samples.push(Sample { meta, embedding, class });
        }
        let n_classes = labels.len() as u32;
        if n_classes < 2 {
            return Err(TrainError::TooFewClasses { n_classes, n_samples: samples.len() as u32 });
        }
        if labels.len() > CLASSES_MAX {
            return Err(TrainError::TooManyClasses { found: n_classes, limit: CLASSES_MAX as u32 });
        }
        Ok(Self { labels, samples, counts, embedding_len: set.embedding_len() })
    }

    /// C.
    pub fn n_classes(&self) -> usize {
        self.labels.len()
    }

    pub fn no_spread(&self) -> TrainError {
        TrainError::NoSpread { n_classes: self.labels.len() as u32, n_samples: self.samples.len() as u32 }
    }
}
