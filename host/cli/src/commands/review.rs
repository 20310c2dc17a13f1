//! The part of `graft eval` that names samples to look at: doubtful labels and near duplicates.

use graft_client::ReviewReport;
use serde_json::{Value, json};

use super::samples::SHOWN_DIGITS;
use crate::context::Context;
use crate::output::{count, plain_table};

/// Lines of each table for people; `--json` has them all.
const ROWS_MAX: usize = 10;

/// Prints what deserves a look, and what to type about it.
pub fn print(context: &Context, review: &ReviewReport, device: &str) {
    let output = &context.output;
    let counts = &review.counts;
    if !review.doubtful.is_empty() {
        output.line(format!(
            "{} of {} look like another class, worst first; * suspected to be mislabelled ({})",
            counts.n_doubtful,
            count(counts.n_assessed, "sample"),
            counts.n_suspected
        ));
        let mut table = plain_table(&["id", "class", "looks like", "margin"], &[3]);
        for sample in review.doubtful.iter().take(ROWS_MAX) {
            let mark = if sample.suspected { " *" } else { "" };
            let (label, looks_like) = (sample.label.to_string(), sample.looks_like.to_string());
            let margin = format!("{:.2}{mark}", sample.margin);
            table.add_row([format!("{:.SHOWN_DIGITS$}", sample.id), label, looks_like, margin]);
        }
        output.table(&table);
    }
    if let Some(worst) = review.doubtful.iter().find(|sample| sample.suspected) {
        let id = format!("{:.SHOWN_DIGITS$}", worst.id);
        output.hint(format!("graft samples relabel -d {device} --class {} {id}", quoted(worst.looks_like.as_str())));
    }
    if let Some(first) = review.duplicates.first() {
        let pairs = count(counts.n_duplicates, "pair");
        output
            .warn(format!("{pairs} of samples are nearly the same in another session or class; accuracy looks better"));
        let mut table = plain_table(&["id", "nearly the same as", "cosine", ""], &[2]);
        for pair in review.duplicates.iter().take(ROWS_MAX) {
            let what = if pair.labels_differ { "different classes" } else { "different sessions" };
            let (a, b) = (format!("{:.SHOWN_DIGITS$}", pair.a), format!("{:.SHOWN_DIGITS$}", pair.b));
            table.add_row([a, b, format!("{:.3}", pair.cosine), what.into()]);
        }
        output.table(&table);
        output.hint(format!("graft samples rm -d {device} {:.SHOWN_DIGITS$}", first.b));
    }
}

/// A class name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) && !name.starts_with('-');
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

/// The same for `--json`.
pub fn json(review: &ReviewReport) -> Value {
    json!({
        "n_assessed": review.counts.n_assessed, "n_doubtful": review.counts.n_doubtful,
        "n_suspected": review.counts.n_suspected,
        "doubtful": review.doubtful.iter().map(|sample| json!({
            "id": sample.id.to_string(), "label": sample.label.as_str(), "looks_like": sample.looks_like.as_str(),
            "margin": sample.margin, "suspected": sample.suspected,
        })).collect::<Vec<_>>(),
        "n_compared": review.counts.n_compared, "n_duplicates": review.counts.n_duplicates,
        "duplicates": review.duplicates.iter().map(|pair| json!({
            "id": pair.a.to_string(), "other_id": pair.b.to_string(), "cosine": pair.cosine,
            "labels_differ": pair.labels_differ,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted("class-7"), "class-7");
        assert_eq!(quoted("Mütter"), "Mütter");
        assert_eq!(quoted("old nut"), "'old nut'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("-x"), "'-x'");
    }
}
