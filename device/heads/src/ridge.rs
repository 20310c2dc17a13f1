//! Class-balanced ridge regression on one-hot targets, with closed-form leave-one-out.
//!
//! Minimises, over W `[D, C]` and the intercept b (not penalised),
//!
//! `sum over classes c of (1 / n_c) * sum over its samples of |W^T x + b - y|^2 + kappa |W|^2`.
//!
//! That is the weight N / (C n_c) per sample up to a factor that `kappa` takes in. `kappa = lambda_rel * trace / n`,
//! with the trace of the weighted centred Gram matrix: relative to the data, so that neither the embedding's scale nor
//! the number of samples moves the grid. Without the weights a class of one sample beside one of twenty is hardly ever
//! predicted. With one-hot targets the scores of a sample sum to 1; targets of +-1 give the same decisions.
//!
//! With x centred by the mean of class means the intercept decouples: b is 1 / C at the centre. For n <= D the n x n
//! kernel is factored, else the D x D scatter; the same results up to rounding, a rule of n and D alone.
//!
//! Source: Hoerl & Kennard 1970; as a few-shot head, Bertinetto et al. 2019, arXiv:1805.08136; leave-one-out, Allen
//! 1974 (PRESS).

use alloc::vec;
use alloc::vec::Vec;
use core::cell::OnceCell;

use crate::cholesky::Cholesky;
use crate::grid;
use crate::linear::Linear;
use crate::sums::ClassMeans;
use crate::training::{TrainError, Training};
use crate::tridiagonal::Tridiagonal;
use crate::vector::{add_scaled, dot, dot_f32};

/// Relative lambdas tried: half decades, ascending.
pub(crate) const LAMBDA_GRID: [f64; 9] =
    [0.01, 0.03162277660168379, 0.1, 0.31622776601683794, 1.0, 3.1622776601683795, 10.0, 31.622776601683793, 100.0];
/// Place of the default in it.
const LAMBDA_DEFAULT: usize = 3;

/// All that does not depend on lambda.
pub(crate) struct System<'a> {
    pub training: &'a Training<'a>,
    pub means: &'a ClassMeans,
    dual: bool,
    /// Side of the matrix: n if dual, else D.
    size: usize,
    /// Weighted kernel or class-balanced scatter, `[m, m]`; lower triangle.
    matrix: Vec<f64>,
    /// Per class its right-hand side, `[C, m]`.
    rhs: Vec<f64>,
    /// Of the class-balanced scatter around the centre.
    pub trace: f64,
    /// Made when something is first left out, or a strength chosen; a head at a given strength needs none of it.
    reduced: OnceCell<Reduced>,
}

/// What serves every lambda.
struct Reduced {
    tridiagonal: Tridiagonal,
    /// Per sample its row under Q, `[N, m]`: a unit vector if dual, else the centred embedding over the root of n_c.
    rows: Vec<f64>,
    /// Per class its right-hand side under Q, `[C, m]`.
    rhs: Vec<f64>,
}

/// The system at one kappa.
pub(crate) struct Solution<'s> {
    pub system: &'s System<'s>,
    pub lambda_rel: f64,
    pub kappa: f64,
    /// Whitened rows, `[N, m]`.
    rows: Vec<f64>,
    /// Dual coefficients of the unweighted samples, `[N, C]`; W is their sum of embeddings.
    coefficients: Vec<f64>,
}

impl<'a> System<'a> {
    /// The system of all samples in `training`. `means` are those of its classes.
    ///
    /// # Errors
    /// [`TrainError::NoSpread`] if all embeddings are the same.
    pub fn new(training: &'a Training<'a>, means: &'a ClassMeans) -> Result<Self, TrainError> {
        let (n, d, n_classes) = (training.samples.len(), training.embedding_len, training.n_classes());
        let dual = n <= d;
        let size = if dual { n } else { d };
        let mut matrix = if dual { means.kernel(training) } else { means.scatter(training) };
        let mut rhs = vec![0.0; n_classes * size];
        if dual {
            // By the classes of two samples; a square root for each pair of samples would take longer than their products.
            let counts = || training.counts.iter().map(|count| f64::from(*count));
            let roots: Vec<f64> = counts().flat_map(|a| counts().map(move |b| libm::sqrt(a * b))).collect();
            for i in 0..n {
                let count = training.count_of(i);
                let roots = &roots[training.samples[i].class * n_classes..][..n_classes];
                for (value, sample) in matrix[i * n..][..=i].iter_mut().zip(&training.samples) {
                    *value /= roots[sample.class];
                }
                for (class, rhs) in rhs.chunks_exact_mut(n).enumerate() {
                    rhs[i] = training.target(i, class) / libm::sqrt(count);
                }
            }
        } else {
            for (class, rhs) in rhs.chunks_exact_mut(size.max(1)).enumerate() {
                rhs.copy_from_slice(&means.centred_mean(class));
            }
        }
        let trace: f64 = (0..size).map(|k| matrix[k * size + k]).sum();
        if trace <= 0.0 {
            return Err(training.no_spread());
        }
        Ok(Self { training, means, dual, size, matrix, rhs, trace, reduced: OnceCell::new() })
    }

    fn reduced(&self) -> &Reduced {
        self.reduced.get_or_init(|| {
            let (training, size) = (self.training, self.size);
            let mut rows = vec![0.0; training.samples.len() * size];
            for (i, row) in rows.chunks_exact_mut(size.max(1)).enumerate() {
                if self.dual {
                    row[i] = 1.0;
                } else {
                    let root = libm::sqrt(training.count_of(i));
                    row.copy_from_slice(&self.means.centred(training.samples[i].embedding));
                    row.iter_mut().for_each(|value| *value /= root);
                }
            }
            let (tridiagonal, mut rhs) = (Tridiagonal::reduce(self.matrix.clone(), size), self.rhs.clone());
            tridiagonal.rotate(&mut rows);
            tridiagonal.rotate(&mut rhs);
            Reduced { tridiagonal, rows, rhs }
        })
    }

    /// The absolute strength of a relative one.
    pub fn kappa(&self, lambda_rel: f64) -> f64 {
        lambda_rel * self.trace / self.training.samples.len() as f64
    }

    /// Picks lambda_rel from the grid by class-balanced leave-one-out accuracy (see [`grid`](crate::grid)).
    ///
    /// A sample is left out with the weights of the others as they are, which has a closed form. Accuracy, not squared
    /// error: with classes of 20 and 1 shots the latter picks lambdas that cost 5 points. Classes of one sample do not
    /// vote: left out, nothing is there to be recognised by, and they are wrong at every lambda.
    ///
    /// # Errors
    /// [`TrainError::NotPositiveDefinite`] if rounding got the better of a lambda.
    pub fn choose_lambda(&self) -> Result<f64, TrainError> {
        grid::choose(&LAMBDA_GRID, LAMBDA_DEFAULT, self.training, |lambda_rel| {
            let solution = self.solve(lambda_rel, self.kappa(lambda_rel))?;
            Ok(move |i| solution.leave_one_out(i))
        })
    }

    /// Solves at `kappa`, with everything that leaving out needs.
    ///
    /// # Errors
    /// [`TrainError::NotPositiveDefinite`], naming `lambda_rel`.
    pub fn solve(&self, lambda_rel: f64, kappa: f64) -> Result<Solution<'_>, TrainError> {
        let reduced = self.reduced();
        let whitener = reduced.tridiagonal.whitener(kappa).ok_or_else(|| self.singular(lambda_rel))?;
        let (mut rows, mut rhs) = (reduced.rows.clone(), reduced.rhs.clone());
        whitener.whiten(&mut rows);
        whitener.whiten(&mut rhs);
        let n_classes = self.training.n_classes();
        let mut coefficients = vec![0.0; self.training.samples.len() * n_classes];
        for (i, (row, to)) in rows.chunks_exact(self.size).zip(coefficients.chunks_exact_mut(n_classes)).enumerate() {
            let root = libm::sqrt(self.training.count_of(i));
            for (class, rhs) in rhs.chunks_exact(self.size).enumerate() {
                let fit = dot(row, rhs);
                // Dual: (K + kappa)^-1 Y at i. Primal: what the fit leaves over, divided by kappa.
                to[class] = match self.dual {
                    true => fit / root,
                    false => (self.training.target(i, class) / root - fit) / (kappa * root),
                };
            }
        }
        Ok(Solution { system: self, lambda_rel, kappa, rows, coefficients })
    }

    /// The head at one lambda.
    ///
    /// # Errors
    /// [`TrainError::NotPositiveDefinite`] if rounding got the better of it.
    pub fn fit(&self, lambda_rel: f64) -> Result<Linear, TrainError> {
        self.fit_at(lambda_rel, self.kappa(lambda_rel))
    }

    /// The head at one absolute strength; `lambda_rel` is for the error only.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn fit_at(&self, lambda_rel: f64, kappa: f64) -> Result<Linear, TrainError> {
        Ok(self.head(&self.solved(lambda_rel, kappa)?, |_| 1.0 / self.training.n_classes() as f64))
    }

    /// The solved right-hand sides, `[C, m]`: dual coefficients or weights.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn solved(&self, lambda_rel: f64, kappa: f64) -> Result<Vec<f64>, TrainError> {
        let factor = Cholesky::of(&self.matrix, self.size, kappa).ok_or_else(|| self.singular(lambda_rel))?;
        let mut solved = self.rhs.clone();
        factor.solve(&mut solved);
        Ok(solved)
    }

    /// The head of solved rows `[C, m]`; `at_centre` is the score that a class gives the centre.
    pub fn head(&self, solved: &[f64], at_centre: impl Fn(usize) -> f64) -> Linear {
        let centre = self.means.centre();
        let (n_classes, d) = (self.training.n_classes(), centre.len());
        let (mut biases, mut weights) = (Vec::with_capacity(n_classes), Vec::with_capacity(n_classes * d));
        let combined = if self.dual { self.combine(solved) } else { solved.to_vec() };
        for (class, row) in combined.chunks_exact(d.max(1)).enumerate() {
            let rounded: Vec<f32> = row.iter().map(|weight| *weight as f32).collect();
            // From the rounded weights, so that the centre scores what it should as exactly as it can.
            biases.push(at_centre(class) - dot_f32(&centre, &rounded));
            weights.extend(rounded);
        }
        Linear { biases, weights }
    }

    /// Dual coefficients to weights, `[C, N] -> [C, D]`. The coefficients of a class sum to zero (the intercept sees to
    /// it), so that embeddings need not be centred here.
    fn combine(&self, coefficients: &[f64]) -> Vec<f64> {
        let (training, d) = (self.training, self.training.embedding_len);
        let mut weights = vec![0.0; training.n_classes() * d];
        for (i, sample) in training.samples.iter().enumerate() {
            let (root, row) = (libm::sqrt(training.count_of(i)), sample.embedding.iter().map(|x| f64::from(*x)));
            let row: Vec<f64> = row.collect();
            for (weights, coefficients) in weights.chunks_exact_mut(d.max(1)).zip(coefficients.chunks_exact(self.size))
            {
                add_scaled(weights, coefficients[i] / root, &row);
            }
        }
        weights
    }

    pub fn singular(&self, lambda_rel: f64) -> TrainError {
        TrainError::NotPositiveDefinite { n_samples: self.training.samples.len() as u32, lambda_rel }
    }
}

impl Solution<'_> {
    /// Entry (i, j) of P: top left block of the inverse of `[K + kappa diag(n_c), 1; 1^T, 0]`, K the kernel. P maps
    /// targets to `coefficients`; leaving samples out and changing weights are small updates of it.
    pub fn projector(&self, i: usize, j: usize) -> f64 {
        let (system, training) = (self.system, self.system.training);
        let (n_i, n_j) = (training.count_of(i), training.count_of(j));
        let row = |at: usize| &self.rows[at * system.size..][..system.size];
        let product = dot(row(i), row(j));
        let inverse = match system.dual {
            true => product,
            false => (f64::from(u8::from(i == j)) - product) / self.kappa,
        };
        // The weights are in the kernel's null space, which makes the intercept's share this simple.
        inverse / libm::sqrt(n_i * n_j) - 1.0 / (n_i * n_j * self.kappa * training.n_classes() as f64)
    }

    /// Scores `[C]` of sample i by the head that is fitted without it, all other weights unchanged.
    fn leave_one_out(&self, i: usize) -> Vec<f64> {
        let n_classes = self.system.training.n_classes();
        let own = self.projector(i, i);
        let mut scores: Vec<f64> =
            self.coefficients[i * n_classes..][..n_classes].iter().map(|coefficient| -coefficient / own).collect();
        scores[self.system.training.samples[i].class] += 1.0;
        scores
    }

    /// Sums of coefficients over the samples of each class, `[C, C]`: the one-hot targets on both sides of P, symmetric.
    pub fn class_sums(&self) -> Vec<f64> {
        let n_classes = self.system.training.n_classes();
        let mut sums = vec![0.0; n_classes * n_classes];
        for (sample, row) in self.system.training.samples.iter().zip(self.coefficients.chunks_exact(n_classes)) {
            add_scaled(&mut sums[sample.class * n_classes..][..n_classes], 1.0, row);
        }
        sums
    }

    /// Rows of [`Self::coefficients`].
    pub fn coefficients_of(&self, i: usize) -> &[f64] {
        let n_classes = self.system.training.n_classes();
        &self.coefficients[i * n_classes..][..n_classes]
    }
}

impl Training<'_> {
    /// Samples in the class of sample i.
    pub fn count_of(&self, i: usize) -> f64 {
        f64::from(self.counts[self.samples[i].class])
    }

    /// One-hot target minus its balanced mean 1 / C.
    fn target(&self, i: usize, class: usize) -> f64 {
        f64::from(u8::from(self.samples[i].class == class)) - 1.0 / self.n_classes() as f64
    }
}
