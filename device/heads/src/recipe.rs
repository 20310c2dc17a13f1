//! A kind of head with its strength: everything about a head that is decided before it is solved.

use alloc::vec;
use alloc::vec::Vec;

use graft_wire::message::HeadKind;

use crate::basis::Basis;
use crate::folds::{Fold, Plan, Predictions, grouped};
use crate::head::Model;
use crate::knn::{self, Knn};
use crate::leave_out::{Scores, left_out_scores};
use crate::linear::Linear;
use crate::ncm::Ncm;
use crate::projection::with_projected;
use crate::training::TrainError;
use crate::vector::argmax;
use crate::{euclidean, lda, logistic};

/// Work of refits for left-out scores, in multiplications of one pass over a kernel: 25 samples of 5 classes are refitted
/// for every fold, 1,000 of 20 for ten groups of folds.
const REFIT_WORK_MAX: usize = 200_000_000;
/// Groups of folds at least, however large the set.
const REFITS_MIN: usize = 5;

/// Which head, and how strongly regularised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Recipe {
    Ncm,
    NcmEuclidean,
    NcmTrimmed,
    Ridge { lambda_rel: f64 },
    Lda { shrinkage: f64 },
    Logistic { lambda_rel: f64 },
    Knn { k: u32 },
    Rp { lambda_rel: f64 },
}

impl Recipe {
    /// The strength that the set itself asks for.
    ///
    /// # Errors
    /// [`TrainError`] of the solver.
    pub fn of(kind: HeadKind, basis: &Basis<'_>) -> Result<Self, TrainError> {
        Ok(match kind {
            HeadKind::Ncm => Self::Ncm,
            HeadKind::NcmEuclidean => Self::NcmEuclidean,
            HeadKind::NcmTrimmed => Self::NcmTrimmed,
            HeadKind::Ridge => Self::Ridge { lambda_rel: basis.system()?.choose_lambda()? },
            HeadKind::Lda => Self::Lda { shrinkage: lda::choose_shrinkage(basis.system()?)? },
            HeadKind::Logistic => Self::Logistic { lambda_rel: logistic::LAMBDA_REL },
            HeadKind::Knn => Self::Knn { k: knn::choose_k(basis.training, basis.means) },
            HeadKind::Rp => {
                let lambda_rel = with_projected(basis, |projected| projected.system()?.choose_lambda())?;
                Self::Rp { lambda_rel }
            }
        })
    }

    /// At a given strength, or number of neighbours; None for one that the kind cannot have.
    pub fn at(kind: HeadKind, strength: f64) -> Option<Self> {
        let is_lambda = strength > 0.0 && strength.is_finite();
        match kind {
            HeadKind::Ncm => Some(Self::Ncm),
            HeadKind::NcmEuclidean => Some(Self::NcmEuclidean),
            HeadKind::NcmTrimmed => Some(Self::NcmTrimmed),
            HeadKind::Ridge if is_lambda => Some(Self::Ridge { lambda_rel: strength }),
            HeadKind::Lda if is_lambda && strength < 1.0 => Some(Self::Lda { shrinkage: strength }),
            HeadKind::Logistic if is_lambda => Some(Self::Logistic { lambda_rel: strength }),
            HeadKind::Knn if (1.0..=f64::from(knn::K_MAX)).contains(&strength) => {
                Some(Self::Knn { k: strength as u32 })
            }
            HeadKind::Rp if is_lambda => Some(Self::Rp { lambda_rel: strength }),
            _ => None,
        }
    }

    pub fn kind(&self) -> HeadKind {
        match self {
            Self::Ncm => HeadKind::Ncm,
            Self::NcmEuclidean => HeadKind::NcmEuclidean,
            Self::NcmTrimmed => HeadKind::NcmTrimmed,
            Self::Ridge { .. } => HeadKind::Ridge,
            Self::Lda { .. } => HeadKind::Lda,
            Self::Logistic { .. } => HeadKind::Logistic,
            Self::Knn { .. } => HeadKind::Knn,
            Self::Rp { .. } => HeadKind::Rp,
        }
    }

    /// Relative strength of ridge (projected or not) and softmax regression, shrinkage of discriminant analysis.
    pub fn strength(&self) -> Option<f64> {
        match *self {
            Self::Ncm | Self::NcmEuclidean | Self::NcmTrimmed | Self::Knn { .. } => None,
            Self::Ridge { lambda_rel } | Self::Logistic { lambda_rel } | Self::Rp { lambda_rel } => Some(lambda_rel),
            Self::Lda { shrinkage } => Some(shrinkage),
        }
    }

    /// Solves the head.
    ///
    /// # Errors
    /// [`TrainError`] of the solver.
    pub fn fit(&self, basis: &Basis<'_>) -> Result<Model, TrainError> {
        let no_spread = || basis.training.no_spread();
        Ok(match *self {
            Self::Ncm => Model::Ncm(Ncm::fit(basis.means).ok_or_else(no_spread)?),
            Self::NcmEuclidean => Model::NcmEuclidean(euclidean::fit(basis.means).ok_or_else(no_spread)?),
            Self::NcmTrimmed => Model::NcmTrimmed(Ncm::fit(&basis.trimmed().means).ok_or_else(no_spread)?),
            Self::Ridge { lambda_rel } => Model::Ridge { ridge: basis.system()?.fit(lambda_rel)?, lambda_rel },
            Self::Lda { shrinkage } => Model::Lda { lda: lda::fit(basis.system()?, shrinkage)?, shrinkage },
            Self::Logistic { lambda_rel } => {
                let logistic = basis.logistic()?;
                let solution = logistic.solve(logistic.kappa(lambda_rel), &[], None);
                Model::Logistic { logistic: logistic.head(&solution), lambda_rel }
            }
            Self::Knn { k } => Model::Knn(Knn::fit(basis.training, basis.means, k)?),
            Self::Rp { lambda_rel } => {
                let ridge = with_projected(basis, |projected| projected.system()?.fit(lambda_rel))?;
                Model::Rp { ridge, lambda_rel }
            }
        })
    }

    /// Scores of every fold's test samples by the head without the fold: `[folds][test][C]`. A class of which the fold
    /// leaves nothing scores minus infinity.
    ///
    /// Exact at the strength of the whole set, but for softmax regression where it would be refitted too often: there
    /// folds are grouped, and left out together.
    ///
    /// # Errors
    /// [`TrainError`] of the solver.
    pub fn left_out_scores(&self, basis: &Basis<'_>, folds: &[Fold]) -> Result<Vec<Vec<Vec<f64>>>, TrainError> {
        match *self {
            Self::Ncm | Self::NcmEuclidean | Self::NcmTrimmed => Ok(folds
                .iter()
                .map(|fold| {
                    let means = basis.means_without(fold);
                    match self {
                        Self::NcmEuclidean => basis.scores_by(&means, euclidean::fit(&means), fold, Linear::scores),
                        Self::NcmTrimmed => {
                            let means = basis.trimmed().means_without(basis.training, &means, fold);
                            basis.ncm_scores(&means, fold)
                        }
                        _ => basis.ncm_scores(&means, fold),
                    }
                })
                .collect()),
            Self::Ridge { lambda_rel } => {
                let system = basis.system()?;
                left_out_scores(&system.solve(lambda_rel, system.kappa(lambda_rel))?, folds, Scores::Ridge)
            }
            Self::Lda { shrinkage } => {
                let system = basis.system()?;
                let scale = lda::scale(basis.training.n_classes(), shrinkage);
                let solution = system.solve(shrinkage, lda::kappa(system, shrinkage))?;
                left_out_scores(&solution, folds, Scores::Discriminant { scale })
            }
            Self::Logistic { lambda_rel } => {
                let (training, logistic) = (basis.training, basis.logistic()?);
                let kappa = logistic.kappa(lambda_rel);
                let whole = logistic.solve(kappa, &[], None);
                let n = training.samples.len();
                let pass = n * n.min(training.embedding_len) * training.n_classes();
                let mut scores = vec![Vec::new(); folds.len()];
                for group in grouped(training, folds, (REFIT_WORK_MAX / pass).max(REFITS_MIN)) {
                    let mut removed: Vec<usize> = group.iter().flat_map(|at| folds[*at].removed.clone()).collect();
                    removed.sort_unstable();
                    removed.dedup();
                    let solution = logistic.solve(kappa, &removed, Some(&whole));
                    for at in group {
                        let of = |i: &usize| logistic.scores_of(&solution, *i, &removed);
                        scores[at] = folds[at].test.iter().map(of).collect();
                    }
                }
                Ok(scores)
            }
            Self::Knn { k } => Ok(knn::left_out_scores(basis, folds, k)),
            Self::Rp { lambda_rel } => {
                with_projected(basis, |projected| Self::Ridge { lambda_rel }.left_out_scores(projected, folds))
            }
        }
    }

    /// What every sample that counts is taken for by the head without its fold.
    ///
    /// # Errors
    /// [`TrainError`] of the solver.
    pub fn predictions(&self, basis: &Basis<'_>, plan: &Plan) -> Result<Predictions, TrainError> {
        let mut predictions = Predictions::none(basis.training.samples.len());
        for (fold, scores) in plan.folds.iter().zip(self.left_out_scores(basis, &plan.folds)?) {
            for (i, scores) in fold.test.iter().zip(scores) {
                predictions.0[*i] = Some(argmax(&scores));
            }
        }
        Ok(predictions)
    }
}
