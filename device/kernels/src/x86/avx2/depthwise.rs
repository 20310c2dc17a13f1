//! Depthwise convolution along rows of a padded copy of the input.
//!
//! The copy holds only the rows that one output row needs, as a ring; its pixels are padded to whole blocks of 16 channels and
//! its edges hold the zero point, so that the kernel knows neither borders nor tails. Taps go by in pairs: two pixels are
//! widened and interleaved, which makes each channel's two products neighbours.

use core::arch::x86_64::*;

use super::header::{BLOCK, DOUBLE, HEADER_LINES, Header, INTEGER, LANES, SATURATED, SINGLE, Target, channel_of};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};

fn n_taps(shape: &ConvShape) -> usize {
    shape.window.kernel[0] * shape.window.kernel[1]
}

/// A line of weights per two taps.
fn block_lines(shape: &ConvShape) -> usize {
    HEADER_LINES + n_taps(shape).div_ceil(2)
}

pub(in crate::x86) fn packed_lines(shape: &ConvShape) -> usize {
    shape.output.c.div_ceil(BLOCK) * block_lines(shape)
}

/// Bytes of a padded pixel.
fn pixel_len(shape: &ConvShape) -> usize {
    shape.input.c.next_multiple_of(BLOCK)
}

/// Pixels of a padded row: what the windows of one output row meet.
fn row_pixels(shape: &ConvShape) -> usize {
    let window = &shape.window;
    (shape.output.w - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1] + 1
}

/// Rows of the ring.
fn ring_rows(shape: &ConvShape) -> usize {
    (shape.window.kernel[0] - 1) * shape.window.dilation[0] + 1
}

/// Lines of one row of the ring.
fn row_lines(shape: &ConvShape) -> usize {
    (row_pixels(shape) * pixel_len(shape)).div_ceil(size_of::<Line>())
}

/// Lines that hold where each tap's row begins: one offset of 8 bytes each, in pairs.
fn tap_lines(shape: &ConvShape) -> usize {
    (n_taps(shape).next_multiple_of(2) * size_of::<usize>()).div_ceil(size_of::<Line>())
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape) -> usize {
    ring_rows(shape) * row_lines(shape) + tap_lines(shape)
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let (n_taps, channels) = (n_taps(shape), shape.output.c);
    let row_of = |channel: usize| &layer.weights[channel * n_taps..][..n_taps];
    for (first, block) in (0..channels).step_by(BLOCK).zip(packed.chunks_exact_mut(block_lines(shape))) {
        let n = (channels - first).min(BLOCK);
        Header::of(layer, first, n, 0).write(block);
        for (pair, line) in block[HEADER_LINES..].iter_mut().enumerate() {
            for (at, to) in line.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let channel = channel_of(at / LANES, at % LANES);
                let row: &[i8] = if channel < n { row_of(first + channel) } else { &[] };
                let [a, b] = [2 * pair, 2 * pair + 1].map(|tap| i16::from(row.get(tap).copied().unwrap_or(0)));
                *to = (u32::from(a as u16) | u32::from(b as u16) << 16).to_le_bytes();
            }
        }
    }
}

/// # Safety
/// AVX2 and FMA. Lengths as `packed::conv` checks them.
#[target_feature(enable = "avx2,fma")]
pub(in crate::x86) unsafe fn depthwise(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, packed, zero_point_in, clamp, input } = *layer;
    let (window, dims, pixel) = (shape.window, shape.input, pixel_len(shape));
    let (n_rows, row_len) = (ring_rows(shape), row_lines(shape) * size_of::<Line>());
    let (ring, taps) = scratch.split_at_mut(n_rows * row_lines(shape));
    // SAFETY: scratch is plain bytes, as long as its lines, which are aligned for offsets.
    let (ring, taps) = unsafe {
        let taps = core::slice::from_raw_parts_mut(taps.as_mut_ptr().cast::<[usize; 2]>(), n_taps(shape).div_ceil(2));
        (core::slice::from_raw_parts_mut(ring.as_mut_ptr().cast::<i8>(), n_rows * row_len), taps)
    };
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    // The padded row that comes next, counted from the first padded one.
    let mut next = 0;
    let out_row_len = shape.output.w * shape.output.c;
    for (oy, out) in output.chunks_exact_mut(out_row_len).enumerate() {
        let first = oy * window.stride[0];
        for row in next.max(first)..first + n_rows {
            let y = row.wrapping_sub(window.pad_before[0]);
            let to = &mut ring[row % n_rows * row_len..][..row_len];
            let from = (y < dims.h).then(|| &input[y * dims.w * dims.c..][..dims.w * dims.c]);
            copy_row(shape, from, zero_point_in as i8, pixel, to);
        }
        next = first + n_rows;
        let offset = |tap: usize| {
            // The second tap of a last single one meets weights of zero.
            let tap = tap.min(n_taps(shape) - 1);
            let (ky, kx) = (tap / window.kernel[1], tap % window.kernel[1]);
            (first + ky * window.dilation[0]) % n_rows * row_len + kx * window.dilation[1] * pixel
        };
        for (pair, taps) in taps.iter_mut().enumerate() {
            *taps = [offset(2 * pair), offset(2 * pair + 1)];
        }
        for (first, block) in (0..dims.c).step_by(BLOCK).zip(packed.chunks_exact(block_lines(shape))) {
            let row = Row {
                ring: &ring[first..],
                taps,
                step: window.stride[1] * pixel,
                header: Header::read(block),
                weights: &block[HEADER_LINES..],
                n_pixels: shape.output.w,
                stride: dims.c,
                n_channels: (dims.c - first).min(BLOCK),
                target: &target,
            };
            // SAFETY: the CPU has the instructions; the ring holds all that the windows of a row meet, with whole blocks.
            unsafe {
                match row.header.form() {
                    SINGLE => row.run::<SINGLE>(&mut out[first..]),
                    SATURATED => row.run::<SATURATED>(&mut out[first..]),
                    DOUBLE => row.run::<DOUBLE>(&mut out[first..]),
                    _ => row.run::<INTEGER>(&mut out[first..]),
                }
            }
        }
    }
}

/// One row of outputs of one block of channels.
struct Row<'a> {
    /// From this block of channels on.
    ring: &'a [i8],
    /// Where the windows' first pixels begin, for each pair of taps.
    taps: &'a [[usize; 2]],
    /// Bytes from one window to the next.
    step: usize,
    header: &'a Header,
    /// One line per pair of taps.
    weights: &'a [Line],
    n_pixels: usize,
    /// Bytes from one output pixel to the next.
    stride: usize,
    /// At most [`BLOCK`].
    n_channels: usize,
    target: &'a Target,
}

impl Row<'_> {
    /// # Safety
    /// AVX2 and FMA.
    #[inline(always)]
    unsafe fn run<const FORM: u32>(&self, out: &mut [i8]) {
        let last = (self.n_pixels - 1) * self.step + BLOCK;
        assert!(out.len() >= (self.n_pixels - 1) * self.stride + self.n_channels);
        assert!(self.taps.iter().flatten().all(|tap| tap + last <= self.ring.len()));
        for pixel in 0..self.n_pixels {
            // SAFETY: the last window's 16 channels were just measured, and the last output.
            unsafe {
                let at = self.ring.as_ptr().add(pixel * self.step);
                let mut acc = self.header.start();
                for (taps, line) in self.taps.iter().zip(self.weights) {
                    let load = |tap: usize| at.add(tap).cast::<__m128i>();
                    let a = _mm256_cvtepi8_epi16(_mm_loadu_si128(load(taps[0])));
                    let b = _mm256_cvtepi8_epi16(_mm_loadu_si128(load(taps[1])));
                    let line: *const __m256i = line.0.as_ptr().cast();
                    let [low, high] = [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)];
                    acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, _mm256_load_si256(line)));
                    acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, _mm256_load_si256(line.add(1))));
                }
                let out = out.as_mut_ptr().add(pixel * self.stride);
                self.header.finish::<FORM>(acc, self.n_channels, self.target, out);
            }
        }
    }
}

/// A row of the input between its edges; nothing but edge where there is none.
#[inline(always)]
fn copy_row(shape: &ConvShape, from: Option<&[i8]>, zero_point: i8, pixel: usize, to: &mut [i8]) {
    let (c, before, n) = (shape.input.c, shape.window.pad_before[1], row_pixels(shape));
    let Some(from) = from else { return to.fill(zero_point) };
    let to = &mut to[..n * pixel];
    let (edge, to) = to.split_at_mut(before.min(n) * pixel);
    edge.fill(zero_point);
    let inside = shape.input.w.min(n - before.min(n));
    let (to, edge) = to.split_at_mut(inside * pixel);
    edge.fill(zero_point);
    if pixel == c {
        return to.copy_from_slice(&from[..inside * c]);
    }
    for (to, from) in to.chunks_exact_mut(pixel).zip(from.chunks_exact(c)) {
        to[..c].copy_from_slice(from);
    }
}
