//! Memory of an engine: how far the resident set grows while a bundle is read, loaded and run, without the planned arena
//! of activations, over the bundle's size. Of this growth, "code" is pages of the program itself, which the system maps
//! when they first run, shares between processes and drops when memory is short; "data" is the ratio without them.
//!
//! usage: `cargo run --release -p graft-tests --bin footprint -- BUNDLE... [--peer INT8.onnx|INT8.tflite]...`; every bundle in
//! a process of its own, peers by the interpreter that `PYTHON` names, their arenas not taken out, since they do not tell
//! them. Exit code 1 if a bundle is over the bar.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use graft_engine::{Engine, detect_isa};
use graft_tests::{
    in_own_process, numbers_of, peak_bytes, read_bundle, resident_bytes, resident_file_bytes, workspace_root,
};

#[derive(Parser)]
#[command(about = "Peak of the resident set over the size of a bundle")]
struct Args {
    /// Bundles.
    #[arg(required = true)]
    bundles: Vec<PathBuf>,
    /// The same network in ONNX Runtime or LiteRT, for comparison.
    #[arg(long, value_name = "FILE")]
    peer: Vec<PathBuf>,
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
    let line = |[before, peak, arena, code, size]: [f64; 5], path: &Path| {
        let ratio = (peak - before - arena) / size;
        let data = (peak - before - arena - code) / size;
        println!(
            "{before:>9.1} {peak:>9.1} {arena:>9.1} {code:>9.1} {size:>9.1} {ratio:>6.2} {data:>6.2}  {}",
            path.display()
        );
        ratio
    };
    let mut missed = false;
    for bundle in &args.bundles {
        missed |= line(in_own_process(&["--one".as_ref(), bundle.as_os_str()])?, bundle) > RATIO_MAX;
    }
    for peer in &args.peer {
        let script = workspace_root().join("tests/peers/speed.py");
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let arguments = [script.as_os_str(), peer.as_os_str(), "1".as_ref(), "memory".as_ref()];
        let [before, peak, code] = numbers_of(&python, &arguments)?.map(|bytes| bytes / 1e6);
        line([before, peak, 0.0, code, size_of_file(peer)? / 1e6], peer);
    }
    println!("the bar is {RATIO_MAX}");
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn size_of_file(path: &Path) -> Result<f64> {
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64)
}

/// Prints before, peak, arena, code and size of the bundle in MB.
fn one(path: &Path) -> Result<()> {
    let (before, code_before) = (resident_bytes()?, resident_file_bytes()?);
    let size = size_of_file(path)?;
    let mut engine = Engine::load_with(&read_bundle(path)?, detect_isa()?, 1)?;
    let input: Vec<i8> = (0..engine.input_len()).map(|i| (i % 201) as i8).collect();
    for _ in 0..N_RUNS {
        engine.output(&input)?;
    }
    let peak = peak_bytes()?;
    let code = resident_file_bytes()? - code_before;
    let mb = [before, peak, engine.arena_bytes() as f64, code, size].map(|bytes| (bytes / 1e6).to_string());
    println!("{}", mb.join(" "));
    Ok(())
}
