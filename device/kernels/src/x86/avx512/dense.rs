//! Convolutions of any shape but depthwise: patches of a few pixels against blocks of up to 64 output channels.
//!
//! A panel of patches is gathered, then every block of weights passes over it once: weights are read from far away as
//! seldom as the panel is large, and the panel stays in the first-level cache. A block holds, after its header, for
//! every four bytes of a patch the four weights of each of its channels.

use core::arch::x86_64::*;

use super::header::{
    BLOCK, DOUBLE, HEADER_LINES, Header, INTEGER, LANES, SINGLE, Target, channel_of, first_of_16, first_of_64,
};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line};
use crate::requantize::Clamp;

/// Pixels of one pass by the number of vectors of channels: at most 24 accumulators, at least enough to hide the latency
/// of a multiply-add.
const PIXELS_OF: [usize; 4] = [12, 8, 6, 6];
/// Panels are whole passes of any kind.
const PIXELS: usize = 24;
/// Bytes of a panel, so that it shares the first-level cache with a block of weights.
const PANEL_BYTES: usize = 24 << 10;

/// Most rows of a window whose places are kept.
const SHORT_ROWS: usize = 8;

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

pub(in crate::x86) fn packed_lines(shape: &ConvShape) -> usize {
    let blocks = (0..out_per_group(shape)).step_by(BLOCK);
    shape.groups * blocks.map(|first| block_lines(shape, n_vectors(shape, first))).sum::<usize>()
}

/// Pixels of a panel.
fn panel_pixels(shape: &ConvShape) -> usize {
    let fit = (PANEL_BYTES / depth(shape)).max(1).next_multiple_of(PIXELS);
    fit.min(shape.output.n_pixels().next_multiple_of(PIXELS))
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape) -> usize {
    // Patches are written in whole vectors, past their ends.
    (panel_pixels(shape) * depth(shape)).div_ceil(size_of::<Line>()) + 1
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
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
                    let channel = channel_of(n, vector, lane);
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
            match (n_vectors, self.header.form()) {
                (4, SINGLE) => self.passes::<4, { PIXELS_OF[3] }, SINGLE>(panel, n, out),
                (4, DOUBLE) => self.passes::<4, { PIXELS_OF[3] }, DOUBLE>(panel, n, out),
                (4, _) => self.passes::<4, { PIXELS_OF[3] }, INTEGER>(panel, n, out),
                (3, SINGLE) => self.passes::<3, { PIXELS_OF[2] }, SINGLE>(panel, n, out),
                (3, DOUBLE) => self.passes::<3, { PIXELS_OF[2] }, DOUBLE>(panel, n, out),
                (3, _) => self.passes::<3, { PIXELS_OF[2] }, INTEGER>(panel, n, out),
                (2, SINGLE) => self.passes::<2, { PIXELS_OF[1] }, SINGLE>(panel, n, out),
                (2, DOUBLE) => self.passes::<2, { PIXELS_OF[1] }, DOUBLE>(panel, n, out),
                (2, _) => self.passes::<2, { PIXELS_OF[1] }, INTEGER>(panel, n, out),
                (_, SINGLE) => self.passes::<1, { PIXELS_OF[0] }, SINGLE>(panel, n, out),
                (_, DOUBLE) => self.passes::<1, { PIXELS_OF[0] }, DOUBLE>(panel, n, out),
                (_, _) => self.passes::<1, { PIXELS_OF[0] }, INTEGER>(panel, n, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn passes<const V: usize, const P: usize, const FORM: u32>(&self, panel: &[u8], n: usize, out: &mut [i8]) {
        let depth = 4 * self.n_quads;
        for first in (0..n).step_by(P) {
            // The panel is a whole number of passes; pixels past `n` are computed from what lies there and not stored.
            let patches = &panel[first * depth..][..P * depth];
            let n = P.min(n - first);
            let out = &mut out[first * self.stride..];
            assert!(out.len() >= (n - 1) * self.stride + self.n_channels);
            // SAFETY: `patches` holds P patches, and `out` was just measured.
            unsafe {
                if n == P {
                    self.whole_pass::<V, P, FORM>(patches.as_ptr(), out.as_mut_ptr());
                } else {
                    self.last_pass::<V, P, FORM>(patches.as_ptr(), n, out.as_mut_ptr());
                }
            }
        }
    }

    /// Sums of P pixels times V vectors of channels, in registers while they grow.
    ///
    /// Loops of known length instead of closures here and below: a closure is a function without these instructions.
    #[inline(always)]
    unsafe fn accumulate<const V: usize, const P: usize>(&self, patches: *const u8) -> [[__m512i; V]; P] {
        unsafe {
            let depth = 4 * self.n_quads;
            let mut acc = [[_mm512_setzero_si512(); V]; P];
            for v in 0..V {
                let start = self.header.start(v);
                for acc in &mut acc {
                    acc[v] = start;
                }
            }
            let mut weights = self.weights;
            for quad in 0..self.n_quads {
                let mut w = [_mm512_setzero_si512(); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = _mm512_load_si512(weights.add(64 * v).cast());
                }
                weights = weights.add(64 * V);
                for (p, acc) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(patches.add(p * depth + 4 * quad).cast::<i32>().read_unaligned());
                    for (acc, w) in acc.iter_mut().zip(&w) {
                        *acc = _mm512_dpbusd_epi32(*acc, x, *w);
                    }
                }
            }
            acc
        }
    }

    /// One pass, all of whose pixels count. Every loop has a known length, so that sums never leave the registers: vector
    /// stores are slow on some CPUs.
    #[inline(always)]
    unsafe fn whole_pass<const V: usize, const P: usize, const FORM: u32>(&self, patches: *const u8, out: *mut i8) {
        unsafe {
            let sums = self.accumulate::<V, P>(patches);
            for (p, sums) in sums.into_iter().enumerate() {
                self.header.finish::<V, FORM>(sums, self.n_channels, self.target, out.add(p * self.stride));
            }
        }
    }

    /// The pass that ends with its first `n` pixels.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn last_pass<const V: usize, const P: usize, const FORM: u32>(
        &self,
        patches: *const u8,
        n: usize,
        out: *mut i8,
    ) {
        unsafe {
            let sums = self.accumulate::<V, P>(patches);
            for (p, sums) in sums.into_iter().enumerate().take(n) {
                self.header.finish::<V, FORM>(sums, self.n_channels, self.target, out.add(p * self.stride));
            }
        }
    }
}

/// Copies the patches of `n` output pixels into the panel, with the sign flipped.
///
/// # Safety
/// AVX-512 F, BW and VL; the panel has room for `n` patches and a line more.
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
    if window.kernel == [1, 1]
        && in_per_group == dims.c
        && window.stride == [1, 1]
        && dims.n_pixels() == shape.output.n_pixels()
        && depth == dims.c
    {
        // A 1x1 convolution reads its input as it lies.
        let (from, to) = (&input[first * depth..][..n * depth], &mut panel[..n * depth + 63]);
        // SAFETY: the slices' lengths.
        return unsafe { flip(from.as_ptr(), to.as_mut_ptr(), n * depth) };
    }
    // A row of the window that is dense in the input is one run where it lies inside.
    let is_run = in_per_group == dims.c && window.dilation[1] == 1;
    let run_len = kernel_w * dims.c;
    let (mut oy, mut ox) = (first / shape.output.w, first % shape.output.w);
    // Patches are written in order, and each run over is written again by what follows it; behind the last patch lies a
    // line for that.
    assert!(panel.len() >= n * depth + size_of::<Line>());
    // Rows of the window for the current output row, and whether all of them lie inside.
    let rows_of = |oy: usize| {
        let rows: [Option<usize>; SHORT_ROWS] =
            core::array::from_fn(|ky| window.source(0, oy, ky, dims.h).filter(|_| ky < kernel_h));
        let is_whole = kernel_h <= SHORT_ROWS && rows.iter().take(kernel_h).all(Option::is_some);
        (rows.map(|y| y.unwrap_or(0) * dims.w * dims.c), is_whole)
    };
    let (mut rows, mut is_whole) = rows_of(oy);
    for i in 0..n {
        let column = (ox * window.stride[1]).wrapping_sub(window.pad_before[1]);
        let is_inside = is_run && column < dims.w && column + kernel_w <= dims.w;
        let mut at = i * depth;
        let is_short = is_inside && is_whole && run_len <= LANES;
        if is_short && rows[kernel_h - 1] + column * dims.c + LANES <= input.len() {
            // The stem: a few bytes per row, read past their ends as far as the input reaches.
            for row in &rows[..kernel_h] {
                // SAFETY: the last row's read was just checked, and a line more is in the panel.
                unsafe {
                    let x = _mm_loadu_si128(input.as_ptr().add(row + column * dims.c).cast());
                    let sign = _mm_set1_epi8(-128);
                    _mm_storeu_si128(panel.as_mut_ptr().add(at).cast(), _mm_xor_si128(x, sign));
                }
                at += run_len;
            }
        } else {
            for ky in 0..kernel_h {
                let y = window.source(0, oy, ky, dims.h);
                match y {
                    Some(y) if is_inside => {
                        let run = &input[(y * dims.w + column) * dims.c..][..run_len];
                        // SAFETY: the run's length on both sides, and a line more in the panel.
                        unsafe { flip(run.as_ptr(), panel.as_mut_ptr().add(at), run_len) };
                        at += run_len;
                    }
                    _ => {
                        for kx in 0..kernel_w {
                            match y.zip(window.source(1, ox, kx, dims.w)) {
                                Some((y, x)) => {
                                    let from = &input[(y * dims.w + x) * dims.c + channel..][..in_per_group];
                                    // SAFETY: as above.
                                    unsafe { flip(from.as_ptr(), panel.as_mut_ptr().add(at), in_per_group) };
                                }
                                None => panel[at..][..in_per_group].fill(padding),
                            }
                            at += in_per_group;
                        }
                    }
                }
            }
        }
        ox += 1;
        if ox == shape.output.w {
            (oy, ox) = (oy + 1, 0);
            (rows, is_whole) = rows_of(oy);
        }
    }
}

/// `to[i] = from[i] + 128`, `n` bytes; up to 63 more are overwritten, which is cheaper than a masked store.
///
/// # Safety
/// AVX-512 F, BW and VL; `from` holds `n` bytes, `to` has room for `n + 63`.
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
        let left = n - at;
        if left > LANES {
            let x = _mm512_maskz_loadu_epi8(first_of_64(left), from.add(at));
            _mm512_storeu_si512(to.add(at).cast(), _mm512_xor_si512(x, sign));
        } else if left > 0 {
            let x = _mm_maskz_loadu_epi8(first_of_16(left), from.add(at));
            _mm_storeu_si128(to.add(at).cast(), _mm_xor_si128(x, _mm512_castsi512_si128(sign)));
        }
    }
}
