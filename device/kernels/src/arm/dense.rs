//! Dense convolution of any shape as patches times blocks of weights.
//!
//! Pixels go by in batches whose patches fit the first-level cache; each block of weights meets the whole batch before
//! the next one is read. The patch of a 1x1 convolution is the pixel itself, read in place; other windows are gathered.

use crate::arm::pack::{self, BLOCK, HEADER_LINES, Header, LINE, Order};
use crate::conv::ConvShape;
use crate::packed::{Line, PackedConv};
use crate::requantize::Clamp;

/// Bytes of patches in one batch: half of a 32 KiB data cache, the other half for weights.
const BATCH_BYTES: usize = 16 << 10;

/// The range of results, as registers hold it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(crate) struct Range {
    /// Largest result.
    pub high: [i8; 16],
    /// Smallest result.
    pub low: [i8; 16],
}

impl Range {
    pub(crate) fn of(clamp: Clamp) -> Range {
        let bytes = |x: i32| [x.clamp(-128, 127) as i8; 16];
        Range { high: bytes(clamp.high), low: bytes(clamp.low) }
    }
}

/// One block of weights and the patches that it meets.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// First patch; as the micro-kernel's [`Micro::arrange`] left it, or plain rows.
    pub patches: *const i8,
    /// Bytes from patch to patch, where they are plain rows.
    pub stride: usize,
    /// Patches.
    pub n: usize,
    /// Patch length, a multiple of 8.
    pub depth: usize,
    /// What the block starts from.
    pub header: &'a Header,
    /// `depth * channels` bytes in the micro-kernel's order.
    pub weights: *const i8,
    /// 16 or 8.
    pub channels: usize,
    /// Channels that exist, at most `channels`.
    pub n_channels: usize,
    /// First pixel's first channel.
    pub out: *mut i8,
    /// Bytes from pixel to pixel.
    pub out_stride: usize,
    /// Of results.
    pub range: &'a Range,
}

/// A micro-kernel: [`Micro::PIXELS`] patches by one block.
pub(crate) trait Micro {
    /// Patches multiplied together.
    const PIXELS: usize;
    /// Order of weights.
    const ORDER: Order;
    /// Bytes of [`Micro::arrange`]d patches per [`Micro::PIXELS`] patches of depth 1; 0 where rows are read as they are.
    const PANEL: usize;

    /// Lays `n` rows of `depth` bytes out as the kernel reads them.
    ///
    /// # Safety
    /// Rows are readable; `panel` has room for [`Micro::PANEL`] times `depth` per started [`Micro::PIXELS`] rows.
    unsafe fn arrange(rows: *const i8, stride: usize, n: usize, depth: usize, panel: *mut i8);

    /// Computes a run.
    ///
    /// # Safety
    /// All that `run` points at is as long as its fields say.
    unsafe fn run(run: &Run<'_>);
}

/// Lines of scratch for [`dense`].
pub(crate) fn scratch_lines<M: Micro>(shape: &ConvShape) -> usize {
    let depth = pack::depth_of(shape.patch_len());
    let batch = batch_pixels::<M>(shape, depth);
    let rows = if reads_in_place(shape) { 0 } else { (batch * depth).div_ceil(LINE) };
    rows + (batch / M::PIXELS * M::PANEL * depth).div_ceil(LINE)
}

fn batch_pixels<M: Micro>(shape: &ConvShape, depth: usize) -> usize {
    let tiles = (BATCH_BYTES / (depth * M::PIXELS)).max(1);
    tiles.min(shape.output.n_pixels().div_ceil(M::PIXELS)) * M::PIXELS
}

fn reads_in_place(shape: &ConvShape) -> bool {
    let window = &shape.window;
    window.kernel == [1, 1]
        && window.stride == [1, 1]
        && window.pad_before == [0, 0]
        && window.pad_after == [0, 0]
        && shape.in_per_group().is_multiple_of(8)
}

/// Runs a dense layer packed by [`pack::pack_dense`] in the order of `M`.
///
/// Lengths are as `shape` says; `packed` and `scratch` as [`pack::dense_lines`] and [`scratch_lines`]
/// say: asserted.
pub(crate) fn dense<M: Micro>(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, packed, zero_point_in, clamp, input } = *layer;
    let depth = pack::depth_of(shape.patch_len());
    let (in_per_group, out_per_group) = (shape.in_per_group(), shape.output.c / shape.groups);
    let group_lines = pack::dense_group_lines(shape);
    let (n_pixels, out_c) = (shape.output.n_pixels(), shape.output.c);
    assert!(input.len() == shape.input.len() && output.len() == shape.output.len());
    assert!(packed.len() == group_lines * shape.groups && scratch.len() >= scratch_lines::<M>(shape));
    let batch = batch_pixels::<M>(shape, depth);
    let in_place = reads_in_place(shape);
    let range = Range::of(clamp);
    let row_lines = if in_place { 0 } else { (batch * depth).div_ceil(LINE) };
    let (rows, panel) = scratch.split_at_mut(row_lines);
    let (rows, panel) = (rows.as_mut_ptr().cast::<i8>(), panel.as_mut_ptr().cast::<i8>());
    if !in_place {
        // SAFETY: `rows` has `batch * depth` bytes. What pads a patch to its depth meets weights of zero, but is read.
        unsafe { rows.write_bytes(0, batch * depth) };
    }
    for (group, packed) in packed.chunks_exact(group_lines).enumerate() {
        for first in (0..n_pixels).step_by(batch) {
            let n = batch.min(n_pixels - first);
            let (mut patches, mut stride) = (rows.cast_const(), depth);
            if in_place {
                patches = input[first * shape.input.c + group * in_per_group..].as_ptr();
                stride = shape.input.c;
            } else {
                // SAFETY: `rows` has `batch * depth` bytes, and nothing else points into them.
                let rows = unsafe { core::slice::from_raw_parts_mut(rows, n * depth) };
                gather_rows(shape, input, group, first, zero_point_in as i8, rows);
            }
            if M::PANEL > 0 {
                // SAFETY: `n` rows of `depth` bytes each lie `stride` apart; the panel has room for a batch.
                unsafe { M::arrange(patches, stride, n, depth, panel) };
                patches = panel.cast_const();
            }
            let mut rest = packed;
            for channel in (0..out_per_group).step_by(BLOCK) {
                let remaining = out_per_group - channel;
                let channels = pack::block_channels(remaining);
                let (block, tail) = rest.split_at(pack::block_lines(depth, channels));
                rest = tail;
                let at = first * out_c + group * out_per_group + channel;
                let run = Run {
                    patches,
                    stride,
                    n,
                    depth,
                    header: pack::header_of(block),
                    weights: block[HEADER_LINES..].as_ptr().cast(),
                    channels,
                    n_channels: remaining.min(channels),
                    out: output[at..].as_mut_ptr(),
                    out_stride: out_c,
                    range: &range,
                };
                // SAFETY: patches as above; the block has a header and `depth * channels` weights; `n` pixels from
                // `at` with `remaining` channels lie within the output.
                unsafe { M::run(&run) };
            }
        }
    }
}

/// Gathers the patches of the pixels from `first` on, `[n, depth]`; what lies in the padding is `zero_point`.
fn gather_rows(shape: &ConvShape, input: &[i8], group: usize, first: usize, zero_point: i8, mut rows: &mut [i8]) {
    let (depth, w) = (pack::depth_of(shape.patch_len()), shape.output.w);
    let (mut oy, mut ox) = (first / w, first % w);
    while !rows.is_empty() {
        // The pixels of one output row.
        let n = (w - ox).min(rows.len() / depth);
        let (head, tail) = rows.split_at_mut(n * depth);
        for ky in 0..shape.window.kernel[0] {
            let line = shape.window.source(0, oy, ky, shape.input.h).map(|y| {
                let line_len = shape.input.w * shape.input.c;
                &input[y * line_len..][..line_len]
            });
            gather_line(shape, line, group, ky, ox, zero_point, head);
        }
        (oy, ox, rows) = (oy + 1, 0, tail);
    }
}

/// One row of the window for neighbouring output pixels from `ox` on; `line` is `None` in the padding.
fn gather_line(
    shape: &ConvShape,
    line: Option<&[i8]>,
    group: usize,
    ky: usize,
    ox: usize,
    zero_point: i8,
    rows: &mut [i8],
) {
    let (window, c) = (&shape.window, shape.in_per_group());
    let (depth, len) = (pack::depth_of(shape.patch_len()), window.kernel[1] * c);
    let parts = rows.chunks_exact_mut(depth).map(|row| &mut row[ky * len..][..len]);
    let Some(line) = line else {
        return parts.for_each(|part| part.fill(zero_point));
    };
    let mut targets = (ox..).zip(parts);
    let contiguous = shape.groups == 1 && window.dilation[1] == 1;
    let step = window.stride[1] * c;
    while let Some((ox, part)) = targets.next() {
        // From here on, windows lie inside the picture: all that do are copied in one go.
        let start = (ox * window.stride[1]).checked_sub(window.pad_before[1]).filter(|_| contiguous);
        if let Some(from) = start.and_then(|start| line.get(start * c..)).filter(|from| from.len() >= len) {
            part.copy_from_slice(&from[..len]);
            copy_windows(from.get(step..).unwrap_or_default(), len, step, targets.by_ref().map(|(_, part)| part));
            continue;
        }
        for (kx, part) in part.chunks_exact_mut(c).enumerate() {
            match window.source(1, ox, kx, shape.input.w) {
                Some(x) => part.copy_from_slice(&line[x * shape.input.c + group * c..][..c]),
                None => part.fill(zero_point),
            }
        }
    }
}

/// Copies the windows of `len` elements, `step` apart, while both last.
fn copy_windows<'a>(from: &[i8], len: usize, step: usize, parts: impl Iterator<Item = &'a mut [i8]>) {
    let pairs = from.windows(len).step_by(step).zip(parts);
    // Known lengths spare calls of `memcpy`, which would cost more than the copies.
    match len {
        8..=16 => pairs.for_each(|(from, to)| copy_ends::<8>(from, to)),
        17..=32 => pairs.for_each(|(from, to)| copy_ends::<16>(from, to)),
        _ => pairs.for_each(|(from, to)| to.copy_from_slice(from)),
    }
}

/// Copies `N..=2 * N` elements as two overlapping arrays.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[i8], to: &mut [i8]) {
    if let (Some(head), Some(tail)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
        if let Some(to) = to.first_chunk_mut::<N>() {
            *to = *head;
        }
        if let Some(to) = to.last_chunk_mut::<N>() {
            *to = *tail;
        }
    }
}
