//! The choice between heads, by left-out predictions without new forward passes.

use graft_wire::message::{ChoiceReason, HeadKind, Protocol};

use crate::basis::Basis;
use crate::folds::Plan;
use crate::grid::standard_error;
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

/// Classes are even if the largest has at most this many times the samples of the smallest.
const EVEN_RATIO_MAX: u32 = 2;

/// Compares ridge and discriminant analysis by leaving out; where classes are uneven, them and nearest class mean.
///
/// Even classes: the better one, ridge if they are equal. Nearest class mean is not asked. It does worse there from two
/// shots on, and leaving out flatters it: of the six data sets of the README, at 5 shots, it is 0.1 to 2.3 points lower than
/// on other samples, ridge 0.8 to 6.5, as a class that lacks one of few samples is the others' gain.
///
/// Uneven classes: nearest class mean, unless another is better by more than one standard error. With shots of 20, 20, 2, 2, 2
/// it is up to 10 points better than ridge (17 than discriminant analysis), and the small classes that decide it have few
/// samples to be compared on.
///
/// A class of one sample cannot be compared on: ridge if classes are even, else nearest class mean. The other heads are for
/// who names them: softmax regression and random projection do as well as these at many times the cost, and neighbours worse.
///
/// # Errors
/// [`TrainError`] of a solver.
pub(crate) fn choose(basis: &Basis<'_>) -> Result<Choice, TrainError> {
    let training = basis.training;
    let (least, most) = (training.counts.iter().min(), training.counts.iter().max());
    let even = least.zip(most).is_some_and(|(least, most)| *most <= EVEN_RATIO_MAX * least);
    let (default, others): (_, &[_]) = match even {
        true => (HeadKind::Ridge, &[HeadKind::Lda]),
        false => (HeadKind::Ncm, &[HeadKind::Ridge, HeadKind::Lda]),
    };
    let default = Recipe::of(default, basis)?;
    let plan = match Plan::of(training) {
        Ok(plan) if least.is_some_and(|least| *least > 1) => plan,
        _ => return Ok(Choice { recipe: default, reason: ChoiceReason::OneShot, balanced_accuracy: None }),
    };
    let reason = match plan.protocol {
        Protocol::LeaveOneSessionOut => ChoiceReason::BestBySession,
        Protocol::LeaveOneOut => ChoiceReason::BestByOne,
    };
    let accuracy_of = |recipe: &Recipe| -> Result<f64, TrainError> {
        Ok(recipe.predictions(basis, &plan)?.balanced_accuracy(training))
    };
    let accuracy = accuracy_of(&default)?;
    let margin = if even { 0.0 } else { standard_error(accuracy, plan.n) };
    let (mut best, mut to_beat) = ((default, accuracy), accuracy + margin);
    for kind in others {
        // Nothing is better than all right.
        if to_beat >= 1.0 {
            break;
        }
        let recipe = Recipe::of(*kind, basis)?;
        let accuracy = accuracy_of(&recipe)?;
        if accuracy > to_beat {
            (best, to_beat) = ((recipe, accuracy), accuracy);
        }
    }
    let (recipe, accuracy) = best;
    Ok(Choice { recipe, reason, balanced_accuracy: Some(accuracy) })
}
