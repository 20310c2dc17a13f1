//! How the input of a convolution lies in scratch: as rows, read in place, or as gathered patches.

use core::arch::x86_64::*;

use super::header::{BLOCK, LANES, first_of_16, first_of_64};
use crate::conv::ConvShape;
use crate::packed::Line;
use crate::view::Window;

/// Panels of gathered patches, tables of offsets and sums are whole passes of any kind.
pub(super) const PIXELS: usize = 12;
/// Bytes of a panel that shares the first-level cache with a block of weights.
const PANEL_BYTES: usize = 24 << 10;
/// Bytes of a chunk of weights, where a block of them does not fit the first-level cache with all else.
pub(super) const CHUNK_BYTES: usize = 16 << 10;
/// Bytes of a panel that chunks pass over: it and its sums share the second-level cache with weights to come.
const CHUNKED_PANEL_BYTES: usize = 256 << 10;
/// Pixels of such a panel; their sums are 63 KiB.
const CHUNKED_PIXELS: usize = 252;

/// Where the bytes of a patch lie in a panel: `n_runs` runs of `run_len` bytes, padded to quads, `run_stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Patch {
    pub n_runs: usize,
    pub run_len: usize,
    pub run_stride: usize,
    /// Pixels of a panel.
    pub n_pixels: usize,
    /// Bytes of a panel.
    pub panel_len: usize,
    /// Rows of the input lie in the panel; else patches that were gathered.
    pub in_rows: bool,
    /// Patches are single runs, one right after the other: no table is needed to find them.
    pub is_linear: bool,
    /// Blocks of weights are read in chunks, each for all pixels of the panel, whose sums lie in scratch meanwhile. Weights
    /// then come from far away once per panel, and the next chunk while one is used.
    pub in_chunks: bool,
}

impl Patch {
    pub fn of(shape: &ConvShape) -> Patch {
        let (window, c) = (&shape.window, shape.input.c);
        let (n_runs, run_len) = runs(shape);
        let in_chunks = out_per_group(shape) >= BLOCK && depth(shape) * BLOCK > CHUNK_BYTES;
        let [bytes, pixels] = if in_chunks { [CHUNKED_PANEL_BYTES, CHUNKED_PIXELS] } else { [PANEL_BYTES, usize::MAX] };
        if lies_in_rows(shape) {
            let run_stride = row_pixels(shape) * c;
            let len = |rows: usize| rows_in(shape, rows) * run_stride;
            // As many as fit, and at least one; whole passes if they can be.
            let fit = (bytes / run_stride).saturating_sub(window.kernel[0]) / window.stride[0] + 1;
            let fit = fit.min(pixels / shape.output.w).max(1);
            let even = (1..=PIXELS).find(|rows| (rows * shape.output.w).is_multiple_of(PIXELS));
            let rest = even.filter(|even| *even <= fit).map_or(0, |even| fit % even);
            let rows = (fit - rest).min(shape.output.h);
            let n_pixels = rows * shape.output.w;
            let is_linear = window.kernel == [1, 1] && c.is_multiple_of(4);
            // Passes read whole, past the last patch.
            let panel_len = if is_linear { n_pixels.next_multiple_of(PIXELS) * c } else { len(rows) };
            Patch { n_runs, run_len, run_stride, n_pixels, panel_len, in_rows: true, is_linear, in_chunks }
        } else {
            let run_stride = run_len.next_multiple_of(4);
            let fit = (bytes / run_stride).min(pixels).max(1).next_multiple_of(PIXELS);
            let n_pixels = fit.min(shape.output.n_pixels().next_multiple_of(PIXELS));
            let panel_len = n_pixels * run_stride;
            Patch { n_runs, run_len, run_stride, n_pixels, panel_len, in_rows: false, is_linear: true, in_chunks }
        }
    }

    /// Of one run.
    pub fn n_quads(&self) -> usize {
        self.run_len.div_ceil(4)
    }

    /// Entries of the table of offsets.
    pub fn n_offsets(&self) -> usize {
        if self.is_linear { 0 } else { self.n_pixels.next_multiple_of(PIXELS) }
    }

    /// Lines of the panel, with a line more: its end is overwritten in whole vectors, and read in whole quads.
    pub fn panel_lines(&self) -> usize {
        self.panel_len.div_ceil(size_of::<Line>()) + 1
    }

    /// Lines of the sums of a panel's pixels with a block's channels.
    pub fn sums_lines(&self) -> usize {
        if self.in_chunks { self.n_pixels.next_multiple_of(PIXELS) * BLOCK / LANES } else { 0 }
    }

    /// Writes where in the panel each pixel's patch begins; pixels past the panel's begin with the first one's.
    pub fn write_offsets(&self, shape: &ConvShape, offsets: &mut [u32]) {
        let w = shape.output.w;
        let (step, row_step) = (shape.window.stride[1] * shape.input.c, shape.window.stride[0] * self.run_stride);
        let (pixels, rest) = offsets.split_at_mut(self.n_pixels.min(offsets.len()));
        for (row, offsets) in pixels.chunks_mut(w).enumerate() {
            for (x, offset) in offsets.iter_mut().enumerate() {
                *offset = (row * row_step + x * step) as u32;
            }
        }
        rest.fill(0);
    }
}

/// True if patches are read from rows of the input. Windows are dense in it, and a stride beyond the window would copy what
/// no patch reads.
fn lies_in_rows(shape: &ConvShape) -> bool {
    let Window { kernel, stride, dilation, .. } = shape.window;
    shape.groups == 1 && dilation == [1, 1] && kernel[0] >= stride[0] && kernel[1] >= stride[1]
}

/// Runs of a patch, and bytes of each.
fn runs(shape: &ConvShape) -> (usize, usize) {
    let kernel = shape.window.kernel;
    if lies_in_rows(shape) { (kernel[0], kernel[1] * shape.input.c) } else { (1, shape.patch_len()) }
}

/// Pixels of an input row that windows reach, padding among them.
fn row_pixels(shape: &ConvShape) -> usize {
    (shape.output.w - 1) * shape.window.stride[1] + shape.window.kernel[1]
}

/// Input rows under so many output rows.
fn rows_in(shape: &ConvShape, rows: usize) -> usize {
    (rows - 1) * shape.window.stride[0] + shape.window.kernel[0]
}

pub(super) fn out_per_group(shape: &ConvShape) -> usize {
    shape.output.c / shape.groups
}

/// Bytes of a patch with padding.
pub(super) fn depth(shape: &ConvShape) -> usize {
    let (n_runs, run_len) = runs(shape);
    n_runs * run_len.next_multiple_of(4)
}

/// Copies the input rows under `rows` output rows from `first` on into the panel, padded, with the sign flipped.
///
/// # Safety
/// AVX-512 F, BW and VL; the panel has room for them and a line more.
#[inline(always)]
pub(super) unsafe fn spread(
    shape: &ConvShape,
    patch: &Patch,
    input: &[i8],
    zero_point: i32,
    first: usize,
    rows: usize,
    panel: &mut [u8],
) {
    let (window, dims, row_len) = (&shape.window, shape.input, patch.run_stride);
    let padding = zero_point as u8 ^ 0x80;
    let before = (window.pad_before[1] * dims.c).min(row_len);
    let n = (dims.w * dims.c).min(row_len - before);
    assert!(panel.len() >= rows_in(shape, rows) * row_len + size_of::<Line>());
    let row_of = |i: usize| (first * window.stride[0] + i).checked_sub(window.pad_before[0]).filter(|y| *y < dims.h);
    if window.kernel == [1, 1] && (dims.h, dims.w) == (shape.output.h, shape.output.w) {
        // A 1x1 convolution reads its input as it lies.
        let from = &input[first * row_len..][..rows * row_len];
        // SAFETY: the slices' lengths.
        return unsafe { flip(from.as_ptr(), panel.as_mut_ptr(), from.len()) };
    }
    for i in 0..rows_in(shape, rows) {
        let at = i * row_len;
        match row_of(i) {
            Some(y) => {
                panel[at..][..before].fill(padding);
                let from = &input[y * dims.w * dims.c..][..n];
                // SAFETY: the row's length on both sides, and a line more in the panel.
                unsafe { flip(from.as_ptr(), panel.as_mut_ptr().add(at + before), n) };
                panel[at + before + n..at + row_len].fill(padding);
            }
            None => panel[at..][..row_len].fill(padding),
        }
    }
}

/// Copies the patches of `n` output pixels into the panel, one after the other, with the sign flipped.
///
/// # Safety
/// AVX-512 F, BW and VL; the panel has room for `n` patches and a line more.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) unsafe fn gather(
    shape: &ConvShape,
    patch: &Patch,
    input: &[i8],
    group: usize,
    zero_point: i32,
    first: usize,
    n: usize,
    panel: &mut [u8],
) {
    let (window, dims, in_per_group) = (shape.window, shape.input, shape.in_per_group());
    let channel = group * in_per_group;
    let padding = zero_point as u8 ^ 0x80;
    // Patches are written in order, and each piece over its end is written again by what follows it; behind the last patch
    // lies a line for that.
    assert!(panel.len() >= n * patch.run_stride + size_of::<Line>());
    for i in 0..n {
        let (oy, ox) = ((first + i) / shape.output.w, (first + i) % shape.output.w);
        let mut at = i * patch.run_stride;
        for ky in 0..window.kernel[0] {
            let y = window.source(0, oy, ky, dims.h);
            for kx in 0..window.kernel[1] {
                match y.zip(window.source(1, ox, kx, dims.w)) {
                    Some((y, x)) => {
                        let from = &input[(y * dims.w + x) * dims.c + channel..][..in_per_group];
                        // SAFETY: the piece's length on both sides, and a line more in the panel.
                        unsafe { flip(from.as_ptr(), panel.as_mut_ptr().add(at), in_per_group) };
                    }
                    None => panel[at..][..in_per_group].fill(padding),
                }
                at += in_per_group;
            }
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
