//! Unknown rejection with a stated rate of false rejects, and calibrated probabilities.
//!
//! Every sample of the set is scored by what is learned without it: its session where its class has another one, else
//! its input alone, leaves sums, centre, spread and ridge. A new input is scored alike by the whole. Its p-value is the
//! share of samples, itself among them, that look no more known than it:
//!
//! `p = (1 + #{calibration scores <= score}) / (n + 1)`.
//!
//! p-values are multiples of 1 / (n + 1): 25 samples that promise 10 % keep 2 / 26 = 7.7 %. And a head without one of five
//! samples of a class is a little worse than with it, so that few shots err on the safe side: 5 classes with 5 shots
//! rejected 5.7 to 6.4 % of the known at 10 %; of 60 samples and more the rates are within 1.1 points.
//!
//! If input and samples are exchangeable, `p <= rate` happens to a known input with a probability of at most `rate`; with
//! left-out scores in place of a split this holds up to the stability of the fit (Barber et al. 2021, jackknife+), which
//! `tests/src/bin/unknowns.rs` measures. Samples of one session resemble each other more than later inputs do; then the
//! promise holds as far as the sessions resemble what comes.
//!
//! Negatives never change the threshold of a stated rate. They measure it: how many of them it rejects, and which rate
//! would reject nine of ten, for the user to state if that is worth more false rejects.
//!
//! Source: Vovk et al. 2005, Algorithmic Learning in a Random World; left-out scores, Vovk 2015, cross-conformal predictors.

use alloc::vec::Vec;

use graft_wire::LabelKind;

use crate::basis::Basis;
use crate::folds::{Fold, calibration_folds};
use crate::head::Model;
use crate::known::{self, Known, Means, combined};
use crate::recipe::Recipe;
use crate::set::SampleSet;
use crate::temperature::{self, HeldOut};
use crate::training::TrainError;

/// Most calibration scores a head carries, and most negatives: 32 KiB each, and a resolution far below any useful rate.
pub const SCORES_MAX: usize = 4096;
/// A suggested rate rejects at least this share of the negatives.
pub const NEGATIVES_SHARE: f64 = 0.9;

/// Calibration of a head by the set that it was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    pub(crate) known: Known,
    /// Left-out scores of class samples, ascending; at least one.
    pub(crate) scores: Vec<f64>,
    /// Scores of negatives, ascending.
    pub(crate) negatives: Vec<f64>,
    /// Of the softmax over the head's own scores; None for a head without left-out scores.
    pub(crate) inverse_temperature: Option<f64>,
    /// Stated rate of false rejects.
    pub(crate) rate: Option<f64>,
}

/// Why a head cannot be calibrated as asked.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// Not a rate.
    #[error("false-reject rate is {rate}; allowed is more than 0 and less than 1")]
    Rate {
        /// Rate stated.
        rate: f64,
    },
    /// So few samples cannot keep such a promise.
    #[error("a false-reject rate of {rate} cannot be promised from {n} samples; {n_needed} are needed")]
    TooFew {
        /// Rate stated.
        rate: f64,
        /// Samples whose class keeps another input without them.
        n: u32,
        /// Least number that can promise the rate.
        n_needed: u32,
    },
    /// The solver failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl Calibration {
    /// Calibrates the head of `model`, which was trained on `set`, whose `basis` is at hand; None if nothing can be left out and no rate is stated.
    ///
    /// # Errors
    /// [`CalibrateError::Rate`], [`CalibrateError::TooFew`] where `(n + 1) * rate < 1`, [`CalibrateError::Train`].
    pub(crate) fn of(
        set: &SampleSet,
        basis: &Basis<'_>,
        model: &Model,
        rate: Option<f64>,
    ) -> Result<Option<Self>, CalibrateError> {
        // Written so that NaN fails as well.
        if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate < 1.0)) {
            return Err(CalibrateError::Rate { rate });
        }
        let training = basis.training;
        let folds = calibration_folds(training, SCORES_MAX);
        let n: usize = folds.iter().map(|fold| fold.test.len()).sum();
        if let Some(rate) = rate.filter(|rate| !can_promise(*rate, n)) {
            return Err(CalibrateError::TooFew { rate, n: n as u32, n_needed: n_needed(rate) });
        }
        if n == 0 {
            return Ok(None);
        }
        let ridge = basis.system()?.fit(known::LAMBDA_REL)?;
        let known = Known { ridge, means: Means::of(basis.means, training.embedding_len) };
        let (mut scores, held_out) = left_out(basis, model, &folds)?;
        scores.sort_by(f64::total_cmp);
        let negatives = set.live().filter(|(_, meta, _)| meta.kind == LabelKind::Negative);
        let mut negatives: Vec<f64> = negatives.take(SCORES_MAX).map(|(.., x)| known.score(x)).collect();
        negatives.sort_by(f64::total_cmp);
        Ok(Some(Self { known, scores, negatives, inverse_temperature: temperature::fit(&held_out), rate }))
    }

    /// How much an int8 `[D]` embedding looks like a known class; higher is more, the unit is arbitrary.
    pub fn score(&self, embedding: &[i8]) -> f64 {
        self.known.score(embedding)
    }

    /// Conformal p-value of an int8 `[D]` embedding, in `1 / (n + 1)..=1`.
    pub fn p_value(&self, embedding: &[i8]) -> f64 {
        self.p_of(self.score(embedding))
    }

    fn p_of(&self, score: f64) -> f64 {
        let n_below = self.scores.partition_point(|other| *other <= score);
        (1 + n_below) as f64 / (self.scores.len() + 1) as f64
    }

    /// Calibration samples.
    pub fn n(&self) -> u32 {
        self.scores.len() as u32
    }

    /// Stated rate of false rejects; None: nothing is rejected.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Negatives scored.
    pub fn n_negatives(&self) -> u32 {
        self.negatives.len() as u32
    }

    /// Negatives that `rate` rejects.
    pub fn n_negatives_rejected(&self, rate: f64) -> u32 {
        self.negatives.iter().filter(|score| self.p_of(**score) <= rate).count() as u32
    }

    /// Least rate that rejects [`NEGATIVES_SHARE`] of the negatives; None without negatives, or if none does.
    pub fn rate_for_negatives(&self) -> Option<f64> {
        let n_wanted = libm::ceil(NEGATIVES_SHARE * self.negatives.len() as f64) as usize;
        let rate = self.p_of(*self.negatives.get(n_wanted.checked_sub(1)?)?);
        (rate < 1.0).then_some(rate)
    }
}

/// True if n samples can promise `rate`: the smallest p-value, 1 / (n + 1), is not over it.
pub(crate) fn can_promise(rate: f64, n: usize) -> bool {
    // Whether 19 samples promise 0.05 must not depend on how 20 * 0.05 rounds.
    (n + 1) as f64 * rate >= 1.0 - 1e-9
}

/// Least number of samples that can promise `rate`.
pub fn n_needed(rate: f64) -> u32 {
    libm::ceil(1.0 / rate - 1e-9).max(1.0) as u32 - 1
}

/// Left-out scores: of rejection, and of the head itself with the sample's class.
fn left_out(basis: &Basis<'_>, model: &Model, folds: &[Fold]) -> Result<(Vec<f64>, Vec<HeldOut>), TrainError> {
    let (training, recipe) = (basis.training, model.recipe());
    let of_known = Recipe::Ridge { lambda_rel: known::LAMBDA_REL };
    let ridge = of_known.left_out_scores(basis, folds)?;
    let own = if recipe == of_known { ridge.clone() } else { recipe.left_out_scores(basis, folds)? };
    let (mut scores, mut held_out) = (Vec::new(), Vec::new());
    for (number, (fold, ridge)) in folds.iter().zip(&ridge).enumerate() {
        let means = basis.means_without(fold);
        let near = Means::of(&means, training.embedding_len);
        for ((i, ridge), own) in fold.test.iter().zip(ridge).zip(&own[number]) {
            let sample = &training.samples[*i];
            scores.push(combined(ridge, near.nearness(sample.embedding)));
            held_out.push((sample.class, own.clone()));
        }
    }
    Ok((scores, held_out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Head;
    use crate::ridge::System;
    use crate::sums::ClassSums;
    use crate::synthetic;
    use crate::training::Training;
    use alloc::format;
    use alloc::string::ToString;
    use graft_wire::message::{HeadChoice, HeadKind};
    use graft_wire::{Label, SampleMeta};

    fn calibrated(set: &SampleSet, choice: HeadChoice, rate: Option<f64>) -> Result<Head, CalibrateError> {
        let mut head = Head::train(set, choice).unwrap();
        head.calibrate(set, rate).map(|()| head)
    }

    fn with_negatives(set: &SampleSet, rows: &[(u32, Vec<i8>)]) -> SampleSet {
        let mut set = set.clone();
        for (number, (_, row)) in rows.iter().enumerate() {
            let label = Label::new("none").unwrap();
            let meta = synthetic::meta(0, 900 + number as u32);
            set.insert(SampleMeta { kind: LabelKind::Negative, label, ..meta }, row).unwrap();
        }
        set
    }

    /// Two sessions for class 0, one for class 1, single inputs for class 2.
    fn sessions() -> SampleSet {
        let mut set = SampleSet::new(synthetic::SPACE, 24);
        for (number, (class, row)) in synthetic::rows(3, 6, 24, 4).iter().enumerate() {
            let number = number as u32;
            let session = match class {
                0 => synthetic::meta(0, number % 2).session,
                1 => synthetic::meta(0, 50).session,
                _ => synthetic::meta(0, number).session,
            };
            set.insert(SampleMeta { session, ..synthetic::meta(*class, number) }, row).unwrap();
        }
        set
    }

    #[test]
    fn calibration_scores_are_those_of_sets_without_the_sample() {
        let set = sessions();
        let training = Training::of(&set).unwrap();
        let means = ClassSums::of(&training).means();
        let kappa = System::new(&training, &means).unwrap().kappa(known::LAMBDA_REL);
        let mut expected: Vec<f64> = Vec::new();
        for (id, meta, embedding) in set.live() {
            // Class 0 has two sessions, class 1 a single one, and class 2 one for each input.
            let by_session = meta.label.as_str() == "class 000";
            let mut rest = set.clone();
            for (other, _, _) in set.live().filter(|(_, other, _)| by_session && other.session == meta.session) {
                rest.remove(other);
            }
            rest.remove(id);
            let rest = Training::of(&rest).unwrap();
            let means = ClassSums::of(&rest).means();
            let ridge = System::new(&rest, &means).unwrap().fit_at(known::LAMBDA_REL, kappa).unwrap();
            expected.push(Known { ridge, means: Means::of(&means, 24) }.score(embedding));
        }
        expected.sort_by(f64::total_cmp);
        let head = calibrated(&set, HeadChoice::Ncm, None).unwrap();
        let scores = &head.calibration().unwrap().scores;
        assert_eq!(scores.len(), 18);
        let largest = scores.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Weights of the fits from scratch are f32.
        assert!(largest < 2e-6, "{largest}");
    }

    #[test]
    fn too_few_samples_make_no_promise_and_say_how_many_would() {
        let set = synthetic::clusters(3, 6, 24, 2); // 18 samples
        let error = calibrated(&set, HeadChoice::Ncm, Some(0.05)).unwrap_err();
        let expected = "a false-reject rate of 0.05 cannot be promised from 18 samples; 19 are needed";
        assert_eq!(error.to_string(), expected);
        let error = calibrated(&set, HeadChoice::Ncm, Some(0.01)).unwrap_err();
        assert!(error.to_string().ends_with("; 99 are needed"), "{error}");
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            let error = calibrated(&set, HeadChoice::Ncm, Some(rate)).unwrap_err();
            assert!(error.to_string().contains("more than 0 and less than 1"), "{error}");
        }
        assert!(calibrated(&set, HeadChoice::Ncm, Some(0.06)).is_ok());
        // The smallest p-value of n_needed samples is the rate itself.
        for n in 1..300 {
            assert_eq!(n_needed(1.0 / f64::from(n + 1)), n);
            assert!(can_promise(1.0 / f64::from(n + 1), n as usize));
            assert!(!can_promise(1.0 / f64::from(n + 1), n as usize - 1));
        }
    }

    #[test]
    fn one_shot_has_nothing_to_calibrate_on() {
        let set = synthetic::clusters(3, 1, 24, 2);
        assert_eq!(calibrated(&set, HeadChoice::Ncm, None).unwrap().calibration(), None);
        let error = calibrated(&set, HeadChoice::Ncm, Some(0.5)).unwrap_err();
        assert_eq!(error.to_string(), "a false-reject rate of 0.5 cannot be promised from 0 samples; 1 are needed");
    }

    #[test]
    fn known_inputs_are_rejected_at_the_stated_rate_and_unknown_ones_more_often() {
        let (mut n_known, mut n_unknown) = (0, 0);
        const DRAWS: u64 = 60;
        for seed in 0..DRAWS {
            let rows = synthetic::rows_with_noise(4, 40, 32, seed, 40);
            let class = |range: core::ops::Range<usize>, class: u32| rows[40 * class as usize..][range].to_vec();
            let set = synthetic::set_of(&[class(0..20, 0), class(0..20, 1), class(0..20, 2)].concat());
            let head = calibrated(&set, HeadChoice::Ridge, Some(0.1)).unwrap();
            let rejected =
                |rows: &[(u32, Vec<i8>)]| rows.iter().filter(|(_, row)| head.judge(row).unknown == Some(true)).count();
            n_known += (0..3).map(|c| rejected(&class(20..40, c))).sum::<usize>();
            n_unknown += rejected(&class(0..20, 3));
        }
        let known = n_known as f64 / (60 * DRAWS) as f64;
        let unknown = n_unknown as f64 / (20 * DRAWS) as f64;
        assert!((0.08..=0.12).contains(&known), "{known} of the known");
        assert!(unknown > 2.0 * known, "{unknown} of the unknown");
    }

    #[test]
    fn negatives_measure_and_do_not_move_the_threshold() {
        let rows = synthetic::rows_with_noise(4, 12, 24, 8, 30);
        let set = synthetic::set_of(&rows[..36]);
        let plain = calibrated(&set, HeadChoice::Ridge, Some(0.1)).unwrap();
        let head = calibrated(&with_negatives(&set, &rows[36..]), HeadChoice::Ridge, Some(0.1)).unwrap();
        let (plain, calibration) = (plain.calibration().unwrap(), head.calibration().unwrap());
        assert_eq!((&plain.scores, plain.rate), (&calibration.scores, calibration.rate));
        assert_eq!((plain.n_negatives(), plain.rate_for_negatives()), (0, None));
        assert_eq!(calibration.n_negatives(), 12);
        let rate = calibration.rate_for_negatives().unwrap();
        assert!(calibration.n_negatives_rejected(rate) >= 11);
        assert!(calibration.n_negatives_rejected(rate - 1e-6) < 11);
        assert!(head.classes().iter().all(|label| label.as_str() != "none"));
    }

    #[test]
    fn probabilities_of_judged_samples_are_probabilities() {
        for choice in HeadKind::ALL.map(HeadKind::choice) {
            let set = synthetic::clusters(4, 10, 32, 5);
            let head = calibrated(&set, choice, None).unwrap();
            for (.., embedding) in set.live() {
                let judged = head.judge(embedding);
                assert_eq!(judged.unknown, None);
                assert!((0.25..=1.0).contains(&judged.probability.unwrap()), "{judged:?}");
                assert!((1.0 / 41.0..=1.0).contains(&judged.p_value.unwrap()), "{judged:?}");
            }
        }
    }

    #[test]
    fn bytes_of_fixed_sets_are_golden() {
        let rows = synthetic::rows(4, 12, 24, 8);
        let set = with_negatives(&sessions(), &rows[36..]);
        let hashes = HeadKind::ALL
            .map(HeadKind::choice)
            .map(|choice| format!("{:.16}", calibrated(&set, choice, Some(0.1)).unwrap().digest()));
        assert_eq!(
            hashes,
            [
                "c8ab1212b1f37e16",
                "83e72315b5d4440f",
                "39cf341b524ae686",
                "d93738f3558d10e4",
                "d9390e6ee69c1de2",
                "1e432ad1b1f73bdf",
                "ea4227cec82dfff8",
                "d56fd03977877da6",
            ]
        );
    }
}
