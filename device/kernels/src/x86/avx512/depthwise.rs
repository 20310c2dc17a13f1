//! Depthwise convolutions of any window.
//!
//! Four rows of input are interleaved byte by byte, so that one multiply-add meets four taps of a column of the window.
//! With stride 1 two output rows share them: the second has its weights one byte further. Full blocks of 64 channels,
//! then one of 32, then single vectors of 16; a block goes through the whole picture before the next one.

use core::arch::x86_64::*;

use super::header::{
    BLOCK, DOUBLE, HALF, HEADER_LINES, Header, INTEGER, LANES, SINGLE, Target, channel_of, first_of_16,
};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line};
use crate::requantize::Clamp;

/// Rows of one quad.
const QUAD: usize = 4;
/// Most columns of one pass; what lies behind the last column is read and thrown away.
const COLUMNS_MAX: usize = 12;

/// Output rows of one pass.
fn n_rows(shape: &ConvShape) -> usize {
    if shape.window.stride[0] == 1 && shape.window.dilation[0] == 1 { 2 } else { 1 }
}

/// Quads that hold all taps of a column for that many output rows.
fn n_quads(shape: &ConvShape) -> usize {
    (shape.window.kernel[0] + n_rows(shape) - 1).div_ceil(QUAD)
}

/// Channels and vectors of the block that begins at channel `first`.
fn block_at(shape: &ConvShape, first: usize) -> (usize, usize) {
    match shape.output.c - first {
        BLOCK.. => (BLOCK, BLOCK / LANES),
        HALF.. => (HALF, HALF / LANES),
        left => (left.min(LANES), 1),
    }
}

/// First channels of all blocks.
fn firsts(shape: &ConvShape) -> impl Iterator<Item = usize> {
    let c = shape.output.c;
    let (full, half) = (c / BLOCK * BLOCK, c / HALF * HALF);
    (0..full).step_by(BLOCK).chain((full..half).step_by(HALF)).chain((half..c).step_by(LANES))
}

/// Header, then `[kernel_w, n_quads, n_vectors, n_rows]` lines of weights.
fn block_lines(shape: &ConvShape, n_vectors: usize) -> usize {
    HEADER_LINES + shape.window.kernel[1] * n_quads(shape) * n_vectors * n_rows(shape)
}

pub(in crate::x86) fn packed_lines(shape: &ConvShape) -> usize {
    firsts(shape).map(|first| block_lines(shape, block_at(shape, first).1)).sum()
}

/// Columns of the padded input row, with those that the last pass reads for nothing.
fn n_columns(shape: &ConvShape) -> usize {
    let window = &shape.window;
    (shape.output.w + COLUMNS_MAX - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1]
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape) -> usize {
    n_columns(shape) * n_quads(shape) * block_at(shape, 0).1
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    let [kernel_h, kernel_w] = shape.window.kernel;
    let n_taps = kernel_h * kernel_w;
    let row_of = |channel: usize| &layer.weights[channel * n_taps..][..n_taps];
    let (n_quads, n_rows) = (n_quads(shape), n_rows(shape));
    let mut rest = packed;
    for first in firsts(shape) {
        let (n, n_vectors) = block_at(shape, first);
        let (block, after) = rest.split_at_mut(block_lines(shape, n_vectors));
        rest = after;
        Header::of(layer, first, n, row_of).write(block);
        let mut lines = block[HEADER_LINES..].iter_mut();
        for kx in 0..kernel_w {
            for quad in 0..n_quads {
                for vector in 0..n_vectors {
                    for (row, line) in (0..n_rows).zip(&mut lines) {
                        for (i, byte) in line.0.iter_mut().enumerate() {
                            let channel = channel_of(n, vector, i / QUAD);
                            let ky = (quad * QUAD + i % QUAD).checked_sub(row).filter(|ky| *ky < kernel_h);
                            *byte = match ky {
                                Some(ky) if channel < n => row_of(first + channel)[ky * kernel_w + kx] as u8,
                                _ => 0,
                            };
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// AVX-512 F, BW, VL and VNNI. Lengths as `packed::conv` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::x86) unsafe fn depthwise(
    shape: &ConvShape,
    packed: &[Line],
    zero_point_in: i32,
    clamp: Clamp,
    input: &[i8],
    scratch: &mut [Line],
    output: &mut [i8],
) {
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    let (n_rows, n_quads) = (n_rows(shape), n_quads(shape));
    let mut blocks = packed;
    for first in firsts(shape) {
        let (n, n_vectors) = block_at(shape, first);
        let (block, rest) = blocks.split_at(block_lines(shape, n_vectors));
        blocks = rest;
        let job =
            Job { shape, header: Header::read(block), weights: &block[HEADER_LINES..], n_quads, n, target: &target };
        for oy in (0..shape.output.h).step_by(n_rows) {
            if n_quads == 1 && is_direct(shape, n) {
                let rows = core::array::from_fn(|i| row_at(shape, input, oy, i));
                let row_len = shape.output.w * shape.output.c;
                // SAFETY: rows hold the input's pixels, and the slice the output's.
                unsafe { job.run_direct(rows, zero_point_in, first, &mut output[oy * row_len..][..row_len]) };
                continue;
            }
            for quad in 0..n_quads {
                let rows = core::array::from_fn(|i| row_at(shape, input, oy, quad * QUAD + i));
                // SAFETY: scratch has a place for every column's quads.
                unsafe { interleave(shape, rows, first, n, zero_point_in, quad, n_quads, n_vectors, scratch) };
            }
            let n_rows = n_rows.min(shape.output.h - oy);
            let row_len = shape.output.w * shape.output.c;
            let out = &mut output[oy * row_len..][..n_rows * row_len];
            // SAFETY: the columns were just written, and `out` holds the rows.
            unsafe { job.run(scratch, n_rows, first, out) };
        }
    }
}

/// Input row of window row `i` for output row `oy`; None in the padding.
fn row_at<'a>(shape: &ConvShape, input: &'a [i8], oy: usize, i: usize) -> Option<&'a [i8]> {
    let (window, dims) = (&shape.window, shape.input);
    let at = oy * window.stride[0] + i * window.dilation[0];
    let y = at.checked_sub(window.pad_before[0]).filter(|y| *y < dims.h)?;
    Some(&input[y * dims.w * dims.c..][..dims.w * dims.c])
}

/// True if three columns of quads stay in registers: 3x3 windows with stride 2, where two of three columns are new each
/// time. With stride 1 columns serve three windows, and writing them once is faster.
fn is_direct(shape: &ConvShape, n: usize) -> bool {
    let window = &shape.window;
    n_rows(shape) == 1 && window.kernel[1] == 3 && window.dilation[1] == 1 && window.stride[1] == 2 && n >= HALF
}

/// One block of channels over one pass of rows.
struct Job<'a> {
    shape: &'a ConvShape,
    header: &'a Header,
    weights: &'a [Line],
    n_quads: usize,
    /// Channels.
    n: usize,
    target: &'a Target,
}

impl Job<'_> {
    /// # Safety
    /// As [`depthwise`]; `columns` as [`interleave`] left them, `out` whole output rows.
    #[inline(always)]
    unsafe fn run(&self, columns: &[Line], n_rows: usize, first: usize, out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match (self.n, self::n_rows(self.shape), self.header.form()) {
                (BLOCK, 2, SINGLE) => self.passes::<4, 2, 3, SINGLE>(columns, n_rows, first, out),
                (BLOCK, 2, DOUBLE) => self.passes::<4, 2, 3, DOUBLE>(columns, n_rows, first, out),
                (BLOCK, 2, _) => self.passes::<4, 2, 3, INTEGER>(columns, n_rows, first, out),
                (BLOCK, _, SINGLE) => self.passes::<4, 1, 6, SINGLE>(columns, n_rows, first, out),
                (BLOCK, _, DOUBLE) => self.passes::<4, 1, 6, DOUBLE>(columns, n_rows, first, out),
                (BLOCK, _, _) => self.passes::<4, 1, 6, INTEGER>(columns, n_rows, first, out),
                (HALF, 2, SINGLE) => self.passes::<2, 2, 4, SINGLE>(columns, n_rows, first, out),
                (HALF, 2, DOUBLE) => self.passes::<2, 2, 4, DOUBLE>(columns, n_rows, first, out),
                (HALF, 2, _) => self.passes::<2, 2, 4, INTEGER>(columns, n_rows, first, out),
                (HALF, _, SINGLE) => self.passes::<2, 1, 8, SINGLE>(columns, n_rows, first, out),
                (HALF, _, DOUBLE) => self.passes::<2, 1, 8, DOUBLE>(columns, n_rows, first, out),
                (HALF, _, _) => self.passes::<2, 1, 8, INTEGER>(columns, n_rows, first, out),
                (_, 2, SINGLE) => self.passes::<1, 2, 7, SINGLE>(columns, n_rows, first, out),
                (_, 2, DOUBLE) => self.passes::<1, 2, 7, DOUBLE>(columns, n_rows, first, out),
                (_, 2, _) => self.passes::<1, 2, 7, INTEGER>(columns, n_rows, first, out),
                (_, _, SINGLE) => self.passes::<1, 1, 7, SINGLE>(columns, n_rows, first, out),
                (_, _, DOUBLE) => self.passes::<1, 1, 7, DOUBLE>(columns, n_rows, first, out),
                (_, _, _) => self.passes::<1, 1, 7, INTEGER>(columns, n_rows, first, out),
            }
        }
    }

    /// As [`Job::run`], from the rows themselves.
    ///
    /// # Safety
    /// As [`depthwise`]; `rows` whole input rows, [`is_direct`].
    #[inline(always)]
    unsafe fn run_direct(&self, rows: [Option<&[i8]>; QUAD], zero_point: i32, first: usize, out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match (self.n, self.header.form()) {
                (BLOCK, SINGLE) => self.direct::<4, SINGLE>(rows, zero_point, first, out),
                (BLOCK, DOUBLE) => self.direct::<4, DOUBLE>(rows, zero_point, first, out),
                (BLOCK, _) => self.direct::<4, INTEGER>(rows, zero_point, first, out),
                (_, SINGLE) => self.direct::<2, SINGLE>(rows, zero_point, first, out),
                (_, DOUBLE) => self.direct::<2, DOUBLE>(rows, zero_point, first, out),
                (_, _) => self.direct::<2, INTEGER>(rows, zero_point, first, out),
            }
        }
    }

    /// Three columns of quads move along one output row, two at a time; V vectors of channels.
    #[inline(always)]
    unsafe fn direct<const V: usize, const FORM: u32>(
        &self,
        rows: [Option<&[i8]>; QUAD],
        zero_point: i32,
        first: usize,
        out: &mut [i8],
    ) {
        let dims = self.shape.output;
        assert!(self.weights.len() == 3 * V && self.n == V * LANES && first + self.n <= dims.c);
        assert!(out.len() >= dims.w * dims.c);
        let weights = self.weights.as_ptr();
        // SAFETY: weights and outputs as asserted; columns check themselves.
        unsafe {
            let padding = _mm512_set1_epi8(zero_point as i8 ^ -128);
            let mut columns = [[padding; V]; 3];
            columns[2] = self.column::<V>(rows, 0, first, padding);
            for ox in 0..dims.w {
                columns[0] = columns[2];
                columns[1] = self.column::<V>(rows, 2 * ox + 1, first, padding);
                columns[2] = self.column::<V>(rows, 2 * ox + 2, first, padding);
                let mut sums = [padding; V];
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = self.header.start(v);
                    for (kx, column) in columns.iter().enumerate() {
                        *sum = _mm512_dpbusd_epi32(*sum, column[v], _mm512_load_si512(weights.add(kx * V + v).cast()));
                    }
                }
                self.header.finish::<V, FORM>(sums, self.n, self.target, out.as_mut_ptr().add(ox * dims.c + first));
            }
        }
    }

    /// Quads of padded column `column`.
    #[inline(always)]
    unsafe fn column<const V: usize>(
        &self,
        rows: [Option<&[i8]>; QUAD],
        column: usize,
        first: usize,
        padding: __m512i,
    ) -> [__m512i; V] {
        let dims = self.shape.input;
        let Some(x) = column.checked_sub(self.shape.window.pad_before[1]).filter(|x| *x < dims.w) else {
            return [padding; V];
        };
        let mut column = [padding; V];
        // SAFETY: rows hold `w` pixels of `c` channels, and the block's are among them.
        unsafe {
            let sign = _mm512_set1_epi8(-128);
            if V == 4 {
                column.copy_from_slice(&quads_of_block(rows, x * dims.c + first, padding, sign)[..V]);
            } else {
                column.copy_from_slice(&quads_of_half(rows, x * dims.c + first, padding, sign)[..V]);
            }
        }
        column
    }

    /// V vectors of channels, R output rows, X columns at a time.
    #[inline(always)]
    unsafe fn passes<const V: usize, const R: usize, const X: usize, const FORM: u32>(
        &self,
        columns: &[Line],
        n_rows: usize,
        first: usize,
        out: &mut [i8],
    ) {
        let (window, dims) = (&self.shape.window, self.shape.output);
        let [_, kernel_w] = window.kernel;
        let (stride, dilation) = (window.stride[1], window.dilation[1]);
        assert!(self.weights.len() == kernel_w * self.n_quads * V * R && X <= COLUMNS_MAX);
        assert!(columns.len() >= n_columns(self.shape) * self.n_quads * V);
        assert!(out.len() >= n_rows * dims.w * dims.c && n_rows <= R && first + self.n <= dims.c);
        for ox in (0..dims.w).step_by(X) {
            // SAFETY: all offsets lie within what was asserted: columns up to the last pass's last window, weights, and
            // outputs of columns before `dims.w`.
            unsafe {
                let at = columns.as_ptr().add(ox * stride * self.n_quads * V);
                let out = out.as_mut_ptr().add(ox * dims.c + first);
                let n = dims.w - ox;
                let sums = self.accumulate::<V, R, X>(at, stride, dilation, kernel_w);
                if n_rows == R && n >= X {
                    // Every loop has a known length, as in `dense`.
                    for (r, sums) in sums.into_iter().enumerate() {
                        for (x, sums) in sums.into_iter().enumerate() {
                            self.header.finish::<V, FORM>(
                                sums,
                                self.n,
                                self.target,
                                out.add((r * dims.w + x) * dims.c),
                            );
                        }
                    }
                } else {
                    self.finish_some::<V, R, X, FORM>(&sums, [n_rows, n], out);
                }
            }
        }
    }

    /// The first rows and columns of a pass; apart, so that their sums alone go through memory.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn finish_some<const V: usize, const R: usize, const X: usize, const FORM: u32>(
        &self,
        sums: &[[[__m512i; V]; X]; R],
        [n_rows, n]: [usize; 2],
        out: *mut i8,
    ) {
        let dims = self.shape.output;
        for (r, sums) in sums.iter().enumerate().take(n_rows) {
            for (x, sums) in sums.iter().enumerate().take(n) {
                // SAFETY: passed on.
                unsafe {
                    self.header.finish::<V, FORM>(*sums, self.n, self.target, out.add((r * dims.w + x) * dims.c))
                };
            }
        }
    }

    /// Sums of R rows, X columns and V vectors of channels, in registers while they grow; `at` is the first column's.
    #[inline(always)]
    unsafe fn accumulate<const V: usize, const R: usize, const X: usize>(
        &self,
        at: *const Line,
        stride: usize,
        dilation: usize,
        kernel_w: usize,
    ) -> [[[__m512i; V]; X]; R] {
        unsafe {
            let mut acc = [[[_mm512_setzero_si512(); V]; X]; R];
            for v in 0..V {
                let start = self.header.start(v);
                for acc in acc.as_flattened_mut() {
                    acc[v] = start;
                }
            }
            let mut weights = self.weights.as_ptr();
            let step = stride * self.n_quads * V;
            for kx in 0..kernel_w {
                for quad in 0..self.n_quads {
                    let at = at.add((kx * dilation * self.n_quads + quad) * V);
                    #[allow(clippy::needless_range_loop)] // Indices of three arrays.
                    for v in 0..V {
                        let mut w = [_mm512_setzero_si512(); R];
                        for (r, w) in w.iter_mut().enumerate() {
                            *w = _mm512_load_si512(weights.add(r).cast());
                        }
                        weights = weights.add(R);
                        for x in 0..X {
                            let q = _mm512_load_si512(at.add(x * step + v).cast());
                            for r in 0..R {
                                acc[r][x][v] = _mm512_dpbusd_epi32(acc[r][x][v], q, w[r]);
                            }
                        }
                    }
                }
            }
            acc
        }
    }
}

/// Writes one quad of every padded column: byte `i` of a channel's four comes from `rows[i]`, the zero point where there
/// is no row or no column.
///
/// # Safety
/// AVX-512 F, BW and VL.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // Indices of one place in one buffer.
unsafe fn interleave(
    shape: &ConvShape,
    rows: [Option<&[i8]>; QUAD],
    first: usize,
    n: usize,
    zero_point: i32,
    quad: usize,
    n_quads: usize,
    n_vectors: usize,
    columns: &mut [Line],
) {
    let (width, c) = (shape.input.w, shape.input.c);
    let pad = shape.window.pad_before[1];
    let n_read =
        (shape.output.w - 1) * shape.window.stride[1] + (shape.window.kernel[1] - 1) * shape.window.dilation[1] + 1;
    // SAFETY: rows hold `width` pixels of `c` channels, and channels `first..first + n` are among them; a store goes to
    // lines of this column, which the slice's bounds check.
    unsafe {
        let padding = _mm512_set1_epi8(zero_point as i8 ^ -128);
        let sign = _mm512_set1_epi8(-128);
        for column in 0..n_read {
            let to = &mut columns[(column * n_quads + quad) * n_vectors..][..n_vectors];
            let to = to.as_mut_ptr().cast::<__m512i>();
            let Some(x) = column.checked_sub(pad).filter(|x| *x < width) else {
                for v in 0..n_vectors {
                    _mm512_store_si512(to.add(v).cast(), padding);
                }
                continue;
            };
            if n == BLOCK {
                let quads = quads_of_block(rows, x * c + first, padding, sign);
                for (v, quad) in quads.into_iter().enumerate() {
                    _mm512_store_si512(to.add(v).cast(), quad);
                }
            } else if n == HALF {
                let quads = quads_of_half(rows, x * c + first, padding, sign);
                for (v, quad) in quads.into_iter().enumerate() {
                    _mm512_store_si512(to.add(v).cast(), quad);
                }
            } else {
                let mask = first_of_16(n);
                let (padding, sign) = (_mm512_castsi512_si128(padding), _mm512_castsi512_si128(sign));
                let mut quad = [padding; QUAD];
                for (quad, row) in quad.iter_mut().zip(&rows) {
                    if let Some(row) = row {
                        *quad = _mm_xor_si128(_mm_maskz_loadu_epi8(mask, row.as_ptr().add(x * c + first)), sign);
                    }
                }
                let [a, b, c, d] = quad;
                let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
                let (low2, high2) = (_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d));
                let to = to.cast::<__m128i>();
                _mm_store_si128(to, _mm_unpacklo_epi16(low, low2));
                _mm_store_si128(to.add(1), _mm_unpackhi_epi16(low, low2));
                _mm_store_si128(to.add(2), _mm_unpacklo_epi16(high, high2));
                _mm_store_si128(to.add(3), _mm_unpackhi_epi16(high, high2));
            }
        }
    }
}

/// Quads of 64 channels from `at` on; rows that are not there hold `padding`.
///
/// # Safety
/// AVX-512 F and BW; rows reach to `at + 64`.
#[inline(always)]
unsafe fn quads_of_block(rows: [Option<&[i8]>; QUAD], at: usize, padding: __m512i, sign: __m512i) -> [__m512i; 4] {
    unsafe {
        let mut bytes = [padding; QUAD];
        for (bytes, row) in bytes.iter_mut().zip(&rows) {
            if let Some(row) = row {
                *bytes = _mm512_xor_si512(_mm512_loadu_si512(row.as_ptr().add(at).cast()), sign);
            }
        }
        let [a, b, c, d] = bytes;
        let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
        let (low2, high2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
        [
            _mm512_unpacklo_epi16(low, low2),
            _mm512_unpackhi_epi16(low, low2),
            _mm512_unpacklo_epi16(high, high2),
            _mm512_unpackhi_epi16(high, high2),
        ]
    }
}

/// Quads of 32 channels from `at` on, in the order of [`channel_of`].
///
/// # Safety
/// AVX-512 F and BW; rows reach to `at + 32`.
#[inline(always)]
unsafe fn quads_of_half(rows: [Option<&[i8]>; QUAD], at: usize, padding: __m512i, sign: __m512i) -> [__m512i; 2] {
    unsafe {
        let (padding, sign) = (_mm512_castsi512_si256(padding), _mm512_castsi512_si256(sign));
        let mut bytes = [padding; QUAD];
        for (bytes, row) in bytes.iter_mut().zip(&rows) {
            if let Some(row) = row {
                *bytes = _mm256_xor_si256(_mm256_loadu_si256(row.as_ptr().add(at).cast()), sign);
            }
        }
        let [a, b, c, d] = bytes;
        let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let (low2, high2) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
        let even = [_mm256_unpacklo_epi16(low, low2), _mm256_unpacklo_epi16(high, high2)];
        let odd = [_mm256_unpackhi_epi16(low, low2), _mm256_unpackhi_epi16(high, high2)];
        [
            _mm512_inserti64x4(_mm512_castsi256_si512(even[0]), even[1], 1),
            _mm512_inserti64x4(_mm512_castsi256_si512(odd[0]), odd[1], 1),
        ]
    }
}
