//! Depthwise convolutions of any window.
//!
//! Four rows of input are interleaved byte by byte, so that one multiply-add meets four taps of a column of the window.
//! With stride 1 two output rows share them: the second has its weights one byte further. Full blocks of 64 channels,
//! then one of 32, then single vectors of 16; a block goes through the whole picture before the next one.

use core::arch::x86_64::*;

use super::header::{
    BLOCK, DOUBLE, HALF, HEADER_LINES, Header, INTEGER, LANES, SATURATED, SINGLE, Target, channel_of, first_of_16,
};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};

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
        Header::of(layer, first, n, 128).write(block);
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
pub(in crate::x86) unsafe fn depthwise(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, packed, zero_point_in, clamp, input } = *layer;
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    let (n_rows, n_quads) = (n_rows(shape), n_quads(shape));
    let padding = [zero_point_in as i8; BLOCK];
    let mut blocks = packed;
    for first in firsts(shape) {
        let (n, n_vectors) = block_at(shape, first);
        let (block, rest) = blocks.split_at(block_lines(shape, n_vectors));
        blocks = rest;
        let job =
            Job { shape, header: Header::read(block), weights: &block[HEADER_LINES..], n_quads, n, target: &target };
        for oy in (0..shape.output.h).step_by(n_rows) {
            if n_quads == 1 && is_direct(shape, n) {
                let rows = Rows::of(shape, input, oy, 0, first, &padding);
                let row_len = shape.output.w * shape.output.c;
                // SAFETY: rows hold the input's pixels, and the slice the output's.
                unsafe { job.run_direct(&rows, zero_point_in, first, &mut output[oy * row_len..][..row_len]) };
                continue;
            }
            for quad in 0..n_quads {
                let rows = Rows::of(shape, input, oy, quad, first, &padding);
                // SAFETY: rows hold the input's pixels.
                unsafe {
                    match n {
                        BLOCK => job.interleave::<4>(&rows, quad, zero_point_in, scratch),
                        HALF => job.interleave::<2>(&rows, quad, zero_point_in, scratch),
                        _ => job.interleave::<1>(&rows, quad, zero_point_in, scratch),
                    }
                }
            }
            let n_rows = n_rows.min(shape.output.h - oy);
            let row_len = shape.output.w * shape.output.c;
            let out = &mut output[oy * row_len..][..n_rows * row_len];
            // SAFETY: the columns were just written, and `out` holds the rows.
            unsafe { job.run(scratch, n_rows, first, out) };
        }
    }
}

/// Four rows of input from the block's first channel on. A row of the padding is one pixel of zero points, again and again.
#[derive(Clone, Copy)]
struct Rows {
    at: [*const i8; QUAD],
    /// Bytes to the next pixel.
    steps: [usize; QUAD],
}

impl Rows {
    /// Rows `quad * 4..` of the window for output row `oy`. `padding` outlives what it returns.
    fn of(shape: &ConvShape, input: &[i8], oy: usize, quad: usize, first: usize, padding: &[i8; BLOCK]) -> Self {
        let (window, dims) = (&shape.window, shape.input);
        let mut rows = Self { at: [padding.as_ptr(); QUAD], steps: [0; QUAD] };
        for (i, (at, step)) in rows.at.iter_mut().zip(&mut rows.steps).enumerate() {
            let y = oy * window.stride[0] + (quad * QUAD + i) * window.dilation[0];
            if let Some(y) = y.checked_sub(window.pad_before[0]).filter(|y| *y < dims.h) {
                (*at, *step) = (input[y * dims.w * dims.c..][..dims.w * dims.c][first..].as_ptr(), dims.c);
            }
        }
        rows
    }

    /// Quads of the channels of V vectors at pixel `x`, `n` of them where V is 1.
    ///
    /// # Safety
    /// AVX-512 F, BW and VL; the rows have a pixel `x`, with `n` channels.
    #[inline(always)]
    unsafe fn quads<const V: usize>(&self, x: usize, n: usize, sign: __m512i) -> [__m512i; V] {
        let mut quads = [sign; V];
        // SAFETY: passed on.
        unsafe {
            let mut at = self.at;
            for (at, step) in at.iter_mut().zip(&self.steps) {
                *at = at.add(x * step);
            }
            match V {
                4 => quads.copy_from_slice(&quads_of_block(at, sign)),
                2 => quads.copy_from_slice(&quads_of_half(at, sign)),
                _ => quads[0] = quads_of_some(at, n, sign),
            }
        }
        quads
    }
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
            match self.header.form() {
                SINGLE => self.run_form::<SINGLE>(columns, n_rows, first, out),
                SATURATED => self.run_form::<SATURATED>(columns, n_rows, first, out),
                DOUBLE => self.run_form::<DOUBLE>(columns, n_rows, first, out),
                _ => self.run_form::<INTEGER>(columns, n_rows, first, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_form<const FORM: u32>(&self, columns: &[Line], n_rows: usize, first: usize, out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match (self.n, self::n_rows(self.shape)) {
                (BLOCK, 2) => self.passes::<4, 2, 3, FORM>(columns, n_rows, first, out),
                (HALF, 2) => self.passes::<2, 2, 4, FORM>(columns, n_rows, first, out),
                (_, 2) => self.passes::<1, 2, 7, FORM>(columns, n_rows, first, out),
                (BLOCK, _) => self.passes::<4, 1, 6, FORM>(columns, n_rows, first, out),
                (HALF, _) => self.passes::<2, 1, 8, FORM>(columns, n_rows, first, out),
                _ => self.passes::<1, 1, 7, FORM>(columns, n_rows, first, out),
            }
        }
    }

    /// As [`Job::run`], from the rows themselves.
    ///
    /// # Safety
    /// As [`depthwise`]; `rows` whole input rows, [`is_direct`].
    #[inline(always)]
    unsafe fn run_direct(&self, rows: &Rows, zero_point: i32, first: usize, out: &mut [i8]) {
        // SAFETY: passed on.
        unsafe {
            match (self.n, self.header.form()) {
                (BLOCK, SINGLE) => self.direct::<4, SINGLE>(rows, zero_point, first, out),
                (BLOCK, SATURATED) => self.direct::<4, SATURATED>(rows, zero_point, first, out),
                (BLOCK, DOUBLE) => self.direct::<4, DOUBLE>(rows, zero_point, first, out),
                (BLOCK, _) => self.direct::<4, INTEGER>(rows, zero_point, first, out),
                (_, SINGLE) => self.direct::<2, SINGLE>(rows, zero_point, first, out),
                (_, SATURATED) => self.direct::<2, SATURATED>(rows, zero_point, first, out),
                (_, DOUBLE) => self.direct::<2, DOUBLE>(rows, zero_point, first, out),
                (_, _) => self.direct::<2, INTEGER>(rows, zero_point, first, out),
            }
        }
    }

    /// Three columns of quads move along one output row, two at a time; V vectors of channels.
    #[inline(always)]
    unsafe fn direct<const V: usize, const FORM: u32>(
        &self,
        rows: &Rows,
        zero_point: i32,
        first: usize,
        out: &mut [i8],
    ) {
        let (dims, width, pad) = (self.shape.output, self.shape.input.w, self.shape.window.pad_before[1]);
        assert!(self.weights.len() == 3 * V && self.n == V * LANES && first + self.n <= dims.c);
        assert!(out.len() >= dims.w * dims.c);
        // Outputs whose second and third column are no padding.
        let inside = (pad / 2).min(dims.w)..((width + pad).saturating_sub(1) / 2).clamp(pad / 2, dims.w.max(pad / 2));
        // SAFETY: weights and outputs as asserted; columns of the input as `inside` says or as checked.
        unsafe {
            let sign = _mm512_set1_epi8(-128);
            let padding = _mm512_set1_epi8(zero_point as i8 ^ -128);
            let column = |column: usize| column.checked_sub(pad).filter(|x| *x < width);
            let mut last = [padding; V];
            if let Some(x) = column(0) {
                last = rows.quads::<V>(x, self.n, sign);
            }
            for ox in 0..dims.w {
                let (mut second, mut third) = ([padding; V], [padding; V]);
                if inside.contains(&ox) {
                    second = rows.quads::<V>(2 * ox + 1 - pad, self.n, sign);
                    third = rows.quads::<V>(2 * ox + 2 - pad, self.n, sign);
                } else {
                    if let Some(x) = column(2 * ox + 1) {
                        second = rows.quads::<V>(x, self.n, sign);
                    }
                    if let Some(x) = column(2 * ox + 2) {
                        third = rows.quads::<V>(x, self.n, sign);
                    }
                }
                let weights = self.weights.as_ptr();
                let mut result = [[padding; V]];
                for (v, sum) in result[0].iter_mut().enumerate() {
                    *sum = self.header.start(v);
                    for (kx, column) in [last[v], second[v], third[v]].into_iter().enumerate() {
                        *sum = _mm512_dpbusd_epi32(*sum, column, _mm512_load_si512(weights.add(kx * V + v).cast()));
                    }
                }
                self.header.requantize_all::<V, FORM>(&mut result, self.target);
                self.target.store(result[0], self.n, out.as_mut_ptr().add(ox * dims.c + first));
                last = third;
            }
        }
    }

    /// Writes one quad of every padded column, V vectors of channels: byte `i` of a channel's four comes from row `i`.
    ///
    /// # Safety
    /// As [`depthwise`]; `rows` whole input rows.
    #[inline(always)]
    unsafe fn interleave<const V: usize>(&self, rows: &Rows, quad: usize, zero_point: i32, columns: &mut [Line]) {
        let (shape, window) = (self.shape, &self.shape.window);
        let n_read = (shape.output.w - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1] + 1;
        let pad = window.pad_before[1].min(n_read);
        let end = (window.pad_before[1] + shape.input.w).min(n_read);
        assert!(columns.len() >= n_read * self.n_quads * V && quad < self.n_quads);
        // SAFETY: the columns have room as asserted; pixels read are those of the rows.
        unsafe {
            let to = columns.as_mut_ptr().add(quad * V).cast::<__m512i>();
            let to = |column: usize| to.add(column * self.n_quads * V);
            let padding = _mm512_set1_epi8(zero_point as i8 ^ -128);
            for column in (0..pad).chain(end..n_read) {
                for v in 0..V {
                    _mm512_store_si512(to(column).add(v).cast(), padding);
                }
            }
            let sign = _mm512_set1_epi8(-128);
            for column in pad..end {
                let quads = rows.quads::<V>(column - pad, self.n, sign);
                for (v, quad) in quads.into_iter().enumerate() {
                    _mm512_store_si512(to(column).add(v).cast(), quad);
                }
            }
        }
    }

    /// V vectors of channels, R output rows, X columns at a time; the last pass begins early rather than end late.
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
            let ox = ox.min(dims.w.saturating_sub(X));
            // SAFETY: all offsets lie within what was asserted: columns up to the last pass's last window, weights, and
            // outputs of columns before `dims.w`.
            unsafe {
                let at = columns.as_ptr().add(ox * stride * self.n_quads * V);
                let out = out.as_mut_ptr().add(ox * dims.c + first);
                let n = dims.w - ox;
                if n_rows == R && n >= X {
                    // Every loop has a known length, as in `dense`.
                    let mut results = self.accumulate::<V, R, X>(at, stride, dilation, kernel_w);
                    self.header.requantize_all::<V, FORM>(results.as_flattened_mut(), self.target);
                    for (r, results) in results.into_iter().enumerate() {
                        for (x, result) in results.into_iter().enumerate() {
                            self.target.store(result, self.n, out.add((r * dims.w + x) * dims.c));
                        }
                    }
                } else {
                    self.last_pass::<V, R, X, FORM>(at, [n_rows, n], out);
                }
            }
        }
    }

    /// A pass of which only the first rows and columns count.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn last_pass<const V: usize, const R: usize, const X: usize, const FORM: u32>(
        &self,
        at: *const Line,
        [n_rows, n]: [usize; 2],
        out: *mut i8,
    ) {
        let (window, dims) = (&self.shape.window, self.shape.output);
        // SAFETY: passed on.
        unsafe {
            let sums = self.accumulate::<V, R, X>(at, window.stride[1], window.dilation[1], window.kernel[1]);
            for (r, sums) in sums.into_iter().enumerate().take(n_rows) {
                for (x, sums) in sums.into_iter().enumerate().take(n) {
                    let mut result = [sums];
                    self.header.requantize_all::<V, FORM>(&mut result, self.target);
                    self.target.store(result[0], self.n, out.add((r * dims.w + x) * dims.c));
                }
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
        // Taps are not unrolled: known loops would keep their weights in registers that there are not.
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

/// Quads of 64 channels from `at` on.
///
/// # Safety
/// AVX-512 F and BW; 64 bytes at each.
#[inline(always)]
unsafe fn quads_of_block(at: [*const i8; QUAD], sign: __m512i) -> [__m512i; 4] {
    unsafe {
        let [a, b, c, d] = at;
        let (a, b) = (_mm512_loadu_si512(a.cast()), _mm512_loadu_si512(b.cast()));
        let (c, d) = (_mm512_loadu_si512(c.cast()), _mm512_loadu_si512(d.cast()));
        let (a, b) = (_mm512_xor_si512(a, sign), _mm512_xor_si512(b, sign));
        let (c, d) = (_mm512_xor_si512(c, sign), _mm512_xor_si512(d, sign));
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
/// AVX-512 F and BW; 32 bytes at each.
#[inline(always)]
unsafe fn quads_of_half(at: [*const i8; QUAD], sign: __m512i) -> [__m512i; 2] {
    unsafe {
        let sign = _mm512_castsi512_si256(sign);
        let [a, b, c, d] = at;
        let (a, b) = (_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast()));
        let (c, d) = (_mm256_loadu_si256(c.cast()), _mm256_loadu_si256(d.cast()));
        let (a, b) = (_mm256_xor_si256(a, sign), _mm256_xor_si256(b, sign));
        let (c, d) = (_mm256_xor_si256(c, sign), _mm256_xor_si256(d, sign));
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

/// Quads of `n` channels, at most 16, from `at` on.
///
/// # Safety
/// AVX-512 F, BW and VL; `n` bytes at each.
#[inline(always)]
unsafe fn quads_of_some(at: [*const i8; QUAD], n: usize, sign: __m512i) -> __m512i {
    unsafe {
        let (mask, sign) = (first_of_16(n), _mm512_castsi512_si128(sign));
        let [a, b, c, d] = at;
        let (a, b) = (_mm_maskz_loadu_epi8(mask, a), _mm_maskz_loadu_epi8(mask, b));
        let (c, d) = (_mm_maskz_loadu_epi8(mask, c), _mm_maskz_loadu_epi8(mask, d));
        let (a, b) = (_mm_xor_si128(a, sign), _mm_xor_si128(b, sign));
        let (c, d) = (_mm_xor_si128(c, sign), _mm_xor_si128(d, sign));
        let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
        let (low2, high2) = (_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d));
        let low = _mm256_set_m128i(_mm_unpackhi_epi16(low, low2), _mm_unpacklo_epi16(low, low2));
        let high = _mm256_set_m128i(_mm_unpackhi_epi16(high, high2), _mm_unpacklo_epi16(high, high2));
        _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)
    }
}
