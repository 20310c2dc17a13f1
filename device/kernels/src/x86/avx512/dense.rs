//! Convolutions of any shape but depthwise: patches of a few pixels against blocks of up to 64 output channels.
//!
//! A panel of input is copied into scratch, with the sign flipped, then every block of weights passes over it once: weights
//! are read from far away as seldom as the panel is large. Where windows are dense in the input a panel is padded rows of
//! it, and patches are read in place, a run per row of the window; else patches are gathered. A block holds, after its
//! header, for every four bytes of a patch the four weights of each of its channels.

use core::arch::x86_64::*;

use super::header::{
    BLOCK, DOUBLE, HEADER_LINES, Header, INTEGER, LANES, SINGLE, Target, channel_of, first_of_16, first_of_64,
};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line};
use crate::requantize::Clamp;
use crate::view::{Dims, Window};

/// Pixels of one pass by the number of vectors of channels: 12 to 16 accumulators, enough to hide the latency of a
/// multiply-add, and few enough that a CPU begins the next pass while it requantizes this one.
const PIXELS_OF: [usize; 4] = [12, 6, 4, 4];
/// Panels of gathered patches, and tables of offsets, are whole passes of any kind.
const PIXELS: usize = 12;
/// Bytes of a panel, so that it shares the first-level cache with a block of weights.
const PANEL_BYTES: usize = 24 << 10;
/// Bytes of a panel that is the whole input: with it weights are read once, and it shares the second-level cache with them.
const WHOLE_BYTES: usize = 128 << 10;
/// Bytes of weights from which that pays.
const WHOLE_WEIGHTS_MIN: usize = 64 << 10;

/// Where the bytes of a patch lie in a panel: `n_runs` runs of `run_len` bytes, padded to quads, `run_stride` bytes apart.
#[derive(Clone, Copy)]
struct Patch {
    n_runs: usize,
    run_len: usize,
    run_stride: usize,
    /// Pixels of a panel.
    n_pixels: usize,
    /// Bytes of a panel.
    panel_len: usize,
    /// Rows of the input lie in the panel; else patches that were gathered.
    in_rows: bool,
    /// Patches are single runs, one right after the other: no table is needed to find them.
    is_linear: bool,
}

impl Patch {
    fn of(shape: &ConvShape) -> Patch {
        let (window, c) = (&shape.window, shape.input.c);
        let (n_runs, run_len) = runs(shape);
        if lies_in_rows(shape) {
            let run_stride = row_pixels(shape) * c;
            let len = |rows: usize| rows_in(shape, rows) * run_stride;
            let rows = match shape.output.h {
                all if len(all) <= WHOLE_BYTES && shape.weights_len() >= WHOLE_WEIGHTS_MIN => all,
                // As many as fit, and at least one; whole passes if they can be.
                all => {
                    let fit = (PANEL_BYTES / run_stride).saturating_sub(window.kernel[0]) / window.stride[0] + 1;
                    let even = (1..=PIXELS).find(|rows| (rows * shape.output.w).is_multiple_of(PIXELS));
                    let rest = even.filter(|even| *even <= fit).map_or(0, |even| fit % even);
                    (fit - rest).min(all)
                }
            };
            let n_pixels = rows * shape.output.w;
            let is_linear = window.kernel == [1, 1] && c.is_multiple_of(4);
            // Passes read whole, past the last patch.
            let panel_len = if is_linear { n_pixels.next_multiple_of(PIXELS) * c } else { len(rows) };
            Patch { n_runs, run_len, run_stride, n_pixels, panel_len, in_rows: true, is_linear }
        } else {
            let run_stride = run_len.next_multiple_of(4);
            let fit = (PANEL_BYTES / run_stride).max(1).next_multiple_of(PIXELS);
            let n_pixels = fit.min(shape.output.n_pixels().next_multiple_of(PIXELS));
            let panel_len = n_pixels * run_stride;
            Patch { n_runs, run_len, run_stride, n_pixels, panel_len, in_rows: false, is_linear: true }
        }
    }

    /// Of one run.
    fn n_quads(&self) -> usize {
        self.run_len.div_ceil(4)
    }

    /// Entries of the table of offsets.
    fn n_offsets(&self) -> usize {
        if self.is_linear { 0 } else { self.n_pixels.next_multiple_of(PIXELS) }
    }

    /// Lines of the panel, with a line more: its end is overwritten in whole vectors, and read in whole quads.
    fn panel_lines(&self) -> usize {
        self.panel_len.div_ceil(size_of::<Line>()) + 1
    }

    /// Writes where in the panel each pixel's patch begins; pixels past the panel's begin with the first one's.
    fn write_offsets(&self, shape: &ConvShape, offsets: &mut [u32]) {
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

/// A 1x1 convolution knows no rows: a panel may end at any pixel of it.
fn flat(shape: &ConvShape) -> ConvShape {
    let mut flat = *shape;
    let is_padded = (shape.input.h, shape.input.w) != (shape.output.h, shape.output.w);
    if shape.window.kernel == [1, 1] && lies_in_rows(shape) && !is_padded {
        flat.input = Dims { h: shape.input.n_pixels(), w: 1, c: shape.input.c };
        flat.output = Dims { h: shape.output.n_pixels(), w: 1, c: shape.output.c };
    }
    flat
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

/// Vectors of the block that begins at channel `first` of a group.
fn n_vectors(shape: &ConvShape, first: usize) -> usize {
    (out_per_group(shape) - first).min(BLOCK).div_ceil(LANES)
}

fn out_per_group(shape: &ConvShape) -> usize {
    shape.output.c / shape.groups
}

/// Bytes of a patch with padding.
fn depth(shape: &ConvShape) -> usize {
    let (n_runs, run_len) = runs(shape);
    n_runs * run_len.next_multiple_of(4)
}

/// Lines of a block of so many vectors: a line of weights per vector and four bytes of the patch.
fn block_lines(depth: usize, n_vectors: usize) -> usize {
    HEADER_LINES + n_vectors * depth / 4
}

pub(in crate::x86) fn packed_lines(shape: &ConvShape) -> usize {
    let (depth, c) = (depth(shape), out_per_group(shape));
    let rest = if c.is_multiple_of(BLOCK) { 0 } else { block_lines(depth, n_vectors(shape, c / BLOCK * BLOCK)) };
    shape.groups * (c / BLOCK * block_lines(depth, BLOCK / LANES) + rest)
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape) -> usize {
    let patch = Patch::of(&flat(shape));
    patch.panel_lines() + (patch.n_offsets() * size_of::<u32>()).div_ceil(size_of::<Line>())
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let (patch, patch_len, out_per_group) = (Patch::of(shape), shape.patch_len(), out_per_group(shape));
    let depth = depth(shape);
    let row_of = |channel: usize| &layer.weights[channel * patch_len..][..patch_len];
    let mut rest = packed;
    for group in 0..shape.groups {
        for first in (0..out_per_group).step_by(BLOCK) {
            let n_vectors = n_vectors(shape, first);
            let (block, after) = rest.split_at_mut(block_lines(depth, n_vectors));
            rest = after;
            let n = (out_per_group - first).min(BLOCK);
            let first = group * out_per_group + first;
            Header::of(layer, first, n, row_of).write(block);
            let weights = &mut block[HEADER_LINES..];
            for vector in 0..n_vectors {
                let channels = core::array::from_fn(|lane| Some(channel_of(n, vector, lane)).filter(|c| *c < n));
                let rows = &layer.weights[first * patch_len..][..n * patch_len];
                // SAFETY: the caller vouches for the CPU (`packed::pack`).
                unsafe { pack_vector(&patch, rows, channels, weights[vector..].iter_mut().step_by(n_vectors)) };
            }
        }
    }
}

/// Packs the weights `rows` `[n, patch_len]` of up to 16 of the channels into one line per quad of a patch; zeros where
/// there is no channel, and where a run ends.
///
/// # Safety
/// AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn pack_vector<'l>(
    patch: &Patch,
    rows: &[i8],
    channels: [Option<usize>; LANES],
    mut lines: impl Iterator<Item = &'l mut Line>,
) {
    let patch_len = patch.n_runs * patch.run_len;
    let starts = channels.map(|channel| channel.map_or(0, |channel| (channel * patch_len) as i32));
    let lanes =
        channels.iter().enumerate().fold(0, |mask, (lane, channel)| mask | u16::from(channel.is_some()) << lane);
    assert!(channels.iter().flatten().all(|channel| (channel + 1) * patch_len <= rows.len()));
    assert!(rows.len() <= i32::MAX as usize);
    // SAFETY: sixteen numbers.
    let starts = unsafe { _mm512_loadu_si512(starts.as_ptr().cast()) };
    for run in 0..patch.n_runs {
        for quad in 0..patch.n_quads() {
            let (Some(line), at) = (lines.next(), run * patch.run_len + 4 * quad) else { return };
            let left = patch.run_len - 4 * quad;
            if left >= 4 {
                // SAFETY: four bytes from `at` on lie in each row, and rows lie in `rows`; a line is sixteen numbers.
                unsafe {
                    let from = rows.as_ptr().add(at).cast();
                    let quads = _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), lanes, starts, from);
                    _mm512_store_si512(line.0.as_mut_ptr().cast(), quads);
                }
                continue;
            }
            line.0.fill(0);
            for (lane, channel) in channels.iter().enumerate() {
                for (i, byte) in line.0[4 * lane..].iter_mut().enumerate().take(left) {
                    *byte = channel.map_or(0, |channel| rows[channel * patch_len + at + i] as u8);
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
    let shape = &flat(shape);
    let (patch, out_c, out_per_group) = (Patch::of(shape), shape.output.c, out_per_group(shape));
    let depth = depth(shape);
    let n_pixels = shape.output.n_pixels();
    let (panel, offsets) = scratch.split_at_mut(patch.panel_lines());
    // SAFETY: scratch is plain bytes, as long as its lines and aligned for more than this.
    let panel = unsafe { core::slice::from_raw_parts_mut(panel.as_mut_ptr().cast::<u8>(), size_of_val(panel)) };
    let n_offsets = patch.n_offsets();
    assert!(size_of_val(offsets) >= n_offsets * size_of::<u32>());
    // SAFETY: as above, and the length was just checked.
    let offsets = unsafe { core::slice::from_raw_parts_mut(offsets.as_mut_ptr().cast::<u32>(), n_offsets) };
    patch.write_offsets(shape, offsets);
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    for first_pixel in (0..n_pixels).step_by(patch.n_pixels) {
        let n = patch.n_pixels.min(n_pixels - first_pixel);
        let mut blocks = packed;
        for group in 0..shape.groups {
            // SAFETY: the panel has room for `patch.n_pixels` patches and a line more.
            unsafe {
                if patch.in_rows {
                    spread(
                        shape,
                        &patch,
                        input,
                        zero_point_in,
                        first_pixel / shape.output.w,
                        n / shape.output.w,
                        panel,
                    );
                } else {
                    gather(shape, &patch, input, group, zero_point_in, first_pixel, n, panel);
                }
            }
            for first in (0..out_per_group).step_by(BLOCK) {
                let n_vectors = n_vectors(shape, first);
                let (block, rest) = blocks.split_at(block_lines(depth, n_vectors));
                blocks = rest;
                let job = Job {
                    header: Header::read(block),
                    weights: block[HEADER_LINES..].as_ptr().cast(),
                    patch: &patch,
                    offsets,
                    stride: out_c,
                    n_channels: (out_per_group - first).min(BLOCK),
                    target: &target,
                };
                let channel = group * out_per_group + first;
                let out = &mut output[first_pixel * out_c + channel..];
                // SAFETY: `n` patches lie in the panel where `offsets` says; `out` begins at the first pixel's channel.
                unsafe { job.run(panel, n, n_vectors, out) };
            }
        }
    }
}

/// One block of weights over one panel.
struct Job<'a> {
    header: &'a Header,
    /// `[n_runs, n_quads, n_vectors]` lines.
    weights: *const u8,
    patch: &'a Patch,
    /// Of the panel's pixels, whole passes.
    offsets: &'a [u32],
    /// Bytes from one output pixel to the next.
    stride: usize,
    /// At most [`BLOCK`].
    n_channels: usize,
    target: &'a Target,
}

impl Job<'_> {
    /// # Safety
    /// As [`dense`]; `panel` holds `n` patches, `out` reaches to the last pixel's channels.
    #[inline(always)]
    unsafe fn run(&self, panel: &[u8], n: usize, n_vectors: usize, out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match self.patch.is_linear {
                true => self.run_as::<true>(panel, n, n_vectors, out),
                false => self.run_as::<false>(panel, n, n_vectors, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_as<const LINEAR: bool>(&self, panel: &[u8], n: usize, n_vectors: usize, out: &mut [i8]) {
        unsafe {
            match n_vectors {
                4 => self.run_on::<4, { PIXELS_OF[3] }, { PIXELS_OF[3] / 2 }, LINEAR>(panel, n, out),
                3 => self.run_on::<3, { PIXELS_OF[2] }, { PIXELS_OF[2] / 2 }, LINEAR>(panel, n, out),
                2 => self.run_on::<2, { PIXELS_OF[1] }, { PIXELS_OF[1] / 2 }, LINEAR>(panel, n, out),
                _ => self.run_on::<1, { PIXELS_OF[0] }, { PIXELS_OF[0] / 2 }, LINEAR>(panel, n, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_on<const V: usize, const P: usize, const H: usize, const LINEAR: bool>(
        &self,
        panel: &[u8],
        n: usize,
        out: &mut [i8],
    ) {
        unsafe {
            match self.header.form() {
                SINGLE => self.passes::<V, P, H, SINGLE, LINEAR>(panel, n, out),
                DOUBLE => self.passes::<V, P, H, DOUBLE, LINEAR>(panel, n, out),
                _ => self.passes::<V, P, H, INTEGER, LINEAR>(panel, n, out),
            }
        }
    }

    /// Passes of P pixels, and of H where no more are left.
    #[inline(always)]
    unsafe fn passes<const V: usize, const P: usize, const H: usize, const FORM: u32, const LINEAR: bool>(
        &self,
        panel: &[u8],
        n: usize,
        out: &mut [i8],
    ) {
        let patch = self.patch;
        assert!(n <= patch.n_pixels && panel.len() >= patch.panel_len + size_of::<Line>());
        let mut first = 0;
        while first < n {
            let (offsets, left) = (self.offsets.get(first..).unwrap_or_default(), n - first);
            let step = 4 * patch.n_quads();
            let panel = if LINEAR { &panel[first * step..][..P * step] } else { panel };
            let out = &mut out[first * self.stride..];
            assert!((LINEAR || offsets.len() >= P) && out.len() >= (left.min(P) - 1) * self.stride + self.n_channels);
            let (panel, out) = (panel.as_ptr(), out.as_mut_ptr());
            // SAFETY: offsets are of patches in the panel, those past `n` too, and `out` was just measured.
            unsafe {
                if left >= P {
                    self.whole_pass::<V, P, FORM, LINEAR>(panel, offsets, out);
                    first += P;
                } else if left > H {
                    self.last_pass::<V, P, FORM, LINEAR>(panel, offsets, left, out);
                    first = n;
                } else {
                    self.last_pass::<V, H, FORM, LINEAR>(panel, offsets, left, out);
                    first = n;
                }
            }
        }
    }

    /// Sums of P pixels times V vectors of channels, in registers while they grow.
    ///
    /// Loops of known length instead of closures here and below: a closure is a function without these instructions.
    #[inline(always)]
    unsafe fn accumulate<const V: usize, const P: usize, const LINEAR: bool>(
        &self,
        panel: *const u8,
        offsets: &[u32],
    ) -> [[__m512i; V]; P] {
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); V]; P];
            for v in 0..V {
                let start = self.header.start(v);
                for acc in &mut acc {
                    acc[v] = start;
                }
            }
            let mut patches = [panel; P];
            let n_quads = self.patch.n_quads();
            for (p, patch) in patches.iter_mut().enumerate() {
                *patch = panel.add(if LINEAR { p * 4 * n_quads } else { *offsets.get_unchecked(p) as usize });
            }
            let mut weights = self.weights;
            let n_runs = if LINEAR { 1 } else { self.patch.n_runs };
            for run in 0..n_runs {
                let mut at = run * self.patch.run_stride;
                for _ in 0..n_quads {
                    let mut w = [_mm512_setzero_si512(); V];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = _mm512_load_si512(weights.add(64 * v).cast());
                    }
                    weights = weights.add(64 * V);
                    for (patch, acc) in patches.iter().zip(&mut acc) {
                        let x = _mm512_set1_epi32(patch.add(at).cast::<i32>().read_unaligned());
                        for (acc, w) in acc.iter_mut().zip(&w) {
                            *acc = _mm512_dpbusd_epi32(*acc, x, *w);
                        }
                    }
                    at += 4;
                }
            }
            acc
        }
    }

    /// One pass, all of whose pixels count. Every loop has a known length, so that sums never leave the registers: vector
    /// stores are slow on some CPUs.
    #[inline(always)]
    unsafe fn whole_pass<const V: usize, const P: usize, const FORM: u32, const LINEAR: bool>(
        &self,
        panel: *const u8,
        offsets: &[u32],
        out: *mut i8,
    ) {
        unsafe {
            let mut results = self.accumulate::<V, P, LINEAR>(panel, offsets);
            self.header.requantize_all::<V, FORM>(&mut results, self.target);
            for (p, result) in results.into_iter().enumerate() {
                self.target.store(result, self.n_channels, out.add(p * self.stride));
            }
        }
    }

    /// The pass that ends with its first `n` pixels.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn last_pass<const V: usize, const P: usize, const FORM: u32, const LINEAR: bool>(
        &self,
        panel: *const u8,
        offsets: &[u32],
        n: usize,
        out: *mut i8,
    ) {
        unsafe {
            let mut results = self.accumulate::<V, P, LINEAR>(panel, offsets);
            self.header.requantize_all::<V, FORM>(&mut results, self.target);
            for (p, result) in results.into_iter().enumerate().take(n) {
                self.target.store(result, self.n_channels, out.add(p * self.stride));
            }
        }
    }
}

/// Copies the input rows under `rows` output rows from `first` on into the panel, padded, with the sign flipped.
///
/// # Safety
/// AVX-512 F, BW and VL; the panel has room for them and a line more.
#[inline(always)]
unsafe fn spread(
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
unsafe fn gather(
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
