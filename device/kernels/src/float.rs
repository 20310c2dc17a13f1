//! Exact float ops: f32 in a fixed order, no fused multiply-add, `libm` for what the CPU does not round itself. For
//! layers that int8 would hurt; the same bits on every CPU.
//!
//! Every operation is one IEEE 754 binary32 operation, rounded to nearest, in the order written here. NaN may carry any
//! payload: which one is not defined, and [`quantize`] ends it as real zero.

use crate::conv::ConvShape;
use crate::requantize::Clamp;
use crate::view::{Activation, Dims, View, ViewMut, broadcast_of, for_each_pair};
use crate::{Isa, KernelError, expect_len};

/// Output channels that are summed side by side.
const CHANNELS: usize = 16;

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
    // `as` saturates and turns NaN into 0.
    let steps = |x: f32| clamp.apply((libm::rintf(x * inv_scale) as i32).into());
    match (isa, input, output) {
        (_, View::F32(x), ViewMut::I8(y)) => {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = i8::from_i32(steps(*x)));
        }
        (_, View::F32(x), ViewMut::I16(y)) => {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = i16::from_i32(steps(*x)));
        }
        _ => return Err(KernelError::Types { op: "Quantize" }),
    }
    Ok(())
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

/// Convolution: from the bias, `acc = acc + x * w` in the order kernel row, kernel column, input channel. Padding is
/// zeros that take part like any element.
///
/// Shapes: `weights` `[out_c, kernel_h, kernel_w, in_c / groups]`, `bias` `[out_c]`, input and output as `shape` says.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn conv(
    _isa: Isa,
    shape: &ConvShape,
    weights: &[f32],
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
    expect_len("weights", weights.len(), shape.weights_len())?;
    expect_len("bias", bias.len(), shape.output.c)?;
    let out_per_group = shape.output.c / shape.groups;
    for (pixel, out) in y.chunks_exact_mut(shape.output.c).enumerate() {
        for (group, out) in out.chunks_exact_mut(out_per_group).enumerate() {
            for (block, out) in out.chunks_mut(CHANNELS).enumerate() {
                let first = group * out_per_group + block * CHANNELS;
                conv_block(shape, weights, bias, x, [pixel, group, first], out);
            }
        }
    }
    Ok(())
}

/// A few output channels of one group at one output pixel. Each keeps its own order; side by side they hide latency.
fn conv_block(
    shape: &ConvShape,
    weights: &[f32],
    bias: &[f32],
    x: &[f32],
    [pixel, group, first]: [usize; 3],
    out: &mut [f32],
) {
    let c = shape.input.c / shape.groups;
    let patch_len = shape.window.n_taps() * c;
    let (oy, ox) = (pixel / shape.output.w, pixel % shape.output.w);
    let mut acc = [0f32; CHANNELS];
    acc[..out.len()].copy_from_slice(&bias[first..first + out.len()]);
    for ky in 0..shape.window.kernel[0] {
        let iy = shape.window.source(0, oy, ky, shape.input.h);
        for kx in 0..shape.window.kernel[1] {
            let ix = shape.window.source(1, ox, kx, shape.input.w);
            let source = iy.zip(ix).map(|(y, x)| (y * shape.input.w + x) * shape.input.c + group * c);
            let tap = (ky * shape.window.kernel[1] + kx) * c;
            for ci in 0..c {
                let value = source.map_or(0.0, |at| x[at + ci]);
                for (i, acc) in acc[..out.len()].iter_mut().enumerate() {
                    *acc += value * weights[(first + i) * patch_len + tap + ci];
                }
            }
        }
    }
    out.copy_from_slice(&acc[..out.len()]);
}

/// Softmax over channels, pixel by pixel: the maximum in order (the first of equals, NaN never taken unless it stands
/// first), `exp(x - max)` summed in order from 0, one division each.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn softmax(_isa: Isa, dims: Dims, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    let (x, y) = floats("FloatSoftmax", input, output)?;
    expect_len("input", x.len(), dims.len())?;
    expect_len("output", y.len(), dims.len())?;
    let c = dims.c.max(1);
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        let max = x.iter().copied().reduce(|max, x| if x > max { x } else { max }).unwrap_or(0.0);
        let mut sum = 0.0;
        for (y, x) in y.iter_mut().zip(x) {
            *y = libm::expf(x - max);
            sum += *y;
        }
        y.iter_mut().for_each(|y| *y /= sum);
    }
    Ok(())
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

    proptest! {
        #[test]
        fn conv_keeps_the_order_of_the_book(
            (h, w, c, o, groups) in (1usize..5, 1usize..5, 1usize..4, 1usize..20, 1usize..4),
            kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3], pad in [0usize..3, 0usize..3],
            values in prop::collection::vec(-1e3f32..1e3, 64),
        ) {
            let (input, out_c) = (Dims { h, w, c: c * groups }, o * groups);
            let window = Window { kernel, stride, dilation: [1, 2], pad_before: pad, pad_after: [1, 1] };
            let Some([oh, ow]) = window.output(input) else { return Ok(()) };
            let shape = ConvShape { input, output: Dims { h: oh, w: ow, c: out_c }, window, groups };
            let fill = |n: usize, step: usize| (0..n).map(|i| values[i * step % 64] / (i + 1) as f32).collect::<Vec<_>>();
            let (x, weights, bias) = (fill(input.len(), 7), fill(shape.weights_len(), 11), fill(out_c, 13));
            let mut out = vec![0f32; shape.output.len()];
            conv(Isa::Scalar, &shape, &weights, &bias, View::F32(&x), ViewMut::F32(&mut out)).unwrap();
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
            prop_assert_eq!(bits(&out), bits(&expected));
        }
    }
}
