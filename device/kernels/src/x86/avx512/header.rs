//! What a block of 64 output channels starts from and how it is requantized; a block of 16, 32 or 48 uses a part.

use core::arch::x86_64::*;

use crate::packed::{Form, Forms, Layer, Line, SATURATED_REACH, forms_of};
use crate::requantize::{Clamp, MULTIPLIER_BITS};

/// Channels of one vector of accumulators.
pub(super) const LANES: usize = 16;
/// Channels of a full block: four vectors, one vector of results.
pub(super) const BLOCK: usize = 64;
/// Channels of half a block: two vectors, half a vector of results.
pub(super) const HALF: usize = BLOCK / 2;
/// Bits of 3 * 2^22 as f32: an integer below 2^22 in magnitude, added to them, reads as that float plus the integer.
const MAGIC: i32 = 0x4B40_0000;

/// Forms as constants: values of an enum are no parameters of a function.
pub(super) const SINGLE: u32 = Form::Single as u32;
pub(super) const SATURATED: u32 = Form::Saturated as u32;
pub(super) const DOUBLE: u32 = Form::Double as u32;
pub(super) const INTEGER: u32 = Form::Integer as u32;

/// Beginning of a block; its weights follow.
///
/// All channels of a block are requantized in one [`Form`]. In the single and the saturated one accumulators read as floats: `start`
/// carries [`MAGIC`], and `fma(acc, factor, addend)` rounds half to even. In the double one `factor` is used alone; in
/// the integer one it holds the multipliers' bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Header {
    start: [i32; BLOCK],
    factor: [f32; BLOCK],
    /// `3 * (2^22 - M)`.
    addend: [f32; BLOCK],
    form: u32,
    unused: [u32; 15],
}

/// Lines of a [`Header`].
pub(super) const HEADER_LINES: usize = size_of::<Header>() / size_of::<Line>();

const _: () = assert!(size_of::<Header>() == 13 * size_of::<Line>() && align_of::<Header>() == align_of::<Line>());

/// Channel at lane `lane` of vector `vector` of a block of `n` channels. Full and half blocks are narrowed by `packs`,
/// which works in quarters: there a quarter of all vectors is neighbouring channels. The quarters of half blocks are in
/// the order in which [`depthwise`](super::depthwise) interleaves them.
pub(super) fn channel_of(n: usize, vector: usize, lane: usize) -> usize {
    let (quarter, rest) = (lane / 4, vector * 4 + lane % 4);
    match n {
        BLOCK => quarter * LANES + rest,
        HALF => [0, 2, 1, 3][quarter] * (HALF / 4) + rest,
        _ => vector * LANES + lane,
    }
}

impl Header {
    /// Of the channels `first..first + n` for inputs to which `offset` is added.
    pub fn of(layer: &Layer<'_>, first: usize, n: usize, offset: i32) -> Header {
        let mut header =
            Header { start: [0; BLOCK], factor: [0.0; BLOCK], addend: [0.0; BLOCK], form: 0, unused: [0; 15] };
        let requantize = layer.requantize;
        let sums = &layer.sums[first..first + n];
        let forms = |c: usize| {
            forms_of(sums[c - first], layer.bias[c], layer.zero_point_in, requantize.multipliers[c], requantize.clamp)
        };
        let form = (first..first + n).map(forms).fold(Forms::ALL, Forms::and).fastest();
        header.form = form as u32;
        let reads_as_float = matches!(form, Form::Single | Form::Saturated);
        for vector in 0..BLOCK / LANES {
            for lane in 0..LANES {
                let (at, channel) = (vector * LANES + lane, channel_of(n, vector, lane));
                if channel >= n {
                    continue;
                }
                let c = first + channel;
                let sum = sums[channel].total();
                let start = layer.bias[c].wrapping_sub(sum.wrapping_mul(layer.zero_point_in.wrapping_add(offset)));
                let m = requantize.multipliers[c];
                header.start[at] = if reads_as_float { start.wrapping_add(MAGIC) } else { start };
                header.factor[at] = match form {
                    Form::Integer => f32::from_bits(m as u32),
                    _ => m as f32 / (1 << MULTIPLIER_BITS) as f32,
                };
                // An integer below 2^24: exact.
                header.addend[at] = (3 * ((1 << MULTIPLIER_BITS) - m.clamp(0, 1 << 23))) as f32;
            }
        }
        header
    }

    pub fn write(&self, lines: &mut [Line]) {
        // SAFETY: a header is as many lines of plain numbers, of the same alignment, and has no padding.
        let bytes = unsafe { core::slice::from_raw_parts((self as *const Header).cast::<Line>(), HEADER_LINES) };
        lines[..HEADER_LINES].copy_from_slice(bytes);
    }

    pub fn read(lines: &[Line]) -> &Header {
        // SAFETY: any bytes are a header, lines are aligned alike, and the length is checked by the slice.
        unsafe { &*lines[..HEADER_LINES].as_ptr().cast::<Header>() }
    }

    /// What vector `vector` starts from.
    ///
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    pub unsafe fn start(&self, vector: usize) -> __m512i {
        unsafe { _mm512_load_si512(self.start.as_ptr().add(vector * LANES).cast()) }
    }

    /// Requantizes vector `vector`: results with the zero point, as i32; those out of range saturate when narrowed.
    ///
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    unsafe fn requantize<const FORM: u32>(&self, acc: __m512i, vector: usize, to: &Target) -> __m512i {
        unsafe {
            let factor = self.factor.as_ptr().add(vector * LANES);
            if FORM == SINGLE || FORM == SATURATED {
                let acc = if FORM == SATURATED {
                    _mm512_max_epi32(_mm512_min_epi32(acc, to.sums[1]), to.sums[0])
                } else {
                    acc
                };
                let addend = _mm512_load_ps(self.addend.as_ptr().add(vector * LANES));
                let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(acc), _mm512_load_ps(factor), addend);
                _mm512_sub_epi32(_mm512_castps_si512(scaled), to.magic)
            } else if FORM == DOUBLE {
                let factors = [_mm256_load_ps(factor), _mm256_load_ps(factor.add(8))];
                let low = double(_mm512_castsi512_si256(acc), factors[0]);
                let high = double(_mm512_extracti64x4_epi64(acc, 1), factors[1]);
                let both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
                // At most 2^31 in magnitude; a zero point must not wrap it.
                let bounded = _mm512_max_epi32(_mm512_min_epi32(both, to.most), to.least);
                _mm512_add_epi32(bounded, to.zero_point)
            } else {
                let m = _mm512_load_si512(factor.cast());
                let even = round(_mm512_mul_epi32(acc, m));
                let odd = round(_mm512_mul_epi32(_mm512_srli_epi64(acc, 32), _mm512_srli_epi64(m, 32)));
                // Both in i16's range, so that the low half of each is the number.
                let both = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
                _mm512_add_epi32(both, to.zero_point)
            }
        }
    }

    /// Requantizes many sums of the V vectors of a block. Vector by vector, so that its factors are loaded once for all.
    ///
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    pub unsafe fn requantize_all<const V: usize, const FORM: u32>(&self, sums: &mut [[__m512i; V]], to: &Target) {
        for v in 0..V {
            for sums in sums.iter_mut() {
                // SAFETY: passed on.
                sums[v] = unsafe { self.requantize::<FORM>(sums[v], v, to) };
            }
        }
    }

    /// The form for [`Header::requantize`]: [`SINGLE`], [`SATURATED`], [`DOUBLE`] or [`INTEGER`].
    pub fn form(&self) -> u32 {
        self.form
    }
}

/// Eight sums times their factors, rounded half to even by the conversion.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn double(acc: __m256i, factor: __m256) -> __m256i {
    unsafe { _mm512_cvtpd_epi32(_mm512_mul_pd(_mm512_cvtepi32_pd(acc), _mm512_cvtps_pd(factor))) }
}

/// Eight products over 2^22, rounded half to even, brought into -2^14..2^14: beyond the reach of any output.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn round(product: __m512i) -> __m512i {
    unsafe {
        let odd = _mm512_and_si512(_mm512_srli_epi64(product, MULTIPLIER_BITS), _mm512_set1_epi64(1));
        let half = _mm512_set1_epi64((1 << (MULTIPLIER_BITS - 1)) - 1);
        let sum = _mm512_add_epi64(_mm512_add_epi64(product, half), odd);
        let rounded = _mm512_srai_epi64(sum, MULTIPLIER_BITS);
        let bounded = _mm512_min_epi64(rounded, _mm512_set1_epi64(1 << 14));
        _mm512_max_epi64(bounded, _mm512_set1_epi64(-(1 << 14)))
    }
}

/// A layer's output range in registers.
pub(super) struct Target {
    /// [`MAGIC`] minus the zero point.
    magic: __m512i,
    zero_point: __m512i,
    /// Least and greatest sum in the saturated form, with [`MAGIC`].
    sums: [__m512i; 2],
    /// Beyond the reach of any output, and far from the ends of i32.
    least: __m512i,
    most: __m512i,
    low: __m512i,
    high: __m512i,
    /// The bounds are those of i8, which narrowing keeps by itself.
    is_free: bool,
}

impl Target {
    /// # Safety
    /// AVX-512 F and BW.
    #[inline(always)]
    pub unsafe fn new(clamp: Clamp) -> Target {
        unsafe {
            let byte = |x: i32| x.clamp(-128, 127) as i8;
            // Where the bounds cross, the low one wins.
            let (low, high) = (byte(clamp.low), byte(clamp.high));
            Target {
                magic: _mm512_set1_epi32(MAGIC.wrapping_sub(clamp.zero_point)),
                zero_point: _mm512_set1_epi32(clamp.zero_point),
                sums: [_mm512_set1_epi32(MAGIC - SATURATED_REACH), _mm512_set1_epi32(MAGIC + SATURATED_REACH)],
                least: _mm512_set1_epi32(-(1 << 14)),
                most: _mm512_set1_epi32(1 << 14),
                low: _mm512_set1_epi8(low),
                high: _mm512_set1_epi8(high),
                is_free: (low, high) == (-128, 127),
            }
        }
    }

    /// `x * factor` rounded half to even, with the zero point, as i32; the product is exact and below 2^22 in magnitude.
    ///
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    pub unsafe fn round(&self, x: __m512, factor: __m512) -> __m512i {
        unsafe {
            let magic = _mm512_castsi512_ps(_mm512_set1_epi32(MAGIC));
            _mm512_sub_epi32(_mm512_castps_si512(_mm512_fmadd_ps(x, factor, magic)), self.magic)
        }
    }

    /// Stores the V requantized vectors of a block of `n` channels in order at `out`.
    ///
    /// # Safety
    /// AVX-512 F, BW and VL; `out` has room for `n` channels.
    #[inline(always)]
    pub unsafe fn store<const V: usize>(&self, vectors: [__m512i; V], n: usize, out: *mut i8) {
        unsafe {
            let mut results = [_mm512_setzero_si512(); 4];
            results[..V].copy_from_slice(&vectors);
            if V == 4 && n == BLOCK {
                _mm512_storeu_si512(out.cast(), self.narrow_block(results));
            } else if V == 2 && n == HALF {
                _mm256_storeu_si256(out.cast(), self.narrow_half([results[0], results[1]]));
            } else {
                for (v, result) in results.into_iter().enumerate().take(V) {
                    self.store_vector(result, n - v * LANES, out.add(v * LANES));
                }
            }
        }
    }

    /// Four vectors of a full block to 64 channels in order.
    ///
    /// # Safety
    /// AVX-512 F and BW.
    #[inline(always)]
    pub unsafe fn narrow_block(&self, results: [__m512i; 4]) -> __m512i {
        unsafe {
            let [a, b, c, d] = results;
            let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            if self.is_free { bytes } else { _mm512_max_epi8(_mm512_min_epi8(bytes, self.high), self.low) }
        }
    }

    /// Two vectors of half a block to 32 channels in order.
    ///
    /// # Safety
    /// AVX-512 F and BW.
    #[inline(always)]
    unsafe fn narrow_half(&self, results: [__m512i; 2]) -> __m256i {
        unsafe {
            let [a, b] = results;
            let bytes = _mm512_cvtsepi16_epi8(_mm512_packs_epi32(a, b));
            let bytes = _mm256_permute4x64_epi64(bytes, 0b11_01_10_00);
            if self.is_free {
                return bytes;
            }
            let (low, high) = (_mm512_castsi512_si256(self.low), _mm512_castsi512_si256(self.high));
            _mm256_max_epi8(_mm256_min_epi8(bytes, high), low)
        }
    }

    /// One vector to its first `n` channels, at most 16, in order.
    ///
    /// # Safety
    /// AVX-512 F, BW and VL; `out` has room for them.
    #[inline(always)]
    unsafe fn store_vector(&self, results: __m512i, n: usize, out: *mut i8) {
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(results);
            let (low, high) = (_mm512_castsi512_si128(self.low), _mm512_castsi512_si128(self.high));
            let bytes = _mm_max_epi8(_mm_min_epi8(bytes, high), low);
            // Masked stores are slow on some CPUs.
            match n {
                LANES.. => _mm_storeu_si128(out.cast(), bytes),
                8 => _mm_storel_epi64(out.cast(), bytes),
                _ => _mm_mask_storeu_epi8(out, first_of_16(n), bytes),
            }
        }
    }
}

/// The first `n` of 64 bytes.
#[inline(always)]
pub(super) fn first_of_64(n: usize) -> __mmask64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

/// The first `n` of 16 bytes.
#[inline(always)]
pub(super) fn first_of_16(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}
