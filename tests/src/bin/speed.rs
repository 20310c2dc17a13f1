//! How fast a bundle runs against tract's float and against peers, in one run: they take turns, a few inferences each, so that
//! whatever else the machine does meets all of them.
//!
//! usage: `cargo run --release -p graft-tests --bin speed -- BUNDLE MODEL.onnx [--peer INT8.onnx|INT8.tflite]...`;
//! `PYTHON` names the interpreter that has the peers' packages. Ratios are graft's time over theirs, of medians.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use graft_engine::{Engine, detect_isa};
use graft_kernels::Isa;
use graft_quantize::{FloatBackbone, ImportOptions};
use graft_tests::{read_bundle, workspace_root};

#[derive(Parser)]
#[command(about = "Time of a bundle over the time of tract's float and of peers, in one run")]
struct Args {
    /// Made from MODEL.
    bundle: PathBuf,
    /// The float model, run by tract.
    model: PathBuf,
    /// The same network for ONNX Runtime (.onnx) or LiteRT (.tflite).
    #[arg(long)]
    peer: Vec<PathBuf>,
    /// Kernels to time besides the best ones.
    #[arg(long, value_delimiter = ',')]
    isa: Vec<String>,
    /// Threads; tract's float has one.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Turns of each.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Inferences of a turn.
    #[arg(long, default_value_t = 5)]
    inner: usize,
}

struct Contender {
    name: String,
    /// From the file to the first result.
    first_ms: f64,
    /// One inference, in ms.
    run: Box<dyn FnMut() -> Result<f64>>,
    times: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0 && args.inner > 0, "at least one round of one inference is needed");
    let mut isas = vec![detect_isa()?];
    for name in &args.isa {
        isas.push(Isa::from_name(name).with_context(|| format!("unknown kernels {name:?}"))?);
    }
    let mut contenders = Vec::new();
    for isa in isas {
        contenders.push(graft(&args.bundle, isa, args.threads)?);
    }
    contenders.push(tract(&args.model, input_len(&args.bundle)?)?);
    for path in &args.peer {
        contenders.push(peer(path, args.threads)?);
    }
    for _ in 0..args.rounds {
        for contender in &mut contenders {
            // The first one of a turn finds cold caches.
            (contender.run)()?;
            for _ in 0..args.inner {
                let time = (contender.run)()?;
                contender.times.push(time);
            }
        }
    }
    println!("{:40} {:>9} {:>9} {:>9} {:>7} {:>7}", "", "median ms", "min ms", "first ms", "ratio", "first");
    let (median, first) = (contenders[0].median(), contenders[0].first_ms);
    for contender in &mut contenders {
        let (own, min) = (contender.median(), contender.times[0]);
        let (ratio, first_ratio) = (median / own, first / contender.first_ms);
        println!(
            "{:40} {own:>9.3} {min:>9.3} {:>9.1} {ratio:>7.3} {first_ratio:>7.3}",
            contender.name, contender.first_ms
        );
    }
    Ok(())
}

impl Contender {
    fn median(&mut self) -> f64 {
        self.times.sort_by(f64::total_cmp);
        self.times[self.times.len() / 2]
    }
}

fn ms(start: Instant) -> f64 {
    1e3 * start.elapsed().as_secs_f64()
}

fn graft(path: &Path, isa: Isa, n_threads: usize) -> Result<Contender> {
    let start = Instant::now();
    let bundle = read_bundle(path)?;
    let mut engine = Engine::load_with(&bundle, isa, n_threads)?;
    let input: Vec<i8> = (0..engine.input_len()).map(|i| (i % 201) as i8).collect();
    engine.output(&input)?;
    let first_ms = ms(start);
    let run = move || {
        let start = Instant::now();
        engine.output(&input)?;
        Ok(ms(start))
    };
    let name = format!("graft {isa}, {n_threads} threads");
    Ok(Contender { name, first_ms, run: Box::new(run), times: Vec::new() })
}

/// Elements of the bundle's input, which the float model has as well.
fn input_len(bundle: &Path) -> Result<usize> {
    Ok(Engine::load(&read_bundle(bundle)?)?.input_len())
}

fn tract(path: &Path, input_len: usize) -> Result<Contender> {
    let start = Instant::now();
    let float = FloatBackbone::open(path, &ImportOptions::default(), None)?;
    let input: Vec<f32> = (0..input_len).map(|i| (i % 201) as f32 / 201.0).collect();
    float.output(&input)?;
    let first_ms = ms(start);
    let run = move || {
        let start = Instant::now();
        float.output(&input)?;
        Ok(ms(start))
    };
    Ok(Contender { name: "tract float, 1 thread".to_owned(), first_ms, run: Box::new(run), times: Vec::new() })
}

/// A peer's process; it ends with its standard input.
struct Peer {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn answer(&mut self) -> Result<f64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().context("tests/peers/speed.py stopped; see what it printed")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}

fn peer(path: &Path, n_threads: usize) -> Result<Contender> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let script = workspace_root().join("tests/peers/speed.py");
    let mut child = Command::new(&python)
        .args([script.as_os_str(), path.as_os_str()])
        .arg(n_threads.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", python.display()))?;
    let ask = child.stdin.take();
    let answers = BufReader::new(child.stdout.take().context("no output")?);
    let mut peer = Peer { child, ask, answers };
    let first_ms = peer.answer()?;
    let run = move || {
        peer.ask.as_mut().context("closed")?.write_all(b"\n")?;
        peer.answer()
    };
    let name = path.file_name().unwrap_or_default().display().to_string();
    Ok(Contender { name: format!("{name}, {n_threads} threads"), first_ms, run: Box::new(run), times: Vec::new() })
}
