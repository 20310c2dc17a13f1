//! Linear discriminant analysis with one shrunk covariance for all classes, from the ridge system.
//!
//! Classes are Gaussians of equal priors 1 / C with means `m_k` and the covariance
//!
//! `S = (1 - s) W / C + s tau I`, `W = sum over classes c of (1 / n_c) * sum over its samples of (x - m_c)(x - m_c)^T`,
//!
//! `tau` the mean of W / C's diagonal, `s` the shrinkage: scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr",
//! shrinkage=s, priors=[1 / C] * C)`. The score of a class is its log likelihood without what all classes share,
//! `(x - centre)^T S^-1 d_k - d_k^T S^-1 d_k / 2`, with `d_k` its mean minus the mean of means.
//!
//! Nothing needs to be factored for it. Ridge's scatter around the centre is `T = W + sum of d_k d_k^T`, so that with
//! `kappa = s / (1 - s) * trace(W) / D` and the ridge outputs `f(x) = M (T + kappa I)^-1 (x - centre)`, M the rows d_k,
//!
//! `M (W + kappa I)^-1 (x - centre) = G f(x)`, `M (W + kappa I)^-1 M^T = G - I`, `G = (I - M (T + kappa I)^-1 M^T)^-1`,
//!
//! and `I - M (T + kappa I)^-1 M^T` is kappa times the class sums of the dual coefficients, plus 1 / C everywhere. So
//! discriminant scores are a C x C mixing of ridge scores (Hastie, Buja & Tibshirani 1995, Penalized Discriminant
//! Analysis), fewer samples than components need no form of their own, and what leaving out does to ridge it does to this
//! (`leave_out`).

use alloc::vec;
use alloc::vec::Vec;

use crate::grid;
use crate::linear::Linear;
use crate::ridge::{Solution, System};
use crate::training::TrainError;
use crate::vector::{add_scaled, cholesky, dot, solve_lower, solve_lower_transposed};

/// Shrinkages tried, ascending; `s / (1 - s)` runs over about half decades.
pub(crate) const SHRINKAGE_GRID: [f64; 9] = [0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99];
/// Place of the default in it. Where no class has a second sample `W` is zero, and every shrinkage gives the same classes.
const SHRINKAGE_DEFAULT: usize = 5;
/// The trace of W counts as at least this share of T's, so that kappa is never lost in rounding.
const SHARE_MIN: f64 = 1e-4;

/// The strength that stands for a shrinkage. Where nothing strays within classes, T's trace stands in for W's.
pub(crate) fn kappa(system: &System<'_>, shrinkage: f64) -> f64 {
    let within = system.means.balanced_scatter();
    let trace = if within > 0.0 { within.max(SHARE_MIN * system.trace) } else { system.trace };
    shrinkage / (1.0 - shrinkage) * trace / system.training.embedding_len as f64
}

/// From `(W + kappa I)^-1` to `S^-1`.
pub(crate) fn scale(n_classes: usize, shrinkage: f64) -> f64 {
    n_classes as f64 / (1.0 - shrinkage)
}

/// Solves the head at one shrinkage in 0..1 exclusive.
///
/// # Errors
/// [`TrainError::NotPositiveDefinite`] if rounding got the better of it.
pub(crate) fn fit(system: &System<'_>, shrinkage: f64) -> Result<Linear, TrainError> {
    fit_at(system, shrinkage, kappa(system, shrinkage))
}

/// The same at another strength than the shrinkage stands for.
fn fit_at(system: &System<'_>, shrinkage: f64, kappa: f64) -> Result<Linear, TrainError> {
    let n_classes = system.training.n_classes();
    let solution = system.solve(shrinkage, kappa)?;
    let mixing = Mixing::of(solution.class_sums(), n_classes, kappa).ok_or_else(|| system.singular(shrinkage))?;
    let scale = scale(n_classes, shrinkage);
    let solved = system.solved(shrinkage, kappa)?; // [C, m]
    let size = solved.len() / n_classes;
    let mut mixed = vec![0.0; solved.len()];
    for (k, to) in mixed.chunks_exact_mut(size).enumerate() {
        for (from, factor) in solved.chunks_exact(size).zip(mixing.row(k)) {
            add_scaled(to, scale * factor, from);
        }
    }
    Ok(system.head(&mixed, |k| -scale * mixing.half_length(k)))
}

/// Picks the shrinkage from the grid by class-balanced leave-one-out accuracy, as ridge its lambda: a sample is left out with
/// the weights of the others as they are.
///
/// # Errors
/// [`TrainError::NotPositiveDefinite`] if rounding got the better of a shrinkage.
pub(crate) fn choose_shrinkage(system: &System<'_>) -> Result<f64, TrainError> {
    grid::choose(&SHRINKAGE_GRID, SHRINKAGE_DEFAULT, system.training, |shrinkage| {
        let kappa = kappa(system, shrinkage);
        let solution = system.solve(shrinkage, kappa)?;
        let mixing = Mixing::of(solution.class_sums(), system.training.n_classes(), kappa);
        let mixing = mixing.ok_or_else(|| system.singular(shrinkage))?;
        Ok(move |i| leave_one_out(&solution, &mixing, i))
    })
}

/// Scores `[C]` of sample i, in units of `(W + kappa I)^-1`, by the head without it. Its class has other samples.
///
/// With `e` the sample minus its class mean and B the inverse, what goes is `e e^T / (n_c - 1)` of W, and `e / (n_c - 1)` of
/// the class mean: products of B with e and the means are all that is needed.
fn leave_one_out(solution: &Solution<'_>, mixing: &Mixing, i: usize) -> Vec<f64> {
    let training = solution.system.training;
    let (class, n_classes) = (training.samples[i].class, training.n_classes() as f64);
    let (count, kappa) = (training.count_of(i), solution.kappa);
    let residual: Vec<f64> = solution.coefficients_of(i).iter().map(|a| kappa * count * a).collect();
    let mixed = mixing.apply(&residual);
    let own = count - 1.0 - kappa * count * count * solution.projector(i, i) + dot(&residual, &mixed); // e^T B e
    let mut along: Vec<f64> = mixed.iter().map(|mixed| -1.0 / n_classes - mixed).collect(); // e^T B d_k
    along[class] += 1.0;
    let others = count - 1.0;
    let update = 1.0 / (others - own);
    let mut scores: Vec<f64> = (0..along.len())
        .map(|k| {
            let query = along[k] + mixing.product(class, k); // x^T B d_k
            let (query_e, length) = (own + along[class], 2.0 * mixing.half_length(k));
            query + update * query_e * along[k] - (length + update * along[k] * along[k]) / 2.0
        })
        .collect();
    // The mean of its class moves by -e / (n_c - 1).
    let stretch = 1.0 + update * own;
    let (query_e, mean_e, e_e) = ((own + along[class]) * stretch, along[class] * stretch, own * stretch);
    scores[class] += (mean_e - query_e) / others - e_e / (2.0 * others * others);
    scores
}

/// G of the module's formulas, for K classes.
pub(crate) struct Mixing {
    n_classes: usize,
    /// `[K, K]`, symmetric.
    inverse: Vec<f64>,
}

impl Mixing {
    /// From class sums of dual coefficients `[K, K]`, of which the lower triangle is read; None at a pivot that is not
    /// positive.
    pub fn of(class_sums: Vec<f64>, n_classes: usize, kappa: f64) -> Option<Self> {
        let mut factor = class_sums;
        factor.iter_mut().for_each(|value| *value = kappa * *value + 1.0 / n_classes as f64);
        if !cholesky(&mut factor, n_classes) {
            return None;
        }
        let mut inverse = vec![0.0; n_classes * n_classes];
        for (k, row) in inverse.chunks_exact_mut(n_classes).enumerate() {
            row[k] = 1.0;
            solve_lower(&factor, row);
            solve_lower_transposed(&factor, row);
        }
        Some(Self { n_classes, inverse })
    }

    /// `[K]`.
    pub fn row(&self, k: usize) -> &[f64] {
        &self.inverse[k * self.n_classes..][..self.n_classes]
    }

    /// `G outputs`, `[K]`.
    pub fn apply(&self, outputs: &[f64]) -> Vec<f64> {
        (0..self.n_classes).map(|k| dot(self.row(k), outputs)).collect()
    }

    /// `d_k^T B d_l`.
    fn product(&self, k: usize, l: usize) -> f64 {
        self.row(k)[l] - f64::from(u8::from(k == l))
    }

    /// `d_k^T B d_k / 2`.
    pub fn half_length(&self, k: usize) -> f64 {
        self.product(k, k) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folds::Plan;
    use crate::leave_out::{Scores, left_out_scores};
    use crate::set::SampleSet;
    use crate::sums::ClassSums;
    use crate::synthetic;

    /// Class means `[C][D]`, and the inverse of `(1 - s) sum of w_c S_c + s tau I` `[D][D]`, by elimination.
    fn plain(
        rows: &[(u32, Vec<i8>)],
        weights: &[f64],
        ridge: impl Fn(f64) -> (f64, f64),
    ) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let d = rows[0].1.len();
        let of = |class: usize| rows.iter().filter(move |(other, _)| *other as usize == class);
        let mean = |class: usize| -> Vec<f64> {
            let n = of(class).count() as f64;
            (0..d).map(|p| of(class).map(|(_, row)| f64::from(row[p])).sum::<f64>() / n).collect()
        };
        let means: Vec<Vec<f64>> = (0..weights.len()).map(mean).collect();
        let mut matrix = vec![vec![0.0; d]; d];
        for (class, row) in rows {
            let class = *class as usize;
            let e: Vec<f64> = row.iter().zip(&means[class]).map(|(x, mean)| f64::from(*x) - mean).collect();
            (0..d * d).for_each(|at| matrix[at / d][at % d] += weights[class] * e[at / d] * e[at % d]);
        }
        let (factor, diagonal) = ridge((0..d).map(|p| matrix[p][p]).sum());
        matrix.iter_mut().flatten().for_each(|value| *value *= factor);
        (0..d).for_each(|p| matrix[p][p] += diagonal);
        (means, inverse(matrix))
    }

    fn inverse(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let d = matrix.len();
        let mut inverse: Vec<Vec<f64>> =
            (0..d).map(|p| (0..d).map(|q| f64::from(u8::from(p == q))).collect()).collect();
        for p in 0..d {
            let pivot = matrix[p][p];
            matrix[p].iter_mut().chain(&mut inverse[p]).for_each(|value| *value /= pivot);
            let (row, other) = (matrix[p].clone(), inverse[p].clone());
            for q in (0..d).filter(|q| *q != p) {
                let factor = matrix[q][p];
                add_scaled(&mut matrix[q], -factor, &row);
                add_scaled(&mut inverse[q], -factor, &other);
            }
        }
        inverse
    }

    /// `x^T B m_k - m_k^T B m_k / 2`, minus that of the first class.
    fn plain_scores(x: &[f64], means: &[Vec<f64>], inverse: &[Vec<f64>]) -> Vec<f64> {
        let product = |a: &[f64], b: &[f64]| a.iter().zip(inverse).map(|(a, row)| a * dot(row, b)).sum::<f64>();
        let scores: Vec<f64> = means.iter().map(|mean| product(x, mean) - product(mean, mean) / 2.0).collect();
        scores.iter().map(|score| score - scores[0]).collect()
    }

    fn assert_near(scores: &[f64], expected: &[f64], tolerance: f64) {
        let largest = expected.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
        let near = |(a, b): (&f64, &f64)| (a - scores[0] - b).abs() < tolerance * largest;
        assert!(scores.iter().zip(expected).all(near), "{scores:?} {expected:?}");
    }

    fn floats(row: &[i8]) -> Vec<f64> {
        row.iter().map(|x| f64::from(*x)).collect()
    }

    #[test]
    fn scores_are_those_of_the_covariance_itself() {
        // Fewer samples than components, more of them, classes of unequal size, single shots.
        for (n_classes, shots, d, kept) in
            [(3, 6, 30, 18), (3, 12, 8, 36), (4, 7, 40, 15), (3, 9, 5, 19), (5, 4, 24, 17)]
        {
            let mut rows = synthetic::rows(n_classes, shots, d, 4);
            rows.truncate(kept);
            let set = synthetic::set_of(&rows);
            let training = crate::training::Training::of(&set).unwrap();
            let means = ClassSums::of(&training).means();
            let system = System::new(&training, &means).unwrap();
            let n_classes = training.n_classes() as f64;
            for shrinkage in [0.03, 0.5, 0.97] {
                let weights: Vec<f64> = training.counts.iter().map(|n| 1.0 / (f64::from(*n) * n_classes)).collect();
                let shrink = |trace: f64| (1.0 - shrinkage, shrinkage * trace / d as f64);
                let (class_means, inverse) = plain(&rows, &weights, shrink);
                let head = fit(&system, shrinkage).unwrap();
                for (_, row) in &rows {
                    // Weights are f32.
                    assert_near(&head.scores(row), &plain_scores(&floats(row), &class_means, &inverse), 2e-6);
                }
            }
        }
    }

    #[test]
    fn leaving_one_out_equals_plain_statistics_with_the_other_weights_as_they_are() {
        for d in [30, 6] {
            let mut rows = synthetic::rows(3, 6, d, 4);
            rows.truncate(16);
            let set = synthetic::set_of(&rows);
            let training = crate::training::Training::of(&set).unwrap();
            let means = ClassSums::of(&training).means();
            let system = System::new(&training, &means).unwrap();
            let kappa = kappa(&system, 0.25);
            let solution = system.solve(0.25, kappa).unwrap();
            let mixing = Mixing::of(solution.class_sums(), 3, kappa).unwrap();
            let weights: Vec<f64> = training.counts.iter().map(|n| 1.0 / f64::from(*n)).collect();
            for (i, sample) in training.samples.iter().enumerate() {
                let mut rest = rows.clone();
                let place = rest.iter().position(|(_, row)| row[..] == *sample.embedding).unwrap();
                rest.remove(place);
                let (class_means, inverse) = plain(&rest, &weights, |_| (1.0, kappa));
                let expected = plain_scores(&floats(sample.embedding), &class_means, &inverse);
                assert_near(&leave_one_out(&solution, &mixing, i), &expected, 1e-9);
            }
        }
    }

    /// Folds against heads of what is left, at the strength of the whole.
    fn assert_folds_equal_fits(set: &SampleSet) {
        let training = crate::training::Training::of(set).unwrap();
        let means = ClassSums::of(&training).means();
        let system = System::new(&training, &means).unwrap();
        let (shrinkage, kappa) = (0.25, kappa(&system, 0.25));
        let solution = system.solve(shrinkage, kappa).unwrap();
        let plan = Plan::of(&training).ok().unwrap();
        let ids: Vec<_> = set.live().map(|(id, ..)| id).collect();
        let which = Scores::Discriminant { scale: 1.0 };
        for (fold, scores) in plan.folds.iter().zip(left_out_scores(&solution, &plan.folds, which).unwrap()) {
            let mut rest = set.clone();
            fold.removed.iter().for_each(|i| assert!(rest.remove(ids[*i])));
            let rest = crate::training::Training::of(&rest).unwrap();
            let means = ClassSums::of(&rest).means();
            let head = fit_at(&System::new(&rest, &means).unwrap(), shrinkage, kappa).unwrap();
            let scale = scale(rest.n_classes(), shrinkage);
            for (i, scores) in fold.test.iter().zip(scores) {
                let scratch: Vec<f64> =
                    head.scores(training.samples[*i].embedding).iter().map(|score| score / scale).collect();
                let left = training.labels.iter().zip(&scores).filter(|(label, _)| rest.labels.contains(label));
                let left: Vec<f64> = left.map(|(_, score)| *score).collect();
                let expected: Vec<f64> = scratch.iter().map(|score| score - scratch[0]).collect();
                assert_near(&left, &expected, 2e-6);
                let gone = scores.iter().filter(|score| **score == f64::NEG_INFINITY).count();
                assert_eq!(gone, training.n_classes() - rest.n_classes());
            }
        }
    }

    #[test]
    fn folds_equal_heads_trained_without_them() {
        for d in [64, 7] {
            assert_folds_equal_fits(&synthetic::clusters(3, 6, d, 1));
            // Sessions across classes of unequal size; class 9 lies in one of them.
            let mut set = SampleSet::new(synthetic::SPACE, d);
            let mut rows = synthetic::rows(4, 9, d, 3);
            rows.truncate(31);
            rows.extend(synthetic::rows(1, 2, d, 77).into_iter().map(|(_, row)| (9, row)));
            for (number, (class, row)) in rows.into_iter().enumerate() {
                let number = number as u32;
                let session = synthetic::meta(0, if class == 9 { 3 } else { number % 7 }).session;
                set.insert(graft_wire::SampleMeta { session, ..synthetic::meta(class, number) }, &row).unwrap();
            }
            assert_folds_equal_fits(&set);
        }
    }

    #[test]
    fn one_shot_takes_the_nearest_sample() {
        let rows = synthetic::rows(4, 2, 32, 6);
        let (shots, queries): (Vec<_>, Vec<_>) = rows.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
        let shots: Vec<(u32, Vec<i8>)> = shots.into_iter().map(|(_, row)| row).collect();
        let set = synthetic::set_of(&shots);
        let head = crate::Head::train(&set, graft_wire::message::HeadChoice::Lda).unwrap();
        for (_, (_, query)) in queries {
            let far =
                |row: &[i8]| row.iter().zip(&query).map(|(a, b)| (i32::from(*a) - i32::from(*b)).pow(2)).sum::<i32>();
            let nearest = shots.iter().min_by_key(|(_, row)| far(row)).unwrap().0;
            assert_eq!(head.classify(&query).best, nearest as usize);
        }
    }
}
