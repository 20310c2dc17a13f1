//! Are flipped labels found? On cached embeddings of real data, see `tests/peers/unknowns.py embed`.
//!
//! `cargo run --release -p graft-tests --bin mislabels -- CACHE`. Per draw 5 classes with 10 shots; 20 % of the labels are
//! changed to another of the five. Draws are grouped by how many samples leave-one-out (nearest class mean) gets right
//! before. Exit code 1 if a bar is missed: at 98 % and more, 80 % of the flips suspected and at most 5 % of the others;
//! at 90 to 98 %, 80 % of the n flips among the first 1.5 n of the list.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use graft_heads::{evaluate, suspects};
use graft_tests::embeddings::{Embeddings, Random, names};
use graft_wire::SampleId;
use graft_wire::message::HeadChoice;

#[derive(Parser)]
#[command(about = "Flipped labels found among cached embeddings")]
struct Args {
    /// Folder that tests/peers/unknowns.py has filled.
    cache: PathBuf,
    /// Draws per data set.
    #[arg(long, default_value_t = 200)]
    draws: u32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

const CLASSES: usize = 5;
const SHOTS: usize = 10;
const FLIPS: usize = CLASSES * SHOTS / 5;
/// Draws by their accuracy before.
const GROUPS: [(&str, f64); 3] = [("98 % and more", 0.98), ("90 to 98 %", 0.9), ("under 90 %", 0.0)];

/// Sums over the draws of a group.
#[derive(Clone, Copy, Default)]
struct Tally {
    n_draws: u32,
    n_flagged: usize,
    n_false: usize,
    n_leading: usize,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut n_missed = 0;
    println!(
        "{:14} {:14} {:>5} {:>8} {:>12} {:>15}",
        "data", "clean accuracy", "draws", "flagged", "false flags", "among first 15"
    );
    for name in names(&args.cache)? {
        let data = Embeddings::read(&args.cache, &name)?;
        let mut random = Random(args.seed);
        let mut tallies = [Tally::default(); GROUPS.len()];
        for _ in 0..args.draws {
            let (accuracy, tally) = draw(&data, &mut random)?;
            let group = GROUPS.iter().position(|(_, least)| accuracy >= *least).unwrap_or(GROUPS.len() - 1);
            let sum = &mut tallies[group];
            sum.n_draws += 1;
            sum.n_flagged += tally.n_flagged;
            sum.n_false += tally.n_false;
            sum.n_leading += tally.n_leading;
        }
        for (group, ((what, _), tally)) in GROUPS.iter().zip(tallies).enumerate().filter(|(_, (_, t))| t.n_draws > 0) {
            let share = |n: usize, of: usize| n as f64 / (of as f64 * f64::from(tally.n_draws));
            let (flagged, leading) = (share(tally.n_flagged, FLIPS), share(tally.n_leading, FLIPS));
            let wrong = share(tally.n_false, CLASSES * SHOTS - FLIPS);
            let missed = match group {
                0 => flagged < 0.8 || wrong > 0.05,
                1 => leading < 0.8,
                _ => false,
            };
            n_missed += u32::from(missed);
            println!(
                "{name:14} {what:14} {:>5} {:>6.1} % {:>10.1} % {:>13.1} %{}",
                tally.n_draws,
                100.0 * flagged,
                100.0 * wrong,
                100.0 * leading,
                if missed { "  MISSED" } else { "" }
            );
        }
    }
    Ok(if n_missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One draw: leave-one-out accuracy before the flips, and what is found after them.
fn draw(data: &Embeddings, random: &mut Random) -> Result<(f64, Tally)> {
    let all: BTreeSet<&str> = data.labels.iter().map(String::as_str).filter(|label| *label != "_unknown").collect();
    let mut classes: Vec<&str> = all.into_iter().collect();
    random.shuffle(&mut classes);
    classes.truncate(CLASSES);
    let mut samples: Vec<(usize, usize)> = Vec::new();
    for (class, label) in classes.iter().enumerate() {
        let mut members: Vec<usize> = (0..data.labels.len()).filter(|i| data.labels[*i] == *label).collect();
        random.shuffle(&mut members);
        samples.extend(members.into_iter().take(SHOTS).map(|i| (i, class)));
    }
    random.shuffle(&mut samples);
    let clean = data.set_as(samples.iter().map(|(i, class)| (*i, classes[*class])))?;
    let accuracy = evaluate(&clean, HeadChoice::Ncm)?.summary.accuracy;
    for (_, class) in &mut samples[..FLIPS] {
        *class = (*class + 1 + random.below(CLASSES - 1)) % CLASSES;
    }
    let found = suspects(&data.set_as(samples.iter().map(|(i, class)| (*i, classes[*class])))?)?;
    let id = |(i, class): &(usize, usize)| Ok(data.meta(*i, classes[*class])?.sample_id());
    let flipped = samples[..FLIPS].iter().map(id).collect::<Result<BTreeSet<SampleId>>>()?;
    let is_flip = |suspect: &&graft_heads::Suspect| flipped.contains(&suspect.id);
    let flagged = || found.ranked.iter().filter(|suspect| suspect.is_suspected());
    Ok((
        accuracy,
        Tally {
            n_draws: 1,
            n_flagged: flagged().filter(is_flip).count(),
            n_false: flagged().filter(|suspect| !is_flip(suspect)).count(),
            n_leading: found.ranked.iter().take(FLIPS * 3 / 2).filter(is_flip).count(),
        },
    ))
}
