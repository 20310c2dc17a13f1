//! How well a head would do on what it has not seen, from the set alone: leave-one-session-out, else leave-one-out.
//!
//! Folds cost no forward pass, and no retraining where that can be had: class sums minus the fold for nearest class mean, a
//! closed form for ridge and discriminant analysis; softmax regression is refitted, for many folds at once in large sets
//! (`recipe`). Folds keep the strength chosen on the whole set. Negatives are neither trained on nor counted.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use graft_wire::message::{ClassCounts, ConfusionCell, EvaluationSummary, HeadChoice};

use crate::auto;
use crate::basis::{Basis, Whole};
use crate::folds::Plan;
use crate::recipe::Recipe;
use crate::set::SampleSet;
use crate::training::{TrainError, Training};

/// 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959963984540054;

/// Figures of an evaluation, as they travel on the link.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The figures.
    pub summary: EvaluationSummary,
    /// Every class, ascending by label.
    pub classes: Vec<ClassCounts>,
    /// Cells that are not zero, ascending by (truth, predicted); indices into `classes`.
    pub confusion: Vec<ConfusionCell>,
}

/// Why a set says nothing about unseen inputs.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// No head can be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// No sample's class would keep another input, beside a second class.
    #[error(
        "accuracy cannot be known from {n_samples} samples of {n_inputs} inputs in {n_sessions} sessions and \
         {n_classes} classes; some class needs a second input"
    )]
    NothingToLeaveOut {
        /// Live class samples.
        n_samples: u32,
        /// Different inputs among them.
        n_inputs: u32,
        /// Sessions among them.
        n_sessions: u32,
        /// Classes among them.
        n_classes: u32,
    },
}

/// Evaluates the head that `choice` trains on `set`.
///
/// For [`HeadChoice::Auto`] the figures are those of the head it takes; that it was taken for them makes them a little
/// optimistic, as the comparison has three entries only.
///
/// # Errors
/// [`EvaluateError::Train`] if no head can be trained; [`EvaluateError::NothingToLeaveOut`] with what the set holds.
pub fn evaluate(set: &SampleSet, choice: HeadChoice) -> Result<Evaluation, EvaluateError> {
    let training = Training::of(set)?;
    let inputs: BTreeSet<_> = training.samples.iter().map(|sample| sample.meta.digest).collect();
    let plan = Plan::of(&training).map_err(|left| EvaluateError::NothingToLeaveOut {
        n_samples: training.samples.len() as u32,
        n_inputs: inputs.len() as u32,
        n_sessions: left.n_sessions,
        n_classes: training.n_classes() as u32,
    })?;
    let whole = Whole::of(&training);
    let basis = Basis::new(&training, &whole);
    let recipe = match choice.named() {
        Some(kind) => Recipe::of(kind, &basis)?,
        None => auto::choose(&basis)?.recipe,
    };
    let predictions = recipe.predictions(&basis, &plan)?;
    let tally = predictions.tally(&training);
    let n = plan.n as u32;
    let n_correct: u32 = tally.iter().map(|(_, n_correct)| n_correct).sum();
    let (accuracy_low, accuracy_high) = wilson_interval(n_correct, n);
    let summary = EvaluationSummary {
        kind: recipe.kind(),
        protocol: plan.protocol,
        n,
        n_skipped: training.samples.len() as u32 - n,
        n_folds: plan.folds.len() as u32,
        n_correct,
        accuracy: f64::from(n_correct) / f64::from(n),
        accuracy_low,
        accuracy_high,
        balanced_accuracy: predictions.balanced_accuracy(&training),
    };
    let mut cells: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    for (sample, predicted) in training.samples.iter().zip(&predictions.0) {
        if let Some(predicted) = predicted {
            // At most 4,096 classes, checked when the training view was made.
            *cells.entry((sample.class as u16, *predicted as u16)).or_default() += 1;
        }
    }
    let confusion = cells.into_iter().map(|((truth, predicted), count)| ConfusionCell { truth, predicted, count });
    Ok(Evaluation { summary, classes: class_counts(&training, &tally), confusion: confusion.collect() })
}

fn class_counts(training: &Training<'_>, tally: &[(u32, u32)]) -> Vec<ClassCounts> {
    let sessions: BTreeSet<_> = training.samples.iter().map(|sample| (sample.class, sample.meta.session)).collect();
    let rows = training.labels.iter().zip(&training.counts).zip(tally).enumerate();
    rows.map(|(class, ((label, n_samples), (n, n_correct)))| ClassCounts {
        label: (*label).clone(),
        n_samples: *n_samples,
        n_sessions: sessions.iter().filter(|(other, _)| *other == class).count() as u32,
        n: *n,
        n_correct: *n_correct,
    })
    .collect()
}

/// 95 % Wilson score interval of a share: lower and upper end in 0..=1; (0, 1) where nothing was counted.
///
/// Source: Wilson 1927; unlike the normal approximation it stays sensible for few samples and shares near 0 and 1.
pub fn wilson_interval(n_correct: u32, n: u32) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let n = f64::from(n);
    let share = f64::from(n_correct) / n;
    let scale = 1.0 / (1.0 + Z * Z / n);
    let middle = scale * (share + Z * Z / (2.0 * n));
    let reach = scale * Z * libm::sqrt((share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).max(0.0));
    ((middle - reach).max(0.0), (middle + reach).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use alloc::string::ToString;
    use graft_wire::message::Protocol;
    use graft_wire::{Label, LabelKind, SampleMeta};

    #[test]
    fn wilson_interval_agrees_with_the_textbook() {
        // Newcombe 1998, table I, method 3: 81/263 gives 0.2553 to 0.3662, 0/20 gives 0.0000 to 0.1611.
        let (low, high) = wilson_interval(81, 263);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (low, high) = wilson_interval(0, 20);
        assert!(low < 1e-12 && (high - 0.1611).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson_interval(0, 0), (0.0, 1.0));
    }

    #[test]
    fn figures_add_up() {
        let set = synthetic::clusters(3, 8, 24, 2);
        for choice in HeadChoice::all() {
            let evaluation = evaluate(&set, choice).unwrap();
            let summary = &evaluation.summary;
            assert_eq!((summary.n, summary.n_skipped, summary.n_folds), (24, 0, 24));
            assert_eq!(summary.protocol, Protocol::LeaveOneSessionOut);
            assert_eq!(evaluation.classes.iter().map(|class| class.n_correct).sum::<u32>(), summary.n_correct);
            assert_eq!(evaluation.confusion.iter().map(|cell| cell.count).sum::<u32>(), 24);
            let diagonal = evaluation.confusion.iter().filter(|cell| cell.truth == cell.predicted);
            assert_eq!(diagonal.map(|cell| cell.count).sum::<u32>(), summary.n_correct);
            assert!(summary.accuracy_low < summary.accuracy && summary.accuracy <= summary.accuracy_high);
            assert!(summary.accuracy > 0.5, "clusters are separable: {summary:?}");
        }
    }

    #[test]
    fn ncm_folds_equal_heads_trained_without_the_fold() {
        let set = synthetic::clusters(4, 5, 12, 8);
        let mut n_correct = 0;
        for (id, meta, embedding) in set.live() {
            let mut rest = set.clone();
            rest.remove(id);
            let head = crate::Head::train(&rest, HeadChoice::Ncm).unwrap();
            n_correct += u32::from(head.classes()[head.classify(embedding).best] == meta.label);
        }
        assert_eq!(evaluate(&set, HeadChoice::Ncm).unwrap().summary.n_correct, n_correct);
    }

    #[test]
    fn one_session_is_evaluated_one_input_at_a_time() {
        let mut set = SampleSet::new(synthetic::SPACE, 16);
        let session = synthetic::meta(0, 0).session;
        for (number, (class, row)) in synthetic::rows(2, 6, 16, 1).iter().enumerate() {
            set.insert(SampleMeta { session, ..synthetic::meta(*class, number as u32) }, row).unwrap();
        }
        let summary = evaluate(&set, HeadChoice::Ncm).unwrap().summary;
        assert_eq!((summary.protocol, summary.n, summary.n_folds), (Protocol::LeaveOneOut, 12, 12));
    }

    #[test]
    fn parts_of_one_input_are_left_out_together() {
        // Each class is one input seen in six windows, in six sessions: every part knows the others.
        let mut set = SampleSet::new(synthetic::SPACE, 16);
        for (number, (class, row)) in synthetic::rows(2, 6, 16, 1).iter().enumerate() {
            let digest = synthetic::meta(0, *class).digest;
            set.insert(SampleMeta { digest, ..synthetic::meta(*class, number as u32) }, row).unwrap();
        }
        let error = evaluate(&set, HeadChoice::Ncm).unwrap_err();
        let expected = "accuracy cannot be known from 12 samples of 2 inputs in 12 sessions and 2 classes; some class \
                        needs a second input";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_fold_that_leaves_one_class_does_not_count() {
        // Class 1 lies in one session, which also holds a sample of class 0: without it nothing can be confused.
        let mut set = SampleSet::new(synthetic::SPACE, 16);
        let rows = synthetic::rows(2, 21, 16, 1);
        for (number, (class, row)) in rows[..23].iter().enumerate() {
            let number = number as u32;
            let session = synthetic::meta(0, number.min(20)).session;
            set.insert(SampleMeta { session, ..synthetic::meta(*class, number) }, row).unwrap();
        }
        let summary = evaluate(&set, HeadChoice::Ncm).unwrap().summary;
        assert_eq!((summary.protocol, summary.n, summary.n_skipped), (Protocol::LeaveOneSessionOut, 20, 3));
        let classes = evaluate(&set, HeadChoice::Ncm).unwrap().classes;
        let counts: Vec<_> = classes.iter().map(|class| (class.n_samples, class.n_sessions, class.n)).collect();
        assert_eq!(counts, [(21, 21, 20), (2, 1, 0)]);
    }

    #[test]
    fn sessions_that_leave_under_80_percent_give_way_to_single_inputs() {
        // As above with as many samples in both classes: by session 5 of 12 count, by input all of them.
        let mut set = SampleSet::new(synthetic::SPACE, 16);
        for (number, (class, row)) in synthetic::rows(2, 6, 16, 1).iter().enumerate() {
            let number = number as u32;
            let session = synthetic::meta(0, number.min(5)).session;
            set.insert(SampleMeta { session, ..synthetic::meta(*class, number) }, row).unwrap();
        }
        let summary = evaluate(&set, HeadChoice::Ncm).unwrap().summary;
        assert_eq!((summary.protocol, summary.n, summary.n_skipped), (Protocol::LeaveOneOut, 12, 0));
    }

    #[test]
    fn negatives_are_not_classes() {
        let mut set = synthetic::clusters(2, 4, 16, 6);
        let before = evaluate(&set, HeadChoice::Ridge).unwrap();
        let meta =
            SampleMeta { kind: LabelKind::Negative, label: Label::new("none").unwrap(), ..synthetic::meta(0, 99) };
        set.insert(meta, &[3; 16]).unwrap();
        assert_eq!(evaluate(&set, HeadChoice::Ridge).unwrap(), before);
    }

    #[test]
    fn one_class_is_refused_with_counts() {
        let error = evaluate(&synthetic::clusters(1, 4, 16, 6), HeadChoice::Ncm).unwrap_err();
        assert_eq!(error.to_string(), "set has 1 classes with 4 samples; at least 2 classes are needed");
    }
}
