//! Class-balanced softmax regression with an L2 penalty, to convergence.
//!
//! Minimises, over W `[D, C]` and the intercepts b (not penalised),
//!
//! `sum over classes c of (1 / n_c) * sum over its samples of -log softmax(W^T x + b)_c + kappa / 2 * |W|^2`,
//!
//! `kappa = lambda_rel * trace / n` as for ridge: scikit-learn's `LogisticRegression(C = C / (kappa n),
//! class_weight="balanced")`. The strength is fixed: on MobileNetV2, keyword and n-gram embeddings, 5 and 20 shots, no
//! lambda_rel from 0.003 to 0.1 is better by more than 0.5 points than 0.03, and a grid would cost a refit per sample.
//!
//! For n <= D the weights are combinations of the samples, `W = X^T A`, and all that is needed is the kernel; gradients
//! and lengths are those of W, not of A, so that both forms take the same path. Limited-memory BFGS with two products per
//! step at most, and a line search that costs none, as scores are linear in the step.
//!
//! Source: Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::linear::Linear;
use crate::sums::ClassMeans;
use crate::training::{TrainError, Training};
use crate::vector::{add_scaled, argmax, dot, dot_f32};

/// Relative strength of the penalty.
pub(crate) const LAMBDA_REL: f64 = 0.03;
/// Steps that the curvature is taken from.
const MEMORY: usize = 12;
/// Done when the gradient is shorter than this share of the gradient at zero.
const TOLERANCE: f64 = 1e-6;
/// Steps at most; the sets tried need 20 to 100.
const STEPS_MAX: usize = 500;
/// Share of the promised decrease that a step must bring.
const DECREASE_MIN: f64 = 1e-4;

/// All that does not depend on the samples left out.
pub(crate) struct Problem<'a> {
    training: &'a Training<'a>,
    means: &'a ClassMeans,
    /// Of centred embeddings, `[N, N]`; None for n > D.
    kernel: Option<Vec<f64>>,
    /// `[D]`.
    centre: Vec<f64>,
    /// Mean squared length of a centred sample: the intercept is a component of this size.
    unit: f64,
}

/// A point or a direction.
#[derive(Clone)]
pub(crate) struct Point {
    /// A `[N, C]` for n <= D, else W `[D, C]`.
    coefficients: Vec<f64>,
    /// In units of the root of [`Problem::unit`], `[C]`.
    intercepts: Vec<f64>,
    /// What it scores every sample, `[N, C]`.
    scores: Vec<f64>,
}

impl<'a> Problem<'a> {
    /// # Errors
    /// [`TrainError::NoSpread`] if all embeddings are the same.
    pub fn new(training: &'a Training<'a>, means: &'a ClassMeans) -> Result<Self, TrainError> {
        let n = training.samples.len();
        let unit = means.balanced_spread() / training.n_classes() as f64;
        if unit <= 0.0 {
            return Err(training.no_spread());
        }
        let kernel = (n <= training.embedding_len).then(|| {
            let mut kernel = means.kernel(training);
            for i in 0..n {
                for j in 0..i {
                    kernel[j * n + i] = kernel[i * n + j];
                }
            }
            kernel
        });
        Ok(Self { training, means, kernel, centre: means.centre(), unit })
    }

    /// The absolute strength of a relative one.
    pub fn kappa(&self, lambda_rel: f64) -> f64 {
        lambda_rel * self.means.balanced_spread() / self.training.samples.len() as f64
    }

    /// Solves without the samples in `removed`, ascending, at an absolute strength. `start`: solution of another fold.
    pub fn solve(&self, kappa: f64, removed: &[usize], start: Option<&Point>) -> Point {
        let weights = Weights::without(self.training, removed);
        let mut at = self.point(start.map_or(vec![0.0; self.n_coefficients()], |start| start.coefficients.clone()));
        if let Some(start) = start {
            self.add_intercepts(&mut at, &start.intercepts);
        }
        let at_zero = self.residuals(&weights, &vec![0.0; at.scores.len()]).1;
        let length = libm::sqrt(self.product(&at_zero, &at_zero));
        let (mut loss, residuals) = self.residuals(&weights, &at.scores);
        let mut gradient = self.plus(residuals, kappa, &at);
        let mut history: VecDeque<(Point, Point, f64)> = VecDeque::new();
        for _ in 0..STEPS_MAX {
            if libm::sqrt(self.product(&gradient, &gradient)) <= TOLERANCE * length {
                break;
            }
            let direction = self.direction(&gradient, &history);
            let slope = self.product(&gradient, &direction);
            let penalty = |step: f64| {
                let along = step * self.product_of_weights(&at, &direction);
                kappa * (along + step * step * self.product_of_weights(&direction, &direction) / 2.0)
            };
            let mut step = 1.0;
            let (next_loss, residuals) = loop {
                let mut scores = at.scores.clone();
                add_scaled(&mut scores, step, &direction.scores);
                let (next, residuals) = self.losses(&weights, &scores);
                // Rounding ends what tolerance does not: then the step is next to nothing.
                if next - loss + penalty(step) <= DECREASE_MIN * step * slope || step < 1e-9 {
                    break (next, residuals);
                }
                step /= 2.0;
            };
            if step < 1e-9 {
                break;
            }
            loss = next_loss;
            at.add(step, &direction);
            let next = self.plus(self.gradient_of(residuals), kappa, &at);
            let mut change = next.clone();
            change.add(-1.0, &gradient);
            let mut moved = direction;
            moved.scale(step);
            let curvature = self.product(&moved, &change);
            if curvature > 0.0 {
                history.push_front((moved, change, 1.0 / curvature));
                history.truncate(MEMORY);
            }
            gradient = next;
        }
        at
    }

    /// The head of a solution.
    pub fn head(&self, solution: &Point) -> Linear {
        let (n_classes, d) = (self.training.n_classes(), self.training.embedding_len);
        let (mut biases, mut weights) = (Vec::with_capacity(n_classes), Vec::with_capacity(n_classes * d));
        for class in 0..n_classes {
            let column = |row: &[f64]| row[class];
            let coefficients: Vec<f64> = solution.coefficients.chunks_exact(n_classes).map(column).collect();
            let row = if self.kernel.is_some() { self.combine(&coefficients) } else { coefficients };
            let rounded: Vec<f32> = row.iter().map(|weight| *weight as f32).collect();
            biases.push(solution.intercepts[class] * libm::sqrt(self.unit) - dot_f32(&self.centre, &rounded));
            weights.extend(rounded);
        }
        Linear { biases, weights }
    }

    /// Scores `[C]` of sample i; minus infinity for classes that `removed` takes whole.
    pub fn scores_of(&self, solution: &Point, i: usize, removed: &[usize]) -> Vec<f64> {
        let n_classes = self.training.n_classes();
        let weights = Weights::without(self.training, removed);
        let scores = solution.scores[i * n_classes..][..n_classes].iter().zip(&weights.present);
        scores.map(|(score, present)| if *present { *score } else { f64::NEG_INFINITY }).collect()
    }

    /// Coefficients of one class to weights, `[N] -> [D]`.
    fn combine(&self, coefficients: &[f64]) -> Vec<f64> {
        let mut row = vec![0.0; self.training.embedding_len];
        for (sample, coefficient) in self.training.samples.iter().zip(coefficients) {
            for (weight, x) in row.iter_mut().zip(sample.embedding) {
                *weight += coefficient * f64::from(*x);
            }
        }
        add_scaled(&mut row, -coefficients.iter().sum::<f64>(), &self.centre);
        row
    }

    fn n_coefficients(&self) -> usize {
        let rows = if self.kernel.is_some() { self.training.samples.len() } else { self.training.embedding_len };
        rows * self.training.n_classes()
    }

    /// The point of some coefficients, without intercepts.
    fn point(&self, coefficients: Vec<f64>) -> Point {
        let n_classes = self.training.n_classes();
        let n = self.training.samples.len();
        let mut scores = vec![0.0; n * n_classes];
        match &self.kernel {
            // [N, N] x [N, C] -> [N, C]
            Some(kernel) => {
                let used: Vec<(usize, &[f64])> = coefficients.chunks_exact(n_classes).enumerate().collect();
                let used: Vec<_> = used.into_iter().filter(|(_, row)| row.iter().any(|value| *value != 0.0)).collect();
                for (scores, kernel) in scores.chunks_exact_mut(n_classes).zip(kernel.chunks_exact(n)) {
                    used.iter().for_each(|(j, row)| add_scaled(scores, kernel[*j], row));
                }
            }
            // [N, D] x [D, C] -> [N, C]
            None => {
                let mut on_centre = vec![0.0; n_classes];
                let rows = || coefficients.chunks_exact(n_classes);
                rows().zip(&self.centre).for_each(|(row, centre)| add_scaled(&mut on_centre, -centre, row));
                for (scores, sample) in scores.chunks_exact_mut(n_classes).zip(&self.training.samples) {
                    scores.copy_from_slice(&on_centre);
                    rows().zip(sample.embedding).for_each(|(row, x)| add_scaled(scores, f64::from(*x), row));
                }
            }
        }
        Point { coefficients, intercepts: vec![0.0; n_classes], scores }
    }

    fn add_intercepts(&self, point: &mut Point, intercepts: &[f64]) {
        point.intercepts.copy_from_slice(intercepts);
        for scores in point.scores.chunks_exact_mut(intercepts.len()) {
            add_scaled(scores, libm::sqrt(self.unit), intercepts);
        }
    }

    /// Loss without penalty, and its gradient.
    fn residuals(&self, weights: &Weights, scores: &[f64]) -> (f64, Point) {
        let (loss, residuals) = self.losses(weights, scores);
        (loss, self.gradient_of(residuals))
    }

    /// Loss without penalty, and its derivatives by the scores, `[N, C]`.
    fn losses(&self, weights: &Weights, scores: &[f64]) -> (f64, Vec<f64>) {
        let n_classes = self.training.n_classes();
        let mut residuals = vec![0.0; scores.len()];
        let mut loss = 0.0;
        let mut masked = vec![0.0; n_classes];
        let rows = scores.chunks_exact(n_classes).zip(residuals.chunks_exact_mut(n_classes));
        for (i, (scores, residuals)) in rows.enumerate() {
            let weight = weights.samples[i];
            if weight == 0.0 {
                continue;
            }
            for (masked, (score, present)) in masked.iter_mut().zip(scores.iter().zip(&weights.present)) {
                *masked = if *present { *score } else { f64::NEG_INFINITY };
            }
            let class = self.training.samples[i].class;
            let top = masked[argmax(&masked)];
            let mut total = 0.0;
            for (residual, score) in residuals.iter_mut().zip(&masked) {
                *residual = if *score > f64::NEG_INFINITY { libm::exp(score - top) } else { 0.0 };
                total += *residual;
            }
            loss += weight * (libm::log(total) + top - scores[class]);
            residuals.iter_mut().for_each(|residual| *residual *= weight / total);
            residuals[class] -= weight;
        }
        (loss, residuals)
    }

    /// The gradient by weights and intercepts from that by scores.
    fn gradient_of(&self, residuals: Vec<f64>) -> Point {
        let n_classes = self.training.n_classes();
        let mut totals = vec![0.0; n_classes];
        residuals.chunks_exact(n_classes).for_each(|row| add_scaled(&mut totals, 1.0, row));
        let coefficients = match &self.kernel {
            Some(_) => residuals,
            None => {
                let mut sums = vec![0.0; self.n_coefficients()];
                for (sample, residuals) in self.training.samples.iter().zip(residuals.chunks_exact(n_classes)) {
                    let rows = sums.chunks_exact_mut(n_classes).zip(sample.embedding);
                    rows.for_each(|(row, x)| add_scaled(row, f64::from(*x), residuals));
                }
                let rows = sums.chunks_exact_mut(n_classes).zip(&self.centre);
                rows.for_each(|(row, centre)| add_scaled(row, -centre, &totals));
                sums
            }
        };
        let mut gradient = self.point(coefficients);
        totals.iter_mut().for_each(|total| *total *= libm::sqrt(self.unit));
        self.add_intercepts(&mut gradient, &totals);
        gradient
    }

    /// `gradient` of the loss with that of the penalty at `at`.
    fn plus(&self, mut gradient: Point, kappa: f64, at: &Point) -> Point {
        add_scaled(&mut gradient.coefficients, kappa, &at.coefficients);
        // Scores of the penalty's gradient are those of the weights alone.
        let n_classes = self.training.n_classes();
        let rows = gradient.scores.chunks_exact_mut(n_classes).zip(at.scores.chunks_exact(n_classes));
        for (to, from) in rows {
            add_scaled(to, kappa, from);
            add_scaled(to, -kappa * libm::sqrt(self.unit), &at.intercepts);
        }
        gradient
    }

    /// Minus the gradient in the metric of the last steps (two-loop recursion).
    fn direction(&self, gradient: &Point, history: &VecDeque<(Point, Point, f64)>) -> Point {
        let mut direction = gradient.clone();
        let mut shares = Vec::with_capacity(history.len());
        for (moved, change, inverse) in history {
            let share = inverse * self.product(moved, &direction);
            direction.add(-share, change);
            shares.push(share);
        }
        // Without a step to learn from: softmax bends by at most a half per unit of weight, and the weights sum to C.
        let size = match history.front() {
            Some((_, change, inverse)) => 1.0 / (inverse * self.product(change, change)),
            None => 1.0 / self.unit,
        };
        direction.scale(size);
        for ((moved, change, inverse), share) in history.iter().zip(shares).rev() {
            let step = share - inverse * self.product(change, &direction);
            direction.add(step, moved);
        }
        direction.scale(-1.0);
        direction
    }

    /// Inner product of two points as weights and intercepts.
    fn product(&self, a: &Point, b: &Point) -> f64 {
        self.product_of_weights(a, b) + dot(&a.intercepts, &b.intercepts)
    }

    fn product_of_weights(&self, a: &Point, b: &Point) -> f64 {
        if self.kernel.is_none() {
            return dot(&a.coefficients, &b.coefficients);
        }
        // A^T K B, where the scores hold K B and the intercepts.
        let n_classes = b.intercepts.len();
        let mut totals = vec![0.0; n_classes];
        a.coefficients.chunks_exact(n_classes).for_each(|row| add_scaled(&mut totals, 1.0, row));
        dot(&a.coefficients, &b.scores) - libm::sqrt(self.unit) * dot(&totals, &b.intercepts)
    }
}

impl Point {
    fn add(&mut self, factor: f64, other: &Point) {
        add_scaled(&mut self.coefficients, factor, &other.coefficients);
        add_scaled(&mut self.intercepts, factor, &other.intercepts);
        add_scaled(&mut self.scores, factor, &other.scores);
    }

    fn scale(&mut self, factor: f64) {
        let parts = [&mut self.coefficients, &mut self.intercepts, &mut self.scores];
        parts.into_iter().flatten().for_each(|value| *value *= factor);
    }
}

/// What each sample counts once a fold is left out.
struct Weights {
    /// `1 / n_c` of what is left, 0 for what is not, `[N]`.
    samples: Vec<f64>,
    /// Something is left, `[C]`.
    present: Vec<bool>,
}

impl Weights {
    fn without(training: &Training<'_>, removed: &[usize]) -> Self {
        let mut left = training.counts.clone();
        removed.iter().for_each(|i| left[training.samples[*i].class] -= 1);
        let mut samples: Vec<f64> =
            training.samples.iter().map(|sample| 1.0 / f64::from(left[sample.class].max(1))).collect();
        removed.iter().for_each(|i| samples[*i] = 0.0);
        Self { samples, present: left.iter().map(|left| *left > 0).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sums::ClassSums;
    use crate::synthetic;

    /// Largest component of the gradient by weights and intercepts, from the objective as it is written, relative to that
    /// at zero.
    fn gradient_left(training: &Training<'_>, means: &ClassMeans, head: &Linear, kappa: f64) -> f64 {
        let (n_classes, d) = (training.n_classes(), training.embedding_len);
        let mut ratio = [0.0f64; 2];
        for (ratio, share) in ratio.iter_mut().zip([1.0, 0.0]) {
            let mut gradient: Vec<f64> = head.weights.iter().map(|weight| share * kappa * f64::from(*weight)).collect();
            for (i, sample) in training.samples.iter().enumerate() {
                let scores: Vec<f64> = head.scores(sample.embedding).iter().map(|score| share * score).collect();
                let total: f64 = scores.iter().map(|score| score.exp()).sum();
                for class in 0..n_classes {
                    let target = f64::from(u8::from(sample.class == class));
                    let residual = (scores[class].exp() / total - target) / training.count_of(i);
                    add_scaled(&mut gradient[class * d..][..d], residual, &means.centred(sample.embedding));
                }
            }
            *ratio = dot(&gradient, &gradient).sqrt();
        }
        ratio[0] / ratio[1]
    }

    fn unequal(d: usize) -> Vec<(u32, Vec<i8>)> {
        let mut rows = synthetic::rows(4, 9, d, 3);
        rows.truncate(29);
        rows
    }

    #[test]
    fn the_gradient_vanishes_in_both_forms() {
        for d in [60, 7] {
            let set = synthetic::set_of(&unequal(d));
            let training = Training::of(&set).unwrap();
            let means = ClassSums::of(&training).means();
            let problem = Problem::new(&training, &means).unwrap();
            for lambda_rel in [1e-3, LAMBDA_REL, 10.0] {
                let kappa = problem.kappa(lambda_rel);
                let head = problem.head(&problem.solve(kappa, &[], None));
                let left = gradient_left(&training, &means, &head, kappa);
                // The tolerance is of weights and intercepts; head weights are f32.
                assert!(left < 1e-5, "{left} of the gradient is left at D = {d}, lambda {lambda_rel}");
            }
        }
    }

    #[test]
    fn both_forms_give_the_same_scores() {
        // Padded with zeros the same samples take the other form.
        let rows = unequal(7);
        let wide: Vec<(u32, Vec<i8>)> =
            rows.iter().map(|(class, row)| (*class, row.iter().copied().chain([0; 40]).collect())).collect();
        let head = |rows: &[(u32, Vec<i8>)]| {
            crate::Head::train(&synthetic::set_of(rows), graft_wire::message::HeadChoice::Logistic).unwrap()
        };
        let (primal, dual) = (head(&rows), head(&wide));
        for ((_, row), (_, wide)) in rows.iter().zip(&wide) {
            let (a, b) = (primal.classify(row).scores, dual.classify(wide).scores);
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
        }
    }

    #[test]
    fn leaving_out_equals_a_fit_without_from_any_start() {
        let set = synthetic::set_of(&unequal(40));
        let training = Training::of(&set).unwrap();
        let means = ClassSums::of(&training).means();
        let problem = Problem::new(&training, &means).unwrap();
        let kappa = problem.kappa(LAMBDA_REL);
        let whole = problem.solve(kappa, &[], None);
        // The last class goes with it: two samples.
        let gone: Vec<usize> = (0..training.samples.len()).filter(|i| training.samples[*i].class == 3).collect();
        for removed in [vec![4], gone] {
            let solution = problem.solve(kappa, &removed, Some(&whole));
            let ids: Vec<_> = set.live().map(|(id, ..)| id).collect();
            let mut rest = set.clone();
            removed.iter().for_each(|i| assert!(rest.remove(ids[*i])));
            let rest = Training::of(&rest).unwrap();
            let means = ClassSums::of(&rest).means();
            let scratch = Problem::new(&rest, &means).unwrap();
            let head = scratch.head(&scratch.solve(kappa, &[], None));
            for i in 0..training.samples.len() {
                let scores = problem.scores_of(&solution, i, &removed);
                let expected = head.scores(training.samples[i].embedding);
                for (a, b) in scores.iter().zip(&expected) {
                    assert!((a - scores[0] - b + expected[0]).abs() < 1e-4, "{scores:?} {expected:?}");
                }
                assert_eq!(scores.iter().filter(|score| **score == f64::NEG_INFINITY).count(), 4 - rest.n_classes());
            }
        }
    }
}
