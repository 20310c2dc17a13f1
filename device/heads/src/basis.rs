//! What all heads of one set are made from: sums, means, and the factored system.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::OnceCell;

use crate::folds::Fold;
use crate::logistic::Problem;
use crate::ncm::Ncm;
use crate::ridge::System;
use crate::sums::{ClassMeans, ClassSums};
use crate::training::{TrainError, Training};
use crate::trimmed::Trimmed;

/// Sums and means of all samples.
pub(crate) struct Whole {
    sums: ClassSums,
    means: ClassMeans,
}

impl Whole {
    pub fn of(training: &Training<'_>) -> Self {
        let sums = ClassSums::of(training);
        let means = sums.means();
        Self { sums, means }
    }
}

/// A training view with what does not depend on the head. What is costly is made once, when it is first asked for.
pub(crate) struct Basis<'a> {
    pub training: &'a Training<'a>,
    pub means: &'a ClassMeans,
    sums: &'a ClassSums,
    system: OnceCell<System<'a>>,
    logistic: OnceCell<Problem<'a>>,
    trimmed: OnceCell<Trimmed>,
}

impl<'a> Basis<'a> {
    /// `whole` is of `training`.
    pub fn new(training: &'a Training<'a>, whole: &'a Whole) -> Self {
        let (means, sums) = (&whole.means, &whole.sums);
        let (system, logistic, trimmed) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { training, means, sums, system, logistic, trimmed }
    }

    /// # Errors
    /// As [`System::new`].
    pub fn system(&self) -> Result<&System<'a>, TrainError> {
        if let Some(system) = self.system.get() {
            return Ok(system);
        }
        let system = System::new(self.training, self.means)?;
        Ok(self.system.get_or_init(|| system))
    }

    /// # Errors
    /// As [`Problem::new`].
    pub fn logistic(&self) -> Result<&Problem<'a>, TrainError> {
        if let Some(problem) = self.logistic.get() {
            return Ok(problem);
        }
        let problem = Problem::new(self.training, self.means)?;
        Ok(self.logistic.get_or_init(|| problem))
    }

    pub fn trimmed(&self) -> &Trimmed {
        self.trimmed.get_or_init(|| Trimmed::of(self.training, self.means))
    }

    /// Class means without a fold, exactly those of a set that never held it.
    pub fn means_without(&self, fold: &Fold) -> ClassMeans {
        let mut sums = self.sums.clone();
        let mut changed = Vec::new();
        for i in &fold.removed {
            let sample = &self.training.samples[*i];
            sums.remove(sample.class, sample.embedding);
            changed.push(sample.class);
        }
        changed.sort_unstable();
        changed.dedup();
        self.means.updated(&sums, &changed)
    }

    /// [`Self::scores_by`] the nearest-class-mean head of `means`.
    pub fn ncm_scores(&self, means: &ClassMeans, fold: &Fold) -> Vec<Vec<f64>> {
        self.scores_by(means, Ncm::fit(means), fold, Ncm::scores)
    }

    /// Scores `[test][C]` by a head of `means`, None where these give none; minus infinity for classes that they lack.
    /// `score`: what the head says of an embedding.
    pub fn scores_by<H>(
        &self,
        means: &ClassMeans,
        head: Option<H>,
        fold: &Fold,
        score: impl Fn(&H, &[i8]) -> Vec<f64>,
    ) -> Vec<Vec<f64>> {
        let of = |i: &usize| {
            let mut scores = vec![f64::NEG_INFINITY; self.training.n_classes()];
            let found = head.as_ref().map(|head| score(head, self.training.samples[*i].embedding));
            for (k, class) in means.classes.iter().enumerate() {
                // Without any direction all scores are 0, as in a head.
                scores[*class] = found.as_ref().map_or(0.0, |found| found[k]);
            }
            scores
        };
        fold.test.iter().map(of).collect()
    }
}
