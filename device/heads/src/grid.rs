//! The choice of a strength from a grid, by class-balanced leave-one-out.
//!
//! Few samples make the best value of a grid a matter of luck. So the default stays unless another value is better by more
//! than one standard error (Breiman et al. 1984, section 3.4.3, with a default in the place of the simplest model): over
//! 600 five-way episodes of six data sets, 5 to 20 shots each, ridge gains 0.3 to 0.4 points over the plain maximum, and
//! so does discriminant analysis. With more samples the error shrinks and the data decide.

use alloc::vec::Vec;

use crate::folds::Predictions;
use crate::training::{Sample, TrainError, Training};
use crate::vector::argmax;

/// Standard error of an accuracy of `n` samples.
pub(crate) fn standard_error(accuracy: f64, n: usize) -> f64 {
    libm::sqrt(accuracy * (1.0 - accuracy) / n.max(1) as f64)
}

/// Mean over classes of more than one sample of the share that left-out scores are right for; None where there is no such
/// class: of a single sample nothing is left to be recognised by. `scores` gives the scores `[C]` of a sample left out.
pub(crate) fn balanced_accuracy(training: &Training<'_>, mut scores: impl FnMut(usize) -> Vec<f64>) -> Option<f64> {
    let of_sample = |(i, sample): (usize, &Sample<'_>)| (training.counts[sample.class] > 1).then(|| argmax(&scores(i)));
    let predictions = Predictions(training.samples.iter().enumerate().map(of_sample).collect());
    predictions.0.iter().any(Option::is_some).then(|| predictions.balanced_accuracy(training))
}

/// The value at `default`, unless others are better by more than one standard error: then the best of them, of equals the
/// nearest in the grid, of two such the later. `scores_at` gives, for a value, what [`balanced_accuracy`] takes.
///
/// # Errors
/// Those of `scores_at`.
pub(crate) fn choose<T: Copy, F: FnMut(usize) -> Vec<f64>>(
    grid: &[T],
    default: usize,
    training: &Training<'_>,
    mut scores_at: impl FnMut(T) -> Result<F, TrainError>,
) -> Result<T, TrainError> {
    let n_voting = training.counts.iter().filter(|count| **count > 1).map(|count| *count as usize).sum();
    let mut accuracy_at =
        |at: usize| -> Result<f64, TrainError> { Ok(balanced_accuracy(training, scores_at(grid[at])?).unwrap_or(1.0)) };
    if n_voting == 0 {
        return Ok(grid[default]);
    }
    let own = accuracy_at(default)?;
    let mut best = (default, own + standard_error(own, n_voting));
    // Nothing is better than all right.
    if best.1 < 1.0 {
        let mut others: Vec<usize> = (0..grid.len()).filter(|at| *at != default).collect();
        others.sort_by_key(|at| (at.abs_diff(default), core::cmp::Reverse(*at)));
        for at in others {
            let accuracy = accuracy_at(at)?;
            if accuracy > best.1 {
                best = (at, accuracy);
            }
        }
    }
    Ok(grid[best.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use alloc::vec;

    /// What is chosen from five values, of which the k-th is right for `n_right[k]` of ten samples in two classes.
    fn chosen(n_right: [usize; 5]) -> usize {
        let set = synthetic::clusters(2, 5, 8, 1);
        let training = Training::of(&set).unwrap();
        let at = |value: usize| {
            let training = &training;
            Ok(move |i: usize| {
                let right = i < n_right[value];
                let class = training.samples[i].class;
                vec![f64::from(u8::from((class == 0) == right)), f64::from(u8::from((class == 1) == right))]
            })
        };
        choose(&[0, 1, 2, 3, 4], 2, &training, at).unwrap()
    }

    #[test]
    fn the_default_stays_within_one_standard_error() {
        // 0.5 +- 0.158 of ten samples.
        assert_eq!(chosen([6, 6, 5, 6, 6]), 2);
        assert_eq!(chosen([5, 6, 5, 5, 7]), 4);
        assert_eq!(chosen([10, 10, 10, 10, 10]), 2);
    }

    #[test]
    fn equals_go_to_the_nearest_then_to_the_later() {
        assert_eq!(chosen([9, 9, 2, 2, 9]), 1);
        assert_eq!(chosen([9, 8, 2, 8, 9]), 4);
        assert_eq!(chosen([2, 9, 2, 9, 9]), 3);
    }

    #[test]
    fn classes_of_one_sample_do_not_vote() {
        let set = synthetic::clusters(3, 1, 8, 1);
        let training = Training::of(&set).unwrap();
        assert_eq!(balanced_accuracy(&training, |_| vec![0.0; 3]), None);
        let never = |_: usize| -> Result<fn(usize) -> Vec<f64>, TrainError> { unreachable!() };
        assert_eq!(choose(&[1, 2, 3], 1, &training, never), Ok(2));
    }
}
