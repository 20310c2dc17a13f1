//! Depthwise convolution along rows of a padded copy of the input.
//!
//! The copy holds only the rows that one output row needs, as a ring; its pixels are padded to whole blocks of
//! channels and its edges hold the zero point, so that kernels know neither borders nor tails. Each
//! input row is copied once.

use crate::arm::dense::Range;
use crate::arm::pack::{self, BLOCK, HEADER_LINES, Header, LINE, Taps};
use crate::conv::ConvShape;
use crate::packed::{Line, PackedConv};

/// Kernels of more rows than this are dense layers of as many groups as channels.
pub(crate) const KERNEL_H_MAX: usize = 32;

/// One row of outputs of one block of channels.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// First pixel of the window's rows, first block of channels.
    pub rows: &'a [*const i8],
    /// Bytes to this block of channels.
    pub block: usize,
    /// Kernel size.
    pub kernel: [usize; 2],
    /// Bytes from one input pixel to the next.
    pub pixel: usize,
    /// Input pixels from output to output.
    pub step: usize,
    /// Input pixels from tap to tap.
    pub dilation: usize,
    /// What the block starts from.
    pub header: &'a Header,
    /// The block's taps.
    pub taps: *const i8,
    /// First output.
    pub out: *mut i8,
    /// Bytes from output to output.
    pub out_stride: usize,
    /// Outputs.
    pub n: usize,
    /// Channels that exist, at most 16.
    pub n_channels: usize,
    /// Of results.
    pub range: &'a Range,
}

/// A micro-kernel: a row of outputs, 16 channels wide.
pub(crate) trait RowKernel {
    /// Order of taps.
    const TAPS: Taps;

    /// Computes a row.
    ///
    /// # Safety
    /// Every pixel that the row's windows meet is readable with 16 channels; outputs are writable with `n_channels`.
    unsafe fn row(row: &Row<'_>);
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

/// Lines of scratch for [`depthwise`].
pub(crate) fn scratch_lines(shape: &ConvShape) -> usize {
    ring_rows(shape) * (row_pixels(shape) * pixel_len(shape)).div_ceil(LINE)
}

/// Runs a depthwise layer packed by [`pack::pack_depthwise`] in the order of `K`; at most [`KERNEL_H_MAX`] kernel rows.
///
/// Lengths as `shape`, [`pack::depthwise_block_lines`] per block of channels and [`scratch_lines`] say: asserted.
pub(crate) fn depthwise<K: RowKernel>(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, packed, zero_point_in, clamp, input } = *layer;
    let (window, c) = (&shape.window, shape.output.c);
    let (pixel, n_rows) = (pixel_len(shape), ring_rows(shape));
    let row_lines = (row_pixels(shape) * pixel).div_ceil(LINE);
    let block_lines = pack::depthwise_block_lines(K::TAPS, window.kernel);
    assert!(window.kernel[0] <= KERNEL_H_MAX);
    assert!(input.len() == shape.input.len() && output.len() == shape.output.len());
    assert!(packed.len() == block_lines * c.div_ceil(BLOCK) && scratch.len() >= row_lines * n_rows);
    // SAFETY: lines are arrays of i8.
    let ring = unsafe { core::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<i8>(), row_lines * n_rows * LINE) };
    let slot = |padded_y: usize| padded_y % n_rows * row_lines * LINE;
    let range = Range::of(clamp);
    let mut copied = 0;
    for (oy, out) in output.chunks_exact_mut(shape.output.w * c).enumerate() {
        let first = oy * window.stride[0];
        for padded_y in copied.max(first)..first + n_rows {
            let row = &mut ring[slot(padded_y)..][..row_pixels(shape) * pixel];
            copy_row(shape, input, padded_y, zero_point_in as i8, row);
        }
        copied = first + n_rows;
        let mut rows = [core::ptr::null(); KERNEL_H_MAX];
        let rows = &mut rows[..window.kernel[0]];
        for (ky, row) in rows.iter_mut().enumerate() {
            *row = ring[slot(first + ky * window.dilation[0])..].as_ptr();
        }
        for (packed, block) in packed.chunks_exact(block_lines).zip((0..c).step_by(BLOCK)) {
            let row = Row {
                rows,
                block,
                kernel: window.kernel,
                pixel,
                step: window.stride[1],
                dilation: window.dilation[1],
                header: pack::header_of(packed),
                taps: packed[HEADER_LINES..].as_ptr().cast(),
                out: out[block..].as_mut_ptr(),
                out_stride: c,
                n: shape.output.w,
                n_channels: (c - block).min(BLOCK),
                range: &range,
            };
            // SAFETY: each row of the ring holds all pixels that a row of windows meets, 16 channels per block; the
            // outputs of one row are `c` bytes apart, of which `n_channels` follow `block`.
            unsafe { K::row(&row) };
        }
    }
}

/// Copies one row of the padded picture: zero point where the picture ends.
fn copy_row(shape: &ConvShape, input: &[i8], padded_y: usize, zero_point: i8, row: &mut [i8]) {
    let (c, w, pixel) = (shape.input.c, shape.input.w, pixel_len(shape));
    let Some(y) = padded_y.checked_sub(shape.window.pad_before[0]).filter(|y| *y < shape.input.h) else {
        return row.fill(zero_point);
    };
    let before = (shape.window.pad_before[1] * pixel).min(row.len());
    let (left, rest) = row.split_at_mut(before);
    let (middle, right) = rest.split_at_mut((w * pixel).min(rest.len()));
    left.fill(zero_point);
    right.fill(zero_point);
    let line = &input[y * w * c..][..w * c];
    if c == pixel {
        middle.copy_from_slice(&line[..middle.len()]);
    } else {
        // What follows a pixel's channels meets weights of zero.
        middle.chunks_exact_mut(pixel).zip(line.chunks_exact(c)).for_each(|(to, x)| to[..c].copy_from_slice(x));
    }
}
