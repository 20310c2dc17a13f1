//! The choice between heads, by left-out predictions without new forward passes.

use graft_wire::message::{ChoiceReason, HeadKind, Protocol};

use crate::basis::Basis;
use crate::folds::Plan;
use crate::recipe::Recipe;
use crate::training::TrainError;

/// What `auto` took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub recipe: Recipe,
    pub reason: ChoiceReason,
    /// Of the chosen head, where heads were compared.
    pub balanced_accuracy: Option<f64>,
}

/// With this many samples in every class ridge is taken where it does as well as nearest class mean.
///
/// Of 200 five-way episodes with 5 shots a quarter are ties. Over all of them ridge is 1.8 points better on flowers and
/// 4.5 on hand signs (MobileNetV2), and with this rule `auto` gains 0.4 and 1.0. With fewer shots nearest class mean is
/// the safer one.
const TIE_TO_RIDGE_SHOTS_MIN: u32 = 5;

/// Compares nearest class mean, ridge and discriminant analysis by leaving out.
///
/// A class of one sample cannot be compared on, and is where the others lose (DESIGN.md, "Embedding"): nearest class mean.
/// The other heads are for who names them: softmax regression and random projection do as well as these two at many times
/// the cost, and neighbours worse.
///
/// # Errors
/// [`TrainError`] of a solver.
pub(crate) fn choose(basis: &Basis<'_>) -> Result<Choice, TrainError> {
    let training = basis.training;
    let one_shot = Choice { recipe: Recipe::Ncm, reason: ChoiceReason::OneShot, balanced_accuracy: None };
    if training.counts.contains(&1) {
        return Ok(one_shot);
    }
    let Ok(plan) = Plan::of(training) else { return Ok(one_shot) };
    let many = training.counts.iter().all(|count| *count >= TIE_TO_RIDGE_SHOTS_MIN);
    let reason = match plan.protocol {
        Protocol::LeaveOneSessionOut => ChoiceReason::BestBySession,
        Protocol::LeaveOneOut => ChoiceReason::BestByOne,
    };
    let order = match many {
        true => [HeadKind::Ridge, HeadKind::Lda, HeadKind::Ncm],
        false => [HeadKind::Ncm, HeadKind::Ridge, HeadKind::Lda],
    };
    let mut best: Option<(Recipe, f64)> = None;
    for kind in order {
        let recipe = Recipe::of(kind, basis)?;
        let accuracy = recipe.predictions(basis, &plan)?.balanced_accuracy(training);
        // Ties go to the first.
        if best.is_none_or(|(_, highest)| accuracy > highest) {
            best = Some((recipe, accuracy));
        }
    }
    let chosen = |(recipe, accuracy)| Choice { recipe, reason, balanced_accuracy: Some(accuracy) };
    Ok(best.map_or(one_shot, chosen))
}
