//! Convolutions of any shape but depthwise: patches of a few pixels against blocks of 16 output channels.
//!
//! A panel of patches is gathered, widened to 16 bits, then every block of weights passes over it once. A block holds,
//! after its header, for every two elements of a patch the two weights of each of its channels, 16 bits each.

use core::arch::x86_64::*;

use super::header::{BLOCK, DOUBLE, HEADER_LINES, Header, INTEGER, LANES, SINGLE, Target, channel_of};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line};
use crate::requantize::Clamp;

/// Pixels of one pass: with two vectors of channels each, twelve accumulators; weights, activations and products take the
/// other four registers.
const PIXELS: usize = 6;
/// Bytes of a panel, so that it shares the first-level cache with a block of weights.
const PANEL_BYTES: usize = 16 << 10;

/// Elements of a patch with padding.
fn depth(shape: &ConvShape) -> usize {
    shape.patch_len().next_multiple_of(2)
}

fn out_per_group(shape: &ConvShape) -> usize {
    shape.output.c / shape.groups
}

/// A line of weights per two elements of the patch.
fn block_lines(shape: &ConvShape) -> usize {
    HEADER_LINES + depth(shape) / 2
}

pub(in crate::x86) fn packed_lines(shape: &ConvShape) -> usize {
    shape.groups * out_per_group(shape).div_ceil(BLOCK) * block_lines(shape)
}

/// Pixels of a panel: whole passes.
fn panel_pixels(shape: &ConvShape) -> usize {
    let fit = (PANEL_BYTES / (2 * depth(shape))).max(1).next_multiple_of(PIXELS);
    fit.min(shape.output.n_pixels().next_multiple_of(PIXELS))
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape) -> usize {
    (panel_pixels(shape) * depth(shape) * 2).div_ceil(size_of::<Line>())
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let (patch_len, out_per_group) = (shape.patch_len(), out_per_group(shape));
    let row_of = |channel: usize| &layer.weights[channel * patch_len..][..patch_len];
    let mut blocks = packed.chunks_exact_mut(block_lines(shape));
    for group in 0..shape.groups {
        for (first, block) in (0..out_per_group).step_by(BLOCK).zip(&mut blocks) {
            let n = (out_per_group - first).min(BLOCK);
            let first = group * out_per_group + first;
            Header::of(layer, first, n, row_of).write(block);
            for (pair, line) in block[HEADER_LINES..].iter_mut().enumerate() {
                for (at, to) in line.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let channel = channel_of(at / LANES, at % LANES);
                    let row: &[i8] = if channel < n { row_of(first + channel) } else { &[] };
                    let [a, b] = [2 * pair, 2 * pair + 1].map(|at| i16::from(row.get(at).copied().unwrap_or(0)));
                    *to = (u32::from(a as u16) | u32::from(b as u16) << 16).to_le_bytes();
                }
            }
        }
    }
}

/// # Safety
/// AVX2 and FMA. Lengths as `packed::conv` checks them.
#[target_feature(enable = "avx2,fma")]
pub(in crate::x86) unsafe fn dense(
    shape: &ConvShape,
    packed: &[Line],
    zero_point_in: i32,
    clamp: Clamp,
    input: &[i8],
    scratch: &mut [Line],
    output: &mut [i8],
) {
    let (depth, out_c, out_per_group) = (depth(shape), shape.output.c, out_per_group(shape));
    let (per_panel, n_pixels) = (panel_pixels(shape), shape.output.n_pixels());
    // SAFETY: scratch is plain bytes, as long as its lines, which are aligned.
    let panel =
        unsafe { core::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<i16>(), size_of_val(scratch) / 2) };
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    for first_pixel in (0..n_pixels).step_by(per_panel) {
        let n = per_panel.min(n_pixels - first_pixel);
        let mut blocks = packed.chunks_exact(block_lines(shape));
        for group in 0..shape.groups {
            gather(shape, input, group, zero_point_in as i8, first_pixel, n, panel);
            for (first, block) in (0..out_per_group).step_by(BLOCK).zip(&mut blocks) {
                let job = Job {
                    header: Header::read(block),
                    weights: &block[HEADER_LINES..],
                    stride: out_c,
                    n_channels: (out_per_group - first).min(BLOCK),
                    target: &target,
                };
                let out = &mut output[first_pixel * out_c + group * out_per_group + first..];
                // SAFETY: the CPU has the instructions.
                unsafe {
                    match job.header.form() {
                        SINGLE => job.passes::<SINGLE>(panel, depth, n, out),
                        DOUBLE => job.passes::<DOUBLE>(panel, depth, n, out),
                        _ => job.passes::<INTEGER>(panel, depth, n, out),
                    }
                }
            }
        }
    }
}

/// One block of weights over one panel.
struct Job<'a> {
    header: &'a Header,
    /// One line per two elements of a patch.
    weights: &'a [Line],
    /// Bytes from one output pixel to the next.
    stride: usize,
    /// At most [`BLOCK`].
    n_channels: usize,
    target: &'a Target,
}

impl Job<'_> {
    /// # Safety
    /// AVX2 and FMA.
    #[inline(always)]
    unsafe fn passes<const FORM: u32>(&self, panel: &[i16], depth: usize, n: usize, out: &mut [i8]) {
        for first in (0..n).step_by(PIXELS) {
            // The panel is a whole number of passes; pixels past `n` are computed from what lies there and not stored.
            let patches = &panel[first * depth..][..PIXELS * depth];
            let n = PIXELS.min(n - first);
            let out = &mut out[first * self.stride..];
            assert!(out.len() >= (n - 1) * self.stride + self.n_channels && 2 * self.weights.len() <= depth);
            // SAFETY: `patches` holds as many patches of as many pairs, and `out` was just measured.
            unsafe {
                let sums = self.accumulate(patches.as_ptr(), depth);
                if n == PIXELS {
                    // A loop of known length keeps the sums in registers.
                    for (p, sums) in sums.into_iter().enumerate() {
                        self.header.finish::<FORM>(
                            sums,
                            self.n_channels,
                            self.target,
                            out.as_mut_ptr().add(p * self.stride),
                        );
                    }
                } else {
                    for (p, sums) in sums.into_iter().enumerate().take(n) {
                        self.header.finish::<FORM>(
                            sums,
                            self.n_channels,
                            self.target,
                            out.as_mut_ptr().add(p * self.stride),
                        );
                    }
                }
            }
        }
    }

    /// Sums of [`PIXELS`] pixels, in registers while they grow.
    ///
    /// # Safety
    /// AVX2; `patches` of `depth` elements each, at least twice as many as there are lines of weights.
    #[inline(always)]
    unsafe fn accumulate(&self, patches: *const i16, depth: usize) -> [[__m256i; 2]; PIXELS] {
        unsafe {
            let mut acc = [self.header.start(); PIXELS];
            for (pair, line) in self.weights.iter().enumerate() {
                let line: *const __m256i = line.0.as_ptr().cast();
                let w = [_mm256_load_si256(line), _mm256_load_si256(line.add(1))];
                for (p, acc) in acc.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(patches.add(p * depth + 2 * pair).cast::<i32>().read_unaligned());
                    acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(x, w[0]));
                    acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(x, w[1]));
                }
            }
            acc
        }
    }
}

/// Copies the patches of `n` output pixels into the panel. What pads a patch to its depth meets weights of zero.
#[inline(always)]
fn gather(shape: &ConvShape, input: &[i8], group: usize, zero_point: i8, first: usize, n: usize, panel: &mut [i16]) {
    let (window, dims, in_per_group) = (shape.window, shape.input, shape.in_per_group());
    let (depth, channel) = (depth(shape), group * in_per_group);
    let [kernel_h, kernel_w] = window.kernel;
    let is_point = window.kernel == [1, 1] && window.stride == [1, 1] && dims.n_pixels() == shape.output.n_pixels();
    if is_point && in_per_group == dims.c && depth == dims.c {
        // A 1x1 convolution reads its input as it lies.
        return widen(&input[first * depth..][..n * depth], &mut panel[..n * depth]);
    }
    // A row of the window that is dense in the input is one run where it lies inside.
    let is_run = in_per_group == dims.c && window.dilation[1] == 1;
    let run_len = kernel_w * in_per_group;
    let (mut oy, mut ox) = (first / shape.output.w, first % shape.output.w);
    for patch in panel.chunks_exact_mut(depth).take(n) {
        let column = (ox * window.stride[1]).wrapping_sub(window.pad_before[1]);
        let is_inside = is_run && column < dims.w && column + kernel_w <= dims.w;
        for (ky, to) in (0..kernel_h).zip(patch.chunks_exact_mut(run_len)) {
            match window.source(0, oy, ky, dims.h) {
                None => to.fill(zero_point.into()),
                Some(y) if is_inside => widen(&input[(y * dims.w + column) * dims.c..][..run_len], to),
                Some(y) => {
                    for (kx, to) in to.chunks_exact_mut(in_per_group).enumerate() {
                        match window.source(1, ox, kx, dims.w) {
                            None => to.fill(zero_point.into()),
                            Some(x) => widen(&input[(y * dims.w + x) * dims.c + channel..][..in_per_group], to),
                        }
                    }
                }
            }
        }
        ox += 1;
        if ox == shape.output.w {
            (oy, ox) = (oy + 1, 0);
        }
    }
}

#[inline(always)]
fn widen(from: &[i8], to: &mut [i16]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = (*from).into();
    }
}
