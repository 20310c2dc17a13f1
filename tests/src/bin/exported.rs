//! Heads as `graft export` writes them, with what they say about test samples, for `tests/peers/exported.py` to compare.
//!
//! `cargo run --release -p graft-tests --bin exported -- CACHE OUT`, CACHE as in the program `unknowns`. Per data set, for
//! its first draws and every head that can be exported: OUT/NAME-DRAW-HEAD.onnx, .safetensors, .npz, and .txt with a line per test sample:
//! its number, its label, and the scores of all classes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use graft_cli::export::{Exported, npz, onnx, safetensors};
use graft_heads::Head;
use graft_tests::embeddings::{Embeddings, names, read_draws};
use graft_wire::message::HeadChoice;

#[derive(Parser)]
#[command(about = "Exports heads with their answers")]
struct Args {
    /// Folder that tests/peers/unknowns.py has filled.
    cache: PathBuf,
    /// Folder to write into; made if it is missing.
    out: PathBuf,
    /// Draws per data set.
    #[arg(long, default_value_t = 5)]
    draws: usize,
}

/// Heads that can be exported.
const HEADS: [(&str, HeadChoice); 4] = [
    ("ncm", HeadChoice::Ncm),
    ("ridge", HeadChoice::Ridge),
    ("lda", HeadChoice::Lda),
    ("logistic", HeadChoice::Logistic),
];

fn main() -> Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.out)?;
    for name in names(&args.cache)? {
        let data = Embeddings::read(&args.cache, &name)?;
        for (number, draw) in read_draws(&args.cache, &name)?.iter().take(args.draws).enumerate() {
            let set = data.set(&draw.support)?;
            for (kind, choice) in HEADS {
                let head = Head::train(&set, choice)?;
                let exported = Exported::of(&head, kind).context("not exported")?;
                let labels: Vec<&str> = head.classes().iter().map(|label| label.as_str()).collect();
                let path = |extension: &str| args.out.join(format!("{name}-{number}-{kind}.{extension}"));
                fs::write(path("onnx"), onnx(&exported))?;
                fs::write(path("safetensors"), safetensors(&exported))?;
                fs::write(path("npz"), npz(&exported, &labels))?;
                let answers = draw.known.iter().chain(&draw.unknown).map(|i| {
                    let classified = head.classify(&data.rows[*i]);
                    let scores: Vec<String> = classified.scores.iter().map(|score| format!("{score:e}")).collect();
                    format!("{i}\t{}\t{}\n", labels[classified.best], scores.join(" "))
                });
                fs::write(path("txt"), answers.collect::<String>())?;
            }
        }
    }
    Ok(())
}
