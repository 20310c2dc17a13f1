//! Weights, biases and multipliers of one convolution.
//!
//! A channel's multiplier M is an integer and its weight scale follows from it, `M * scale_out / (2^22 * scale_in)`, so
//! that requantization itself rounds nothing away. The scale is the smallest that holds the largest weight within 127,
//! then made coarser where a bias would leave 2^30 (a dead channel), or where the sum may leave the fast form's 2^22 and it
//! costs little: half a bit of the weights, or what is no part of an output step (a nearly dead channel).

use graft_bundle::graph::{DataType, MULTIPLIER_ONE};

use crate::float_graph::Conv;
use crate::scales::Quant;

/// Largest magnitude of a bias; leaves room for the sum in i32.
const BIAS_MAX: f64 = 1_073_741_824.0;
/// Sums below this are exact as f32: the fast form of requantization.
const FAST_SUM_MAX: f64 = 4_194_304.0;
/// Coarser weights are accepted up to this factor (half a bit) for the fast form.
const COARSER_MAX: f64 = std::f64::consts::SQRT_2;
/// Or where all that rounding the weights can do to an output stays under this share of its step.
const ERROR_MAX: f64 = 0.125;
/// Multipliers are below 2^23.
const MULTIPLIER_MAX: f64 = 8_388_607.0;
/// The loader's limit on |w| * 255 summed, plus |bias|.
const SUM_MAX: f64 = 2_147_483_647.0;

/// What a convolution reads.
pub(crate) struct ConvInput<'a> {
    pub quant: Quant,
    pub in_c: usize,
    /// Mean per channel over the calibration inputs; empty if unknown.
    pub means: &'a [f64],
    /// Per channel, what the real input is larger by than its integers say; empty for none.
    pub offsets: &'a [f64],
}

/// Integer parameters.
#[derive(Clone, Debug)]
pub(crate) struct IntegerConv {
    /// `[out_c, kernel_h, kernel_w, in_c / groups]`.
    pub weights: Vec<i8>,
    pub bias: Vec<i32>,
    pub multipliers: Vec<i32>,
    /// Channels made coarser for the fast form.
    pub n_coarser: usize,
    /// Channels beyond it.
    pub n_wide: usize,
}

/// The biases with what the input's constant errors per channel (empty for none) add up to.
pub(crate) fn offset_biases(conv: &Conv, in_c: usize, offsets: &[f64]) -> Vec<f64> {
    let per_channel = (conv.weights.len() / conv.bias.len().max(1)).max(1);
    let channels = conv.weights.chunks_exact(per_channel).zip(&conv.bias).enumerate();
    let offset = |o: usize, weights: &[f32]| -> f64 {
        weights.iter().enumerate().map(|(i, w)| f64::from(*w) * of_input(conv, in_c, o, i, offsets)).sum()
    };
    channels.map(|(o, (weights, bias))| f64::from(*bias) + offset(o, weights)).collect()
}

/// What `list` has of the input channel that weight `i` of output channel `o` is for; 0 beyond its end.
fn of_input(conv: &Conv, in_c: usize, o: usize, i: usize, list: &[f64]) -> f64 {
    let in_per_group = (in_c / conv.groups).max(1);
    let group = o / (conv.bias.len() / conv.groups).max(1);
    list.get(group * in_per_group + i % in_per_group).copied().unwrap_or(0.0)
}

/// Quantizes a convolution between two scales.
pub(crate) fn quantize_conv(conv: &Conv, input: &ConvInput<'_>, out: &Quant) -> Result<IntegerConv, String> {
    let out_c = conv.bias.len();
    let mut result = IntegerConv { weights: vec![], bias: vec![], multipliers: vec![], n_coarser: 0, n_wide: 0 };
    let per_channel = conv.weights.len() / out_c.max(1);
    result.weights.reserve(conv.weights.len());
    let biases = offset_biases(conv, input.in_c, input.offsets);
    // Largest |x - zero_point| of the input.
    let [low, high] = input.quant.limits;
    let reach = f64::from((high - input.quant.zero_point).max(input.quant.zero_point - low));
    let unit = out.scale / (MULTIPLIER_ONE * input.quant.scale);
    for (o, (weights, bias)) in conv.weights.chunks_exact(per_channel.max(1)).zip(biases).enumerate() {
        if !bias.is_finite() || weights.iter().any(|w| !w.is_finite()) {
            return Err(format!("channel {o} has weights that are not finite"));
        }
        let largest = weights.iter().fold(0f64, |m, w| m.max(f64::from(w.abs())));
        let for_bias = bias.abs() / (input.quant.scale * BIAS_MAX);
        let multiplier = |scale: f64| (scale / unit * (1.0 - 1e-12)).ceil().clamp(1.0, MULTIPLIER_MAX);
        let mut m = multiplier((largest / 127.0).max(for_bias));
        let bound = |m: f64| {
            let scale = m * unit;
            let sum: f64 = weights.iter().map(|w| (f64::from(w.abs()) / scale).round()).sum();
            sum * reach + (bias / (input.quant.scale * scale)).abs()
        };
        let seen = bound(m);
        // Sixteen bits have no fast form.
        if seen >= FAST_SUM_MAX && [input.quant.data_type, out.data_type] == [DataType::I8; 2] {
            let coarser = multiplier(m * unit * seen / FAST_SUM_MAX * 1.02);
            let error = |m: f64| {
                let scale = m * unit;
                let lost = |w: &f32| ((f64::from(*w) / scale).round_ties_even() * scale - f64::from(*w)).abs();
                weights.iter().map(lost).sum::<f64>() * reach * input.quant.scale / out.scale
            };
            let is_cheap = coarser <= m * COARSER_MAX || error(coarser) <= ERROR_MAX;
            if is_cheap && bound(coarser) < FAST_SUM_MAX {
                m = coarser;
                result.n_coarser += 1;
            } else {
                result.n_wide += 1;
            }
        }
        let scale = m * unit;
        let rounded: Vec<f64> =
            weights.iter().map(|w| (f64::from(*w) / scale).round_ties_even().clamp(-127.0, 127.0)).collect();
        // What rounding the weights adds to the sum on average is taken from the bias (Nagel et al. 2019,
        // arXiv:1906.04721, section 4.2).
        let shift: f64 = rounded
            .iter()
            .zip(weights)
            .enumerate()
            .map(|(i, (q, w))| (q * scale - f64::from(*w)) * of_input(conv, input.in_c, o, i, input.means))
            .sum();
        let bias = ((bias - shift) / (input.quant.scale * scale)).round_ties_even();
        let sum = rounded.iter().map(|q| q.abs()).sum::<f64>() * f64::from(high - low) + bias.abs();
        if sum > SUM_MAX {
            return Err(format!("the sum of channel {o} can reach {sum:.0}; 2^31 - 1 is allowed"));
        }
        result.weights.extend(rounded.iter().map(|q| *q as i8));
        result.bias.push(bias as i32);
        result.multipliers.push(m as i32);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float_graph::point_window;

    fn quant(scale: f64) -> Quant {
        Quant::i8(scale, 0)
    }

    fn quantized(weights: Vec<f32>, bias: Vec<f32>) -> Result<IntegerConv, String> {
        let in_c = weights.len() / bias.len();
        let conv = Conv { window: point_window(), groups: 1, weights, bias };
        quantize_conv(&conv, &ConvInput { quant: quant(0.02), in_c, means: &[], offsets: &[] }, &quant(0.05))
    }

    #[test]
    fn multipliers_are_whole_and_weights_stay_within_127() {
        let weights = vec![0.3, -0.7, 0.011, 2.0, -0.5, 0.25];
        let result = quantized(weights.clone(), vec![0.5, -1.0]).unwrap();
        assert!(result.weights.iter().all(|w| *w != -128));
        for (i, (q, w)) in result.weights.iter().zip(&weights).enumerate() {
            let m = f64::from(result.multipliers[i / 3]);
            let scale = m * 0.05 / (MULTIPLIER_ONE * 0.02);
            assert!((f64::from(*q) * scale - f64::from(*w)).abs() <= scale / 2.0 * 1.000_001, "weight {i}");
        }
    }

    #[test]
    fn dead_channels_keep_their_bias_in_range() {
        let result = quantized(vec![0.0, 0.0], vec![3.0]).unwrap();
        assert!(result.multipliers[0] >= 1 && result.bias[0].unsigned_abs() <= 1 << 30);
        // 3.0 in steps of the output: 60.
        assert_eq!((f64::from(result.bias[0]) * f64::from(result.multipliers[0]) / MULTIPLIER_ONE).round(), 60.0);
    }

    #[test]
    fn nearly_dead_channels_get_the_fast_form() {
        // 1e-7 * 127.5 * 0.02 is nothing beside an output step of 0.05, but in its own steps the bias is large.
        let result = quantized(vec![1e-7, -1e-7, 0.5, 0.25], vec![3.0, 0.1]).unwrap();
        assert_eq!((result.n_coarser, result.n_wide), (1, 0));
        assert!(result.bias[0].unsigned_abs() < 1 << 22, "{:?}", result.bias);
        assert_eq!((f64::from(result.bias[0]) * f64::from(result.multipliers[0]) / MULTIPLIER_ONE).round(), 60.0);
        // Weights that matter keep their scale.
        let result = quantized(vec![0.01, -0.01], vec![1e5]).unwrap();
        assert_eq!((result.n_coarser, result.n_wide), (0, 1));
    }

    #[test]
    fn sums_that_leave_32_bits_or_weights_that_are_no_numbers_are_refused() {
        let error = quantized(vec![1.0; 70_000], vec![0.0]).unwrap_err();
        assert_eq!(error, "the sum of channel 0 can reach 2266950000; 2^31 - 1 is allowed");
        assert_eq!(quantized(vec![f32::NAN], vec![0.0]).unwrap_err(), "channel 0 has weights that are not finite");
    }
}
