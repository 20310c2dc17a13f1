//! `graft bench`: how fast a bundle runs, here or on boards.

use graft_client::{BenchReport, OwnedLayer};
use serde_json::{Value, json};

use super::Done;
use crate::args::BenchArgs;
use crate::context::Context;
use crate::devices;
use crate::error::{CliError, Exit};
use crate::output::{Unit, amount, count, plain_table};

/// Layers printed for people, the costliest; `--json` and `-v` have them all.
const LAYERS_MAX: usize = 12;

/// Runs `graft bench`.
///
/// # Errors
/// A bundle that cannot be used, no bundle and no device, or whatever stops boards or links.
pub fn run(context: &Context, args: &BenchArgs) -> Result<Done, CliError> {
    let Some(path) = &args.bundle else {
        return devices::each(context, "graft.bench/1", |device| {
            let report = device.call(|board| board.bench(args.runs, args.threads))?;
            print(context, &report);
            let mut object = json!({ "device": device.name, "device_id": device.id().to_string() });
            extend(&mut object, &report);
            Ok(object)
        });
    };
    let report = BenchReport::of_file(path, args.runs as usize, args.threads as usize).map_err(|problem| {
        CliError::new(Exit::Failed, problem).with_help("BUNDLE is a file that graft quantize wrote")
    })?;
    print(context, &report);
    let mut object = json!({ "schema": "graft.bench/1", "bundle": path.display().to_string() });
    extend(&mut object, &report);
    Ok(Done::ok(object))
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Multiply-accumulates per second, in thousands of millions.
fn rate(n_macs: u64, ns: u64) -> f64 {
    n_macs as f64 / ns.max(1) as f64
}

fn print(context: &Context, report: &BenchReport) {
    let (output, summary) = (&context.output, &report.summary);
    let [min, median, p95, p99] = [summary.min_ns, summary.median_ns, summary.p95_ns, summary.p99_ns].map(ms);
    let (n_runs, n_threads) = (count(summary.n_runs, "run"), count(summary.n_threads, "thread"));
    let (n_macs, per_s) = (report.n_macs(), rate(report.n_macs(), summary.median_ns));
    output.line(format!("kernels    {}, {n_threads}", summary.isa));
    output.line(format!("inference  median {median:.3} ms, min {min:.3}, p95 {p95:.3}, p99 {p99:.3} ({n_runs})"));
    output.line(format!("           {:.1} M multiply-adds, {per_s:.1} G per second", n_macs as f64 / 1e6));
    let (load, first) = (ms(summary.load_ns), ms(summary.first_ns));
    output.line(format!("cold start {load:.1} ms loading, {first:.1} ms first inference"));
    let bytes = [summary.bundle_bytes, summary.packed_bytes, summary.arena_bytes];
    let [bundle, packed, arena] = bytes.map(|bytes| amount(bytes, Unit::Bytes));
    output.line(format!("memory     bundle {bundle}, packed weights {packed}, activations {arena}"));
    let total: u64 = report.layers.iter().map(|layer| layer.median_ns).sum();
    let mut layers: Vec<&OwnedLayer> = report.layers.iter().collect();
    if !output.verbose {
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.median_ns));
        layers.truncate(LAYERS_MAX);
    }
    let mut table = plain_table(&["ms", "share", "M madds", "G/s", "layer"], &[0, 1, 2, 3]);
    for layer in &layers {
        let share = 100.0 * layer.median_ns as f64 / total.max(1) as f64;
        table.add_row([
            format!("{:.4}", ms(layer.median_ns)),
            format!("{share:.1} %"),
            format!("{:.2}", layer.n_macs as f64 / 1e6),
            format!("{:.1}", rate(layer.n_macs, layer.median_ns)),
            format!("{} {}", layer.op, layer.name),
        ]);
    }
    output.table(&table);
    if layers.len() < report.layers.len() {
        let n_layers = count(report.layers.len() as u64, "layer");
        output.line(format!("the costliest of {n_layers}; -v shows all in order"));
    }
}

fn extend(object: &mut Value, report: &BenchReport) {
    let summary = &report.summary;
    let layer = |layer: &OwnedLayer| json!({ "name": layer.name, "op": layer.op, "macs": layer.n_macs, "median_ms": ms(layer.median_ns) });
    let figures = json!({
        "isa": summary.isa.as_str(), "n_threads": summary.n_threads, "n_runs": summary.n_runs,
        "load_ms": ms(summary.load_ns), "first_ms": ms(summary.first_ns), "min_ms": ms(summary.min_ns),
        "median_ms": ms(summary.median_ns), "p95_ms": ms(summary.p95_ns), "p99_ms": ms(summary.p99_ns),
        "macs": report.n_macs(), "bundle_bytes": summary.bundle_bytes, "packed_bytes": summary.packed_bytes,
        "arena_bytes": summary.arena_bytes, "layers": report.layers.iter().map(layer).collect::<Vec<_>>(),
    });
    if let (Value::Object(all), Value::Object(figures)) = (object, figures) {
        all.extend(figures);
    }
}
