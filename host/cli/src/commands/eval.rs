//! `graft eval`: accuracy on a folder, or by leaving out sessions of the board's own samples.

use std::collections::BTreeMap;
use std::path::Path;

use graft_client::{Board, CallError, EvaluationReport, ReviewReport};
use graft_heads::wilson_interval;
use graft_wire::message::{HeadChoice, Protocol, SampleRow};
use graft_wire::{Label, LabelKind, SessionId, WireError};
use serde_json::{Value, json};

use super::Done;
use super::predict::Session;
use super::review;
use super::train::choice;
use crate::args::EvalArgs;
use crate::context::Context;
use crate::devices;
use crate::error::{CliError, Exit};
use crate::files::{Skipped, find, label_kind};
use crate::interrupt;
use crate::output::{Unit, count, percent, plain_table};

/// Most classes of a confusion matrix that is printed as one; beyond, the commonest confusions are listed.
const MATRIX_CLASSES_MAX: usize = 12;

/// Figures of an evaluation, wherever they come from; fractions in 0..1.
#[derive(Debug)]
struct Figures {
    n: u32,
    n_correct: u32,
    accuracy: f64,
    accuracy_low: f64,
    accuracy_high: f64,
    balanced_accuracy: f64,
    /// Label, n, right ones.
    classes: Vec<(String, u32, u32)>,
    /// Truth, prediction, how often; none of them zero.
    confusion: Vec<(String, String, u32)>,
}

/// Outcome of either way to evaluate.
struct Evaluated {
    figures: Figures,
    /// Of `--json`, without the figures.
    object: Value,
    /// Samples to look at, where those of the board were evaluated.
    review: Option<ReviewReport>,
    failure: Option<CliError>,
}

/// Runs `graft eval`.
///
/// # Errors
/// Nothing to evaluate on, a missed gate (exit code 6), or whatever stops board or link.
pub fn run(context: &Context, args: &EvalArgs) -> Result<Done, CliError> {
    let Evaluated { figures, mut object, review, mut failure } = match &args.dir {
        Some(dir) => on_folder(context, args, dir)?,
        None => on_own_samples(context, args)?,
    };
    print(context, &figures);
    if let Some(review) = &review {
        review::print(context, review, context.devices.first().map_or("DEVICE", |device| device));
    }
    if let (Value::Object(all), Value::Object(figures)) = (&mut object, figures_json(&figures)) {
        all.extend(figures);
    }
    if let Some(least) = args.min_accuracy.filter(|least| figures.accuracy < *least) {
        let what = format!("accuracy {:.4} is under the gate of {least}, n = {}", figures.accuracy, figures.n);
        let help = format!(
            "collect more of the classes with most errors: graft collect -d {} --class NAME --from DIR",
            context.devices.first().map_or("DEVICE", |d| d)
        );
        failure = Some(CliError::new(Exit::Gate, what).with_help(help));
    }
    Ok(Done { object, failure })
}

fn on_folder(context: &Context, args: &EvalArgs, dir: &Path) -> Result<Evaluated, CliError> {
    let mut skipped = Skipped::default();
    let files = find(dir, &mut skipped)?;
    if !files.is_empty() && files.iter().all(|file| file.class.is_none()) {
        return Err(CliError::usage(format!("{} has no class folders; one folder per class is needed", dir.display()))
            .with_help(format!("to classify without knowing the class: graft predict {}", dir.display())));
    }
    let mut session = Session::open(context)?;
    let mut answers: Vec<(String, String)> = Vec::new();
    let (mut n_negatives, mut n_rejected) = (0u32, 0u32);
    let mut progress = context.output.progress("evaluating", files.len() as u64, Unit::Items);
    for (i, file) in files.iter().enumerate() {
        progress.at(i as u64);
        interrupt::check(|| format!("{} of {} predicted; nothing was changed", i, count(files.len() as u64, "file")))?;
        let Some(folder) = &file.class else {
            skipped.add(&file.path, "lies in no class folder");
            continue;
        };
        let truth = match Label::new(folder) {
            Ok(label) => label,
            Err(e) => {
                skipped.add(&file.path, format!("folder name is no class: {e}"));
                continue;
            }
        };
        match session.predict(&file.path)? {
            Err(reason) => skipped.add(&file.path, reason),
            Ok(report) => {
                let predicted = report.prediction.label;
                context.output.detail(format!(
                    "{} is {truth}, predicted {}",
                    file.path.display(),
                    predicted.as_ref().map_or("unknown", |l| l.as_str())
                ));
                if label_kind(truth.as_str()) == LabelKind::Negative {
                    n_negatives += 1;
                    n_rejected += u32::from(report.prediction.unknown == Some(true));
                } else {
                    let predicted = predicted.map_or("(unknown)".to_owned(), |label| label.to_string());
                    answers.push((truth.to_string(), predicted));
                }
            }
        }
    }
    drop(progress);
    skipped.report(&context.output);
    let n_used = answers.len() + n_negatives as usize;
    skipped.verdict(n_used, false, &dir.display().to_string())?;
    if answers.is_empty() {
        return Err(CliError::failed(format!("{} holds negatives only; a class is needed", dir.display())));
    }
    if n_negatives > 0 {
        context.output.note(format!("{n_rejected} of {} rejected as unknown", count(n_negatives, "negative")));
    }
    let figures = figures(&answers);
    let object = json!({
        "schema": "graft.eval/1", "device": session.device.name, "device_id": session.device.id().to_string(),
        "space": session.device.bundle()?.space.to_string(), "protocol": "folder",
        "head": session.device.info.head.as_ref().map(|h| h.digest.to_string()),
        "kind": session.device.info.head.as_ref().map(|h| h.kind.name()),
        "n_skipped": skipped.len(), "skipped": skipped.json(), "n_negatives": n_negatives, "n_rejected": n_rejected,
    });
    let failure = skipped.verdict(n_used, args.strict, &dir.display().to_string()).err();
    Ok(Evaluated { figures, object, review: None, failure })
}

fn on_own_samples(context: &Context, args: &EvalArgs) -> Result<Evaluated, CliError> {
    let mut device = devices::one(context)?;
    let space = device.bundle()?.space;
    let head = match (args.head, &device.info.head) {
        (Some(head), _) => choice(head),
        (None, Some(head)) => head.kind.choice(),
        (None, None) => HeadChoice::Auto,
    };
    let report = match device.try_call(|board| board.evaluate(head)) {
        Ok(report) => report,
        Err(CallError::Refused(refused @ (WireError::NothingToLeaveOut { .. } | WireError::TooFewClasses { .. }))) => {
            let rows = device.call(Board::samples)?;
            let missing = what_to_collect(&rows);
            let error = devices::refusal(&refused, &device.name);
            let what = format!("{}; {missing}", error.what);
            return Err(CliError { what, ..error });
        }
        Err(error) => return Err(devices::call_error(&error, &device.name)),
    };
    let summary = &report.summary;
    let how = match summary.protocol {
        Protocol::LeaveOneSessionOut => "leaving out one session at a time",
        Protocol::LeaveOneOut => "leaving out one input at a time, because sessions leave under 80 % to count",
    };
    context.output.line(format!("{} head, {how}, {}", summary.kind.name(), count(summary.n_folds, "fold")));
    if summary.n_skipped > 0 {
        let rows = device.call(Board::samples)?;
        context.output.warn(format!(
            "{} cannot count, because nothing of its class is left then; {}",
            count(summary.n_skipped, "sample"),
            what_to_collect(&rows)
        ));
    }
    let review = device.call(Board::review)?;
    let mut object = json!({
        "schema": "graft.eval/1", "device": device.name, "device_id": device.id().to_string(),
        "space": space.to_string(),
        "protocol": match summary.protocol {
            Protocol::LeaveOneSessionOut => "leave_one_session_out",
            Protocol::LeaveOneOut => "leave_one_out",
        },
        "kind": summary.kind.name(), "n_folds": summary.n_folds, "n_skipped": summary.n_skipped,
    });
    if let (Value::Object(all), Value::Object(found)) = (&mut object, review::json(&review)) {
        all.extend(found);
    }
    Ok(Evaluated { figures: of_report(&report), object, review: Some(review), failure: None })
}

/// What a set lacks before it can be evaluated, class by class.
fn what_to_collect(rows: &[SampleRow]) -> String {
    let mut sessions: BTreeMap<&Label, Vec<SessionId>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.meta.kind == LabelKind::Class) {
        let of_class = sessions.entry(&row.meta.label).or_default();
        if !of_class.contains(&row.meta.session) {
            of_class.push(row.meta.session);
        }
    }
    let thin: Vec<String> = sessions.iter().filter(|(_, s)| s.len() < 2).map(|(label, _)| label.to_string()).collect();
    match (sessions.len(), thin.len()) {
        (0, _) => "collect two classes, each in two sessions".into(),
        (1, 0) => "collect a second class in two sessions".into(),
        (1, _) => "collect a second class, and each class in two sessions".into(),
        (_, 0) => "collect more of each class".into(),
        (_, n) => {
            let names = thin.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if n > 5 { format!(" and {} more", n - 5) } else { String::new() };
            format!("collect another session of {names}{more}")
        }
    }
}

/// Figures from pairs of truth and prediction; at least one.
fn figures(answers: &[(String, String)]) -> Figures {
    let mut classes: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut cells: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (truth, predicted) in answers {
        let class = classes.entry(truth).or_default();
        class.0 += 1;
        class.1 += u32::from(truth == predicted);
        *cells.entry((truth, predicted)).or_default() += 1;
    }
    let n: u32 = classes.values().map(|c| c.0).sum();
    let n_correct: u32 = classes.values().map(|c| c.1).sum();
    let (accuracy_low, accuracy_high) = wilson_interval(n_correct, n);
    let recall: f64 = classes.values().map(|(n, right)| f64::from(*right) / f64::from(*n)).sum();
    Figures {
        n,
        n_correct,
        accuracy: f64::from(n_correct) / f64::from(n.max(1)),
        accuracy_low,
        accuracy_high,
        balanced_accuracy: recall / classes.len().max(1) as f64,
        classes: classes.iter().map(|(label, (n, right))| ((*label).to_owned(), *n, *right)).collect(),
        confusion: cells.iter().map(|((t, p), n)| ((*t).to_owned(), (*p).to_owned(), *n)).collect(),
    }
}

fn of_report(report: &EvaluationReport) -> Figures {
    let summary = &report.summary;
    let label = |i: u16| report.classes.get(usize::from(i)).map_or(String::new(), |class| class.label.to_string());
    Figures {
        n: summary.n,
        n_correct: summary.n_correct,
        accuracy: summary.accuracy,
        accuracy_low: summary.accuracy_low,
        accuracy_high: summary.accuracy_high,
        balanced_accuracy: summary.balanced_accuracy,
        classes: report.classes.iter().map(|c| (c.label.to_string(), c.n, c.n_correct)).collect(),
        confusion: report.confusion.iter().map(|c| (label(c.truth), label(c.predicted), c.count)).collect(),
    }
}

fn print(context: &Context, figures: &Figures) {
    let output = &context.output;
    output.line(format!(
        "accuracy {} ({} of {}; 95 % interval {} to {}), balanced accuracy {}",
        percent(figures.accuracy),
        figures.n_correct,
        figures.n,
        percent(figures.accuracy_low),
        percent(figures.accuracy_high),
        percent(figures.balanced_accuracy),
    ));
    let mut names: Vec<&str> = figures.classes.iter().map(|c| &c.0[..]).collect();
    for (_, predicted, _) in &figures.confusion {
        if !names.contains(&&predicted[..]) {
            names.push(predicted);
        }
    }
    if names.len() <= MATRIX_CLASSES_MAX {
        let header: Vec<&str> =
            std::iter::once("true \\ predicted").chain(names.iter().copied()).chain(["share right"]).collect();
        let right: Vec<usize> = (1..header.len()).collect();
        let mut table = plain_table(&header, &right);
        for (truth, n, right) in &figures.classes {
            let cell = |predicted: &&str| {
                let found = figures.confusion.iter().find(|(t, p, _)| t == truth && p == predicted);
                found.map_or("·".to_owned(), |(_, _, n)| n.to_string())
            };
            // A class of which no sample counts has no share.
            let share = if *n > 0 { percent(f64::from(*right) / f64::from(*n)) } else { "-".to_owned() };
            table.add_row(std::iter::once(truth.clone()).chain(names.iter().map(cell)).chain([share]));
        }
        output.table(&table);
        return;
    }
    // Beyond, the classes with the lowest share and what is confused most often.
    let mut classes: Vec<_> = figures.classes.iter().filter(|(_, n, right)| right < n).collect();
    classes.sort_by(|(_, n, right), (_, m, other)| {
        (u64::from(*right) * u64::from(*m)).cmp(&(u64::from(*other) * u64::from(*n)))
    });
    let mut table = plain_table(&["worst classes", "n", "right", "share"], &[1, 2, 3]);
    for (label, n, right) in classes.into_iter().take(MATRIX_CLASSES_MAX) {
        let share = percent(f64::from(*right) / f64::from(*n));
        table.add_row([label.clone(), n.to_string(), right.to_string(), share]);
    }
    output.table(&table);
    let mut wrong: Vec<_> = figures.confusion.iter().filter(|(t, p, _)| t != p).collect();
    wrong.sort_by_key(|(_, _, n)| std::cmp::Reverse(*n));
    for (truth, predicted, n) in wrong.into_iter().take(MATRIX_CLASSES_MAX) {
        output.line(format!("{truth} taken for {predicted}: {n}"));
    }
}

fn figures_json(figures: &Figures) -> Value {
    json!({
        "n": figures.n, "n_correct": figures.n_correct, "accuracy": figures.accuracy,
        "accuracy_low": figures.accuracy_low, "accuracy_high": figures.accuracy_high,
        "balanced_accuracy": figures.balanced_accuracy,
        "classes": figures.classes.iter()
            .map(|(label, n, right)| json!({"label": label, "n": n, "n_correct": right})).collect::<Vec<_>>(),
        "confusion": figures.confusion.iter()
            .map(|(t, p, n)| json!({"truth": t, "predicted": p, "count": n})).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::{DeviceId, Digest, Part, SampleId, SampleMeta};

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(t, p)| ((*t).to_owned(), (*p).to_owned())).collect()
    }

    #[test]
    fn figures_follow_from_truth_and_prediction() {
        // Three of four right; recall 2/3 and 1.
        let figures = figures(&pairs(&[("a", "a"), ("a", "a"), ("a", "b"), ("b", "b")]));
        assert_eq!((figures.n, figures.n_correct), (4, 3));
        assert_eq!(figures.accuracy, 0.75);
        assert!((figures.balanced_accuracy - 5.0 / 6.0).abs() < 1e-12);
        assert!(figures.accuracy_low < 0.75 && 0.75 < figures.accuracy_high);
        assert_eq!(
            figures.confusion,
            [("a".into(), "a".into(), 2), ("a".into(), "b".into(), 1), ("b".into(), "b".into(), 1)]
        );
    }

    #[test]
    fn classes_the_head_does_not_know_count_as_wrong() {
        let figures = figures(&pairs(&[("new", "a"), ("a", "a")]));
        assert_eq!(figures.accuracy, 0.5);
        assert_eq!(figures.balanced_accuracy, 0.5);
    }

    #[test]
    fn what_is_missing_is_named() {
        let row = |label: &str, session: u8| SampleRow {
            id: SampleId([session; 16]),
            meta: SampleMeta {
                label: Label::new(label).unwrap(),
                session: SessionId([session; 8]),
                origin: DeviceId([1; 16]),
                digest: Digest([session; 32]),
                part: Part::Whole,
                kind: label_kind(label),
            },
            stored_s: None,
        };
        assert_eq!(what_to_collect(&[]), "collect two classes, each in two sessions");
        assert_eq!(what_to_collect(&[row("none", 1)]), "collect two classes, each in two sessions");
        assert_eq!(what_to_collect(&[row("a", 1), row("a", 2)]), "collect a second class in two sessions");
        let thin = [row("a", 1), row("a", 2), row("b", 3), row("b", 3)];
        assert_eq!(what_to_collect(&thin), "collect another session of b");
    }
}
