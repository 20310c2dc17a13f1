//! How fast a bundle runs against tract's float and against peers, in one run: they take turns, a few inferences each, so that
//! whatever else the machine does meets all of them.
//!
//! usage: `cargo run --release -p graft-tests --bin speed -- BUNDLE MODEL.onnx [--peer INT8.onnx|INT8.tflite]...`;
//! `PYTHON` names the interpreter that has the peers' packages. Ratios are graft's time over theirs, of medians. A turn
//! begins after a pause in which threads that wait for more work of the turn before give up the cores. `--layers` ends with
//! graft's layers against the multiply-accumulates that the machine can do at most, measured by a loop that does nothing else.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use graft_client::BenchReport;
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
    /// Share of the machine's peak that each layer reaches.
    #[arg(long)]
    layers: bool,
}

/// Between turns.
const PAUSE: Duration = Duration::from_millis(20);
/// Of the loop that measures the peak: some ms.
const PEAK_ROUNDS: u64 = 2_000_000;
const N_LAYER_RUNS: usize = 300;

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
            std::thread::sleep(PAUSE);
            // The first ones of a turn find cold caches and sleeping threads.
            (contender.run)()?;
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
    if args.layers { layers(&args.bundle) } else { Ok(()) }
}

/// Prints every layer's multiply-accumulates, time and share of the peak.
fn layers(bundle: &Path) -> Result<()> {
    let isa = detect_isa()?;
    let rate = |n: u64, ns: u64| n as f64 / ns.max(1) as f64;
    // The best of some: the clock rises with the work.
    let peak = (0..10).map(|_| {
        let start = Instant::now();
        let n = graft_kernels::peak::multiply_accumulates(isa, PEAK_ROUNDS);
        rate(n, start.elapsed().as_nanos() as u64)
    });
    let peak = peak.fold(0.0, f64::max);
    ensure!(peak > 0.0, "the peak of {isa} is not known");
    let bench = BenchReport::of_file(bundle, N_LAYER_RUNS, 1).map_err(anyhow::Error::msg)?;
    let total: u64 = bench.layers.iter().map(|layer| layer.median_ns).sum();
    println!("\npeak of {isa} on one core: {peak:.0} G multiply-accumulates per second");
    println!("{:>8} {:>8} {:>8}  layer", "us", "M MACs", "of peak");
    let line = |ns: u64, n_macs: u64, name: &str| {
        let (us, share) = (ns as f64 / 1e3, 100.0 * rate(n_macs, ns) / peak);
        println!("{us:>8.1} {:>8.2} {share:>6.1} %  {name}", n_macs as f64 / 1e6);
    };
    for layer in &bench.layers {
        line(layer.median_ns, layer.n_macs, &format!("{} {}", layer.op, layer.name));
    }
    line(total, bench.n_macs(), "all layers");
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
