//! Convolutions of any shape but depthwise; those of 3x3 on wide pictures are [`winograd`]'s.
//!
//! Patches of a few pixels meet blocks of up to 64 output channels. A panel of input is copied into scratch, with the sign
//! flipped, then every block of weights passes over it once: weights are read from far away as seldom as the panel is large.
//! A block that the first-level cache has no room for passes over it in chunks. Where windows are dense in the input a panel
//! is padded rows of it, and patches are read in place, a run per row of the window; else patches are gathered. A block
//! holds, after its header, for every four bytes of a patch the four weights of each of its channels.

use core::arch::x86_64::*;

use super::header::{BLOCK, DOUBLE, HEADER_LINES, Header, INTEGER, LANES, SATURATED, SINGLE, Target, channel_of};
use super::panel::{CHUNK_BYTES, PIXELS, Patch, depth, gather, out_per_group, spread};
use super::winograd;
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};

/// Pixels of one pass by the number of vectors of channels: 12 to 16 accumulators, enough to hide the latency of a
/// multiply-add, and few enough that a CPU begins the next pass while it requantizes this one.
const PIXELS_OF: [usize; 4] = [12, 6, 4, 4];

/// Vectors of the block that begins at channel `first` of a group.
fn n_vectors(shape: &ConvShape, first: usize) -> usize {
    (out_per_group(shape) - first).min(BLOCK).div_ceil(LANES)
}

/// Lines of a block of so many vectors: a line of weights per vector and four bytes of the patch.
fn block_lines(depth: usize, n_vectors: usize) -> usize {
    HEADER_LINES + n_vectors * depth / 4
}

pub(in crate::x86) fn packed_lines(shape: &ConvShape) -> usize {
    // A layer that does not suit after all has room enough.
    if winograd::suits(shape) { winograd::packed_lines(shape) } else { own_lines(shape) }
}

fn own_lines(shape: &ConvShape) -> usize {
    let (depth, c) = (depth(shape), out_per_group(shape));
    let rest = if c.is_multiple_of(BLOCK) { 0 } else { block_lines(depth, n_vectors(shape, c / BLOCK * BLOCK)) };
    shape.groups * (c / BLOCK * block_lines(depth, BLOCK / LANES) + rest)
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape) -> usize {
    let patch = Patch::of(&shape.flat());
    let offsets = (patch.n_offsets() * size_of::<u32>()).div_ceil(size_of::<Line>());
    let own = patch.sums_lines() + patch.panel_lines() + offsets;
    if winograd::suits(shape) { own.max(winograd::scratch_lines(shape)) } else { own }
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let (patch, patch_len, out_per_group) = (Patch::of(shape), shape.patch_len(), out_per_group(shape));
    let depth = depth(shape);
    let mut rest = packed;
    if winograd::suits(shape) {
        if winograd::pack(shape, layer, rest) {
            return;
        }
        rest = winograd::rest_mut(rest);
    }
    for group in 0..shape.groups {
        for first in (0..out_per_group).step_by(BLOCK) {
            let n_vectors = n_vectors(shape, first);
            let (block, after) = rest.split_at_mut(block_lines(depth, n_vectors));
            rest = after;
            let n = (out_per_group - first).min(BLOCK);
            let first = group * out_per_group + first;
            Header::of(layer, first, n, 128).write(block);
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
pub(in crate::x86) unsafe fn dense(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, mut packed, zero_point_in, clamp, input } = *layer;
    if winograd::suits(shape) {
        if winograd::is_packed(packed) {
            // SAFETY: passed on.
            return unsafe { winograd::conv(layer, scratch, output) };
        }
        packed = winograd::rest(packed);
    }
    // A panel of a 1x1 convolution may end at any pixel.
    let shape = &shape.flat();
    let (patch, out_c, out_per_group) = (Patch::of(shape), shape.output.c, out_per_group(shape));
    let depth = depth(shape);
    let n_pixels = shape.output.n_pixels();
    let (sums, scratch) = scratch.split_at_mut(patch.sums_lines());
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
                unsafe { job.run(panel, n, n_vectors, sums, out) };
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

/// Part of a block's weights.
#[derive(Clone, Copy)]
struct Chunk {
    /// `[runs, quads, n_vectors]` lines.
    weights: *const u8,
    runs: [usize; 2],
    /// Of each run.
    quads: [usize; 2],
    /// Sums begin with the header's start; else they lie in scratch.
    is_first: bool,
    /// Sums are requantized; else they go back to scratch.
    is_last: bool,
    /// Lines to fetch per pass, of those that follow.
    ahead: usize,
}

impl Job<'_> {
    /// # Safety
    /// As [`dense`]; `panel` holds `n` patches, `out` reaches to the last pixel's channels.
    #[inline(always)]
    unsafe fn run(&self, panel: &[u8], n: usize, n_vectors: usize, sums: &mut [Line], out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match self.patch.is_linear {
                true => self.run_as::<true>(panel, n, n_vectors, sums, out),
                false => self.run_as::<false>(panel, n, n_vectors, sums, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_as<const LINEAR: bool>(
        &self,
        panel: &[u8],
        n: usize,
        n_vectors: usize,
        sums: &mut [Line],
        out: &mut [i8],
    ) {
        unsafe {
            match n_vectors {
                4 => self.run_on::<4, { PIXELS_OF[3] }, { PIXELS_OF[3] / 2 }, LINEAR>(panel, n, sums, out),
                3 => self.run_on::<3, { PIXELS_OF[2] }, { PIXELS_OF[2] / 2 }, LINEAR>(panel, n, sums, out),
                2 => self.run_on::<2, { PIXELS_OF[1] }, { PIXELS_OF[1] / 2 }, LINEAR>(panel, n, sums, out),
                _ => self.run_on::<1, { PIXELS_OF[0] }, { PIXELS_OF[0] / 2 }, LINEAR>(panel, n, sums, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_on<const V: usize, const P: usize, const H: usize, const LINEAR: bool>(
        &self,
        panel: &[u8],
        n: usize,
        sums: &mut [Line],
        out: &mut [i8],
    ) {
        unsafe {
            match self.header.form() {
                SINGLE => self.passes::<V, P, H, SINGLE, LINEAR>(panel, n, sums, out),
                SATURATED => self.passes::<V, P, H, SATURATED, LINEAR>(panel, n, sums, out),
                DOUBLE => self.passes::<V, P, H, DOUBLE, LINEAR>(panel, n, sums, out),
                _ => self.passes::<V, P, H, INTEGER, LINEAR>(panel, n, sums, out),
            }
        }
    }

    /// # Safety
    /// As [`Job::run`].
    #[inline(always)]
    unsafe fn passes<const V: usize, const P: usize, const H: usize, const FORM: u32, const LINEAR: bool>(
        &self,
        panel: &[u8],
        n: usize,
        sums: &mut [Line],
        out: &mut [i8],
    ) {
        let patch = self.patch;
        assert!(n <= patch.n_pixels && panel.len() >= patch.panel_len + size_of::<Line>());
        assert!(!patch.in_chunks || sums.len() >= n.next_multiple_of(PIXELS) * V);
        let (n_quads, sums) = (patch.n_quads(), sums.as_mut_ptr());
        // Where a block has few channels it is small.
        if V < BLOCK / LANES || !patch.in_chunks {
            let [runs, quads] = [[0, patch.n_runs], [0, n_quads]];
            let chunk = Chunk { weights: self.weights, runs, quads, is_first: true, is_last: true, ahead: 0 };
            // SAFETY: passed on.
            return unsafe { self.chunk::<V, P, H, FORM, LINEAR, true>(chunk, panel, n, sums, out) };
        }
        let step = CHUNK_BYTES / size_of::<Line>() / V;
        for run in 0..patch.n_runs {
            for first in (0..n_quads).step_by(step) {
                let end = n_quads.min(first + step);
                let chunk = Chunk {
                    // SAFETY: a block has so many lines.
                    weights: unsafe { self.weights.add(size_of::<Line>() * V * (run * n_quads + first)) },
                    runs: [run, run + 1],
                    quads: [first, end],
                    is_first: (run, first) == (0, 0),
                    is_last: (run + 1, end) == (patch.n_runs, n_quads),
                    ahead: ((end - first) * V).div_ceil(n.div_ceil(P)),
                };
                // SAFETY: the sums were just measured; the rest is passed on.
                unsafe { self.chunk::<V, P, H, FORM, LINEAR, false>(chunk, panel, n, sums, out) };
            }
        }
    }

    /// Passes of P pixels, and of H where no more are left. Of a chunk that is all of the block if WHOLE: then no code is
    /// there for others, which slows short loops.
    ///
    /// # Safety
    /// As [`Job::run`]; if the chunk is not the only one, `sums` has room for whole passes of `n` pixels.
    #[inline(always)]
    unsafe fn chunk<
        const V: usize,
        const P: usize,
        const H: usize,
        const FORM: u32,
        const LINEAR: bool,
        const WHOLE: bool,
    >(
        &self,
        chunk: Chunk,
        panel: &[u8],
        n: usize,
        sums: *mut Line,
        out: &mut [i8],
    ) {
        let mut first = 0;
        let mut ahead = chunk.weights.wrapping_add(size_of::<Line>() * V * (chunk.quads[1] - chunk.quads[0]));
        while first < n {
            let (offsets, left) = (self.offsets.get(first..).unwrap_or_default(), n - first);
            let step = 4 * self.patch.n_quads();
            let panel = if LINEAR { &panel[first * step..][..P * step] } else { panel };
            let out = &mut out[first * self.stride..];
            assert!((LINEAR || offsets.len() >= P) && out.len() >= (left.min(P) - 1) * self.stride + self.n_channels);
            let (panel, out) = (panel.as_ptr(), out.as_mut_ptr());
            let sums = sums.wrapping_add(first * V).cast::<i32>();
            for _ in 0..if WHOLE { 0 } else { chunk.ahead } {
                // SAFETY: fetching reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
                ahead = ahead.wrapping_add(size_of::<Line>());
            }
            // SAFETY: offsets are of patches in the panel, those past `n` too, and `out` was just measured.
            unsafe {
                if left >= P {
                    self.whole_pass::<V, P, FORM, LINEAR, WHOLE>(chunk, panel, offsets, sums, out);
                    first += P;
                } else if left > H {
                    self.last_pass::<V, P, FORM, LINEAR, WHOLE>(chunk, panel, offsets, left, sums, out);
                    first = n;
                } else {
                    self.last_pass::<V, H, FORM, LINEAR, WHOLE>(chunk, panel, offsets, left, sums, out);
                    first = n;
                }
            }
        }
    }

    /// Sums of P pixels times V vectors of channels, in registers while they grow.
    ///
    /// Loops of known length instead of closures here and below: a closure is a function without these instructions.
    #[inline(always)]
    unsafe fn accumulate<const V: usize, const P: usize, const LINEAR: bool, const WHOLE: bool>(
        &self,
        chunk: Chunk,
        panel: *const u8,
        offsets: &[u32],
        sums: *const i32,
    ) -> [[__m512i; V]; P] {
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); V]; P];
            if WHOLE || chunk.is_first {
                for v in 0..V {
                    let start = self.header.start(v);
                    for acc in &mut acc {
                        acc[v] = start;
                    }
                }
            } else {
                for (i, acc) in acc.as_flattened_mut().iter_mut().enumerate() {
                    *acc = _mm512_load_si512(sums.add(i * LANES).cast());
                }
            }
            let mut patches = [panel; P];
            let n_quads = self.patch.n_quads();
            for (p, patch) in patches.iter_mut().enumerate() {
                *patch = panel.add(if LINEAR { p * 4 * n_quads } else { *offsets.get_unchecked(p) as usize });
            }
            let mut weights = chunk.weights;
            for run in chunk.runs[0]..chunk.runs[1] {
                let mut at = run * self.patch.run_stride + 4 * chunk.quads[0];
                for _ in chunk.quads[0]..chunk.quads[1] {
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
    unsafe fn whole_pass<const V: usize, const P: usize, const FORM: u32, const LINEAR: bool, const WHOLE: bool>(
        &self,
        chunk: Chunk,
        panel: *const u8,
        offsets: &[u32],
        sums: *mut i32,
        out: *mut i8,
    ) {
        unsafe {
            let mut results = self.accumulate::<V, P, LINEAR, WHOLE>(chunk, panel, offsets, sums);
            if !WHOLE && !chunk.is_last {
                return put_by(&results, sums);
            }
            self.header.requantize_all::<V, FORM>(&mut results, self.target);
            for (p, result) in results.into_iter().enumerate() {
                self.target.store(result, self.n_channels, out.add(p * self.stride));
            }
        }
    }

    /// The pass that ends with its first `n` pixels.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn last_pass<const V: usize, const P: usize, const FORM: u32, const LINEAR: bool, const WHOLE: bool>(
        &self,
        chunk: Chunk,
        panel: *const u8,
        offsets: &[u32],
        n: usize,
        sums: *mut i32,
        out: *mut i8,
    ) {
        unsafe {
            let mut results = self.accumulate::<V, P, LINEAR, WHOLE>(chunk, panel, offsets, sums);
            if !WHOLE && !chunk.is_last {
                return put_by(&results, sums);
            }
            self.header.requantize_all::<V, FORM>(&mut results, self.target);
            for (p, result) in results.into_iter().enumerate().take(n) {
                self.target.store(result, self.n_channels, out.add(p * self.stride));
            }
        }
    }
}

/// Leaves sums for the next chunk.
///
/// # Safety
/// AVX-512 F; `sums` is aligned to lines and has room for as many.
#[inline(always)]
unsafe fn put_by<const V: usize>(results: &[[__m512i; V]], sums: *mut i32) {
    for (i, result) in results.as_flattened().iter().enumerate() {
        // SAFETY: passed on.
        unsafe { _mm512_store_si512(sums.add(i * LANES).cast(), *result) };
    }
}
