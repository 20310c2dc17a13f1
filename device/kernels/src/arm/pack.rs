//! A layer's values in the order in which the micro-kernels read them.
//!
//! A dense layer is, group by group, blocks of 16 output channels (8 where at most 8 remain): a [`Header`], then
//! `depth * channels` bytes of weights, `depth` being the patch length rounded up to 8. A depthwise layer is blocks of
//! 16 channels: a [`Header`], then its taps, padded to 64 bytes.

use crate::conv::ConvShape;
use crate::packed::{Layer, Line, RowSums};
use crate::requantize::{Clamp, MULTIPLIER_BITS};

/// Bytes of a [`Line`].
pub(crate) const LINE: usize = size_of::<Line>();

/// Channels of one block.
pub(crate) const BLOCK: usize = 16;

/// Bits of 3 * 2^22 as f32: an integer in -2^22..2^22, added to them, reads as that float plus the integer.
const MAGIC: i32 = 0x4B40_0000;

/// 1 in the fixed point of multipliers; also the bound of accumulators that read as floats.
const ONE: i64 = 1 << MULTIPLIER_BITS;

/// How a block of channels is requantized, cheapest last.
///
/// In float form `bias` carries [`MAGIC`], and one fused multiply-add `fma(acc, factor, addend)` rounds half to even and
/// leaves [`MAGIC`] plus the result (DESIGN.md, "Integer arithmetic"). Which form is exact for all inputs is proved
/// from the weights.
///
/// A number and no enum, because packed lines come through a safe interface and may hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Form(u32);

impl Form {
    /// Integers of 64 bits: always exact. armv7 keeps to it, as some of its cores lack the fused instruction.
    pub(crate) const INTEGER: Form = Form(0);
    /// Float, results within 21 bits.
    #[cfg(target_arch = "aarch64")]
    pub(crate) const FLOAT: Form = Form(1);
    /// Float, results within 16 bits: narrowed by dropping the upper half.
    #[cfg(target_arch = "aarch64")]
    pub(crate) const SHORT_FLOAT: Form = Form(2);
}

/// What one block of channels starts from and how it is requantized.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Header {
    /// Starting values.
    pub bias: [i32; BLOCK],
    /// `M / 2^22`; in integer form the bits of `M`.
    pub factor: [f32; BLOCK],
    /// `3 * (2^22 - M)`, what [`Channel::folded`] takes, and the even part of the zero point.
    pub addend: [f32; BLOCK],
    /// What is left to add after rounding: the zero point's lowest bit, or in integer form all of it.
    pub rest: [i16; BLOCK],
    /// How.
    pub form: Form,
    /// 1 if a weight is -128, else 0: two products of it may not fit i16.
    pub has_least: u32,
    /// 1 if `rest` is zero and the layer's range is all of i8: saturating does it all.
    pub plain: u32,
    unused: [u32; 5],
}

/// Lines of a [`Header`].
pub(crate) const HEADER_LINES: usize = size_of::<Header>() / LINE;

const _: () = assert!(size_of::<Header>() == 4 * LINE);

impl Header {
    /// Of output channels `channels`, at most [`BLOCK`].
    pub(crate) fn of(layer: &Layer<'_>, patch_len: usize, channels: core::ops::Range<usize>) -> Header {
        let Layer { bias, zero_point_in, requantize, .. } = *layer;
        let clamp = requantize.clamp;
        let weights = &layer.weights[channels.start * patch_len..channels.end * patch_len];
        let channel = |i: usize| Channel::of(layer.sums[i], bias[i], zero_point_in, requantize.multipliers[i], clamp);
        let entries = || channels.clone().map(channel);
        let form = entries().map(|channel| channel.form).min().unwrap_or(Form::INTEGER);
        let mut header = Header {
            bias: [0; BLOCK],
            factor: [0.0; BLOCK],
            addend: [0.0; BLOCK],
            rest: [0; BLOCK],
            form,
            has_least: weights.contains(&i8::MIN).into(),
            plain: 0,
            unused: [0; 5],
        };
        for (i, channel) in entries().enumerate() {
            if form == Form::INTEGER {
                header.bias[i] = channel.start;
                header.factor[i] = f32::from_bits(channel.multiplier as u32);
                header.rest[i] = clamp.zero_point as i16;
            } else {
                header.bias[i] = channel.start.wrapping_sub(channel.folded << MULTIPLIER_BITS).wrapping_add(MAGIC);
                header.factor[i] = channel.multiplier as f32 / ONE as f32;
                header.addend[i] = channel.addend as f32;
                header.rest[i] = channel.rest;
            }
        }
        header.plain = (header.rest == [0; BLOCK] && clamp.low <= -128 && clamp.high >= 127).into();
        header
    }
}

/// One output channel's part of a [`Header`].
struct Channel {
    form: Form,
    /// Bias, and the input's zero point times the weights.
    start: i32,
    multiplier: i32,
    /// How often 2^22 is taken from the accumulator, to add the multiplier to the result instead: keeps channels with
    /// tiny weights and a large bias in float form.
    folded: i32,
    addend: i64,
    rest: i16,
}

impl Channel {
    fn of(sums: RowSums, bias: i32, zero_point_in: i32, multiplier: i32, clamp: Clamp) -> Channel {
        let start = bias.wrapping_sub(sums.total().wrapping_mul(zero_point_in));
        // The accumulators that inputs of eight bits can give.
        let [low, high] = [-128, 127].map(|x| x - i64::from(zero_point_in));
        let least = i64::from(bias) + low * sums.above + high * sums.below;
        let most = i64::from(bias) + high * sums.above + low * sums.below;
        let fits = |folded: i64| least - folded * ONE >= -ONE && most - folded * ONE < ONE;
        let folded = if fits(0) { 0 } else { ((least + most) / 2 + ONE / 2).div_euclid(ONE) };
        let m = i64::from(multiplier);
        let zero_point = i64::from(clamp.zero_point);
        // What is folded takes part in rounding, whose ties look at the whole; the zero point may not turn odd into even.
        let addend = 3 * (ONE - m) + folded * m + (zero_point & !1);
        // Two for rounding and the rest.
        let reach = ((least.abs().max(most.abs()) * m.abs()) >> MULTIPLIER_BITS) + zero_point.abs() + 2;
        let byte = |x: i32| (-128..=127).contains(&x);
        let in_float = fits(folded)
            && (1..1 << 23).contains(&multiplier)
            && byte(clamp.zero_point)
            && byte(zero_point_in)
            && addend.abs() <= 1 << 24;
        let form = Form::of(in_float, reach);
        Channel { form, start, multiplier, folded: folded as i32, addend, rest: (zero_point & 1) as i16 }
    }
}

impl Form {
    #[cfg(target_arch = "aarch64")]
    fn of(in_float: bool, reach: i64) -> Form {
        match in_float {
            true if reach < 1 << 15 => Form::SHORT_FLOAT,
            true if reach < 1 << 21 => Form::FLOAT,
            _ => Form::INTEGER,
        }
    }

    #[cfg(not(target_arch = "aarch64"))]
    fn of(_in_float: bool, _reach: i64) -> Form {
        Form::INTEGER
    }
}

/// The order of weights that a micro-kernel wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Steps of 16 along the patch, for `smull` and `smlal2` into lanes of (channel, pair of the patch): the activations
    /// are rotated among the pairs, and round `r` multiplies pair `channel ^ r`. A last step of 8 holds rounds `r` and
    /// `r + 1` in the two halves of one register.
    Pairs,
    /// Steps of 4, for `sdot`: four channels by four of the patch per register.
    #[cfg(target_arch = "aarch64")]
    Quads,
}

impl Order {
    /// Byte of weight `at` of channel `channel`, in a block of `channels` (16 or 8) and depth `depth`.
    pub(crate) fn offset(self, depth: usize, channels: usize, at: usize, channel: usize) -> usize {
        let (group, lane, n_groups) = (channel / 4, channel % 4, channels / 4);
        match self {
            #[cfg(target_arch = "aarch64")]
            Order::Quads => at / 4 * 4 * channels + channel * 4 + at % 4,
            Order::Pairs => {
                let (step, at) = (at / 16, at % 16);
                let (half, pair, odd) = (at / 8, at % 8 / 2, at % 2);
                let round = pair ^ lane;
                let is_last_of_eight = depth - step * 16 == 8;
                let (round, half) = if is_last_of_eight { (round / 2, round % 2) } else { (round, half) };
                step * 16 * channels + (round * n_groups + group) * 16 + half * 8 + lane * 2 + odd
            }
        }
    }
}

/// Patch length as the micro-kernels see it.
pub(crate) fn depth_of(patch_len: usize) -> usize {
    patch_len.next_multiple_of(8)
}

/// Channels of the block that starts where `remaining` are left: 16, or 8 at the end.
pub(crate) fn block_channels(remaining: usize) -> usize {
    if remaining <= 8 { 8 } else { BLOCK }
}

/// Lines of one block of a dense layer.
pub(crate) fn block_lines(depth: usize, channels: usize) -> usize {
    HEADER_LINES + (depth * channels).div_ceil(LINE)
}

/// Lines of one group of a dense layer.
pub(crate) fn dense_group_lines(shape: &ConvShape) -> usize {
    let (depth, out_per_group) = (depth_of(shape.patch_len()), shape.output.c / shape.groups);
    (0..out_per_group).step_by(BLOCK).map(|first| block_lines(depth, block_channels(out_per_group - first))).sum()
}

/// Lines of a dense layer.
pub(crate) fn dense_lines(shape: &ConvShape) -> usize {
    dense_group_lines(shape) * shape.groups
}

/// Packs a dense layer, `weights` `[out_c, patch_len]`.
pub(crate) fn pack_dense(order: Order, shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let patch_len = shape.patch_len();
    let (depth, out_per_group) = (depth_of(patch_len), shape.output.c / shape.groups);
    let mut rest = packed;
    let blocks = (0..shape.groups).flat_map(|group| {
        (0..out_per_group).step_by(BLOCK).map(move |first| (group * out_per_group + first, out_per_group - first))
    });
    for (first, remaining) in blocks {
        let channels = block_channels(remaining);
        let (lines, tail) = core::mem::take(&mut rest).split_at_mut(block_lines(depth, channels));
        rest = tail;
        let block = first..first + remaining.min(channels);
        let (header, bytes) = lines.split_at_mut(HEADER_LINES);
        put_header(header, &Header::of(layer, patch_len, block.clone()));
        bytes.fill(Line::ZERO);
        for (channel, row) in layer.weights.chunks_exact(patch_len).skip(block.start).take(block.len()).enumerate() {
            for (at, weight) in row.iter().enumerate() {
                let offset = order.offset(depth, channels, at, channel);
                bytes[offset / LINE].0[offset % LINE] = *weight as u8;
            }
        }
    }
}

/// Writes a header over its lines.
pub(crate) fn put_header(lines: &mut [Line], header: &Header) {
    assert_eq!(lines.len(), HEADER_LINES);
    // SAFETY: the lines are as long as the header (asserted above), aligned alike, and any bytes are valid in both.
    unsafe { lines.as_mut_ptr().cast::<Header>().write(*header) };
}

/// Reads the header at the start of a block.
pub(crate) fn header_of(lines: &[Line]) -> &Header {
    assert!(lines.len() >= HEADER_LINES);
    // SAFETY: as in `put_header`.
    unsafe { &*lines.as_ptr().cast::<Header>() }
}

/// The order of a depthwise layer's taps within a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taps {
    /// `[kernel_h, kernel_w, 16]`.
    ByTap,
    /// `[3, 16, 4]`: a column of a 3x3 window and a zero per channel, for `sdot`.
    #[cfg(target_arch = "aarch64")]
    Columns,
}

impl Taps {
    fn len(self, kernel: [usize; 2]) -> usize {
        match self {
            Taps::ByTap => kernel[0] * kernel[1] * BLOCK,
            #[cfg(target_arch = "aarch64")]
            Taps::Columns => 3 * BLOCK * 4,
        }
    }

    fn offset(self, tap: usize, channel: usize) -> usize {
        match self {
            Taps::ByTap => tap * BLOCK + channel,
            #[cfg(target_arch = "aarch64")]
            // Of three rows and columns.
            Taps::Columns => (tap % 3 * BLOCK + channel) * 4 + tap / 3,
        }
    }
}

/// Lines of one block of a depthwise layer.
pub(crate) fn depthwise_block_lines(taps: Taps, kernel: [usize; 2]) -> usize {
    HEADER_LINES + taps.len(kernel).div_ceil(LINE)
}

/// Lines of a depthwise layer.
pub(crate) fn depthwise_lines(taps: Taps, shape: &ConvShape) -> usize {
    depthwise_block_lines(taps, shape.window.kernel) * shape.output.c.div_ceil(BLOCK)
}

/// Packs a depthwise layer, `weights` `[c, kernel_h, kernel_w]`.
pub(crate) fn pack_depthwise(taps: Taps, shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let kernel = shape.window.kernel;
    let n_taps = kernel[0] * kernel[1];
    let blocks = layer.weights.chunks(BLOCK * n_taps).zip(packed.chunks_exact_mut(depthwise_block_lines(taps, kernel)));
    for (block, (weights, lines)) in blocks.enumerate() {
        let first = block * BLOCK;
        let (header, bytes) = lines.split_at_mut(HEADER_LINES);
        put_header(header, &Header::of(layer, n_taps, first..first + weights.len() / n_taps));
        bytes.fill(Line::ZERO);
        for (channel, row) in weights.chunks_exact(n_taps).enumerate() {
            for (tap, weight) in row.iter().enumerate() {
                let offset = taps.offset(tap, channel);
                bytes[offset / LINE].0[offset % LINE] = *weight as u8;
            }
        }
    }
}
