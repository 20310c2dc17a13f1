//! Convolutions of any shape but depthwise: patches of a few pixels against blocks of up to 64 output channels.
//!
//! A panel of patches is gathered, then every block of weights passes over it once: weights are read from far away as
//! seldom as the panel is large, and the panel stays in the first-level cache. A block holds, after its header, for
//! every four bytes of a patch the four weights of each of its channels.

use core::arch::x86_64::*;

use super::header::{BLOCK, HEADER_LINES, Header, LANES, Target, channel_of, first_of_16};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line};
use crate::requantize::Clamp;

/// Pixels of one pass with four and with at most two vectors of channels: 24 accumulators both.
const PIXELS_WIDE: usize = 6;
const PIXELS: usize = 12;
/// Bytes of a panel, so that it shares the first-level cache with a block of weights.
const PANEL_BYTES: usize = 24 << 10;

/// Bytes of a patch with padding.
fn depth(shape: &ConvShape) -> usize {
    shape.patch_len().next_multiple_of(4)
}

/// Vectors of the block that begins at channel `first` of a group.
fn n_vectors(shape: &ConvShape, first: usize) -> usize {
    (out_per_group(shape) - first).min(BLOCK).div_ceil(LANES)
}

fn out_per_group(shape: &ConvShape) -> usize {
    shape.output.c / shape.groups
}

/// Lines of a block of so many vectors: a line of weights per vector and four bytes of the patch.
fn block_lines(shape: &ConvShape, n_vectors: usize) -> usize {
    HEADER_LINES + n_vectors * depth(shape) / 4
}

pub(super) fn packed_lines(shape: &ConvShape) -> usize {
    let blocks = (0..out_per_group(shape)).step_by(BLOCK);
    shape.groups * blocks.map(|first| block_lines(shape, n_vectors(shape, first))).sum::<usize>()
}

/// Pixels of a panel.
fn panel_pixels(shape: &ConvShape) -> usize {
    let fit = (PANEL_BYTES / depth(shape)).max(1).next_multiple_of(PIXELS);
    fit.min(shape.output.n_pixels().next_multiple_of(PIXELS))
}

pub(super) fn scratch_lines(shape: &ConvShape) -> usize {
    // A patch may be written in whole vectors, past its end.
    (panel_pixels(shape) * depth(shape)).div_ceil(size_of::<Line>()) + 1
}

pub(super) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let (patch_len, out_per_group) = (shape.patch_len(), out_per_group(shape));
    let row_of = |channel: usize| &layer.weights[channel * patch_len..][..patch_len];
    let mut rest = packed;
    for group in 0..shape.groups {
        for first in (0..out_per_group).step_by(BLOCK) {
            let n_vectors = n_vectors(shape, first);
            let (block, after) = rest.split_at_mut(block_lines(shape, n_vectors));
            rest = after;
            let n = (out_per_group - first).min(BLOCK);
            let first = group * out_per_group + first;
            Header::of(layer, first, n, row_of).write(block);
            let weights = &mut block[HEADER_LINES..];
            for vector in 0..n_vectors {
                for lane in 0..LANES {
                    let channel = channel_of(n == BLOCK, vector, lane);
                    let row: &[i8] = if channel < n { row_of(first + channel) } else { &[] };
                    for at in 0..depth(shape) {
                        let w = row.get(at).copied().unwrap_or(0);
                        weights[at / 4 * n_vectors + vector].0[lane * 4 + at % 4] = w as u8;
                    }
                }
            }
        }
    }
}

/// # Safety
/// AVX-512 F, BW, VL and VNNI. Lengths as `packed::conv` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn dense(
    shape: &ConvShape,
    packed: &[Line],
    zero_point_in: i32,
    clamp: Clamp,
    input: &[i8],
    scratch: &mut [Line],
    output: &mut [i8],
) {
    let (depth, out_c, out_per_group) = (depth(shape), shape.output.c, out_per_group(shape));
    let per_panel = panel_pixels(shape);
    let n_pixels = shape.output.n_pixels();
    // SAFETY: scratch is plain bytes, as long as its lines.
    let panel = unsafe { core::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<u8>(), size_of_val(scratch)) };
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    for first_pixel in (0..n_pixels).step_by(per_panel) {
        let n = per_panel.min(n_pixels - first_pixel);
        let mut blocks = packed;
        for group in 0..shape.groups {
            // SAFETY: the panel has room for `per_panel` patches and a vector more.
            unsafe { gather(shape, input, group, zero_point_in, first_pixel, n, panel) };
            for first in (0..out_per_group).step_by(BLOCK) {
                let n_vectors = n_vectors(shape, first);
                let (block, rest) = blocks.split_at(block_lines(shape, n_vectors));
                blocks = rest;
                let job = Job {
                    header: Header::read(block),
                    weights: block[HEADER_LINES..].as_ptr().cast(),
                    n_quads: depth / 4,
                    stride: out_c,
                    n_channels: (out_per_group - first).min(BLOCK),
                    target: &target,
                };
                let channel = group * out_per_group + first;
                let out = &mut output[first_pixel * out_c + channel..];
                // SAFETY: `n` patches of `depth` bytes lie in the panel; `out` begins at the first pixel's channel.
                unsafe { job.run(panel, n, n_vectors, out) };
            }
        }
    }
}

/// One block of weights over one panel.
struct Job<'a> {
    header: &'a Header,
    /// `[n_quads, n_vectors]` lines.
    weights: *const u8,
    n_quads: usize,
    /// Bytes from one output pixel to the next.
    stride: usize,
    /// At most [`BLOCK`].
    n_channels: usize,
    target: &'a Target,
}

impl Job<'_> {
    /// # Safety
    /// As [`dense`]; `panel` holds `n` patches of `4 * n_quads` bytes, `out` reaches to the last pixel's channels.
    #[inline(always)]
    unsafe fn run(&self, panel: &[u8], n: usize, n_vectors: usize, out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match (n_vectors, self.header.is_fast()) {
                (4, true) => self.passes::<4, PIXELS_WIDE, true>(panel, n, out),
                (4, false) => self.passes::<4, PIXELS_WIDE, false>(panel, n, out),
                (3, true) => self.passes::<3, PIXELS_WIDE, true>(panel, n, out),
                (3, false) => self.passes::<3, PIXELS_WIDE, false>(panel, n, out),
                (2, true) => self.passes::<2, PIXELS, true>(panel, n, out),
                (2, false) => self.passes::<2, PIXELS, false>(panel, n, out),
                (_, true) => self.passes::<1, PIXELS, true>(panel, n, out),
                (_, false) => self.passes::<1, PIXELS, false>(panel, n, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn passes<const V: usize, const P: usize, const FAST: bool>(&self, panel: &[u8], n: usize, out: &mut [i8]) {
        let depth = 4 * self.n_quads;
        for first in (0..n).step_by(P) {
            // The panel is a whole number of passes; pixels past `n` are computed from what lies there and not stored.
            let patches = &panel[first * depth..][..P * depth];
            let n = P.min(n - first);
            let out = &mut out[first * self.stride..];
            assert!(out.len() >= (n - 1) * self.stride + self.n_channels);
            // SAFETY: `patches` holds P patches, and `out` was just measured.
            unsafe { self.pass::<V, P, FAST>(patches.as_ptr(), n, out.as_mut_ptr()) };
        }
    }

    /// P pixels times V vectors of channels in registers.
    #[inline(always)]
    unsafe fn pass<const V: usize, const P: usize, const FAST: bool>(
        &self,
        patches: *const u8,
        n: usize,
        out: *mut i8,
    ) {
        unsafe {
            let depth = 4 * self.n_quads;
            let mut acc = [[_mm512_setzero_si512(); V]; P];
            for (v, start) in core::array::from_fn::<_, V, _>(|v| self.header.start(v)).into_iter().enumerate() {
                for acc in &mut acc {
                    acc[v] = start;
                }
            }
            let mut weights = self.weights;
            for quad in 0..self.n_quads {
                let w: [__m512i; V] = core::array::from_fn(|v| _mm512_load_si512(weights.add(64 * v).cast()));
                weights = weights.add(64 * V);
                for (p, acc) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(patches.add(p * depth + 4 * quad).cast::<i32>().read_unaligned());
                    for (acc, w) in acc.iter_mut().zip(&w) {
                        *acc = _mm512_dpbusd_epi32(*acc, x, *w);
                    }
                }
            }
            for (p, acc) in acc.iter().enumerate() {
                if p >= n {
                    break;
                }
                let out = out.add(p * self.stride);
                let result = |v: usize| self.header.requantize::<FAST>(acc[v], v, self.target);
                if V == 4 && self.n_channels == BLOCK {
                    let bytes = self.target.narrow_block([result(0), result(1), result(2), result(3)]);
                    _mm512_storeu_si512(out.cast(), bytes);
                } else {
                    for v in 0..V {
                        let mask = first_of_16(self.n_channels - v * LANES);
                        _mm_mask_storeu_epi8(out.add(v * LANES), mask, self.target.narrow(result(v)));
                    }
                }
            }
        }
    }
}

/// Copies the patches of `n` output pixels into the panel, with the sign flipped.
///
/// # Safety
/// AVX-512 F and BW; the panel has room for `n` patches and 63 bytes more.
#[inline(always)]
unsafe fn gather(
    shape: &ConvShape,
    input: &[i8],
    group: usize,
    zero_point: i32,
    first: usize,
    n: usize,
    panel: &mut [u8],
) {
    let (window, dims, in_per_group) = (shape.window, shape.input, shape.in_per_group());
    let (depth, channel) = (depth(shape), group * in_per_group);
    let [kernel_h, kernel_w] = window.kernel;
    let padding = zero_point as u8 ^ 0x80;
    if shape.patch_len() == dims.c
        && window.stride == [1, 1]
        && dims.n_pixels() == shape.output.n_pixels()
        && depth == dims.c
    {
        // A 1x1 convolution reads its input as it lies.
        let (from, to) = (&input[first * depth..][..n * depth], &mut panel[..n * depth]);
        // SAFETY: both slices are of this length.
        return unsafe { flip(from.as_ptr(), to.as_mut_ptr(), n * depth) };
    }
    for i in 0..n {
        let (oy, ox) = ((first + i) / shape.output.w, (first + i) % shape.output.w);
        let patch = &mut panel[i * depth..][..depth];
        let mut at = 0;
        for ky in 0..kernel_h {
            let y = window.source(0, oy, ky, dims.h);
            // A row of the window that lies inside and is dense in the input is one run.
            let x = window.source(1, ox, 0, dims.w);
            let is_run = in_per_group == dims.c && window.dilation[1] == 1;
            match (y, x) {
                (Some(y), Some(x)) if is_run && x + kernel_w <= dims.w => {
                    let run = &input[(y * dims.w + x) * dims.c..][..kernel_w * dims.c];
                    // SAFETY: the run's length on both sides.
                    unsafe { flip(run.as_ptr(), patch[at..][..run.len()].as_mut_ptr(), run.len()) };
                    at += run.len();
                }
                _ => {
                    for kx in 0..kernel_w {
                        let to = &mut patch[at..][..in_per_group];
                        at += in_per_group;
                        match y.zip(window.source(1, ox, kx, dims.w)) {
                            Some((y, x)) => {
                                let from = &input[(y * dims.w + x) * dims.c + channel..][..in_per_group];
                                // SAFETY: both slices are of this length.
                                unsafe { flip(from.as_ptr(), to.as_mut_ptr(), in_per_group) };
                            }
                            None => to.fill(padding),
                        }
                    }
                }
            }
        }
    }
}

/// `to[i] = from[i] + 128`, `n` bytes.
///
/// # Safety
/// AVX-512 F and BW; both sides hold `n` bytes.
#[inline(always)]
unsafe fn flip(from: *const i8, to: *mut u8, n: usize) {
    unsafe {
        let sign = _mm512_set1_epi8(-128);
        let mut at = 0;
        while at + 64 <= n {
            let x = _mm512_loadu_si512(from.add(at).cast());
            _mm512_storeu_si512(to.add(at).cast(), _mm512_xor_si512(x, sign));
            at += 64;
        }
        if at < n {
            let mask = super::header::first_of_64(n - at);
            let x = _mm512_maskz_loadu_epi8(mask, from.add(at));
            _mm512_mask_storeu_epi8(to.add(at).cast(), mask, _mm512_xor_si512(x, sign));
        }
    }
}
