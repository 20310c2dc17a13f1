//! `graft train`: a head from the embeddings that the board holds.

use graft_wire::message::{ChoiceReason, HeadChoice, HeadInfo, HeadKind};
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
        let head = device.call(|board| board.train(choice(args.head), args.force))?;
        context.output.line(format!(
            "trained {} on {} of {} in {:.1} ms ({})",
            kind_name(head.kind),
            count(head.n_samples, "sample"),
            count(head.n_classes, "class"),
            f64::from(head.train_us) / 1e3,
            reason_text(&head),
        ));
        let mut object = head_json(&head);
        if let Value::Object(map) = &mut object {
            map.insert("device".into(), device.name.clone().into());
            map.insert("device_id".into(), device.id().to_string().into());
            map.insert("ms".into(), (f64::from(head.train_us) / 1e3).into());
        }
        Ok(object)
    })
}

/// The wire's word for `--head`.
pub fn choice(head: HeadArg) -> HeadChoice {
    match head {
        HeadArg::Ncm => HeadChoice::Ncm,
        HeadArg::Ridge => HeadChoice::Ridge,
        HeadArg::Auto => HeadChoice::Auto,
    }
}

/// A kind of head in one word.
pub fn kind_name(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Ncm => "ncm",
        HeadKind::Ridge => "ridge",
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
        ChoiceReason::OneShot => "a class has a single sample, where nearest class mean is safest".into(),
        ChoiceReason::Pushed => "pushed without its samples".into(),
    }
}

/// A head for `--json`.
pub fn head_json(head: &HeadInfo) -> Value {
    json!({
        "kind": kind_name(head.kind), "reason": reason_name(head.reason), "n_samples": head.n_samples,
        "n_classes": head.n_classes, "lambda_rel": head.lambda_rel, "balanced_accuracy": head.balanced_accuracy,
        "stale": head.stale, "head": head.digest.to_string(), "space": head.space.to_string(),
        "set_digest": head.set_digest.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
