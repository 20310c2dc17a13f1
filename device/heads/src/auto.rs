//! Left-out predictions of each head without new forward passes, and the choice between heads.

use graft_wire::message::{ChoiceReason, HeadKind, Protocol};

use crate::basis::Basis;
use crate::folds::{Plan, Predictions};
use crate::leave_out::left_out_scores;
use crate::ridge::{Ridge, System};
use crate::training::TrainError;
use crate::vector::argmax;

/// What `auto` took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub kind: HeadKind,
    pub reason: ChoiceReason,
    /// Of the chosen head, where heads were compared.
    pub balanced_accuracy: Option<f64>,
}

/// With this many samples in every class ridge is taken where both heads do equally well.
///
/// Of 200 five-way episodes with 5 shots a quarter are ties. Over all of them ridge is 1.8 points better on flowers and
/// 4.5 on hand signs (MobileNetV2), and with this rule `auto` gains 0.4 and 1.0. With fewer shots nearest class mean is
/// the safer one.
const TIE_TO_RIDGE_SHOTS_MIN: u32 = 5;

/// Compares the heads by leaving out; returns the ridge head with its lambda_rel if it won.
///
/// A class of one sample cannot be compared on, and is where ridge loses (DESIGN.md, "Embedding"): nearest class mean.
///
/// # Errors
/// As [`System::new`] and [`System::solve`].
pub(crate) fn choose(basis: &Basis<'_>) -> Result<(Choice, Option<(Ridge, f64)>), TrainError> {
    let training = basis.training;
    let one_shot = Choice { kind: HeadKind::Ncm, reason: ChoiceReason::OneShot, balanced_accuracy: None };
    if training.counts.contains(&1) {
        return Ok((one_shot, None));
    }
    let Ok(plan) = Plan::of(training) else { return Ok((one_shot, None)) };
    let system = basis.system()?;
    let lambda_rel = system.choose_lambda()?;
    let ncm = ncm_predictions(basis, &plan).balanced_accuracy(training);
    let ridge = ridge_predictions(system, lambda_rel, &plan)?.balanced_accuracy(training);
    let many = training.counts.iter().all(|count| *count >= TIE_TO_RIDGE_SHOTS_MIN);
    let reason = match plan.protocol {
        Protocol::LeaveOneSessionOut => ChoiceReason::BestBySession,
        Protocol::LeaveOneOut => ChoiceReason::BestByOne,
    };
    if ridge > ncm || (ridge == ncm && many) {
        let choice = Choice { kind: HeadKind::Ridge, reason, balanced_accuracy: Some(ridge) };
        Ok((choice, Some((system.fit(lambda_rel)?, lambda_rel))))
    } else {
        Ok((Choice { kind: HeadKind::Ncm, reason, balanced_accuracy: Some(ncm) }, None))
    }
}

/// Per fold the head of the sums without it: the very head that training without the fold gives.
pub(crate) fn ncm_predictions(basis: &Basis<'_>, plan: &Plan) -> Predictions {
    let mut predictions = Predictions::none(basis.training.samples.len());
    for fold in &plan.folds {
        for (i, scores) in fold.test.iter().zip(basis.ncm_scores(&basis.means_without(fold), fold)) {
            predictions.0[*i] = Some(argmax(&scores));
        }
    }
    predictions
}

/// Per fold the ridge head fitted without it, at the kappa of the whole set, in closed form.
///
/// # Errors
/// As [`System::solve`].
pub(crate) fn ridge_predictions(system: &System<'_>, lambda_rel: f64, plan: &Plan) -> Result<Predictions, TrainError> {
    let solution = system.solve(lambda_rel, system.kappa(lambda_rel))?;
    let mut predictions = Predictions::none(system.training.samples.len());
    for (fold, scores) in plan.folds.iter().zip(left_out_scores(&solution, &plan.folds)?) {
        for (i, scores) in fold.test.iter().zip(scores) {
            predictions.0[*i] = Some(argmax(&scores));
        }
    }
    Ok(predictions)
}
