//! How much an embedding looks like one of the known classes: the score behind rejection, the same for every head.
//!
//! `score = max over classes of the ridge score - min over classes of |x - mean|^2 / (s2 (1 + 1 / n_c))`
//!
//! with ridge at lambda_rel 1 and `s2` the variance within classes. The first term falls where classes compete or none
//! claims the input, the second where it lies far from all of them. Either alone fails somewhere. Of unknown inputs, at
//! the threshold that 5 % of known ones lie under, these reject (percent; 60 draws, float; this code's own figures are
//! printed by `tests/src/bin/unknowns.rs`, those of scikit-learn by `tests/peers/unknowns.py`):
//!
//! | score | flowers | hand signs | Arabic words | spoken digits | CLINC150 |
//! |---|---|---|---|---|---|
//! | best ridge score | 14 | 24 | 59 | 85 | 65 |
//! | best nearest-class-mean score | 15 | 25 | 75 | 91 | 52 |
//! | distance to the nearest mean | 23 | 23 | 79 | 94 | 46 |
//!
//! It belongs to the set, not to the head: whichever head is trained, the same inputs are rejected.

use alloc::vec::Vec;

use crate::linear::Linear;
use crate::sums::ClassMeans;
use crate::vector::{argmax, dot};

/// Strength of the ridge part; rejection hardly depends on it, and a fixed one needs no folds inside folds.
pub(crate) const LAMBDA_REL: f64 = 1.0;

/// What is needed to score an embedding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub ridge: Linear,
    pub means: Means,
}

/// Class means and the spread around them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Means {
    /// `1 / (s2 (1 + 1 / n_c))`, `[C]`; 0 where every class has one sample, and distance says nothing.
    pub sharpness: Vec<f64>,
    /// `[C, D]` in steps of 1/256: |component| <= 127, so that they fit.
    pub rows: Vec<i16>,
    /// D.
    pub embedding_len: usize,
}

/// Steps per unit of a stored class mean.
const STEPS: f64 = 256.0;
/// Largest stored component, 127 in steps.
pub(crate) const MEAN_MAX: i16 = 127 * STEPS as i16;

impl Known {
    /// Higher is more known. `embedding`: int8 `[D]`.
    pub fn score(&self, embedding: &[i8]) -> f64 {
        combined(&self.ridge.scores(embedding), self.means.nearness(embedding))
    }
}

/// The score from its parts; `ridge` of a left-out sample holds minus infinity for a class that went with it.
pub(crate) fn combined(ridge: &[f64], nearness: f64) -> f64 {
    ridge.get(argmax(ridge)).copied().unwrap_or(0.0) + nearness
}

impl Means {
    pub fn of(means: &ClassMeans, embedding_len: usize) -> Self {
        let variance = means.variance_within();
        let sharpness = means.counts.iter().map(|count| sharpness(variance, *count)).collect();
        Self { sharpness, rows: means.rounded(), embedding_len }
    }

    /// Minus the least, over classes, of squared distance to the mean over what to expect; at most 0.
    pub fn nearness(&self, embedding: &[i8]) -> f64 {
        let mut nearest = f64::INFINITY;
        let mut difference = Vec::with_capacity(self.embedding_len);
        for (row, sharpness) in self.rows.chunks_exact(self.embedding_len.max(1)).zip(&self.sharpness) {
            difference.clear();
            difference.extend(embedding.iter().zip(row).map(|(x, mean)| f64::from(*x) - f64::from(*mean) / STEPS));
            nearest = nearest.min(sharpness * dot(&difference, &difference));
        }
        -nearest
    }
}

/// A new sample lies at a squared distance of `s2 (1 + 1 / n)` from the mean of n others on average, and this is one
/// over it. Without the second term a sample left out of five would look less known than a new one.
fn sharpness(variance: f64, count: u32) -> f64 {
    if variance > 0.0 { 1.0 / (variance * (1.0 + 1.0 / f64::from(count))) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sums::ClassSums;
    use crate::synthetic;
    use crate::training::Training;
    use alloc::vec;

    fn means(rows: &[(u32, Vec<i8>)]) -> Means {
        let set = synthetic::set_of(rows);
        Means::of(&ClassSums::of(&Training::of(&set).unwrap()).means(), rows[0].1.len())
    }

    #[test]
    fn nearness_is_the_distance_to_the_nearest_mean_in_units_of_the_spread() {
        // Class 0 at (10, 0) with samples at +-2: s2 = 8 over one degree of freedom; class 1 alone at (0, 10).
        let means = means(&[(0, vec![12, 0]), (0, vec![8, 0]), (1, vec![0, 10])]);
        assert_eq!(means.sharpness, [1.0 / 12.0, 1.0 / 16.0]);
        assert_eq!(means.nearness(&[10, 0]), 0.0);
        assert_eq!(means.nearness(&[10, 6]), -3.0);
        assert_eq!(means.nearness(&[0, 14]), -1.0);
    }

    #[test]
    fn without_a_spread_distance_says_nothing() {
        assert_eq!(means(&[(0, vec![12, 0]), (1, vec![0, 10])]).nearness(&[-90, -90]), 0.0);
    }

    #[test]
    fn extreme_means_fit() {
        assert_eq!(means(&[(0, vec![127, 0]), (1, vec![-127, 1])]).rows, [MEAN_MAX, 0, -MEAN_MAX, 256]);
    }
}
