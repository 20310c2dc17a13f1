//! Probabilities from scores: a softmax whose temperature fits held-out scores.
//!
//! Source: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599. The targets are softened as in
//! Platt 1999, or held-out samples that are all right would make every later answer a certainty.

use alloc::vec::Vec;

use crate::vector::argmax;

/// Bounds of the inverse temperature; scores of cosine size, of log-odds size and of squared distances fit.
const INVERSE_MIN: f64 = 1e-3;
/// See [`INVERSE_MIN`].
pub(crate) const INVERSE_MAX: f64 = 1e4;
/// Halvings of the interval on a logarithmic scale: 16 nats to under 1e-8.
const HALVINGS: u32 = 32;

/// Scores `[C]` of a held-out sample with its class; minus infinity for classes that were left out with it.
pub(crate) type HeldOut = (usize, Vec<f64>);

/// The inverse temperature with the least cross-entropy on `held_out`; None for an empty list.
///
/// The cross-entropy is convex in it, so its slope is halved to zero: a fixed number of steps, the same bits everywhere.
pub(crate) fn fit(held_out: &[HeldOut]) -> Option<f64> {
    if held_out.is_empty() {
        return None;
    }
    let n = held_out.len() as f64;
    let (mut low, mut high) = (libm::log(INVERSE_MIN), libm::log(INVERSE_MAX));
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        let inverse = libm::exp(middle);
        let slope: f64 = held_out.iter().map(|(class, scores)| slope(*class, scores, inverse, 1.0 / (n + 2.0))).sum();
        if slope < 0.0 { low = middle } else { high = middle }
    }
    Some(libm::exp((low + high) / 2.0).clamp(INVERSE_MIN, INVERSE_MAX))
}

/// Derivative of one sample's cross-entropy: mean score under the softmax minus mean score under the target, which gives
/// `doubt` to the classes that are not the sample's.
fn slope(class: usize, scores: &[f64], inverse: f64, doubt: f64) -> f64 {
    let (mut total, mut mean, mut others, mut n_others) = (0.0, 0.0, 0.0, 0.0);
    let own = scores[class];
    let top = scores[argmax(scores)];
    for (k, score) in scores.iter().enumerate() {
        if *score > f64::NEG_INFINITY {
            let weight = libm::exp((score - top) * inverse);
            total += weight;
            // Relative to the top: no large numbers that cancel.
            mean += weight * (score - top);
            if k != class {
                others += score - top;
                n_others += 1.0;
            }
        }
    }
    if n_others == 0.0 {
        return 0.0;
    }
    mean / total - ((1.0 - doubt) * (own - top) + doubt * others / n_others)
}

/// Probability of the best class, in 1/C..=1.
pub(crate) fn probability(scores: &[f64], inverse: f64) -> f64 {
    let top = scores.get(argmax(scores)).copied().unwrap_or(0.0);
    1.0 / scores.iter().map(|score| libm::exp((score - top) * inverse)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_fitted_probability_is_the_share_that_is_right() {
        // Every answer has the same margin, and three of four are right.
        let held_out: Vec<HeldOut> = (0..400).map(|i| (usize::from(i % 4 == 0), vec![0.25, 0.0])).collect();
        let inverse = fit(&held_out).unwrap();
        assert!((probability(&[0.25, 0.0], inverse) - 0.75).abs() < 2e-3, "{inverse}");
    }

    #[test]
    fn all_right_is_no_certainty() {
        let held_out = vec![(0, vec![0.9, 0.1]); 8];
        let probability = probability(&[0.9, 0.1], fit(&held_out).unwrap());
        assert!((probability - 0.9).abs() < 1e-6, "1 - 1 / (8 + 2), not {probability}");
    }

    #[test]
    fn scores_without_information_give_even_odds() {
        let held_out = [(0, vec![0.3, 0.1]), (1, vec![0.3, 0.1]), (0, vec![0.1, 0.3]), (1, vec![0.1, 0.3])];
        assert!((probability(&[0.3, 0.1], fit(&held_out).unwrap()) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn classes_that_went_with_their_fold_do_not_count() {
        let with = vec![(0, vec![0.9, 0.1, f64::NEG_INFINITY]); 8];
        let without = vec![(0, vec![0.9, 0.1]); 8];
        assert_eq!(fit(&with), fit(&without));
        assert_eq!(fit(&[]), None);
    }
}
