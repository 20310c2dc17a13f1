//! Nearest class mean: distance to prototypes, after centring by the mean of class means.
//!
//! Both sides are centred, so that what all classes share (most of an embedding of a backbone far from the task)
//! counts for neither. The mean of class means, not of samples, so that a large class does not pull the centre.
//!
//! A query has length 1. A prototype is the centred class mean over the root mean square length of the class's centred
//! samples: length 1 for one shot, shorter the less the samples agree, so that a loose class does not reach as far as
//! a tight one. That is the mean of unit vectors (Wang et al. 2019, SimpleShot, arXiv:1911.04623, CL2N; there centred
//! by the base classes' mean) up to the lengths of single samples, and needs no pass over them: everything follows
//! from exact class sums, so a fold is taken out exactly. Measured on MobileNetV2 embeddings, 5-way, 600 episodes, in
//! percent: plain cosine, this, unit vectors: flowers 5 shots 67.6, 67.9, 68.0; hand signs 5 shots 76.0, 76.6, 77.1;
//! 20 shots 85.2, 86.1, 86.4; equal at one shot.

use alloc::vec;
use alloc::vec::Vec;

use crate::sums::ClassMeans;
use crate::vector::{dot, dot_f32};

/// Centre and prototypes of the classes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ncm {
    /// Mean of class means, `[D]`. In f64: a query is subtracted from it, and what remains may be small.
    centre: Vec<f64>,
    /// Class mean minus centre over the root mean square of the samples' distances to the centre, `[C, D]`; zeros where
    /// all samples lie on the centre.
    prototypes: Vec<f32>,
    /// `(1 - |prototype|^2) / 2`, `[C]`; follows from the prototypes.
    offsets: Vec<f64>,
}

impl Ncm {
    /// Solves the head; None if every class mean lies on the centre.
    pub fn fit(means: &ClassMeans) -> Option<Self> {
        let mut prototypes = Vec::new();
        let mut any = false;
        for k in 0..means.classes.len() {
            let mean = means.centred_mean(k);
            let squared = dot(&mean, &mean);
            any |= squared > 0.0;
            let length = libm::sqrt(squared + means.variance(k));
            prototypes.extend(mean.iter().map(|value| if length > 0.0 { (value / length) as f32 } else { 0.0 }));
        }
        any.then(|| Self::new(means.centre(), prototypes))
    }

    /// From centre `[D]` and prototypes `[C, D]`.
    pub fn new(centre: Vec<f64>, prototypes: Vec<f32>) -> Self {
        let squared = |row: &[f32]| dot_f32(&row.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>(), row);
        let rows = prototypes.chunks_exact(centre.len().max(1));
        let offsets = rows.map(|row| (1.0 - squared(row)) / 2.0).collect();
        Self { centre, prototypes, offsets }
    }

    pub fn centre(&self) -> &[f64] {
        &self.centre
    }

    pub fn prototypes(&self) -> &[f32] {
        &self.prototypes
    }

    /// `1 - |query - prototype|^2 / 2` in -1..=1, `[C]`: the cosine where a class has one shot. 0 everywhere for a query
    /// on the centre. `embedding`: int8 `[D]`.
    pub fn scores(&self, embedding: &[i8]) -> Vec<f64> {
        let query: Vec<f64> = embedding.iter().zip(&self.centre).map(|(x, centre)| f64::from(*x) - centre).collect();
        let length = libm::sqrt(dot(&query, &query));
        if length == 0.0 {
            return vec![0.0; self.offsets.len()];
        }
        let rows = self.prototypes.chunks_exact(self.centre.len().max(1)).zip(&self.offsets);
        rows.map(|(row, offset)| (dot_f32(&query, row) / length + offset).clamp(-1.0, 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sums::ClassSums;
    use crate::synthetic;
    use crate::training::Training;

    fn fit(rows: &[(u32, Vec<i8>)]) -> Option<Ncm> {
        Ncm::fit(&ClassSums::of(&Training::of(&synthetic::set_of(rows)).unwrap()).means())
    }

    #[test]
    fn one_shot_scores_are_centred_cosines() {
        // Centre (5, 5), prototypes (1, -1) and (-1, 1) over root 2.
        let ncm = fit(&[(0, [10, 0].into()), (1, [0, 10].into())]).unwrap();
        assert_eq!(ncm.centre, [5.0, 5.0]);
        let scores = ncm.scores(&[9, 5]);
        assert!((scores[0] - 0.5f64.sqrt()).abs() < 1e-7 && (scores[1] + 0.5f64.sqrt()).abs() < 1e-7, "{scores:?}");
        assert_eq!(ncm.scores(&[5, 5]), [0.0, 0.0]);
    }

    #[test]
    fn a_loose_class_does_not_reach_as_far() {
        // Means (10, 0) and (0, 10); the first class spreads by 6 along both axes, the second not at all.
        let loose = [[16, 0], [4, 0], [10, 6], [10, -6]].map(|row| (0, row.to_vec()));
        let ncm = fit(&[loose.to_vec(), [(1, [0, 10].to_vec())].into()].concat()).unwrap();
        let length = |k: usize| ncm.prototypes[2 * k..][..2].iter().map(|v| f64::from(v * v)).sum::<f64>();
        // |(5, -5)|^2 = 50 against a mean square of 50 + 36.
        assert!((length(0) - 50.0 / 86.0).abs() < 1e-6 && (length(1) - 1.0).abs() < 1e-6);
        // 1 - |q - p|^2 / 2, by hand for a query along the loose class.
        let expected = 1.0 - (1.0 - length(0).sqrt()).powi(2) / 2.0;
        assert!((ncm.scores(&[10, 0])[0] - expected).abs() < 1e-6);
    }

    #[test]
    fn a_large_class_does_not_pull_the_centre() {
        let mut rows = alloc::vec![(1, [0i8, 10].to_vec())];
        rows.extend((0..50).map(|_| (0, [10i8, 0].to_vec())));
        assert_eq!(fit(&rows).unwrap().centre, [5.0, 5.0]);
    }

    #[test]
    fn classes_with_one_mean_give_no_head() {
        let rows: Vec<(u32, Vec<i8>)> = (0..6).map(|i| (i % 3, [1 + (i as i8 / 3), 5].to_vec())).collect();
        assert_eq!(fit(&rows), None);
    }
}
