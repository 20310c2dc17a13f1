//! Every head on few-shot episodes of real data, and what `auto` makes of them.
//!
//! usage, after `tests/peers/heads.py embed ../shared/assets CACHE` and `... draw ../shared/assets CACHE`:
//! `cargo run --release -p graft-tests --bin heads -- CACHE [--out OUT]`; with --out, `heads.py peers CACHE OUT` compares
//! with scikit-learn. Per data set and shots: balanced accuracy of each head in percent with its 95 % interval over
//! episodes, what `auto` took, and how far it is from the best single head and from nearest class mean. Exit code 1 if
//! `auto` is over 0.5 points from the best on average over equal shots, or over 1 point under nearest class mean anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use graft_heads::Head;
use graft_tests::embeddings::{Draw, Embeddings, names, read_draws};
use graft_wire::message::{HeadChoice, HeadKind};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Accuracy of all heads, and of their choice, on cached embeddings")]
struct Args {
    /// Folder that tests/peers/heads.py has filled.
    cache: PathBuf,
    /// Folder for scores and strengths of every episode, for scikit-learn to be compared with.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Episodes of each data set and shots, at most as many as were drawn.
    #[arg(long, default_value_t = 600)]
    episodes: usize,
    /// This data set only.
    #[arg(long)]
    only: Option<String>,
    /// These shots only, e.g. 5 or 20,20,1,1,1.
    #[arg(long)]
    shots: Option<String>,
}

/// As heads.py names them; sets have what they have classes and samples for.
const SHOTS: [&str; 6] = ["1", "5", "10", "20", "20,20,1", "20,20,1,1,1"];
/// `auto` last.
fn heads() -> impl Iterator<Item = (&'static str, HeadChoice)> {
    HeadKind::ALL.into_iter().map(|kind| (kind.name(), kind.choice())).chain([("auto", HeadChoice::Auto)])
}
/// Points that `auto` may be under the best single head, on average over data sets and equal shots.
const UNDER_BEST_MAX: f64 = 0.5;
/// Points that `auto` may be under nearest class mean.
const UNDER_NCM_MAX: f64 = 1.0;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(out) = &args.out {
        fs::create_dir_all(out)?;
    }
    let columns: Vec<String> = heads().map(|(name, _)| format!("{name:>14}")).collect();
    println!("{:14} {:>11} {} {:>7} {:>7}  auto took", "data", "shots", columns.concat(), "- best", "- ncm");
    let (mut under_best, mut n_broken) = (Vec::new(), 0);
    for name in names(&args.cache)?.iter().filter(|name| args.only.as_ref().is_none_or(|only| only == *name)) {
        let data = Embeddings::read(&args.cache, name)?;
        for shots in SHOTS.iter().filter(|shots| args.shots.as_ref().is_none_or(|only| only == *shots)) {
            let Ok(draws) = read_draws(&args.cache, &format!("{name}.{shots}")) else { continue };
            let draws = &draws[..draws.len().min(args.episodes)];
            let outcomes: Vec<Outcome> =
                heads().map(|(_, choice)| outcome(&data, draws, choice)).collect::<Result<_>>()?;
            let means: Vec<f64> = outcomes.iter().map(|outcome| mean(&outcome.accuracies)).collect();
            let (auto, named) = (means[outcomes.len() - 1], &means[..outcomes.len() - 1]);
            let best = named.iter().copied().fold(0.0, f64::max);
            let broken = means[0] - auto > UNDER_NCM_MAX;
            n_broken += u32::from(broken);
            if !shots.contains(',') {
                under_best.push(best - auto);
            }
            let cells = outcomes
                .iter()
                .zip(&means)
                .map(|(outcome, mean)| format!("{mean:>9.1} ±{:>3.1}", 1.96 * standard_error(&outcome.accuracies)));
            println!(
                "{name:14} {shots:>11} {} {:>7.1} {:>7.1}  {}{}",
                cells.collect::<String>(),
                auto - best,
                auto - means[0],
                outcomes[outcomes.len() - 1].kinds(),
                if broken { "  MISSED" } else { "" }
            );
            if let Some(out) = &args.out {
                write(out, &format!("{name}.{shots}"), &outcomes)?;
            }
        }
    }
    let average = mean(&under_best);
    println!("auto is {average:.2} points under the best single head on average; the bar is {UNDER_BEST_MAX}");
    Ok(if n_broken == 0 && average <= UNDER_BEST_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One head on all episodes.
struct Outcome {
    /// Balanced accuracy in percent.
    accuracies: Vec<f64>,
    /// Kind of head with its strength, or its k.
    chosen: Vec<(String, Option<f64>)>,
    /// Of all queries, `[episodes][query][C]`.
    scores: Vec<f64>,
}

impl Outcome {
    /// How often each kind was taken.
    fn kinds(&self) -> String {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        self.chosen.iter().for_each(|(kind, _)| *counts.entry(kind).or_default() += 1);
        counts.iter().map(|(kind, n)| format!("{kind} {n}")).collect::<Vec<_>>().join(", ")
    }
}

fn outcome(data: &Embeddings, draws: &[Draw], choice: HeadChoice) -> Result<Outcome> {
    let mut outcome = Outcome { accuracies: Vec::new(), chosen: Vec::new(), scores: Vec::new() };
    for Draw { support, known, .. } in draws {
        let head = Head::train(&data.set(support)?, choice)?;
        let mut tally: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for query in known {
            let classified = head.classify(&data.rows[*query]);
            let truth = &data.labels[*query][..];
            let (n, n_right) = tally.entry(truth).or_default();
            *n += 1;
            *n_right += u32::from(head.classes()[classified.best].as_str() == truth);
            outcome.scores.extend(classified.scores);
        }
        let shares: Vec<f64> = tally.values().map(|(n, n_right)| f64::from(*n_right) / f64::from(*n)).collect();
        outcome.accuracies.push(100.0 * mean(&shares));
        let strength = head.lambda_rel().or(head.n_neighbours().map(f64::from));
        outcome.chosen.push((head.kind().name().to_owned(), strength));
    }
    Ok(outcome)
}

/// `NAME.json` with the strengths of each head, and `NAME.HEAD.f64` with its scores, little-endian.
fn write(out: &std::path::Path, name: &str, outcomes: &[Outcome]) -> Result<()> {
    let mut strengths = serde_json::Map::new();
    for ((head, _), outcome) in heads().zip(outcomes) {
        let values: Vec<Option<f64>> = outcome.chosen.iter().map(|(_, strength)| *strength).collect();
        strengths.insert(head.to_owned(), json!(values));
        let bytes: Vec<u8> = outcome.scores.iter().flat_map(|score| score.to_le_bytes()).collect();
        fs::write(out.join(format!("{name}.{head}.f64")), bytes)?;
    }
    fs::write(out.join(format!("{name}.json")), serde_json::Value::Object(strengths).to_string())?;
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn standard_error(values: &[f64]) -> f64 {
    let centre = mean(values);
    let variance = values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / values.len() as f64;
    (variance / values.len() as f64).sqrt()
}
