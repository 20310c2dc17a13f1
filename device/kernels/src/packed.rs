//! Layers of i8 activations as the vector twins want them: values laid out once, at load.
//!
//! Twins come layer by layer: [`has_twin`] says whether there is one, and where there is none the plain
//! [`conv`](mod@crate::conv) runs. What a twin packs is its own affair; here it is so many lines of memory.

use crate::conv::ConvShape;
use crate::requantize::{Clamp, MULTIPLIER_BITS, Requantize};
use crate::{Isa, KernelError, expect_len, scratch_of};

#[cfg(any(target_arch = "aarch64", all(target_arch = "arm", target_os = "linux")))]
use crate::arm as twin;
#[cfg(target_arch = "x86_64")]
use crate::x86 as twin;

/// Unit and alignment of packed layers and of their scratch: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

impl Line {
    /// Zeros.
    pub const ZERO: Line = Line([0; 64]);

    /// The bytes of lines, signed.
    pub fn values(lines: &[Line]) -> &[i8] {
        // SAFETY: lines are plain bytes without gaps, and any byte is an i8.
        unsafe { core::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }

    /// The bytes of lines, signed.
    pub fn values_mut(lines: &mut [Line]) -> &mut [i8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
    }
}

/// Values of one layer, as the bundle holds them.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `[out_c, kernel_h, kernel_w, in_c / groups]`.
    pub weights: &'a [i8],
    /// `[out_c]`, of each output channel's weights.
    pub sums: &'a [RowSums],
    /// `[out_c]`.
    pub bias: &'a [i32],
    /// Of the input, in -128..=127.
    pub zero_point_in: i32,
    /// To the output.
    pub requantize: Requantize<'a>,
}

/// No instructions but the plain ones.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", all(target_arch = "arm", target_os = "linux"))))]
mod twin {
    use super::*;

    pub fn has_twin(_: Isa, _: &ConvShape) -> bool {
        false
    }

    pub fn packed_lines(_: Isa, _: &ConvShape) -> usize {
        0
    }

    pub fn scratch_lines(_: Isa, _: &ConvShape) -> usize {
        0
    }

    pub fn pack(_: Isa, _: &ConvShape, _: &Layer<'_>, _: &mut [Line]) {}

    pub fn conv(_: Isa, _: &PackedConv<'_>, _: &mut [Line], _: &mut [i8]) {}
}

/// True if `isa` has a twin for a layer of this shape with i8 input and output.
pub fn has_twin(isa: Isa, shape: &ConvShape) -> bool {
    shape.is_consistent() && twin::has_twin(isa, shape)
}

/// Lines that [`pack`] writes. Their content does not depend on the heights of the shape: a packed layer runs on any
/// [`ConvShape::rows`] of it.
pub fn packed_lines(isa: Isa, shape: &ConvShape) -> usize {
    twin::packed_lines(isa, shape)
}

/// Lines of scratch that [`conv`] needs.
pub fn scratch_lines(isa: Isa, shape: &ConvShape) -> usize {
    twin::scratch_lines(isa, shape)
}

fn check(isa: Isa, shape: &ConvShape) -> Result<(), KernelError> {
    if has_twin(isa, shape) { Ok(()) } else { Err(KernelError::Shapes { op: "Conv" }) }
}

/// Lays a layer out for [`conv`]. The CPU must have the instructions of `isa`.
///
/// # Errors
/// [`KernelError`] if there is no twin or a length does not fit.
pub fn pack(isa: Isa, shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) -> Result<(), KernelError> {
    check(isa, shape)?;
    expect_len("weights", layer.weights.len(), shape.weights_len())?;
    expect_len("sums", layer.sums.len(), shape.output.c)?;
    expect_len("bias", layer.bias.len(), shape.output.c)?;
    expect_len("multipliers", layer.requantize.multipliers.len(), shape.output.c)?;
    expect_len("packed layer", packed.len(), packed_lines(isa, shape))?;
    twin::pack(isa, shape, layer, packed);
    Ok(())
}

/// A packed layer and what it runs on.
#[derive(Clone, Copy, Debug)]
pub struct PackedConv<'a> {
    /// The shape it was packed with, or rows of it.
    pub shape: &'a ConvShape,
    /// What [`pack`] wrote.
    pub packed: &'a [Line],
    /// As it was packed.
    pub zero_point_in: i32,
    /// As it was packed.
    pub clamp: Clamp,
    /// `[H, W, C]`.
    pub input: &'a [i8],
}

/// Runs a packed layer: the bits of [`conv`](crate::conv::conv()).
///
/// Shapes: input and `output` as the layer's shape says; `scratch` at least [`scratch_lines`]. The CPU must have the
/// instructions of `isa`.
///
/// # Errors
/// [`KernelError`] if there is no twin or a length does not fit.
pub fn conv(isa: Isa, layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) -> Result<(), KernelError> {
    let shape = layer.shape;
    check(isa, shape)?;
    expect_len("input", layer.input.len(), shape.input.len())?;
    expect_len("output", output.len(), shape.output.len())?;
    expect_len("packed layer", layer.packed.len(), packed_lines(isa, shape))?;
    twin::conv(isa, layer, scratch_of(scratch, scratch_lines(isa, shape))?, output);
    Ok(())
}

/// How accumulators may be requantized, all exactly as [`requantize`](mod@crate::requantize) defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Form {
    /// One f32 multiply-add: `|acc| < 2^22`, and a result below that as well.
    Single,
    /// The same after bringing the sum into `-SATURATED_REACH..=SATURATED_REACH`, where the output is clamped already, or
    /// beyond which no sum of the channel goes: `|acc| < 2^29`, so that it can be added to 3 * 2^22 read as an integer.
    Saturated,
    /// One f64 multiplication and the conversion to i32, which rounds half to even: `|acc| < 2^30`, so that the product
    /// with a multiplier below 2^23 is an integer below 2^53.
    Double,
    /// Integers.
    Integer,
}

/// Times a multiplier below 2^23 and over 2^22, this is below 2^22.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) const SATURATED_REACH: i32 = (1 << 21) - 1;
/// With it, [`SATURATED_REACH`] gives 511, which is beyond the range of bytes from whatever zero point.
const SATURATED_MULTIPLIER_MIN: i32 = 1 << 10;

/// Sums of the weights of one output channel: of those above zero, and of those below.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowSums {
    pub(crate) above: i64,
    pub(crate) below: i64,
}

impl RowSums {
    /// Of the weights `row`.
    pub fn of(row: &[i8]) -> RowSums {
        #[cfg(target_arch = "x86_64")]
        let [magnitude, shifted] = twin::byte_sums(row);
        #[cfg(not(target_arch = "x86_64"))]
        let [magnitude, shifted] = byte_sums(row);
        let total = shifted - 128 * row.len() as i64;
        RowSums { above: (magnitude + total) / 2, below: (total - magnitude) / 2 }
    }

    /// Of all weights, wrapping.
    pub fn total(self) -> i32 {
        (self.above + self.below) as i32
    }

    /// Of their magnitudes.
    pub fn magnitude(self) -> i64 {
        self.above - self.below
    }
}

/// Sums of magnitudes, and of values plus 128.
pub(crate) fn byte_sums(row: &[i8]) -> [i64; 2] {
    // So many fit u32, and that is what vector units are quick with.
    let sum_of = |part: fn(i8) -> u8| {
        row.chunks(1 << 16).map(|row| i64::from(row.iter().map(|w| u32::from(part(*w))).sum::<u32>())).sum()
    };
    [sum_of(i8::unsigned_abs), sum_of(|w| w as u8 ^ 0x80)]
}

/// Forms that are exact for every sum that i8 inputs can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) struct Forms {
    single: bool,
    saturated: bool,
    double: bool,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Forms {
    pub const ALL: Forms = Forms { single: true, saturated: true, double: true };

    /// Those that are in both.
    pub fn and(self, other: Forms) -> Forms {
        Forms {
            single: self.single && other.single,
            saturated: self.saturated && other.saturated,
            double: self.double && other.double,
        }
    }

    pub fn fastest(self) -> Form {
        match self {
            Forms { single: true, .. } => Form::Single,
            Forms { saturated: true, .. } => Form::Saturated,
            Forms { double: true, .. } => Form::Double,
            _ => Form::Integer,
        }
    }
}

/// Of one output channel with weights of these sums.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn forms_of(sums: RowSums, bias: i32, zero_point_in: i32, multiplier: i32, clamp: Clamp) -> Forms {
    // Of inputs minus their zero point; where that is a byte, they are on either side of zero.
    let (low, high) = (-128 - i64::from(zero_point_in), 127 - i64::from(zero_point_in));
    let RowSums { above, below } = sums;
    let least = i64::from(bias) + above * low + below * high;
    let most = i64::from(bias) + above * high + below * low;
    let reach = least.abs().max(most.abs());
    let byte = |x: i32| (-128..=127).contains(&x);
    // Added to 3 * 2^22 the result must stay a float whose last place is 1; rounding gets its share.
    let result_max = ((1i64 << 22) - 1) << MULTIPLIER_BITS;
    let are_bytes = byte(clamp.zero_point) && byte(zero_point_in) && (1..1 << 23).contains(&multiplier);
    Forms {
        single: are_bytes && reach < 1 << 22 && reach * i64::from(multiplier) < result_max,
        saturated: are_bytes
            && reach < 1 << 29
            && (multiplier >= SATURATED_MULTIPLIER_MIN || reach <= SATURATED_REACH.into()),
        double: are_bytes && reach < 1 << 30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::ConvParams;
    use crate::view::{Dims, View, ViewMut, Window};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    #[derive(Clone, Debug)]
    struct Case {
        shape: ConvShape,
        weights: Vec<i8>,
        sums: Vec<RowSums>,
        bias: Vec<i32>,
        multipliers: Vec<i32>,
        zero_point_in: i32,
        clamp: Clamp,
        input: Vec<i8>,
    }

    fn bytes(seed: u64) -> impl Iterator<Item = i8> {
        let mut state = seed;
        core::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8 as i8
        })
    }

    /// Kinds of values: for each form of requantization, a large bias with tiny multipliers, and everything saturated.
    #[derive(Clone, Copy, Debug)]
    enum Values {
        Usual,
        Large,
        Huge,
        Offset,
        Extreme,
    }

    fn case() -> impl Strategy<Value = Case> {
        let window =
            ([1usize..=5, 1usize..=5], [1usize..=3, 1usize..=3], [1usize..=2, 1usize..=2], [0usize..=2, 0usize..=2]);
        let shape = (
            1usize..=9,
            1usize..=17,
            window,
            prop_oneof![
                // Depthwise, dense, grouped: (groups, in per group, out per group).
                (1usize..=150).prop_map(|c| (c, 1, 1)),
                (1usize..=70, 1usize..=150).prop_map(|(i, o)| (1, i, o)),
                (2usize..=4, 1usize..=9, 1usize..=70),
            ],
        );
        let kinds = [Values::Usual, Values::Large, Values::Huge, Values::Offset, Values::Extreme];
        let values = proptest::sample::select(kinds.to_vec());
        (shape, values, any::<u64>(), any::<bool>()).prop_map(|((h, w, window, channels), values, seed, point)| {
            let ([kh, kw], [sh, sw], [dh, dw], pad) = window;
            // Many layers are 1x1 with stride 1.
            let one = |x: usize| if point { 1 } else { x };
            let kernel = [one(kh), one(kw)];
            let (stride, dilation) = ([one(sh), one(sw)], [one(dh), one(dw)]);
            let pad_before = if point { [0; 2] } else { pad };
            let mut pad_after = pad_before;
            for axis in 0..2 {
                let reach = (kernel[axis] - 1) * dilation[axis] + 1;
                pad_after[axis] += reach.saturating_sub([h, w][axis] + 2 * pad_before[axis]);
            }
            let window = Window { kernel, stride, dilation, pad_before, pad_after };
            let (groups, i, o) = channels;
            let input = Dims { h, w, c: groups * i };
            let [oh, ow] = window.output(input).unwrap();
            let shape = ConvShape { input, output: Dims { h: oh, w: ow, c: groups * o }, window, groups };
            fill(shape, values, seed)
        })
    }

    fn fill(shape: ConvShape, values: Values, seed: u64) -> Case {
        let mut random = bytes(seed);
        let mut draw = || random.next().unwrap();
        let extreme = matches!(values, Values::Extreme);
        let mut ends = |b: i8| if extreme { [127, -128, -127][usize::from(b as u8 % 3)] } else { b };
        let weights: Vec<i8> = bytes(seed ^ 1).map(&mut ends).take(shape.weights_len()).collect();
        let input = bytes(seed ^ 2).map(&mut ends).take(shape.input.len()).collect();
        let n = shape.output.c;
        let [bias, multiplier] = match values {
            Values::Usual => [200, 60],
            Values::Large => [1 << 15, 900],
            Values::Huge => [1 << 21, 1 << 15],
            Values::Offset => [1 << 21, 8],
            Values::Extreme => [1 << 23, 1 << 15],
        };
        let bias = (0..n).map(|_| i32::from(draw()) * bias).collect();
        let multipliers = (0..n).map(|_| 1 + i32::from(draw() as u8) * multiplier).collect();
        let ends = [draw(), draw()].map(i32::from);
        let clamp = Clamp { zero_point: draw().into(), low: ends[0].min(ends[1]), high: ends[0].max(ends[1]) };
        let sums = weights.chunks_exact(shape.patch_len()).map(RowSums::of).collect();
        Case { shape, weights, sums, bias, multipliers, zero_point_in: draw().into(), clamp, input }
    }

    fn layer(case: &Case) -> Layer<'_> {
        let requantize = Requantize { multipliers: &case.multipliers, clamp: case.clamp };
        let (weights, sums) = (&case.weights, &case.sums);
        Layer { weights, sums, bias: &case.bias, zero_point_in: case.zero_point_in, requantize }
    }

    fn plain(case: &Case) -> Vec<i8> {
        let mut packed = vec![0; case.shape.packed_len()];
        case.shape.pack_weights(Isa::Scalar, &case.weights, &mut packed).unwrap();
        let mut scratch = vec![0; case.shape.scratch_len()];
        let Layer { bias, zero_point_in, requantize, .. } = layer(case);
        let params = ConvParams { packed: &packed, bias, zero_point_in, requantize };
        let mut out = vec![0; case.shape.output.len()];
        let (x, y) = (View::I8(&case.input), ViewMut::I8(&mut out));
        crate::conv::conv(Isa::Scalar, &case.shape, &params, x, &mut scratch, y).unwrap();
        out
    }

    /// In bands of so many output rows; all with one packed layer.
    fn twin(isa: Isa, case: &Case, n_rows: usize) -> Vec<i8> {
        let mut packed = vec![Line([77; 64]); packed_lines(isa, &case.shape)];
        pack(isa, &case.shape, &layer(case), &mut packed).unwrap();
        let Dims { w, c, .. } = case.shape.input;
        let mut out = vec![0; case.shape.output.len()];
        let (zero_point, clamp) = (case.zero_point_in, case.clamp);
        let row_len = case.shape.output.w * case.shape.output.c;
        for (i, out) in out.chunks_mut(n_rows * row_len).enumerate() {
            let rows = i * n_rows..i * n_rows + out.len() / row_len;
            let Some((shape, source)) = case.shape.rows(rows.clone()) else {
                // Nothing but padding: the whole layer says what that gives.
                out.copy_from_slice(&plain(case)[rows.start * row_len..rows.end * row_len]);
                continue;
            };
            // Scratch of an earlier layer may hold anything.
            let mut scratch = vec![Line([99; 64]); scratch_lines(isa, &shape)];
            let input = &case.input[source.start * w * c..source.end * w * c];
            let layer = PackedConv { shape: &shape, packed: &packed, zero_point_in: zero_point, clamp, input };
            conv(isa, &layer, &mut scratch, out).unwrap();
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
        #[test]
        fn twins_give_the_plain_bits(case in case(), n_rows in 1usize..=5) {
            let expected = plain(&case);
            for isa in Isa::available().filter(|isa| has_twin(*isa, &case.shape)) {
                prop_assert_eq!(&twin(isa, &case, case.shape.output.h), &expected, "{}", isa);
                prop_assert_eq!(&twin(isa, &case, n_rows), &expected, "{}, {} rows at a time", isa, n_rows);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
        /// Those that AVX-512 transforms; of the widest layers some have sums too large for that.
        #[test]
        fn wide_layers_of_3x3_give_the_plain_bits(
            h in 1usize..=14, w in 24usize..=45, channels in (1usize..=4, 1usize..=3), pads in [0usize..=2, 0usize..=2],
            end_pads in [0usize..=2, 0usize..=2], kind in 0usize..5, seed in any::<u64>(), n_rows in 1usize..=9,
        ) {
            let window = Window {
                kernel: [3; 2], stride: [1; 2], dilation: [1; 2], pad_before: pads, pad_after: [end_pads[0] + 2, end_pads[1]],
            };
            let input = Dims { h, w, c: 32 * channels.0 };
            let [oh, ow] = window.output(input).unwrap();
            let shape = ConvShape { input, output: Dims { h: oh, w: ow, c: 32 * channels.1 }, window, groups: 1 };
            let values = [Values::Usual, Values::Large, Values::Huge, Values::Offset, Values::Extreme][kind];
            let case = fill(shape, values, seed);
            let expected = plain(&case);
            for isa in Isa::available().filter(|isa| has_twin(*isa, &shape)) {
                prop_assert!(twin(isa, &case, oh) == expected, "{}", isa);
                prop_assert!(twin(isa, &case, n_rows) == expected, "{}, {} rows at a time", isa, n_rows);
            }
        }
    }

    /// Inputs and weights that do not fit into what twins keep close: several panels, and chunks of weights.
    #[test]
    fn large_layers_give_the_plain_bits() {
        // Height, width, channels in and out, kernel, stride, padding.
        for (h, w, c, o, kernel, stride, pad) in [
            (20, 40, 40, 70, 3, 1, 1),
            (41, 37, 24, 33, 3, 2, 1),
            (60, 60, 3, 32, 7, 2, 3),
            (31, 29, 36, 80, 1, 1, 0),
            (31, 29, 35, 80, 1, 1, 0),
            (31, 29, 36, 20, 1, 1, 1),
            (31, 29, 36, 80, 1, 2, 0),
            (9, 9, 64, 128, 3, 1, 1),
            (57, 56, 64, 96, 3, 1, 1),
            (28, 28, 128, 128, 3, 1, 1),
            (26, 30, 256, 64, 3, 1, 0),
            (7, 7, 960, 160, 1, 1, 0),
            (1, 5, 3000, 16, 3, 3, 2),
            (23, 17, 300, 70, 1, 1, 0),
            (23, 17, 301, 70, 1, 1, 0),
            (31, 35, 260, 80, 1, 2, 0),
            (9, 8, 300, 100, 3, 1, 1),
            (2, 1, 8, 8, 3, 3, 9),
        ] {
            let window = Window {
                kernel: [kernel; 2],
                stride: [stride; 2],
                dilation: [1; 2],
                pad_before: [pad; 2],
                pad_after: [pad % 9; 2],
            };
            let input = Dims { h, w, c };
            let [oh, ow] = window.output(input).unwrap();
            let shape = ConvShape { input, output: Dims { h: oh, w: ow, c: o }, window, groups: 1 };
            let case = fill(shape, Values::Usual, 5);
            let expected = plain(&case);
            for isa in Isa::available().filter(|isa| has_twin(*isa, &shape)) {
                assert!(twin(isa, &case, oh) == expected, "{isa}, {shape:?}");
                assert!(twin(isa, &case, 3) == expected, "{isa}, {shape:?}, 3 rows at a time");
            }
        }
    }

    #[test]
    fn float_forms_are_used_only_where_they_are_exact() {
        let clamp = Clamp { zero_point: 3, low: -128, high: 127 };
        let form = |row: &[i8], bias: i32, zero_point_in: i32, multiplier: i32| {
            forms_of(RowSums::of(row), bias, zero_point_in, multiplier, clamp).fastest()
        };
        // 127 * 255 * 129 < 2^22 <= 127 * 255 * 130.
        assert_eq!(form(&[127; 129], 0, -128, 20), Form::Single);
        assert_eq!(form(&[127; 130], 0, -128, 20), Form::Double, "the end of its reach is no clamped output");
        assert_eq!(form(&[127; 130], 0, -128, 1 << 10), Form::Saturated);
        assert_eq!(form(&[1], 1 << 22, 0, 20), Form::Double);
        assert_eq!(form(&[127; 129], 0, -128, 1 << 22), Form::Single);
        assert_eq!(form(&[127; 129], 0, -128, (1 << 22) + (1 << 16)), Form::Saturated, "the result leaves 22 bits");
        assert_eq!(form(&[1], 1 << 29, 0, 1 << 10), Form::Double);
        assert_eq!(form(&[1], 1 << 30, 0, 1 << 10), Form::Integer);
        assert_eq!(form(&[1], 0, 0, 0), Form::Integer);
        // A block takes what is exact for all of its channels.
        let forms = |m: i32, n: usize| forms_of(RowSums::of(&vec![127; n]), 0, -128, m, clamp);
        assert_eq!(forms(20, 60).and(forms(1 << 10, 130)).fastest(), Form::Saturated);
        assert_eq!(forms(20, 129).and(forms(1 << 10, 130)).fastest(), Form::Double);
    }

    #[test]
    fn sums_of_a_row_are_those_of_its_weights() {
        for n in (0..70).chain([1 << 17, (1 << 17) + 5]) {
            let row: Vec<i8> = bytes(n as u64).take(n).collect();
            let sum_of = |part: fn(i64) -> bool| row.iter().map(|w| i64::from(*w)).filter(|w| part(*w)).sum::<i64>();
            let sums = RowSums::of(&row);
            assert_eq!([sums.above, sums.below], [sum_of(|w| w > 0), sum_of(|w| w < 0)], "{n}");
        }
        let sums = RowSums::of(&[i8::MIN; 33]);
        assert_eq!((sums.total(), sums.magnitude()), (-33 * 128, 33 * 128));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let dims = Dims { h: 2, w: 2, c: 3 };
        let window = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad_before: [0; 2], pad_after: [0; 2] };
        let shape = ConvShape { input: dims, output: dims, window, groups: 1 };
        assert!(!has_twin(Isa::Scalar, &shape));
        for isa in Isa::available().filter(|isa| has_twin(*isa, &shape)) {
            let packed = vec![Line::ZERO; packed_lines(isa, &shape)];
            let n_scratch = scratch_lines(isa, &shape);
            let clamp = Clamp { zero_point: 0, low: -128, high: 127 };
            let run = |shape: &ConvShape, packed: &[Line], n_in: usize, n_scratch: usize| {
                let mut scratch = vec![Line::ZERO; n_scratch];
                let input = &vec![0; n_in];
                let layer = PackedConv { shape, packed, zero_point_in: 0, clamp, input };
                conv(isa, &layer, &mut scratch, &mut [0; 12])
            };
            assert_eq!(run(&shape, &packed, 12, n_scratch), Ok(()));
            assert!(matches!(run(&shape, &packed, 11, n_scratch), Err(KernelError::Length { what: "input", .. })));
            assert!(matches!(
                run(&shape, &packed, 12, n_scratch - 1),
                Err(KernelError::Length { what: "scratch", .. })
            ));
            assert!(run(&shape, &packed[1..], 12, n_scratch).is_err());
            let broken = ConvShape { groups: 2, ..shape };
            assert_eq!(run(&broken, &packed, 12, n_scratch), Err(KernelError::Shapes { op: "Conv" }));
        }
    }
}
