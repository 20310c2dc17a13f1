//! How fast a bundle runs on this machine: latency of whole inferences, cost of each layer, memory.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use graft_bundle::{Bundle, UncheckedBundle};
use graft_engine::{Engine, Isa, detect_isa};
use graft_wire::error::BundleFault;
use graft_wire::message::{BENCH_RUNS_MAX, BENCH_THREADS_MAX, BenchSummary, LayerCost};
use graft_wire::{Batch, Response, WireError};

use crate::answer::{Failure, Page};
use crate::bundles::name;
use crate::daemon::{Daemon, Exchange};

/// Inferences before any is timed.
const N_WARM: usize = 3;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Kernels that ran.
    pub isa: Isa,
    /// That ran them.
    pub n_threads: usize,
    /// Timed inferences.
    pub n_runs: usize,
    /// Reading, checking and packing the bundle.
    pub load: Duration,
    /// The first inference.
    pub first: Duration,
    /// Whole inferences, ascending, with normalisation; without decoding and resizing of inputs.
    pub times: Vec<Duration>,
    /// Of the file.
    pub bundle_bytes: u64,
    /// Weights as the kernels read them.
    pub packed_bytes: u64,
    /// Activations.
    pub arena_bytes: u64,
    /// In execution order.
    pub layers: Vec<LayerBench>,
}

/// One layer's cost.
#[derive(Clone, Debug)]
pub struct LayerBench {
    /// Name of the ONNX node.
    pub name: String,
    /// Name of the op, as [`StepCost`](graft_engine::StepCost) has it.
    pub op: String,
    /// Multiply-accumulates; 0 for all but convolutions.
    pub n_macs: u64,
    /// Median over the runs.
    pub median: Duration,
}

impl Bench {
    /// Runs the bundle at `path` on the input of its first self-test.
    ///
    /// # Errors
    /// What is wrong with the bundle, or `n_runs` 0.
    pub fn run(path: &Path, n_runs: usize, n_threads: usize) -> Result<Bench, String> {
        let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::of(file, n_runs, n_threads).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The same with the file of a bundle.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn of(file: File, n_runs: usize, n_threads: usize) -> Result<Bench, String> {
        if n_runs == 0 {
            return Err("0 runs; at least 1 is needed".to_owned());
        }
        let start = Instant::now();
        let bundle = UncheckedBundle::open(file).and_then(UncheckedBundle::check).map_err(|e| e.to_string())?;
        let bundle_bytes = bundle.file_len();
        let isa = detect_isa().map_err(|error| error.to_string())?;
        let mut engine = Engine::load_with(&bundle, isa, n_threads).map_err(|error| error.to_string())?;
        let load = start.elapsed();
        let input = input_of(&bundle, engine.input_len());
        // An output without direction is a result like any other here; errors of the engine itself show in the self-test.
        let time = |engine: &mut Engine| {
            let start = Instant::now();
            let _ = engine.embed(&input);
            start.elapsed()
        };
        let first = time(&mut engine);
        engine.self_test(&bundle).map_err(|error| error.to_string())?;
        for _ in 0..N_WARM {
            time(&mut engine);
        }
        let mut times: Vec<Duration> = (0..n_runs).map(|_| time(&mut engine)).collect();
        times.sort_unstable();
        let layers = layers(&engine, &input, n_runs)?;
        let (packed_bytes, arena_bytes) = (engine.packed_bytes(), engine.arena_bytes());
        let n_threads = engine.n_threads();
        Ok(Bench { isa, n_threads, n_runs, load, first, times, bundle_bytes, packed_bytes, arena_bytes, layers })
    }

    /// The time that `share` of the runs stayed within; `share` in 0..=1.
    pub fn percentile(&self, share: f64) -> Duration {
        let at = (share * self.times.len() as f64).ceil() as usize;
        self.times.get(at.saturating_sub(1)).or(self.times.last()).copied().unwrap_or_default()
    }

    /// Multiply-accumulates of one inference.
    pub fn n_macs(&self) -> u64 {
        self.layers.iter().map(|layer| layer.n_macs).sum()
    }

    /// As a message carries it, without the layers.
    pub fn summary(&self) -> BenchSummary {
        let at = |share| ns(self.percentile(share));
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        BenchSummary {
            isa: name(self.isa.name()),
            n_threads: number(self.n_threads),
            n_runs: number(self.n_runs),
            load_ns: ns(self.load),
            first_ns: ns(self.first),
            min_ns: at(0.0),
            median_ns: at(0.5),
            p95_ns: at(0.95),
            p99_ns: at(0.99),
            bundle_bytes: self.bundle_bytes,
            packed_bytes: self.packed_bytes,
            arena_bytes: self.arena_bytes,
        }
    }

    /// The layers as a message carries them.
    pub fn layer_costs(&self) -> impl Iterator<Item = LayerCost<'_>> {
        self.layers.iter().map(|layer| LayerCost {
            name: &layer.name,
            op: &layer.op,
            n_macs: layer.n_macs,
            median_ns: ns(layer.median),
        })
    }
}

impl Daemon {
    pub(crate) fn bench(&mut self, exchange: &Exchange, n_runs: u32, n_threads: u32) -> Result<Vec<u8>, Failure> {
        let hash = self.active()?.row.hash;
        let file = self.store.open_bundle(&hash)?;
        let (n_runs, n_threads) = (n_runs.clamp(1, BENCH_RUNS_MAX), n_threads.clamp(1, BENCH_THREADS_MAX));
        let bench = Bench::of(file, n_runs as usize, n_threads as usize).map_err(|error| Failure {
            wire: WireError::BadBundle(BundleFault::Unsupported),
            log: Some(format!("bench: {error}")),
        })?;
        let layers = Page::of(bench.layer_costs());
        Ok(exchange.encode(Response::Bench { summary: bench.summary(), layers: Batch::new(layers.bytes()) }))
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn input_of(bundle: &Bundle, len: usize) -> Vec<i8> {
    let case = bundle.manifest().self_tests.first().and_then(|test| bundle.self_test_input(test));
    let mut input: Vec<i8> = case.unwrap_or_default().iter().map(|byte| byte.cast_signed()).collect();
    input.resize(len, 0);
    input
}

fn layers(engine: &Engine, input: &[i8], n_runs: usize) -> Result<Vec<LayerBench>, String> {
    let mut times = vec![Vec::with_capacity(n_runs); engine.step_costs().count()];
    let mut last = Instant::now();
    let runs = n_runs.try_into().unwrap_or(u32::MAX);
    let measured = engine.run_steps(input, runs, |step| {
        let now = Instant::now();
        if let Some(times) = step.and_then(|step| times.get_mut(step)) {
            times.push(now - last);
        }
        last = Instant::now();
    });
    measured.map_err(|error| error.to_string())?;
    let layers = engine.step_costs().zip(&mut times).map(|(cost, times)| {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        LayerBench { name: cost.name.to_owned(), op: cost.op.to_owned(), n_macs: cost.n_macs, median }
    });
    Ok(layers.collect())
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.n_threads == 1 { "thread" } else { "threads" };
        writeln!(f, "kernels    {}, {} {threads}", self.isa, self.n_threads)?;
        let [min, median, p95, p99] = [0.0, 0.5, 0.95, 0.99].map(|share| ms(self.percentile(share)));
        writeln!(
            f,
            "inference  median {median:.3} ms, min {min:.3}, p95 {p95:.3}, p99 {p99:.3} ({} runs)",
            self.n_runs
        )?;
        let rate = self.n_macs() as f64 / self.percentile(0.5).as_secs_f64().max(1e-9) / 1e9;
        writeln!(f, "           {:.1} M multiply-adds, {rate:.1} G per second", self.n_macs() as f64 / 1e6)?;
        writeln!(f, "cold start {:.1} ms loading, {:.1} ms first inference", ms(self.load), ms(self.first))?;
        let kb = |bytes: u64| bytes as f64 / 1e3;
        let (bundle, packed, arena) = (kb(self.bundle_bytes), kb(self.packed_bytes), kb(self.arena_bytes));
        writeln!(f, "memory     bundle {bundle:.1} kB, packed weights {packed:.1} kB, activations {arena:.1} kB")?;
        writeln!(f, "{:>9}  {:>9}  {:>9}  layer", "ms", "M madds", "G/s")?;
        for layer in &self.layers {
            let macs = layer.n_macs as f64;
            let rate = macs / layer.median.as_secs_f64().max(1e-9) / 1e9;
            writeln!(f, "{:>9.4}  {:>9.2}  {rate:>9.1}  {} {}", ms(layer.median), macs / 1e6, layer.op, layer.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times = (1..=10).map(Duration::from_millis).collect();
        let zero = Duration::ZERO;
        let bench = Bench {
            isa: Isa::Scalar,
            n_threads: 1,
            n_runs: 10,
            load: zero,
            first: zero,
            times,
            bundle_bytes: 0,
            packed_bytes: 0,
            arena_bytes: 0,
            layers: vec![],
        };
        let [min, median, p95] = [0.0, 0.5, 0.95].map(|share| bench.percentile(share).as_millis());
        assert_eq!((min, median, p95), (1, 5, 10));
    }

    #[test]
    fn no_runs_and_no_bundle_are_errors() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(Bench::of(file, 0, 1).unwrap_err(), "0 runs; at least 1 is needed");
        assert!(
            Bench::run(Path::new("/nowhere/x.graft"), 1, 1).unwrap_err().starts_with("cannot read /nowhere/x.graft")
        );
    }
}
