//! How long training takes, and how time and memory grow with the set. Synthetic embeddings: neither depends on values.
//!
//! usage: `cargo run --release -p graft-tests --bin train_time [-- --growth]`; one thread. Every row is a process of its
//! own, so that its memory is its own: the peak resident set, the set itself among it. Times are medians, the set lies in
//! memory. "given" is at a given strength, "chosen" with the grid of strengths; for `auto` that is all comparisons.
//! Exit code 1 if ridge misses a bar.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use graft_heads::{Head, SampleSet};
use graft_tests::embeddings::Random;
use graft_tests::{in_own_process, peak_bytes};
use graft_wire::message::{HeadChoice, HeadKind};
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId, SpaceId};

#[derive(Parser)]
#[command(about = "Training time of each head, time to add a sample, growth with the set")]
struct Args {
    /// Growth from 100 to 100,000 samples at D = 128 and 1280 instead.
    #[arg(long)]
    growth: bool,
    /// Most samples of --growth.
    #[arg(long, default_value_t = 100_000)]
    n_max: u32,
    /// One row: N,D,HEAD.
    #[arg(long)]
    row: Option<String>,
}

const N_CLASSES: u32 = 20;
/// Head, what it is at a given strength, and that strength.
type Row = (&'static str, HeadChoice, Option<(HeadKind, f64)>);
const HEADS: [Row; 8] = [
    ("ncm", HeadChoice::Ncm, Some((HeadKind::Ncm, 1.0))),
    ("ncm-trimmed", HeadChoice::NcmTrimmed, Some((HeadKind::NcmTrimmed, 1.0))),
    ("ridge", HeadChoice::Ridge, Some((HeadKind::Ridge, 1.0))),
    ("lda", HeadChoice::Lda, Some((HeadKind::Lda, 0.5))),
    ("logistic", HeadChoice::Logistic, Some((HeadKind::Logistic, 0.03))),
    ("knn", HeadChoice::Knn, Some((HeadKind::Knn, 3.0))),
    ("rp", HeadChoice::Rp, Some((HeadKind::Rp, 1.0))),
    ("auto", HeadChoice::Auto, None),
];
/// n, bar at a given lambda, bar with the grid, in ms.
const BARS: [(u32, f64, f64); 2] = [(100, 5.0, 20.0), (1000, 100.0, 1000.0)];
/// To add a sample, in ms.
const ADD_BAR: f64 = 0.1;
/// Repeats until this much time is spent, at least once and at most [`RUNS_MAX`] times.
const SPENT_MIN: Duration = Duration::from_secs(2);
const RUNS_MAX: usize = 25;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(row) = &args.row {
        let mut parts = row.split(',');
        let (n, d) = (parts.next().context("n")?.parse()?, parts.next().context("d")?.parse()?);
        one(n, d, parts.next().context("head")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:>7} {:>5} {:9} {:>12} {:>12} {:>10}", "n", "D", "head", "given ms", "chosen ms", "peak MB");
    if args.growth {
        for d in [128, 1280] {
            for n in [100, 1000, 10_000, 100_000].into_iter().filter(|n| *n <= args.n_max) {
                for head in ["set", "ncm", "ridge", "lda"] {
                    row(n, d, head)?;
                }
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut missed = false;
    for (n, given_max, chosen_max) in BARS {
        for (head, ..) in HEADS {
            let (given, chosen) = row(n, 1280, head)?;
            missed |= head == "ridge" && (given > given_max || chosen > chosen_max);
        }
        println!("        bars: {given_max} ms given, {chosen_max} ms chosen");
    }
    let add = add_ms()?;
    println!("adding a sample to 1,000 of 1,280 components: {add:.4} ms, bar {ADD_BAR}");
    Ok(if missed || add > ADD_BAR { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs and prints one row in a process of its own; returns its two times in ms.
fn row(n: u32, d: usize, head: &str) -> Result<(f64, f64)> {
    let [given, chosen, megabytes] = in_own_process(&["--row".as_ref(), format!("{n},{d},{head}").as_ref()])?;
    let cell = |ms: f64| if ms.is_nan() { "-".to_owned() } else { format!("{ms:.2}") };
    println!("{n:>7} {d:>5} {head:9} {:>12} {:>12} {megabytes:>10.0}", cell(given), cell(chosen));
    Ok((given, chosen))
}

/// Prints the times at a given and a chosen strength in ms, NaN for none, and the peak of memory in MB.
fn one(n: u32, d: usize, head: &str) -> Result<()> {
    let set = set(n, d)?;
    let (mut given, mut chosen) = (f64::NAN, f64::NAN);
    if let Some((_, choice, at)) = HEADS.iter().find(|(name, ..)| *name == head) {
        if let Some((kind, strength)) = at {
            given = median(|| Head::train_at(&set, *kind, *strength).map(drop).map_err(Into::into))?;
        }
        chosen = median(|| Head::train(&set, *choice).map(drop).map_err(Into::into))?;
    }
    println!("{given} {chosen} {}", peak_bytes()? / 1024.0 / 1024.0);
    Ok(())
}

fn median(run: impl Fn() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    let started = Instant::now();
    while times.is_empty() || (started.elapsed() < SPENT_MIN && times.len() < RUNS_MAX) {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Time to add a sample, its id computed, in ms: mean over 1,000 to a set of 1,000.
fn add_ms() -> Result<f64> {
    let mut whole = set(1000, 1280)?;
    let more: Vec<(SampleMeta, Vec<i8>)> =
        (1000..2000).map(|number| Ok((meta(number)?, row_of(number, 1280)))).collect::<Result<_>>()?;
    let started = Instant::now();
    for (meta, embedding) in more {
        whole.insert(meta, &embedding)?;
    }
    ensure!(whole.len() == 2000);
    // Seconds of a thousand are milliseconds of one.
    Ok(started.elapsed().as_secs_f64())
}

fn set(n: u32, d: usize) -> Result<SampleSet> {
    let mut set = SampleSet::new(SpaceId([0; 32]), d);
    for number in 0..n {
        set.insert(meta(number)?, &row_of(number, d))?;
    }
    Ok(set)
}

fn meta(number: u32) -> Result<SampleMeta> {
    let mut session = [0; 8];
    session[..4].copy_from_slice(&number.to_le_bytes());
    Ok(SampleMeta {
        label: Label::new(&format!("class {:02}", number % N_CLASSES))?,
        session: SessionId(session),
        origin: DeviceId([0; 16]),
        digest: Digest::of(&number.to_le_bytes()),
        part: Part::Whole,
        kind: LabelKind::Class,
    })
}

/// A point of its class's cluster.
fn row_of(number: u32, d: usize) -> Vec<i8> {
    let (mut centre, mut own) = (Random(u64::from(number % N_CLASSES) + 1), Random(u64::from(number) + 1000));
    (0..d).map(|_| (centre.below(41) as i32 - 20 + own.below(81) as i32 - 40) as i8).collect()
}
