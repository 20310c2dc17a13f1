//! Memory of an engine: how far the resident set grows while a bundle is read, loaded and run, without the planned arena
//! of activations, over the bundle's size. Of this growth, "code" is pages of the program itself, which the system maps
//! when they first run, shares between processes and drops when memory is short; "data" is the ratio without them.
//!
//! usage: `cargo run --release -p graft-tests --bin footprint -- BUNDLE...`; every bundle in a process of its own. Exit
//! code 1 if one is over the bar.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use graft_engine::{Engine, detect_isa};
use graft_tests::{in_own_process, peak_bytes, read_bundle, resident_bytes, resident_file_bytes};

#[derive(Parser)]
#[command(about = "Peak of the resident set over the size of a bundle")]
struct Args {
    /// Bundles.
    #[arg(required = true)]
    bundles: Vec<PathBuf>,
    /// The only bundle, in this process.
    #[arg(long)]
    one: bool,
}

/// (Peak - before - arena) over the size of the bundle.
const RATIO_MAX: f64 = 2.0;
const N_RUNS: usize = 20;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.one {
        one(&args.bundles[0])?;
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}  bundle",
        "before MB", "peak MB", "arena MB", "code MB", "bundle MB", "ratio", "data"
    );
    let mut missed = false;
    for bundle in &args.bundles {
        let [before, peak, arena, code, size] = in_own_process(&["--one".as_ref(), bundle.as_os_str()])?;
        let ratio = (peak - before - arena) / size;
        missed |= ratio > RATIO_MAX;
        let data = (peak - before - arena - code) / size;
        println!(
            "{before:>9.1} {peak:>9.1} {arena:>9.1} {code:>9.1} {size:>9.1} {ratio:>6.2} {data:>6.2}  {}",
            bundle.display()
        );
    }
    println!("the bar is {RATIO_MAX}");
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints before, peak, arena, code and size of the bundle in MB.
fn one(path: &Path) -> Result<()> {
    let (before, code_before) = (resident_bytes()?, resident_file_bytes()?);
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    let mut engine = Engine::load_with(&read_bundle(path)?, detect_isa()?, 1)?;
    let input: Vec<i8> = (0..engine.input_len()).map(|i| (i % 201) as i8).collect();
    for _ in 0..N_RUNS {
        engine.output(&input)?;
    }
    let peak = peak_bytes()?;
    let code = resident_file_bytes()? - code_before;
    let mb = [before, peak, engine.arena_bytes() as f64, code, size as f64].map(|bytes| (bytes / 1e6).to_string());
    println!("{}", mb.join(" "));
    Ok(())
}
