//! Does rejection keep its promise, and how much does it reject? On cached embeddings and draws of real data.
//!
//! usage, after `tests/peers/unknowns.py embed ../shared/assets CACHE` and `... draw CACHE`:
//! `cargo run --release -p graft-tests --bin unknowns -- CACHE`; `unknowns.py peers CACHE` gives scikit-learn's figures on
//! the same draws. Rejection belongs to the set and is the same for every head. Per data set and stated rate: share of known test samples rejected (the false-reject rate,
//! with the standard error of its mean over draws), share of unknown ones rejected, and of unknown ones that lie under
//! the threshold which 5 % of the known test samples lie under. Exit code 1 if a promise is broken: over 2 points from
//! the stated rate at 5 and 10 %, over 2 % at 1 %.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use graft_heads::calibration::n_needed;
use graft_heads::{CalibrateError, Head};
use graft_tests::embeddings::{Draw, Embeddings, names, read_draws};
use graft_wire::message::HeadChoice;

#[derive(Parser)]
#[command(about = "False-reject rate and rejected unknowns on cached embeddings")]
struct Args {
    /// Folder that tests/peers/unknowns.py has filled.
    cache: PathBuf,
}

const RATES: [f64; 3] = [0.01, 0.05, 0.1];

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut n_broken = 0;
    println!("{:14} {:>5} {:>16} {:>9} {:>19}", "data", "rate", "false rejects", "unknowns", "at 5 % known");
    for name in names(&args.cache)? {
        let data = Embeddings::read(&args.cache, &name)?;
        let draws = read_draws(&args.cache, &name)?;
        let judged = draws.iter().map(|draw| judge(&data, draw)).collect::<Result<Vec<_>>>()?;
        for rate in RATES {
            if judged.iter().any(|draw| draw.n < n_needed(rate) as usize) {
                continue;
            }
            let known: Vec<f64> = judged.iter().map(|draw| share(&draw.known, rate)).collect();
            let unknown: Vec<f64> = judged.iter().map(|draw| share(&draw.unknown, rate)).collect();
            let matched: Vec<f64> = judged.iter().map(|draw| draw.matched).collect();
            let broken = if rate < 0.05 { mean(&known) > 0.02 } else { (mean(&known) - rate).abs() > 0.02 };
            n_broken += u32::from(broken);
            println!(
                "{name:14} {:>3} % {:>7.2} ± {:.2} % {:>7.1} % {:>11.1} ± {:.1} %{}",
                100.0 * rate,
                100.0 * mean(&known),
                100.0 * standard_error(&known),
                100.0 * mean(&unknown),
                100.0 * mean(&matched),
                100.0 * standard_error(&matched),
                if broken { "  BROKEN" } else { "" }
            );
        }
    }
    Ok(if n_broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Outcome of one draw.
struct Judged {
    /// Calibration samples.
    n: usize,
    /// p-values of the known test samples.
    known: Vec<f64>,
    /// p-values of the unknown ones.
    unknown: Vec<f64>,
    /// Share of unknown ones whose score lies under that of 95 % of the known ones.
    matched: f64,
}

/// Trains on the support of a draw and asks about the rest. Where a rate can be promised it is stated, so that the
/// answers are those that a user gets.
fn judge(data: &Embeddings, draw: &Draw) -> Result<Judged> {
    let set = data.set(&draw.support)?;
    let mut head = Head::train(&set, HeadChoice::Ncm)?;
    for rate in RATES {
        match head.calibrate(&set, Some(rate)) {
            Err(CalibrateError::TooFew { .. }) => {}
            outcome => {
                outcome?;
                for i in draw.known.iter().chain(&draw.unknown) {
                    let judged = head.judge(&data.rows[*i]);
                    ensure!(judged.unknown == judged.p_value.map(|p_value| p_value <= rate), "sample {i}");
                }
                break;
            }
        }
    }
    let calibration = head.calibration().context("nothing to calibrate on")?;
    let p_values = |samples: &[usize]| samples.iter().map(|i| calibration.p_value(&data.rows[*i])).collect();
    let scores =
        |samples: &[usize]| -> Vec<f64> { samples.iter().map(|i| calibration.score(&data.rows[*i])).collect() };
    Ok(Judged {
        n: calibration.n() as usize,
        known: p_values(&draw.known),
        unknown: p_values(&draw.unknown),
        matched: under_5_percent(scores(&draw.known), &scores(&draw.unknown)),
    })
}

/// Share of `unknown` under the 5 % quantile of `known`, interpolated as numpy does.
fn under_5_percent(mut known: Vec<f64>, unknown: &[f64]) -> f64 {
    known.sort_by(f64::total_cmp);
    let place = 0.05 * (known.len() - 1) as f64;
    let (low, high) = (known[place as usize], known[place as usize + 1]);
    let threshold = low + place.fract() * (high - low);
    unknown.iter().filter(|score| **score < threshold).count() as f64 / unknown.len() as f64
}

/// Share of p-values that `rate` rejects.
fn share(p_values: &[f64], rate: f64) -> f64 {
    p_values.iter().filter(|p_value| **p_value <= rate).count() as f64 / p_values.len() as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn standard_error(values: &[f64]) -> f64 {
    let centre = mean(values);
    let variance = values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / values.len() as f64;
    (variance / values.len() as f64).sqrt()
}
