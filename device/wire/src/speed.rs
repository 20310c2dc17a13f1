//! How fast a bundle runs, as messages carry it.

use serde::{Deserialize, Serialize};

use crate::message::Name;

/// Most inferences that a board times for one request.
pub const BENCH_RUNS_MAX: u32 = 10_000;
/// Most threads that it takes for them.
pub const BENCH_THREADS_MAX: u32 = 64;

/// Latency and memory of a bundle on one machine. Times in ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchSummary {
    /// Instruction set of the kernels that ran.
    pub isa: Name,
    /// That ran them.
    pub n_threads: u32,
    /// Timed inferences.
    pub n_runs: u32,
    /// Reading, checking and packing the bundle.
    pub load_ns: u64,
    /// The first inference.
    pub first_ns: u64,
    /// Fastest inference.
    pub min_ns: u64,
    /// Half of the inferences took no longer.
    pub median_ns: u64,
    /// 95 % took no longer.
    pub p95_ns: u64,
    /// 99 % took no longer.
    pub p99_ns: u64,
    /// Of the file.
    pub bundle_bytes: u64,
    /// Weights as the kernels read them.
    pub packed_bytes: u64,
    /// Activations.
    pub arena_bytes: u64,
}

/// One layer's cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerCost<'a> {
    /// Name of the ONNX node.
    pub name: &'a str,
    /// Name of the op.
    pub op: &'a str,
    /// Multiply-accumulates of one inference; 0 for all but convolutions.
    pub n_macs: u64,
    /// Median over the runs, in ns.
    pub median_ns: u64,
}
