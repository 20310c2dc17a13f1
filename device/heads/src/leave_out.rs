//! Ridge without a fold, in closed form: exactly the head that a fit without the fold's samples gives at the same kappa.
//!
//! Leaving out changes two things: samples go, and the others of their classes weigh more, because a class counts
//! 1 / n_c per sample. In the dual system `K + kappa diag(n_c)` both are changes of a few diagonal entries, so `P` (see
//! [`Solution::projector`]) needs updating on the classes of the fold alone. With `E = kappa (n_c - n_c')` there:
//!
//! `P' = P + P E^1/2 (I - E^1/2 P E^1/2)^-1 E^1/2 P`, then on the fold F: `y - f = P'_FF^-1 (P' Y)_F`.
//!
//! `P <= 1 / (kappa n_c)` bounds the eigenvalues of the matrix in the middle from below by n_c' / n_c, so that it is
//! always well conditioned. The middle is shared by all folds that take as many samples from the same classes.
//!
//! Discriminant scores follow from ridge scores and the class sums `Y^T P Y` (see `lda`), and these change alike: by
//! `(P Y)^T E^1/2 (I - E^1/2 P E^1/2)^-1 E^1/2 P Y` for the weights, and by `-(P' Y)_F^T P'_FF^-1 (P' Y)_F` for the fold.

use alloc::vec;
use alloc::vec::Vec;

use crate::folds::Fold;
use crate::lda::Mixing;
use crate::ridge::Solution;
use crate::training::TrainError;
use crate::vector::{add_scaled, cholesky, dot, solve_lower, solve_lower_transposed};

/// Classes that a fold takes from, with the samples it leaves: ascending by class.
type Taken = Vec<(usize, u32)>;

/// Which scores are asked for.
#[derive(Clone, Copy)]
pub(crate) enum Scores {
    /// Regression outputs.
    Ridge,
    /// Discriminants, in units of `(W + kappa I)^-1` times `scale`.
    Discriminant { scale: f64 },
}

/// The update of P for folds that take alike.
struct Block {
    taken: Taken,
    /// Samples of the taken classes, ascending; S of them.
    members: Vec<usize>,
    /// P on the members, `[S, S]`.
    projector: Vec<f64>,
    /// Roots of E, `[S]`.
    roots: Vec<f64>,
    /// Cholesky factor of `I - E^1/2 P E^1/2`, `[S, S]`.
    factor: Vec<f64>,
    /// `L^-1 E^1/2 (P Y)` on the members, `[C, S]`.
    targets: Vec<f64>,
    /// Classes of which something is left, K of them.
    classes: Vec<usize>,
    /// Of those classes with the weights changed, nothing left out; None for ridge scores.
    mixing: Option<Mixing>,
}

/// Scores of every fold's test samples by the head without the fold: `[folds][test][C]`. A class of which the fold
/// leaves nothing scores minus infinity.
///
/// # Errors
/// [`TrainError::NotPositiveDefinite`] if rounding got the better of an update.
pub(crate) fn left_out_scores(
    solution: &Solution<'_>,
    folds: &[Fold],
    which: Scores,
) -> Result<Vec<Vec<Vec<f64>>>, TrainError> {
    let singular = || solution.system.singular(solution.lambda_rel);
    let mut order: Vec<(Taken, usize)> = folds.iter().map(|fold| taken(solution, fold)).zip(0..).collect();
    order.sort();
    let mut scores = vec![Vec::new(); folds.len()];
    let mut block: Option<Block> = None;
    for (taken, at) in order {
        // One block at a time: sessions that hold all classes make blocks of the size of the set.
        let current = match block.take() {
            Some(block) if block.taken == taken => block,
            _ => Block::new(solution, taken, which).ok_or_else(singular)?,
        };
        scores[at] = current.scores(solution, &folds[at], which).ok_or_else(singular)?;
        block = Some(current);
    }
    Ok(scores)
}

fn taken(solution: &Solution<'_>, fold: &Fold) -> Taken {
    let training = solution.system.training;
    let mut left = training.counts.clone();
    for i in &fold.removed {
        left[training.samples[*i].class] -= 1;
    }
    let classes = left.into_iter().enumerate();
    classes.filter(|(class, left)| *left < training.counts[*class]).collect()
}

impl Block {
    fn new(solution: &Solution<'_>, taken: Taken, which: Scores) -> Option<Self> {
        let training = solution.system.training;
        let left_of = |class: usize| taken.binary_search_by_key(&class, |(class, _)| *class).ok().map(|at| taken[at].1);
        let (mut members, mut roots) = (Vec::new(), Vec::new());
        for (i, sample) in training.samples.iter().enumerate() {
            if let Some(left) = left_of(sample.class) {
                // Of a class that vanishes every member is in the fold, where weights no longer matter.
                let gone = if left > 0 { training.counts[sample.class] - left } else { 0 };
                members.push(i);
                roots.push(libm::sqrt(solution.kappa * f64::from(gone)));
            }
        }
        let n = members.len();
        let (mut projector, mut factor) = (vec![0.0; n * n], vec![0.0; n * n]);
        for a in 0..n {
            for b in 0..=a {
                let value = solution.projector(members[a], members[b]);
                projector[a * n + b] = value;
                projector[b * n + a] = value;
                factor[a * n + b] = f64::from(u8::from(a == b)) - roots[a] * value * roots[b];
            }
        }
        if !cholesky(&mut factor, n) {
            return None;
        }
        let mut targets = vec![0.0; training.n_classes() * n];
        for (class, target) in targets.chunks_exact_mut(n).enumerate() {
            for (a, value) in target.iter_mut().enumerate() {
                *value = roots[a] * solution.coefficients_of(members[a])[class];
            }
            solve_lower(&factor, target);
        }
        let classes: Vec<usize> = (0..training.n_classes()).filter(|class| left_of(*class) != Some(0)).collect();
        let mut block = Self { taken, members, projector, roots, factor, targets, classes, mixing: None };
        if let Scores::Discriminant { .. } = which {
            block.mixing = Some(block.mixing(solution)?);
        }
        Some(block)
    }

    /// The mixing of ridge scores with the weights changed.
    fn mixing(&self, solution: &Solution<'_>) -> Option<Mixing> {
        let (n, sums) = (self.members.len(), solution.class_sums());
        let (n_classes, n_left) = (solution.system.training.n_classes(), self.classes.len());
        let target = |class: usize| &self.targets[class * n..][..n];
        let mut changed = vec![0.0; n_left * n_left];
        for (k, class) in self.classes.iter().enumerate() {
            for (l, other) in self.classes[..=k].iter().enumerate() {
                changed[k * n_left + l] = sums[class * n_classes + other] + dot(target(*class), target(*other));
            }
        }
        Mixing::of(changed, n_left, solution.kappa)
    }

    /// Scores of the fold's test samples, `[test][C]`.
    fn scores(&self, solution: &Solution<'_>, fold: &Fold, which: Scores) -> Option<Vec<Vec<f64>>> {
        let training = solution.system.training;
        let (n, n_fold, n_classes) = (self.members.len(), fold.removed.len(), training.n_classes());
        let places: Option<Vec<usize>> = fold.removed.iter().map(|i| self.members.binary_search(i).ok()).collect();
        let places = places?;
        // L^-1 E^1/2 P on the fold's columns, [F, S].
        let mut update = vec![0.0; n_fold * n];
        for (row, place) in update.chunks_exact_mut(n).zip(&places) {
            for (a, value) in row.iter_mut().enumerate() {
                *value = self.roots[a] * self.projector[place * n + a];
            }
            solve_lower(&self.factor, row);
        }
        let row = |f: usize| &update[f * n..][..n];
        let mut own = vec![0.0; n_fold * n_fold]; // P'_FF, [F, F]
        for f in 0..n_fold {
            for g in 0..=f {
                own[f * n_fold + g] = self.projector[places[f] * n + places[g]] + dot(row(f), row(g));
            }
        }
        if !cholesky(&mut own, n_fold) {
            return None;
        }
        let mut scores = vec![vec![f64::NEG_INFINITY; n_classes]; fold.test.len()];
        let mut gone = Vec::with_capacity(self.classes.len() * n_fold); // P'_FF^-1/2 (P' Y)_F, [K, F]
        for class in &self.classes {
            let (class, target) = (*class, &self.targets[class * n..][..n]);
            let mut residuals: Vec<f64> = fold
                .removed
                .iter()
                .enumerate()
                .map(|(f, i)| solution.coefficients_of(*i)[class] + dot(row(f), target))
                .collect();
            solve_lower(&own, &mut residuals);
            gone.extend_from_slice(&residuals);
            solve_lower_transposed(&own, &mut residuals);
            for (i, scores) in fold.test.iter().zip(&mut scores) {
                let f = fold.removed.binary_search(i).ok()?;
                let truth = f64::from(u8::from(training.samples[*i].class == class));
                scores[class] = truth - residuals[f];
            }
        }
        if let (Scores::Discriminant { scale }, Some(mixing)) = (which, &self.mixing) {
            self.mix(mixing, scale, solution.kappa, &gone, &mut scores)?;
        }
        Some(scores)
    }

    /// Turns ridge scores into discriminants, with what the fold takes off the class sums, `gone` `[K, F]`.
    fn mix(&self, mixing: &Mixing, scale: f64, kappa: f64, gone: &[f64], scores: &mut [Vec<f64>]) -> Option<()> {
        let n_left = self.classes.len();
        let n_fold = gone.len() / n_left;
        // (G^-1 - kappa Z^T Z)^-1 = G + (Z G)^T (I / kappa - Z G Z^T)^-1 Z G, Z = gone^T.
        let column = |f: usize| (0..n_left).map(move |k| gone[k * n_fold + f]);
        let rows: Vec<Vec<f64>> = (0..n_fold).map(|f| column(f).collect()).collect();
        let mixed: Vec<Vec<f64>> = rows.iter().map(|row| mixing.apply(row)).collect();
        let mut factor = vec![0.0; n_fold * n_fold];
        for f in 0..n_fold {
            for g in 0..=f {
                factor[f * n_fold + g] = f64::from(u8::from(f == g)) / kappa - dot(&rows[f], &mixed[g]);
            }
        }
        if !cholesky(&mut factor, n_fold) {
            return None;
        }
        let mut updates = vec![0.0; n_left * n_fold]; // [K, F]
        for (k, update) in updates.chunks_exact_mut(n_fold).enumerate() {
            update.iter_mut().zip(&mixed).for_each(|(update, mixed)| *update = mixed[k]);
            solve_lower(&factor, update);
        }
        for scores in scores {
            let outputs: Vec<f64> = self.classes.iter().map(|class| scores[*class] - 1.0 / n_left as f64).collect();
            let mut along = vec![0.0; n_fold];
            for (update, output) in updates.chunks_exact(n_fold).zip(&outputs) {
                add_scaled(&mut along, *output, update);
            }
            let direct = mixing.apply(&outputs);
            for (k, update) in updates.chunks_exact(n_fold).enumerate() {
                let half_length = mixing.half_length(k) + dot(update, update) / 2.0;
                scores[self.classes[k]] = scale * (direct[k] + dot(update, &along) - half_length);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folds::Plan;
    use crate::ridge::System;
    use crate::set::SampleSet;
    use crate::sums::ClassSums;
    use crate::synthetic;
    use crate::training::Training;

    /// Largest difference between closed form and fits from scratch, over all folds and classes.
    fn largest_difference(set: &SampleSet) -> f64 {
        let training = Training::of(set).unwrap();
        let means = ClassSums::of(&training).means();
        let system = System::new(&training, &means).unwrap();
        let (lambda_rel, kappa) = (0.1, system.kappa(0.1));
        let solution = system.solve(lambda_rel, kappa).unwrap();
        let plan = Plan::of(&training).ok().unwrap();
        let ids: Vec<_> = set.live().map(|(id, ..)| id).collect();
        let mut largest = 0.0f64;
        for (fold, scores) in plan.folds.iter().zip(left_out_scores(&solution, &plan.folds, Scores::Ridge).unwrap()) {
            let mut rest = set.clone();
            for i in &fold.removed {
                rest.remove(ids[*i]);
            }
            let rest = Training::of(&rest).unwrap();
            let means = ClassSums::of(&rest).means();
            let head = System::new(&rest, &means).unwrap().fit_at(lambda_rel, kappa).unwrap();
            for (i, scores) in fold.test.iter().zip(scores) {
                let scratch = head.scores(training.samples[*i].embedding);
                for (label, expected) in rest.labels.iter().zip(scratch) {
                    let class = training.labels.iter().position(|other| other == label).unwrap();
                    largest = largest.max((scores[class] - expected).abs());
                }
                let gone = scores.iter().filter(|score| **score == f64::NEG_INFINITY).count();
                assert_eq!(gone, training.labels.len() - rest.labels.len());
            }
        }
        largest
    }

    /// Five-sample sessions across classes of unequal size.
    fn sessions_across_classes(d: usize) -> SampleSet {
        let mut set = SampleSet::new(synthetic::SPACE, d);
        let mut rows = synthetic::rows(4, 9, d, 3);
        rows.truncate(31);
        for (number, (class, row)) in rows.into_iter().enumerate() {
            let number = number as u32;
            let session = synthetic::meta(0, number % 7).session;
            set.insert(graft_wire::SampleMeta { session, ..synthetic::meta(class, number) }, &row).unwrap();
        }
        set
    }

    // f32 weights of the scratch head bound the agreement: 2^-24 of scores around 1.
    const TOLERANCE: f64 = 2e-6;

    #[test]
    fn dual_one_by_one_equals_fits_from_scratch() {
        assert!(largest_difference(&synthetic::clusters(3, 6, 64, 1)) < TOLERANCE);
    }

    #[test]
    fn primal_one_by_one_equals_fits_from_scratch() {
        assert!(largest_difference(&synthetic::clusters(3, 6, 7, 1)) < TOLERANCE);
    }

    #[test]
    fn sessions_across_unequal_classes_equal_fits_from_scratch() {
        assert!(largest_difference(&sessions_across_classes(50)) < TOLERANCE);
        assert!(largest_difference(&sessions_across_classes(6)) < TOLERANCE);
    }

    #[test]
    fn a_class_that_vanishes_with_its_session_equals_fits_from_scratch() {
        let mut set = sessions_across_classes(40);
        for (number, (_, row)) in synthetic::rows(1, 2, 40, 77).iter().enumerate() {
            let session = synthetic::meta(0, 3).session;
            let meta = graft_wire::SampleMeta { session, ..synthetic::meta(9, 900 + number as u32) };
            set.insert(meta, row).unwrap();
        }
        assert!(largest_difference(&set) < TOLERANCE);
    }
}
