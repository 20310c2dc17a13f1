//! Integer convolution: regular, grouped, depthwise; a fully connected layer is a 1x1 convolution.
//!
//! `acc = bias + sum((x - zero_point_in) * w)` in wrapping i32, then [`requantize`](crate::requantize::requantize()); padding inserts
//! `zero_point_in`, that is, adds nothing.
//!
//! Three loops, which weights are laid out for once ([`ConvShape::pack_weights`]):
//! - depthwise: a block of channels held in accumulators while the window's elements go by;
//! - dense, i8 input, or i16 with a zero point of 0 (`dense.rs`);
//! - dense, any other: centred values take 17 bits, so each window element is multiplied in i32.

use core::ops::Range;

use crate::dense::{Baseline, PIXELS, Products, dense, group_len, row_len, weight_at, with_products_of_each_isa};
use crate::requantize::{Requantize, requantize, requantize_row};
use crate::view::{Activation, Dims, View, ViewMut, Window};
use crate::{Isa, KernelError, expect_len, scratch_of};

/// Channels of one depthwise block: their sums stay in the first cache.
const CHANNELS: usize = 256;

/// Shapes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Of the input.
    pub input: Dims,
    /// Of the output.
    pub output: Dims,
    /// Window.
    pub window: Window,
    /// Groups; equal to input channels for depthwise.
    pub groups: usize,
}

/// Values of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvParams<'a> {
    /// As [`ConvShape::pack_weights`] left them.
    pub packed: &'a [i16],
    /// `[out_c]`.
    pub bias: &'a [i32],
    /// Of the input; within the input's type.
    pub zero_point_in: i32,
    /// To the output.
    pub requantize: Requantize<'a>,
}

impl ConvShape {
    /// True if window, groups and channels give exactly `output`, and no size is zero.
    pub fn is_consistent(&self) -> bool {
        let groups_divide =
            self.groups > 0 && self.input.c.is_multiple_of(self.groups) && self.output.c.is_multiple_of(self.groups);
        groups_divide
            && !self.input.is_empty()
            && !self.output.is_empty()
            && self.window.output(self.input) == Some([self.output.h, self.output.w])
    }

    /// Multiply-accumulates, padding included.
    pub fn n_macs(&self) -> u64 {
        (self.output.len() as u64).saturating_mul(self.patch_len() as u64)
    }

    /// i8 weights as the bundle holds them: `[out_c, kernel_h, kernel_w, in_c / groups]`.
    pub fn weights_len(&self) -> usize {
        self.output.c.saturating_mul(self.patch_len())
    }

    /// i16 values that [`ConvShape::pack_weights`] writes.
    pub fn packed_len(&self) -> usize {
        if self.is_depthwise() { self.weights_len() } else { self.groups.saturating_mul(group_len(self)) }
    }

    /// i16 values of scratch that [`conv`] needs.
    pub fn scratch_len(&self) -> usize {
        if self.is_depthwise() { 0 } else { row_len(self).saturating_mul(PIXELS) }
    }

    /// The same convolution with all pixels in one column where it is 1x1 without stride and padding: it knows no rows.
    pub fn flat(&self) -> ConvShape {
        let Window { kernel, stride, pad_before, pad_after, .. } = self.window;
        if [kernel, stride] != [[1, 1]; 2] || [pad_before, pad_after] != [[0, 0]; 2] {
            return *self;
        }
        let column = |dims: Dims| Dims { h: dims.n_pixels(), w: 1, c: dims.c };
        ConvShape { input: column(self.input), output: column(self.output), ..*self }
    }

    /// The convolution that gives these output rows alone, and the input rows that it reads: output row 0 of it is row
    /// `rows.start` of this one. `None` if there is no row, or they lie wholly in the padding.
    pub fn rows(&self, rows: Range<usize>) -> Option<(ConvShape, Range<usize>)> {
        let window = &self.window;
        if rows.is_empty() || rows.end > self.output.h {
            return None;
        }
        // In rows of the padded input.
        let start = rows.start.checked_mul(window.stride[0])?;
        let reach = window.kernel[0].checked_sub(1)?.checked_mul(window.dilation[0])?.checked_add(1)?;
        let end = (rows.end - 1).checked_mul(window.stride[0])?.checked_add(reach)?;
        let pad = window.pad_before[0];
        let source = start.saturating_sub(pad)..end.saturating_sub(pad).min(self.input.h);
        let part = ConvShape {
            input: Dims { h: source.len(), ..self.input },
            output: Dims { h: rows.len(), ..self.output },
            window: Window {
                pad_before: [pad.saturating_sub(start), window.pad_before[1]],
                pad_after: [end.saturating_sub(pad + self.input.h), window.pad_after[1]],
                ..*window
            },
            groups: self.groups,
        };
        part.is_consistent().then_some((part, source))
    }

    /// Lays weights out for [`conv`] with the same `isa`.
    ///
    /// Shapes: `weights` `[out_c, kernel_h, kernel_w, in_c / groups]`.
    ///
    /// # Errors
    /// [`KernelError`] if the shape is inconsistent or a length is not [`ConvShape::weights_len`] or
    /// [`ConvShape::packed_len`].
    pub fn pack_weights(&self, isa: Isa, weights: &[i8], packed: &mut [i16]) -> Result<(), KernelError> {
        self.check()?;
        expect_len("weights", weights.len(), self.weights_len())?;
        expect_len("packed weights", packed.len(), self.packed_len())?;
        packed.fill(0);
        let (depthwise, pairs) = (self.is_depthwise(), has_pairs(isa));
        let out_per_group = self.output.c / self.groups;
        for (channel, row) in weights.chunks_exact(self.patch_len()).enumerate() {
            for (i, weight) in row.iter().enumerate() {
                let at = if depthwise {
                    i * self.output.c + channel
                } else {
                    weight_at(self, pairs, channel / out_per_group, channel % out_per_group, i)
                };
                packed[at] = (*weight).into();
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.is_consistent() { Ok(()) } else { Err(KernelError::Shapes { op: "Conv" }) }
    }

    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.input.c && self.groups == self.output.c
    }

    pub(crate) fn in_per_group(&self) -> usize {
        self.input.c.checked_div(self.groups).unwrap_or(0)
    }

    pub(crate) fn patch_len(&self) -> usize {
        self.window.n_taps().saturating_mul(self.in_per_group())
    }
}

/// Whether the dense loop of `isa` reads weights in pairs.
fn has_pairs(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => crate::dense::x86::Avx2::PAIRS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => crate::dense::x86::Avx512::PAIRS,
        _ => Baseline::PAIRS,
    }
}

/// Runs one convolution.
///
/// Shapes: `input` and `output` as `shape` says, each i8 or i16; `scratch` at least [`ConvShape::scratch_len`].
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn conv(
    isa: Isa,
    shape: &ConvShape,
    params: &ConvParams<'_>,
    input: View<'_>,
    scratch: &mut [i16],
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    shape.check()?;
    expect_len("input", input.len(), shape.input.len())?;
    expect_len("output", output.len(), shape.output.len())?;
    expect_len("packed weights", params.packed.len(), shape.packed_len())?;
    expect_len("bias", params.bias.len(), shape.output.c)?;
    expect_len("multipliers", params.requantize.multipliers.len(), shape.output.c)?;
    let scratch = scratch_of(scratch, shape.scratch_len())?;
    dispatch(isa, shape, params, input, scratch, output)
}

with_products_of_each_isa! {
    fn dispatch(
        shape: &ConvShape,
        params: &ConvParams<'_>,
        input: View<'_>,
        scratch: &mut [i16],
        output: ViewMut<'_>
    ) -> Result<(), KernelError> = run
}

/// # Safety
/// The CPU has the instructions of `P`.
#[inline(always)]
unsafe fn run<P: Products>(
    shape: &ConvShape,
    params: &ConvParams<'_>,
    input: View<'_>,
    scratch: &mut [i16],
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    macro_rules! of_each_type {
        ($x:ident, $y:ident => $run:expr) => {
            match (input, output) {
                (View::I8($x), ViewMut::I8($y)) => $run,
                (View::I8($x), ViewMut::I16($y)) => $run,
                (View::I16($x), ViewMut::I8($y)) => $run,
                (View::I16($x), ViewMut::I16($y)) => $run,
                _ => return Err(KernelError::Types { op: "Conv" }),
            }
        };
    }
    let fits_i16 = matches!(input, View::I8(_)) || params.zero_point_in == 0;
    if shape.is_depthwise() {
        of_each_type!(x, y => depthwise(shape, params, x, y));
    } else if !fits_i16 {
        of_each_type!(x, y => dense_wide(shape, params, P::PAIRS, x, y));
    } else {
        // SAFETY: the caller vouches for the CPU.
        of_each_type!(x, y => unsafe { dense::<P, _, _>(shape, params, x, scratch, y) });
    }
    Ok(())
}

/// One output channel per input channel.
#[inline(always)]
fn depthwise<I: Activation, O: Activation>(shape: &ConvShape, params: &ConvParams<'_>, input: &[I], output: &mut [O]) {
    let (c, window) = (shape.output.c, &shape.window);
    let mut sums = [0i32; CHANNELS];
    for (pixel, out) in output.chunks_exact_mut(c).enumerate() {
        let under = Under::of(shape, pixel);
        for first in (0..c).step_by(CHANNELS) {
            let n = CHANNELS.min(c - first);
            let sums = &mut sums[..n];
            sums.copy_from_slice(&params.bias[first..][..n]);
            for ky in 0..under.n[0] {
                let tap = (under.tap[0] + ky) * window.kernel[1] + under.tap[1];
                let at = (under.source[0] + ky * window.dilation[0]) * shape.input.w + under.source[1];
                for kx in 0..under.n[1] {
                    let x = &input[(at + kx * window.dilation[1]) * c + first..][..n];
                    let w = &params.packed[(tap + kx) * c + first..][..n];
                    for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
                        *sum = sum.wrapping_add(I::product(x.centred(params.zero_point_in), *w));
                    }
                }
            }
            let multipliers = &params.requantize.multipliers[first..][..n];
            requantize_row(sums, multipliers, params.requantize.clamp, &mut out[first..][..n]);
        }
    }
}

/// What of the window at one output pixel lies in the picture, along each axis.
#[derive(Clone, Copy)]
pub(crate) struct Under {
    /// First element of the kernel.
    pub tap: [usize; 2],
    /// Its place in the picture.
    pub source: [usize; 2],
    /// Elements.
    pub n: [usize; 2],
}

impl Under {
    #[inline(always)]
    pub(crate) fn of(shape: &ConvShape, pixel: usize) -> Under {
        let (window, at) = (&shape.window, [pixel / shape.output.w, pixel % shape.output.w]);
        let along = |axis: usize, size: usize| {
            let (source, n) = window.inside(axis, at[axis], size);
            // So many steps from the window's start.
            let padded = source + window.pad_before[axis];
            let tap = padded.saturating_sub(at[axis] * window.stride[axis]) / window.dilation[axis].max(1);
            (if n == 0 { 0 } else { tap }, source, n)
        };
        let [(ty, sy, ny), (tx, sx, nx)] = [along(0, shape.input.h), along(1, shape.input.w)];
        Under { tap: [ty, tx], source: [sy, sx], n: [ny, nx] }
    }
}

/// Window elements of one output pixel: index and, unless in the padding, the input pixel.
#[inline(always)]
pub(crate) fn taps(shape: &ConvShape, pixel: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
    let (window, input) = (shape.window, shape.input);
    let (oy, ox) = (pixel / shape.output.w, pixel % shape.output.w);
    (0..window.kernel[0]).flat_map(move |ky| {
        let y = window.source(0, oy, ky, input.h);
        (0..window.kernel[1]).map(move |kx| {
            let x = window.source(1, ox, kx, input.w);
            (ky * window.kernel[1] + kx, y.zip(x).map(|(y, x)| y * input.w + x))
        })
    })
}

/// Any grouping, any input: one product after the other.
#[inline(always)]
fn dense_wide<I: Activation, O: Activation>(
    shape: &ConvShape,
    params: &ConvParams<'_>,
    pairs: bool,
    input: &[I],
    output: &mut [O],
) {
    let c = shape.in_per_group();
    let out_per_group = shape.output.c / shape.groups;
    let Requantize { multipliers, clamp } = params.requantize;
    for (pixel, out) in output.chunks_exact_mut(shape.output.c).enumerate() {
        for (oc, out) in out.iter_mut().enumerate() {
            let group = oc / out_per_group;
            let mut acc = params.bias[oc];
            for (tap, at) in taps(shape, pixel) {
                let Some(at) = at else { continue };
                let x = &input[at * shape.input.c + group * c..][..c];
                for (i, x) in x.iter().enumerate() {
                    let weight = params.packed[weight_at(shape, pairs, group, oc % out_per_group, tap * c + i)];
                    acc = acc.wrapping_add(I::product(x.centred(params.zero_point_in), weight));
                }
            }
            *out = O::from_i32(requantize(acc, multipliers[oc], clamp));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requantize::Clamp;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// One convolution with everything it needs, drawn at random.
    #[derive(Clone, Debug)]
    struct Case {
        shape: ConvShape,
        weights: Vec<i8>,
        bias: Vec<i32>,
        multipliers: Vec<i32>,
        clamp: Clamp,
    }

    fn case() -> impl Strategy<Value = Case> {
        let sizes = (1usize..9, 1usize..9, prop_oneof![1usize..4, 30usize..37], 1usize..7, 1usize..4, any::<bool>());
        let pair = |range: std::ops::Range<usize>| [range.clone(), range];
        let window = (pair(1..5), pair(1..4), pair(1..3), pair(0..4), pair(0..4));
        (sizes, window, any::<u64>(), any::<bool>()).prop_map(
            |((h, w, c, o, groups, depthwise), window, seed, extreme)| {
                let (kernel, stride, dilation, pad_before, mut pad_after) = window;
                for axis in 0..2 {
                    // Enough padding that the kernel fits.
                    let reach = (kernel[axis] - 1) * dilation[axis] + 1;
                    let size = [h, w][axis] + pad_before[axis] + pad_after[axis];
                    pad_after[axis] += reach.saturating_sub(size);
                }
                let (groups, in_c, out_c) = if depthwise { (c, c, c) } else { (groups, c * groups, o * groups) };
                let window = Window { kernel, stride, dilation, pad_before, pad_after };
                let input = Dims { h, w, c: in_c };
                let [oh, ow] = window.output(input).unwrap();
                let shape = ConvShape { input, output: Dims { h: oh, w: ow, c: out_c }, window, groups };
                let mut random = bytes(seed);
                let mut weight = || {
                    let byte = random.next().unwrap();
                    // Weights of -128 are outside the format, but inside the definition.
                    if extreme { [127, -128, -127][usize::from(byte as u8 % 3)] } else { byte }
                };
                let weights = (0..shape.weights_len()).map(|_| weight()).collect();
                let mut random = bytes(!seed).map(|b| i32::from(b as u8));
                let mut draw = || random.next().unwrap();
                let bias = (0..out_c).map(|_| (draw() - 128) * if extreme { 1 << 20 } else { 100 }).collect();
                let multipliers = (0..out_c).map(|_| 1 + draw() * if extreme { 32_000 } else { 20 }).collect();
                let clamp = Clamp { zero_point: draw() - 128, low: -120, high: 127 };
                Case { shape, weights, bias, multipliers, clamp }
            },
        )
    }

    fn bytes(seed: u64) -> impl Iterator<Item = i8> {
        let mut state = seed;
        core::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8 as i8
        })
    }

    /// By the definition: seven loops, signed coordinates.
    fn naive(case: &Case, x: &[i32], zero_point_in: i32) -> Vec<i32> {
        let ConvShape { input, output, window, groups } = case.shape;
        let (in_per_group, out_per_group) = (input.c / groups, output.c / groups);
        let mut out = vec![];
        for (oy, ox, oc) in coordinates(output) {
            let mut acc = case.bias[oc];
            for (ky, kx, ci) in coordinates(Dims { h: window.kernel[0], w: window.kernel[1], c: in_per_group }) {
                let y = (oy * window.stride[0] + ky * window.dilation[0]) as i64 - window.pad_before[0] as i64;
                let xx = (ox * window.stride[1] + kx * window.dilation[1]) as i64 - window.pad_before[1] as i64;
                let inside = y >= 0 && xx >= 0 && y < input.h as i64 && xx < input.w as i64;
                let channel = oc / out_per_group * in_per_group + ci;
                let value =
                    if inside { x[(y as usize * input.w + xx as usize) * input.c + channel] } else { zero_point_in };
                let weight = case.weights[((oc * window.kernel[0] + ky) * window.kernel[1] + kx) * in_per_group + ci];
                acc = acc.wrapping_add((value - zero_point_in).wrapping_mul(weight.into()));
            }
            out.push(requantize(acc, case.multipliers[oc], case.clamp));
        }
        out
    }

    fn coordinates(dims: Dims) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..dims.len()).map(move |i| (i / dims.c / dims.w, i / dims.c % dims.w, i % dims.c))
    }

    /// On every set of instructions; all must agree.
    fn run(case: &Case, zero_point_in: i32, input: View<'_>, mut output: ViewMut<'_>) {
        let mut first: Option<Vec<i32>> = None;
        for isa in Isa::available() {
            run_on(isa, case, zero_point_in, input, output.reborrow());
            let values: Vec<i32> = match &output {
                ViewMut::I8(y) => y.iter().map(|q| (*q).into()).collect(),
                ViewMut::I16(y) => y.iter().map(|q| (*q).into()).collect(),
                _ => vec![],
            };
            assert_eq!(first.get_or_insert_with(|| values.clone()), &values, "{isa:?}");
        }
    }

    fn run_on(isa: Isa, case: &Case, zero_point_in: i32, input: View<'_>, output: ViewMut<'_>) {
        let mut packed = vec![77; case.shape.packed_len()];
        case.shape.pack_weights(isa, &case.weights, &mut packed).unwrap();
        // Scratch of an earlier layer may hold anything.
        let mut scratch = vec![-9; case.shape.scratch_len() + 3];
        let requantize = Requantize { multipliers: &case.multipliers, clamp: case.clamp };
        let params = ConvParams { packed: &packed, bias: &case.bias, zero_point_in, requantize };
        conv(isa, &case.shape, &params, input, &mut scratch, output).unwrap();
    }

    proptest! {
        #[test]
        fn equals_the_definition_in_every_type(case in case(), seed in any::<u64>(), zero_point_in in any::<i8>()) {
            let x: Vec<i8> = bytes(seed).take(case.shape.input.len()).collect();
            let wide: Vec<i32> = x.iter().map(|x| i32::from(*x)).collect();
            let expected = naive(&case, &wide, zero_point_in.into());
            let mut out = vec![0i8; expected.len()];
            run(&case, zero_point_in.into(), View::I8(&x), ViewMut::I8(&mut out));
            prop_assert_eq!(out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), expected);

            let case = Case { clamp: Clamp { zero_point: -300, low: -32_000, high: 32_767 }, ..case };
            let expected = naive(&case, &wide, zero_point_in.into());
            let mut out = vec![0i16; expected.len()];
            run(&case, zero_point_in.into(), View::I8(&x), ViewMut::I16(&mut out));
            prop_assert_eq!(out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn equals_the_definition_from_sixteen_bits(case in case(), seed in any::<u64>(), zero_point_in in any::<i16>()) {
            let x: Vec<i16> = bytes(seed).map(|b| i16::from(b) * 256).take(case.shape.input.len()).collect();
            let wide: Vec<i32> = x.iter().map(|x| i32::from(*x)).collect();
            let expected = naive(&case, &wide, zero_point_in.into());
            let mut out = vec![0i8; expected.len()];
            run(&case, zero_point_in.into(), View::I16(&x), ViewMut::I8(&mut out));
            prop_assert_eq!(out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), expected);

            let expected = naive(&case, &wide, 0);
            run(&case, 0, View::I16(&x), ViewMut::I8(&mut out));
            prop_assert_eq!(out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn saturated_input_equals_the_definition(case in case(), low in any::<bool>(), zero_point_in in any::<i8>()) {
            let x = vec![if low { i8::MIN } else { i8::MAX }; case.shape.input.len()];
            let wide: Vec<i32> = x.iter().map(|x| i32::from(*x)).collect();
            let mut out = vec![0i8; case.shape.output.len()];
            run(&case, zero_point_in.into(), View::I8(&x), ViewMut::I8(&mut out));
            let expected = naive(&case, &wide, zero_point_in.into());
            prop_assert_eq!(out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let dims = Dims { h: 2, w: 2, c: 3 };
        let window = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad_before: [0; 2], pad_after: [0; 2] };
        let shape = ConvShape { input: dims, output: Dims { c: 2, ..dims }, window, groups: 1 };
        let mut packed = vec![0; shape.packed_len()];
        shape.pack_weights(Isa::Scalar, &[1; 6], &mut packed).unwrap();
        let clamp = Clamp { zero_point: 0, low: -128, high: 127 };
        let requantize = Requantize { multipliers: &[1, 1], clamp };
        let params = ConvParams { packed: &packed, bias: &[0, 0], zero_point_in: 0, requantize };
        let run = |shape: &ConvShape, input: View<'_>, scratch: usize| {
            conv(Isa::Scalar, shape, &params, input, &mut vec![0; scratch], ViewMut::I8(&mut [0; 8]))
        };
        assert_eq!(run(&shape, View::I8(&[0; 12]), 16), Ok(()));
        assert_eq!(run(&shape, View::F32(&[0.0; 12]), 16), Err(KernelError::Types { op: "Conv" }));
        let short = KernelError::Length { what: "scratch", found: 15, expected: 16 };
        assert_eq!(run(&shape, View::I8(&[0; 12]), 15), Err(short));
        assert!(matches!(run(&shape, View::I8(&[0; 11]), 16), Err(KernelError::Length { what: "input", .. })));
        for broken in [
            ConvShape { groups: 0, ..shape },
            ConvShape { groups: 2, ..shape },
            ConvShape { output: Dims { h: 1, w: 2, c: 2 }, ..shape },
            ConvShape { input: Dims { h: usize::MAX, w: 2, c: 3 }, ..shape },
        ] {
            assert_eq!(run(&broken, View::I8(&[0; 12]), 16), Err(KernelError::Shapes { op: "Conv" }));
            assert!(broken.pack_weights(Isa::Scalar, &[1; 6], &mut []).is_err());
        }
    }
}
