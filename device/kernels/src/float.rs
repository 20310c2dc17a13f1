//! Exact float ops: f32 in a fixed order, no fused multiply-add, `libm` for what the CPU does not round itself. For
//! layers that int8 would hurt; the same bits on every CPU.
//!
//! Every operation is one IEEE 754 binary32 operation, rounded to nearest, in the order written here. NaN may carry any
//! payload: which one is not defined, and [`quantize`] ends it as real zero.

use crate::conv::{ConvShape, taps};
use crate::requantize::{Clamp, RealClamp};
use crate::view::{Activation, Dims, View, ViewMut, broadcast_of, for_each_pair};
use crate::{Isa, KernelError, expect_len};

/// Output channels that are summed side by side: enough to hide the latency of an addition.
const CHANNELS: usize = 32;

/// Function of one float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `x` if `x > 0`, else 0 (so 0 for NaN).
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// e^x.
    Exp,
    /// Square root.
    Sqrt,
    /// `|x|`.
    Abs,
    /// `x * clamp(x / 6 + 0.5, 0, 1)`.
    HardSwish,
    /// Gauss error function.
    Erf,
    /// `low` if `x < low`, else `high` if `x > high`, else `x`.
    Clip(f32, f32),
}

/// Function of two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
}

/// `x = scale * (q - zero_point)`: the difference converted to f32 (exact below 2^24, else to nearest), then one
/// multiplication. From i8, i16 or i32.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn dequantize(
    isa: Isa,
    scale: f32,
    zero_point: i32,
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("output", output.len(), input.len())?;
    let real = |q: i32| scale * q.wrapping_sub(zero_point) as f32;
    match (isa, input, output) {
        (_, View::I8(x), ViewMut::F32(y)) => {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = real((*x).into()));
        }
        (_, View::I16(x), ViewMut::F32(y)) => {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = real((*x).into()));
        }
        (_, View::I32(x), ViewMut::F32(y)) => y.iter_mut().zip(x).for_each(|(y, x)| *y = real(*x)),
        _ => return Err(KernelError::Types { op: "Dequantize" }),
    }
    Ok(())
}

/// `q = clamp(zp + round_half_even(x * inv_scale), low, high)`: one f32 multiplication, rounded to integer with ties to
/// even, beyond i32 saturated, NaN to 0. To i8 or i16.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn quantize(
    isa: Isa,
    inv_scale: f32,
    clamp: Clamp,
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("output", output.len(), input.len())?;
    match (input, output) {
        (View::F32(x), ViewMut::I8(y)) => quantize_i8(isa, inv_scale, clamp, x, y),
        (View::F32(x), ViewMut::I16(y)) => quantize_i16(isa, inv_scale, clamp, x, y),
        _ => return Err(KernelError::Types { op: "Quantize" }),
    }
    Ok(())
}

in_vectors_of_each_isa! {
    fn quantize_i8(inv_scale: f32, clamp: Clamp, x: &[f32], y: &mut [i8]) = quantize_any
}

in_vectors_of_each_isa! {
    fn quantize_i16(inv_scale: f32, clamp: Clamp, x: &[f32], y: &mut [i16]) = quantize_any
}

#[inline(always)]
fn quantize_any<O: Activation>(inv_scale: f32, clamp: Clamp, x: &[f32], y: &mut [O]) {
    let real = RealClamp::new(clamp);
    for (y, x) in y.iter_mut().zip(x) {
        let steps = x * inv_scale;
        *y = O::from_i32(real.apply(if steps.is_nan() { 0.0 } else { steps.into() }));
    }
}

/// `function` of every element.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn unary(_isa: Isa, function: Unary, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    let (x, y) = floats("FloatUnary", input, output)?;
    expect_len("output", y.len(), x.len())?;
    match function {
        Unary::Relu => apply(x, y, |x| if x > 0.0 { x } else { 0.0 }),
        Unary::Sigmoid => apply(x, y, |x| 1.0 / (1.0 + libm::expf(-x))),
        Unary::Tanh => apply(x, y, libm::tanhf),
        Unary::Exp => apply(x, y, libm::expf),
        Unary::Sqrt => apply(x, y, libm::sqrtf),
        Unary::Abs => apply(x, y, |x| f32::from_bits(x.to_bits() & 0x7fff_ffff)),
        Unary::HardSwish => apply(x, y, |x| x * clip(x / 6.0 + 0.5, 0.0, 1.0)),
        Unary::Erf => apply(x, y, libm::erff),
        Unary::Clip(low, high) => apply(x, y, |x| clip(x, low, high)),
    }
    Ok(())
}

/// `function` of every pair.
///
/// Shapes: `dims` of `a` and `b`: equal, or `b` `[1, 1, C]` or `[1, 1, 1]`; the output is shaped as `a`.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn binary(
    _isa: Isa,
    function: Binary,
    dims: [Dims; 2],
    a: View<'_>,
    b: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let broadcast = broadcast_of("FloatBinary", dims, [a.len(), b.len(), output.len()])?;
    let (a, out) = floats("FloatBinary", a, output)?;
    let View::F32(b) = b else { return Err(KernelError::Types { op: "FloatBinary" }) };
    match function {
        Binary::Add => for_each_pair(a, b, broadcast, out, |a, b| a + b),
        Binary::Sub => for_each_pair(a, b, broadcast, out, |a, b| a - b),
        Binary::Mul => for_each_pair(a, b, broadcast, out, |a, b| a * b),
        Binary::Div => for_each_pair(a, b, broadcast, out, |a, b| a / b),
    }
    Ok(())
}

/// f32 values that [`pack_weights`] writes.
pub fn packed_len(shape: &ConvShape) -> usize {
    if shape.is_depthwise() { shape.weights_len() } else { shape.groups.saturating_mul(group_len(shape)) }
}

/// Of one group: `[blocks, patch, CHANNELS]`, the last block padded with zeros.
fn group_len(shape: &ConvShape) -> usize {
    let channels = shape.output.c.checked_div(shape.groups).unwrap_or(0);
    channels.checked_next_multiple_of(CHANNELS).unwrap_or(usize::MAX).saturating_mul(shape.patch_len())
}

/// Lays weights out for [`conv`]: channels side by side.
///
/// Shapes: `weights` `[out_c, kernel_h, kernel_w, in_c / groups]`, `packed` [`packed_len`].
///
/// # Errors
/// [`KernelError`] if the shape is inconsistent or a length does not fit.
pub fn pack_weights(shape: &ConvShape, weights: &[f32], packed: &mut [f32]) -> Result<(), KernelError> {
    if !shape.is_consistent() {
        return Err(KernelError::Shapes { op: "FloatConv" });
    }
    expect_len("weights", weights.len(), shape.weights_len())?;
    expect_len("packed weights", packed.len(), packed_len(shape))?;
    packed.fill(0.0);
    let (patch_len, out_per_group) = (shape.patch_len(), shape.output.c / shape.groups);
    for (channel, row) in weights.chunks_exact(patch_len).enumerate() {
        let (group, within) = (channel / out_per_group, channel % out_per_group);
        let block = group * group_len(shape) + within / CHANNELS * CHANNELS * patch_len;
        for (i, weight) in row.iter().enumerate() {
            let at = if shape.is_depthwise() {
                i * shape.output.c + channel
            } else {
                block + i * CHANNELS + within % CHANNELS
            };
            packed[at] = *weight;
        }
    }
    Ok(())
}

/// Convolution: from the bias, `acc = acc + x * w` in the order kernel row, kernel column, input channel. Padding is
/// zeros that take part like any element.
///
/// Shapes: `packed` as [`pack_weights`] left it, `bias` `[out_c]`, input and output as `shape` says.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn conv(
    isa: Isa,
    shape: &ConvShape,
    packed: &[f32],
    bias: &[f32],
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let (x, y) = floats("FloatConv", input, output)?;
    if !shape.is_consistent() {
        return Err(KernelError::Shapes { op: "FloatConv" });
    }
    expect_len("input", x.len(), shape.input.len())?;
    expect_len("output", y.len(), shape.output.len())?;
    expect_len("packed weights", packed.len(), packed_len(shape))?;
    expect_len("bias", bias.len(), shape.output.c)?;
    if shape.is_depthwise() {
        depthwise(isa, shape, packed, bias, x, y);
    } else {
        dense(isa, shape, packed, bias, x, y);
    }
    Ok(())
}

in_vectors_of_each_isa! {
    fn dense(shape: &ConvShape, packed: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) = dense_any
}

in_vectors_of_each_isa! {
    fn depthwise(shape: &ConvShape, packed: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) = depthwise_any
}

/// A block of output channels at a time: each keeps its own order; side by side they fill vectors.
#[inline(always)]
fn dense_any(shape: &ConvShape, packed: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
    let (c, patch_len) = (shape.in_per_group(), shape.patch_len());
    let out_per_group = shape.output.c / shape.groups;
    for (pixel, out) in y.chunks_exact_mut(shape.output.c).enumerate() {
        for (group, weights) in packed.chunks_exact(group_len(shape)).enumerate() {
            for (block, weights) in weights.chunks_exact(CHANNELS * patch_len).enumerate() {
                let first = group * out_per_group + block * CHANNELS;
                let n = CHANNELS.min(out_per_group - block * CHANNELS);
                let mut acc = [0f32; CHANNELS];
                acc[..n].copy_from_slice(&bias[first..first + n]);
                let weights = weights.as_chunks::<CHANNELS>().0.chunks_exact(c);
                for ((_, source), weights) in taps(shape, pixel).zip(weights) {
                    acc = match source {
                        Some(at) => add_products(acc, &x[at * shape.input.c + group * c..][..c], weights),
                        None => weights.iter().fold(acc, |acc, weights| add_scaled(acc, 0.0, weights)),
                    };
                }
                out[first..first + n].copy_from_slice(&acc[..n]);
            }
        }
    }
}

#[inline(always)]
fn add_products(mut acc: [f32; CHANNELS], x: &[f32], weights: &[[f32; CHANNELS]]) -> [f32; CHANNELS] {
    for (x, weights) in x.iter().zip(weights) {
        acc = add_scaled(acc, *x, weights);
    }
    acc
}

/// `acc + x * weights`, two roundings each.
#[inline(always)]
fn add_scaled(acc: [f32; CHANNELS], x: f32, weights: &[f32; CHANNELS]) -> [f32; CHANNELS] {
    core::array::from_fn(|i| acc[i] + x * weights[i])
}

/// One output channel per input channel.
#[inline(always)]
fn depthwise_any(shape: &ConvShape, packed: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
    let c = shape.output.c;
    for (pixel, out) in y.chunks_exact_mut(c).enumerate() {
        out.copy_from_slice(bias);
        for ((_, source), weights) in taps(shape, pixel).zip(packed.chunks_exact(c)) {
            match source {
                Some(at) => {
                    let x = &x[at * c..][..c];
                    out.iter_mut().zip(x).zip(weights).for_each(|((acc, x), weight)| *acc += x * weight);
                }
                None => out.iter_mut().zip(weights).for_each(|(acc, weight)| *acc += 0.0 * weight),
            }
        }
    }
}

/// Softmax over channels, pixel by pixel: the maximum in order (the first of equals, NaN never taken unless it stands
/// first), `exp(x - max)` summed in order from 0, one division each.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn softmax(isa: Isa, dims: Dims, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    let (x, y) = floats("FloatSoftmax", input, output)?;
    expect_len("input", x.len(), dims.len())?;
    expect_len("output", y.len(), dims.len())?;
    softmax_rows(isa, dims.c.max(1), x, y);
    Ok(())
}

in_vectors_of_each_isa! {
    fn softmax_rows(c: usize, x: &[f32], y: &mut [f32]) = softmax_plain
}

#[inline(always)]
fn softmax_plain(c: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        exp_of_negative(x, largest(x), y);
        let sum = y.iter().fold(0.0, |sum, y| sum + y);
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

/// The largest value; NaN is never taken, unless it stands first.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let larger = |max: f32, x: f32| if x > max { x } else { max };
    let first = x.first().copied().unwrap_or(0.0);
    let mut lanes = [first; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (max, x) in lanes.iter_mut().zip(chunk) {
            *max = larger(*max, *x);
        }
    }
    lanes.iter().chain(rest).fold(first, |max, x| larger(max, *x))
}

/// `expf(x - max)`, none of which is above zero: the bits of [`libm::expf`], whose steps these are, without its branches.
///
/// Source: FreeBSD's e_expf.c, as libm has it.
#[inline(always)]
fn exp_of_negative(x: &[f32], max: f32, y: &mut [f32]) {
    const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200);
    const LN2_LOW: f32 = f32::from_bits(0x35bf_be8e);
    const INV_LN2: f32 = f32::from_bits(0x3fb8_aa3b);
    const P1: f32 = 1.666_662_5e-1;
    const P2: f32 = -2.766_733_3e-3;
    // Not a bool, of which compilers make branches.
    let mut n_other = 0u32;
    for (y, x) in y.iter_mut().zip(x) {
        let x = x - max;
        // Below, results are subnormal or zero.
        let is_usual = (-87.0..=0.0).contains(&x);
        let is_zero = x <= -104.0;
        n_other = n_other.wrapping_add(u32::from(!is_usual && !is_zero));
        let x = if is_usual { x } else { 0.0 };
        let magnitude = x.to_bits() & 0x7fff_ffff;
        // SAFETY: from -126 to 0.
        let steps: i32 = unsafe { (INV_LN2 * x - 0.5).to_int_unchecked() };
        let k = if magnitude > 0x3f85_1592 { steps } else { i32::from(magnitude > 0x3eb1_7218).wrapping_neg() };
        let (high, low) = (x - k as f32 * LN2_HIGH, k as f32 * LN2_LOW);
        let r = high - low;
        let rr = r * r;
        let c = r - rr * (P1 + rr * P2);
        let scaled = (1.0 + (r * c / (2.0 - c) - low + high)) * f32::from_bits((k.wrapping_add(127) << 23) as u32);
        let exp = if magnitude > 0x3900_0000 { scaled } else { 1.0 + x };
        *y = if is_zero { 0.0 } else { exp };
    }
    if n_other > 0 {
        for (y, x) in y.iter_mut().zip(x) {
            *y = libm::expf(x - max);
        }
    }
}

/// Mean over height and width: summed from 0 in row-major order, one division by `H * W` as f32.
/// `[H, W, C] -> [1, 1, C]`.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn mean(_isa: Isa, dims: Dims, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    let (x, y) = floats("FloatMean", input, output)?;
    expect_len("input", x.len(), dims.len())?;
    expect_len("output", y.len(), dims.c)?;
    y.fill(0.0);
    for pixel in x.chunks_exact(dims.c.max(1)) {
        y.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
    }
    let n = dims.n_pixels() as f32;
    y.iter_mut().for_each(|y| *y /= n);
    Ok(())
}

fn floats<'a, 'b>(
    op: &'static str,
    input: View<'a>,
    output: ViewMut<'b>,
) -> Result<(&'a [f32], &'b mut [f32]), KernelError> {
    match (input, output) {
        (View::F32(x), ViewMut::F32(y)) => Ok((x, y)),
        _ => Err(KernelError::Types { op }),
    }
}

#[inline(always)]
fn apply(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x));
}

/// Unlike `f32::clamp`, defined for crossed bounds.
#[inline(always)]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Window;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn unary_of(function: Unary, x: &[f32]) -> Vec<f32> {
        let mut y = vec![9.0; x.len()];
        unary(Isa::Scalar, function, View::F32(x), ViewMut::F32(&mut y)).unwrap();
        y
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn functions_have_golden_bits() {
        // Computed on x86-64; equal bits elsewhere are the point.
        let x = [-2.5f32, -0.0, 0.3, 1.0, 10.0];
        let digest = |function| unary_of(function, &x).iter().fold(0u32, |h, y| h.rotate_left(7) ^ y.to_bits());
        let functions = [Unary::Sigmoid, Unary::Tanh, Unary::Exp, Unary::Sqrt, Unary::HardSwish, Unary::Erf];
        // The square root of a negative number is a NaN without a defined payload.
        let positive = |function| unary_of(function, &x[1..]).iter().fold(0u32, |h, y| h.rotate_left(7) ^ y.to_bits());
        let found = functions.map(|f| if f == Unary::Sqrt { positive(f) } else { digest(f) });
        assert_eq!(found, [3801641829, 3433541014, 2173059303, 2377739550, 2465255232, 3486199648]);
    }

    #[test]
    fn simple_functions_are_what_they_say() {
        let x = [-7.0f32, -1.0, 0.0, 1.0, 7.0];
        assert_eq!(unary_of(Unary::Relu, &x), [0.0, 0.0, 0.0, 1.0, 7.0]);
        assert_eq!(unary_of(Unary::Relu, &[f32::NAN]), [0.0]);
        assert_eq!(unary_of(Unary::Abs, &x), [7.0, 1.0, 0.0, 1.0, 7.0]);
        assert_eq!(unary_of(Unary::Clip(-2.0, 3.0), &x), [-2.0, -1.0, 0.0, 1.0, 3.0]);
        assert_eq!(unary_of(Unary::HardSwish, &[-3.0, 0.0, 3.0, 6.0]), [0.0, 0.0, 3.0, 6.0]);
        assert_eq!(unary_of(Unary::Sigmoid, &[0.0, -200.0, 200.0]), [0.5, 0.0, 1.0]);
    }

    #[test]
    fn quantize_rounds_ties_to_even_and_ends_what_is_not_finite() {
        let x = [0.25f32, 0.75, -0.25, 1e30, -1e30, f32::NAN, f32::INFINITY];
        let mut y = [0i8; 7];
        let clamp = Clamp { zero_point: 3, low: -128, high: 120 };
        quantize(Isa::Scalar, 2.0, clamp, View::F32(&x), ViewMut::I8(&mut y)).unwrap();
        assert_eq!(y, [3, 5, 3, 120, -128, 3, 120]);
        let mut back = [0f32; 7];
        dequantize(Isa::Scalar, 0.5, 3, View::I8(&y), ViewMut::F32(&mut back)).unwrap();
        assert_eq!(back, [0.0, 1.0, 0.0, 58.5, -65.5, 0.0, 58.5]);
    }

    #[test]
    fn binary_meets_channels() {
        let mut out = [0f32; 4];
        let dims = [Dims { h: 1, w: 2, c: 2 }, Dims { h: 1, w: 1, c: 2 }];
        let run = |function, out: &mut [f32]| {
            binary(
                Isa::Scalar,
                function,
                dims,
                View::F32(&[1.0, 2.0, 3.0, 4.0]),
                View::F32(&[2.0, 4.0]),
                ViewMut::F32(out),
            )
        };
        run(Binary::Sub, &mut out).unwrap();
        assert_eq!(out, [-1.0, -2.0, 1.0, 0.0]);
        run(Binary::Div, &mut out).unwrap();
        assert_eq!(out, [0.5, 0.5, 1.5, 1.0]);
    }

    #[test]
    fn softmax_and_mean_work_per_pixel_and_per_channel() {
        let mut out = [0f32; 4];
        let dims = Dims { h: 2, w: 1, c: 2 };
        softmax(Isa::Scalar, dims, View::F32(&[5.0, 5.0, 1000.0, 0.0]), ViewMut::F32(&mut out)).unwrap();
        assert_eq!(out, [0.5, 0.5, 1.0, 0.0]);
        let mut means = [0f32; 2];
        mean(Isa::Scalar, dims, View::F32(&[1.0, 2.0, 4.0, 8.0]), ViewMut::F32(&mut means)).unwrap();
        assert_eq!(means, [2.5, 5.0]);
    }

    /// By the definition.
    fn plain_softmax(x: &[f32]) -> Vec<f32> {
        let max = x.iter().copied().reduce(|max, x| if x > max { x } else { max }).unwrap();
        let exps: Vec<f32> = x.iter().map(|x| libm::expf(x - max)).collect();
        let sum = exps.iter().fold(0.0, |sum, y| sum + y);
        exps.iter().map(|y| y / sum).collect()
    }

    #[test]
    fn exponentials_are_those_of_libm() {
        // Every 997th float below zero, and all around where the steps differ.
        let around = |bits: u32| (bits - 300..bits + 300).map(f32::from_bits);
        let edges = [0x3900_0000, 0x3eb1_7218, 0x3f85_1592, 0x42ae_0000, 0x42ae_ac50, 0x42cf_f1b5, 0x42d0_0000];
        let x: Vec<f32> =
            (0..0x7f80_0000).step_by(997).map(f32::from_bits).chain(edges.into_iter().flat_map(around)).collect();
        for chunk in x.chunks(1 << 12) {
            let x: Vec<f32> = chunk.iter().map(|x| -x).collect();
            let mut y = vec![7.0; x.len()];
            exp_of_negative(&x, 0.0, &mut y);
            assert_eq!(bits(&y), x.iter().map(|x| libm::expf(*x).to_bits()).collect::<Vec<_>>());
            // One by one, so that none hides behind a neighbour's slow way.
            for x in x.iter().step_by(7) {
                let mut y = [7.0];
                exp_of_negative(&[*x], 0.0, &mut y);
                assert_eq!(y[0].to_bits(), libm::expf(*x).to_bits(), "{x:e}");
            }
        }
    }

    proptest! {
        #[test]
        fn softmax_equals_the_definition(
            c in 1usize..70, rows in 1usize..20,
            values in prop::collection::vec(prop_oneof![
                -20f32..20.0, -200f32..5.0, any::<f32>(), Just(f32::NAN), Just(f32::NEG_INFINITY), Just(-0.0), Just(0.0)
            ], 70 * 20),
            usual in any::<bool>(),
        ) {
            let dims = Dims { h: 1, w: rows, c };
            let usual = |x: &f32| if usual { x.clamp(-40.0, 40.0) } else { *x };
            let x: Vec<f32> = values[..dims.len()].iter().map(usual).collect();
            let expected: Vec<f32> = x.chunks(c).flat_map(plain_softmax).collect();
            // A NaN has no defined payload.
            let bits = |y: &[f32]| y.iter().map(|y| if y.is_nan() { 0 } else { y.to_bits() }).collect::<Vec<_>>();
            for isa in Isa::available() {
                let mut y = vec![9.0; x.len()];
                softmax(isa, dims, View::F32(&x), ViewMut::F32(&mut y)).unwrap();
                prop_assert_eq!(bits(&y), bits(&expected), "{}", isa);
            }
        }

        #[test]
        fn conv_keeps_the_order_of_the_book(
            (h, w, c, o, groups) in (1usize..5, 1usize..5, 1usize..4, prop_oneof![1usize..4, 20usize..70], 1usize..4),
            kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3], pad in [0usize..3, 0usize..3],
            values in prop::collection::vec(-1e3f32..1e3, 64),
        ) {
            let (input, out_c) = (Dims { h, w, c: c * groups }, o * groups);
            let window = Window { kernel, stride, dilation: [1, 2], pad_before: pad, pad_after: [1, 1] };
            let Some([oh, ow]) = window.output(input) else { return Ok(()) };
            let shape = ConvShape { input, output: Dims { h: oh, w: ow, c: out_c }, window, groups };
            let fill = |n: usize, step: usize| (0..n).map(|i| values[i * step % 64] / (i + 1) as f32).collect::<Vec<_>>();
            let (x, weights, bias) = (fill(input.len(), 7), fill(shape.weights_len(), 11), fill(out_c, 13));
            let mut packed = vec![7f32; packed_len(&shape)];
            pack_weights(&shape, &weights, &mut packed).unwrap();
            let mut expected = vec![];
            for (oy, ox, oc) in (0..oh).flat_map(|y| (0..ow).flat_map(move |x| (0..out_c).map(move |c| (y, x, c)))) {
                let mut acc = bias[oc];
                for (ky, kx, ci) in
                    (0..kernel[0]).flat_map(|y| (0..kernel[1]).flat_map(move |x| (0..c).map(move |c| (y, x, c))))
                {
                    let y = (oy * stride[0] + ky) as i64 - pad[0] as i64;
                    let xx = (ox * stride[1] + kx * 2) as i64 - pad[1] as i64;
                    let inside = y >= 0 && xx >= 0 && y < h as i64 && xx < w as i64;
                    let at = (y * w as i64 + xx) * (c * groups) as i64 + (oc / o * c + ci) as i64;
                    let value = if inside { x[at as usize] } else { 0.0 };
                    acc += value * weights[((oc * kernel[0] + ky) * kernel[1] + kx) * c + ci];
                }
                expected.push(acc);
            }
            for isa in Isa::available() {
                let mut out = vec![0f32; shape.output.len()];
                conv(isa, &shape, &packed, &bias, View::F32(&x), ViewMut::F32(&mut out)).unwrap();
                prop_assert_eq!(bits(&out), bits(&expected), "{}", isa);
            }
        }
    }
}
