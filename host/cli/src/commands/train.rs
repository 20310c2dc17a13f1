//! `graft train`: a head from the embeddings that the board holds.

use graft_client::{CallError, TrainReport};
use graft_wire::WireError;
use graft_wire::message::{ChoiceReason, HeadChoice, HeadComparison, HeadInfo, RejectionInfo};
use serde_json::{Value, json};

use super::Done;
use crate::args::{HeadArg, TrainArgs};
use crate::context::Context;
use crate::devices;
use crate::error::CliError;
use crate::output::{count, percent};

/// Runs `graft train`.
///
/// # Errors
/// Fewer than two classes, or whatever stops board or link.
pub fn run(context: &Context, args: &TrainArgs) -> Result<Done, CliError> {
    devices::each(context, "graft.train/1", |device| {
        let asked = device.try_call(|board| board.train_checked(choice(args.head), args.force, args.unknown));
        let TrainReport { head, rejection, comparison } = asked.map_err(|error| explained(&error, &device.name))?;
        context.output.line(format!(
            "trained {} on {} of {} in {:.1} ms ({})",
            head.kind.name(),
            count(head.n_samples, "sample"),
            count(head.n_classes, "class"),
            f64::from(head.train_us) / 1e3,
            reason_text(&head),
        ));
        if let Some(HeadComparison { n, n_correct_old, n_correct_new }) = comparison {
            context.output.detail(format!(
                "of {} of known classes it gets {n_correct_new} right, the head of before {n_correct_old}",
                count(n, "sample")
            ));
        }
        if let Some(rejection) = &rejection {
            rejection_text(rejection, &device.name).iter().for_each(|line| context.output.line(line));
        }
        let mut object = head_json(&head);
        if let Value::Object(map) = &mut object {
            map.insert("device".into(), device.name.clone().into());
            map.insert("device_id".into(), device.id().to_string().into());
            map.insert("ms".into(), (f64::from(head.train_us) / 1e3).into());
            map.insert("rejection".into(), rejection.as_ref().map_or(Value::Null, rejection_json));
            map.insert("comparison".into(), comparison.as_ref().map_or(Value::Null, comparison_json));
        }
        Ok(object)
    })
}

/// A refusal to train, with what to type where `--unknown` or `--force` is at stake.
fn explained(error: &CallError, name: &str) -> CliError {
    let error_of_board = devices::call_error(error, name);
    match error {
        CallError::Refused(WireError::TooFewToPromise { n, .. }) if *n > 0 => {
            let least = (1e4 / f64::from(n + 1)).ceil() / 1e4;
            let help = format!(
                "collect more (graft collect -d {name} --class NAME --from DIR), or allow more false rejects: \
                 graft train -d {name} --unknown {least}"
            );
            error_of_board.with_help(help)
        }
        _ => error_of_board,
    }
}

/// How the head rejects, for people.
fn rejection_text(rejection: &RejectionInfo, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let RejectionInfo { n, rate, n_negatives, n_negatives_rejected, negatives_rate } = *rejection;
    if let Some(rate) = rate {
        let negatives = match n_negatives {
            0 => String::new(),
            n => format!("; {n_negatives_rejected} of {} rejected", count(n, "negative")),
        };
        let calibrated = count(n, "sample");
        lines.push(format!(
            "unknown inputs are rejected, and {} of known ones ({calibrated}){negatives}",
            percent(rate)
        ));
    }
    // Only where it says something new: most negatives are let through.
    if let Some(tight) = negatives_rate.filter(|tight| rate.is_none_or(|rate| *tight > rate)) {
        let rate = (tight * 1e4).ceil() / 1e4;
        lines.push(format!("to reject nine of ten negatives: graft train -d {name} --unknown {rate}"));
    }
    lines
}

fn rejection_json(rejection: &RejectionInfo) -> Value {
    json!({
        "n_calibration": rejection.n, "rate": rejection.rate, "n_negatives": rejection.n_negatives,
        "n_negatives_rejected": rejection.n_negatives_rejected, "negatives_rate": rejection.negatives_rate,
    })
}

fn comparison_json(comparison: &HeadComparison) -> Value {
    json!({
        "n": comparison.n, "n_correct_old": comparison.n_correct_old, "n_correct_new": comparison.n_correct_new,
    })
}

/// The wire's word for `--head`.
pub fn choice(head: HeadArg) -> HeadChoice {
    match head {
        HeadArg::Ncm => HeadChoice::Ncm,
        HeadArg::Ridge => HeadChoice::Ridge,
        HeadArg::Lda => HeadChoice::Lda,
        HeadArg::Logistic => HeadChoice::Logistic,
        HeadArg::Knn => HeadChoice::Knn,
        HeadArg::Rp => HeadChoice::Rp,
        HeadArg::NcmEuclidean => HeadChoice::NcmEuclidean,
        HeadArg::NcmTrimmed => HeadChoice::NcmTrimmed,
        HeadArg::Auto => HeadChoice::Auto,
    }
}

/// Why a head is what it is, in one word for programs.
pub fn reason_name(reason: ChoiceReason) -> &'static str {
    match reason {
        ChoiceReason::Named => "named",
        ChoiceReason::BestBySession => "best_by_session",
        ChoiceReason::BestByOne => "best_by_one",
        ChoiceReason::OneShot => "one_shot",
        ChoiceReason::Pushed => "pushed",
    }
}

/// The same for people.
pub fn reason_text(head: &HeadInfo) -> String {
    let measured = head.balanced_accuracy.map_or(String::new(), |a| format!(", balanced accuracy {}", percent(a)));
    match head.reason {
        ChoiceReason::Named => "as asked for".into(),
        ChoiceReason::BestBySession => format!("best by leaving out sessions{measured}"),
        ChoiceReason::BestByOne => format!("best by leaving out one at a time, for lack of sessions{measured}"),
        ChoiceReason::OneShot => "a class has a single sample, so that heads cannot be compared".into(),
        ChoiceReason::Pushed => "pushed without its samples".into(),
    }
}

/// A head for `--json`.
pub fn head_json(head: &HeadInfo) -> Value {
    json!({
        "kind": head.kind.name(), "reason": reason_name(head.reason), "n_samples": head.n_samples,
        "n_classes": head.n_classes, "lambda_rel": head.lambda_rel, "balanced_accuracy": head.balanced_accuracy,
        "stale": head.stale, "head": head.digest.to_string(), "space": head.space.to_string(),
        "set_digest": head.set_digest.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::message::HeadKind;
    use graft_wire::{Digest, SpaceId};

    #[test]
    fn the_reason_is_said_in_words_with_its_figure() {
        let head = HeadInfo {
            kind: HeadKind::Ridge,
            digest: Digest([1; 32]),
            space: SpaceId([2; 32]),
            set_digest: Digest([3; 32]),
            n_samples: 10,
            n_classes: 2,
            lambda_rel: Some(1.0),
            reason: ChoiceReason::BestBySession,
            balanced_accuracy: Some(0.875),
            stale: false,
            train_us: 1500,
        };
        assert_eq!(reason_text(&head), "best by leaving out sessions, balanced accuracy 87.5 %");
        let one_shot = HeadInfo { reason: ChoiceReason::OneShot, balanced_accuracy: None, ..head.clone() };
        assert!(reason_text(&one_shot).contains("single sample"));
        assert_eq!(head_json(&head)["reason"], "best_by_session");
        assert_eq!(head_json(&head)["balanced_accuracy"], 0.875);
    }

    #[test]
    fn rejection_is_told_with_its_rate_and_a_stricter_one() {
        let rejection = RejectionInfo {
            n: 40,
            rate: Some(0.05),
            n_negatives: 9,
            n_negatives_rejected: 4,
            negatives_rate: Some(0.2),
        };
        let lines = rejection_text(&rejection, "sim:a");
        let first = "unknown inputs are rejected, and 5.0 % of known ones (40 samples); 4 of 9 negatives rejected";
        assert_eq!(lines, [first, "to reject nine of ten negatives: graft train -d sim:a --unknown 0.2"]);
        let none = RejectionInfo { rate: None, n_negatives: 0, negatives_rate: None, ..rejection };
        assert!(rejection_text(&none, "sim:a").is_empty());
    }

    #[test]
    fn a_promise_that_cannot_be_kept_names_one_that_can() {
        let refused = CallError::Refused(WireError::TooFewToPromise { n: 14, n_needed: 19 });
        let error = explained(&refused, "sim:a");
        assert!(error.what.ends_with("cannot be promised from 14 samples; 19 are needed"), "{error}");
        assert!(error.help.ends_with("graft train -d sim:a --unknown 0.0667"), "{error}");
    }
}
