//! Cross-layer equalization: every channel of an inner tensor uses the whole 8-bit range.
//!
//! Between two convolutions a channel may be made larger by any factor if the weights that write it grow and the
//! weights that read it shrink by the same (Nagel et al. 2019, arXiv:1906.04721, section 4.1; there it serves
//! per-tensor weights). Ours are per output channel: the writer's growth is free, and so is a depthwise reader's
//! shrinking. A dense reader pays with coarser weights; there the exponent with the least predicted noise is taken.
//! Only on request: see [`QuantizeOptions::equalize`](crate::QuantizeOptions::equalize).

use std::collections::HashMap;

use crate::calibrate::Calibration;
use crate::float_graph::{Conv, FloatGraph, FloatOp, ValueId};
use crate::qdq::Fixed;

/// A channel is enlarged by at most this factor: nearly dead channels must not clip when they wake up.
const FACTOR_MAX: f64 = 64.0;
/// Room over what calibration showed of a channel.
const HEADROOM: f64 = 1.15;
/// Exponents tried for dense readers.
const EXPONENTS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// A tensor between convolutions, and what each of its channels spans.
struct Inner {
    value: ValueId,
    writer: usize,
    readers: Vec<usize>,
    /// Largest magnitude per channel.
    reach: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
    variance: Vec<f64>,
}

/// Equalizes wherever it helps; scaled values carry their factors and range. Returns how many tensors changed.
pub(crate) fn equalize(graph: &mut FloatGraph, calibration: &mut Calibration, fixed: &HashMap<String, Fixed>) -> usize {
    let inner: Vec<Inner> = (0..graph.values.len()).filter_map(|v| candidate(graph, calibration, fixed, v)).collect();
    let mut n = 0;
    for inner in inner {
        let largest = inner.reach.iter().fold(0f64, |m, r| m.max(*r));
        let full: Vec<f64> = inner
            .reach
            .iter()
            .map(|r| if *r > 0.0 { (largest / (r * HEADROOM)).clamp(1.0, FACTOR_MAX) } else { 1.0 })
            .collect();
        let dense = inner.readers.iter().any(|r| conv_of(graph, *r).is_some_and(|c| c.groups != full.len()));
        let candidates: Vec<Vec<f64>> = if dense {
            EXPONENTS.iter().map(|e| full.iter().map(|f| f.powf(*e)).collect()).collect()
        } else {
            vec![full]
        };
        let noise = |factors: &Vec<f64>| -> f64 {
            inner
                .readers
                .iter()
                .filter_map(|r| conv_of(graph, *r))
                .map(|conv| predicted_noise(conv, &inner, factors))
                .sum()
        };
        let best = if candidates.len() == 1 {
            candidates.into_iter().next()
        } else {
            candidates.into_iter().map(|f| (noise(&f), f)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, f)| f)
        };
        let Some(factors) = best.filter(|f| f.iter().any(|f| *f > 1.0)) else { continue };
        apply(graph, calibration, &inner, factors);
        n += 1;
    }
    n
}

fn conv_of(graph: &FloatGraph, node: usize) -> Option<&Conv> {
    match graph.nodes.get(node).map(|n| &n.op) {
        Some(FloatOp::Conv(conv)) => Some(conv),
        _ => None,
    }
}

/// A value that a convolution writes and only convolutions read.
fn candidate(
    graph: &FloatGraph,
    calibration: &Calibration,
    fixed: &HashMap<String, Fixed>,
    value: ValueId,
) -> Option<Inner> {
    if value == graph.output || value == graph.input {
        return None;
    }
    let described = graph.values.get(value)?;
    if described.source.as_ref().is_some_and(|s| fixed.contains_key(&s.tensor)) {
        return None;
    }
    let statistics = calibration.statistics.get(&value)?;
    let (low, high) = statistics.channel_ranges()?;
    let writer = graph.nodes.iter().position(|n| n.output == value)?;
    conv_of(graph, writer)?;
    // A clamp is shared by all channels: only one that begins at zero, or none, stays right when they grow.
    if graph.nodes.get(writer)?.clamp.is_some_and(|(low, _)| low != 0.0) {
        return None;
    }
    let readers: Vec<usize> = (0..graph.nodes.len()).filter(|n| graph.nodes[*n].inputs.contains(&value)).collect();
    if readers.is_empty() || readers.iter().any(|r| conv_of(graph, *r).is_none()) {
        return None;
    }
    let reach = low.iter().zip(&high).map(|(l, h)| h.max(-l)).collect();
    Some(Inner { value, writer, readers, reach, low, high, variance: statistics.variances() })
}

/// Input channel of weight `i` of output channel `o`.
fn input_channel(conv: &Conv, n_channels: usize, o: usize, i: usize) -> usize {
    let per_group = (n_channels / conv.groups).max(1);
    let group = o / (conv.bias.len() / conv.groups).max(1);
    group * per_group + i % per_group
}

/// Noise power at a reader's outputs: rounded activations through its weights, and its rounded weights on the
/// activations' variance (their mean goes into the bias).
fn predicted_noise(conv: &Conv, inner: &Inner, factors: &[f64]) -> f64 {
    let n_channels = factors.len();
    let [low, high] = range(inner, factors);
    let step = (high - low) / 255.0;
    let per_output = conv.weights.len() / conv.bias.len().max(1);
    let mut noise = 0.0;
    for (o, weights) in conv.weights.chunks_exact(per_output.max(1)).enumerate() {
        let scaled = |i: usize, w: f32| f64::from(w) / factors[input_channel(conv, n_channels, o, i)];
        let largest = weights.iter().enumerate().fold(0f64, |m, (i, w)| m.max(scaled(i, *w).abs()));
        let unit = (largest / 127.0).max(1e-30);
        for (i, w) in weights.iter().enumerate() {
            let c = input_channel(conv, n_channels, o, i);
            let v = scaled(i, *w);
            let error = (v / unit).round_ties_even() * unit - v;
            noise += v * v * step * step / 12.0 + error * error * factors[c] * factors[c] * inner.variance[c];
        }
    }
    noise
}

/// What the scaled tensor spans.
fn range(inner: &Inner, factors: &[f64]) -> [f64; 2] {
    let scaled = |ends: &[f64]| {
        ends.iter().zip(factors).map(|(e, f)| e * f).fold((0f64, 0f64), |(l, h), v| (l.min(v), h.max(v)))
    };
    [scaled(&inner.low).0, scaled(&inner.high).1]
}

fn apply(graph: &mut FloatGraph, calibration: &mut Calibration, inner: &Inner, factors: Vec<f64>) {
    let range = range(inner, &factors);
    if let Some(node) = graph.nodes.get_mut(inner.writer) {
        if let FloatOp::Conv(conv) = &mut node.op {
            let per_output = conv.weights.len() / conv.bias.len().max(1);
            for (o, factor) in factors.iter().enumerate() {
                conv.weights
                    .iter_mut()
                    .skip(o * per_output)
                    .take(per_output)
                    .for_each(|w| *w = (f64::from(*w) * factor) as f32);
                conv.bias[o] = (f64::from(conv.bias[o]) * factor) as f32;
            }
        }
        node.clamp = node.clamp.map(|_| (0.0, f64::INFINITY));
    }
    for reader in &inner.readers {
        if let Some(FloatOp::Conv(conv)) = graph.nodes.get_mut(*reader).map(|n| &mut n.op) {
            let per_output = (conv.weights.len() / conv.bias.len().max(1)).max(1);
            let places: Vec<usize> = (0..conv.weights.len())
                .map(|at| input_channel(conv, factors.len(), at / per_output, at % per_output))
                .collect();
            for (w, c) in conv.weights.iter_mut().zip(places) {
                *w = (f64::from(*w) / factors[c]) as f32;
            }
        }
    }
    if let Some(statistics) = calibration.statistics.get_mut(&inner.value) {
        statistics.scale_means(&factors);
    }
    if let Some(value) = graph.values.get_mut(inner.value) {
        value.range = Some(range);
        value.factors = Some(factors);
    }
}
