//! Nearest class mean: cosine after centring by the mean of class means.
//!
//! Both sides are centred, so that what all classes share (most of an embedding of a backbone far from the task)
//! counts for neither. The mean of class means, not of samples, so that a large class does not pull the centre.
//! Source: Wang et al. 2019, SimpleShot, arXiv:1911.04623 (there centred by the base classes' mean).

use alloc::vec::Vec;

use crate::sums::ClassMeans;
use crate::vector::{dot, dot_f32};

/// Centre and unit directions of the classes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ncm {
    /// Mean of class means, `[D]`. In f64: a query is subtracted from it, and what remains may be small.
    pub centre: Vec<f64>,
    /// Class mean minus centre at length 1, `[C, D]`; zeros where they coincide.
    pub directions: Vec<f32>,
}

impl Ncm {
    /// Solves the head; None if every class mean lies on the centre.
    pub fn fit(means: &ClassMeans) -> Option<Self> {
        let mut directions = Vec::new();
        let mut any = false;
        for k in 0..means.classes.len() {
            let direction = means.centred_mean(k);
            let length = libm::sqrt(dot(&direction, &direction));
            any |= length > 0.0;
            directions.extend(direction.iter().map(|value| if length > 0.0 { (value / length) as f32 } else { 0.0 }));
        }
        any.then(|| Self { centre: means.centre(), directions })
    }

    /// Cosines in -1..=1, `[C]`; 0 where either side has no direction. `embedding`: int8 `[D]`.
    pub fn scores(&self, embedding: &[i8]) -> Vec<f64> {
        let query: Vec<f64> = embedding.iter().zip(&self.centre).map(|(x, centre)| f64::from(*x) - centre).collect();
        let length = libm::sqrt(dot(&query, &query));
        let cosine = |direction: &[f32]| match length > 0.0 {
            true => (dot_f32(&query, direction) / length).clamp(-1.0, 1.0),
            false => 0.0,
        };
        self.directions.chunks_exact(self.centre.len().max(1)).map(cosine).collect()
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
    fn scores_are_centred_cosines() {
        // Means (10, 0) and (0, 10): centre (5, 5), directions (1, -1) and (-1, 1) over root 2.
        let ncm = fit(&[(0, [8, 0].into()), (0, [12, 0].into()), (1, [0, 10].into())]).unwrap();
        assert_eq!(ncm.centre, [5.0, 5.0]);
        let scores = ncm.scores(&[9, 5]);
        assert!((scores[0] - 0.5f64.sqrt()).abs() < 1e-7 && (scores[1] + 0.5f64.sqrt()).abs() < 1e-7, "{scores:?}");
        assert_eq!(ncm.scores(&[5, 5]), [0.0, 0.0]);
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
