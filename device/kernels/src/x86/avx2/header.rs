//! What a block of 16 output channels starts from and how it is requantized.

use core::arch::x86_64::*;

use crate::packed::{Form, Forms, Layer, Line, SATURATED_REACH, forms_of};
use crate::requantize::{Clamp, MULTIPLIER_BITS, requantize};
use crate::view::Activation;

/// Channels of one vector of accumulators.
pub(super) const LANES: usize = 8;
/// Channels of a block: two vectors of accumulators, half a vector of results.
pub(super) const BLOCK: usize = 16;
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

const _: () = assert!(size_of::<Header>() == 4 * size_of::<Line>() && align_of::<Header>() == align_of::<Line>());

/// Channel at lane `lane` of vector `vector`. Interleaving 16 channels leaves them in this order, and narrowing two
/// vectors with `packs` brings them back in line.
pub(super) fn channel_of(vector: usize, lane: usize) -> usize {
    lane / 4 * LANES + vector * 4 + lane % 4
}

impl Header {
    /// Of the channels `first..first + n`, at most [`BLOCK`], for inputs to which `offset`
    /// is added.
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
        for at in 0..BLOCK {
            let channel = channel_of(at / LANES, at % LANES);
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

    /// The form for [`Header::finish`]: [`SINGLE`], [`SATURATED`], [`DOUBLE`] or [`INTEGER`].
    pub fn form(&self) -> u32 {
        self.form
    }

    /// What the two vectors start from.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    pub unsafe fn start(&self) -> [__m256i; 2] {
        // SAFETY: 16 aligned numbers.
        unsafe {
            let start = self.start.as_ptr();
            [_mm256_load_si256(start.cast()), _mm256_load_si256(start.add(LANES).cast())]
        }
    }

    /// Requantizes the sums of a block and stores its first `n` channels in order at `out`.
    ///
    /// # Safety
    /// AVX2 and FMA; `out` has room for `n` channels, at most [`BLOCK`].
    #[inline(always)]
    pub unsafe fn finish<const FORM: u32>(&self, sums: [__m256i; 2], n: usize, to: &Target, out: *mut i8) {
        // SAFETY: passed on; the header's arrays are whole and aligned.
        unsafe {
            if FORM == INTEGER {
                return self.finish_plainly(sums, n, to, out);
            }
            let [a, b] = [self.scale::<FORM>(sums[0], 0, to), self.scale::<FORM>(sums[1], 1, to)];
            let words = _mm256_packs_epi32(a, b);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            let bytes = _mm_max_epi8(_mm_min_epi8(bytes, to.high), to.low);
            if n >= BLOCK {
                return _mm_storeu_si128(out.cast(), bytes);
            }
            let mut channels = [0i8; BLOCK];
            _mm_storeu_si128(channels.as_mut_ptr().cast(), bytes);
            out.copy_from_nonoverlapping(channels.as_ptr(), n);
        }
    }

    /// Results with the zero point, as i32; those out of range saturate when narrowed.
    #[inline(always)]
    unsafe fn scale<const FORM: u32>(&self, acc: __m256i, vector: usize, to: &Target) -> __m256i {
        unsafe {
            let factor = _mm256_load_ps(self.factor.as_ptr().add(vector * LANES));
            if FORM == SINGLE || FORM == SATURATED {
                let acc = if FORM == SATURATED {
                    _mm256_max_epi32(_mm256_min_epi32(acc, to.sums[1]), to.sums[0])
                } else {
                    acc
                };
                let addend = _mm256_load_ps(self.addend.as_ptr().add(vector * LANES));
                let scaled = _mm256_fmadd_ps(_mm256_castsi256_ps(acc), factor, addend);
                return _mm256_sub_epi32(_mm256_castps_si256(scaled), to.magic);
            }
            let low = double(_mm256_castsi256_si128(acc), _mm256_castps256_ps128(factor));
            let high = double(_mm256_extracti128_si256(acc, 1), _mm256_extractf128_ps(factor, 1));
            // At most 2^31 in magnitude; a zero point must not wrap it.
            let both = _mm256_set_m128i(high, low);
            let bounded = _mm256_max_epi32(_mm256_min_epi32(both, to.most), to.least);
            _mm256_add_epi32(bounded, to.zero_point)
        }
    }

    /// Channel by channel, as the definition says. Rare: sums that may pass 2^30.
    #[inline(never)]
    fn finish_plainly(&self, sums: [__m256i; 2], n: usize, to: &Target, out: *mut i8) {
        let mut acc = [0i32; BLOCK];
        // SAFETY: two vectors of eight numbers are sixteen.
        unsafe { acc.as_mut_ptr().cast::<[__m256i; 2]>().write_unaligned(sums) };
        for (at, acc) in acc.into_iter().enumerate() {
            let channel = channel_of(at / LANES, at % LANES);
            if channel < n {
                let value = requantize(acc, self.factor[at].to_bits() as i32, to.clamp);
                // SAFETY: the caller of `finish` has room for n channels.
                unsafe { out.add(channel).write(i8::from_i32(value)) };
            }
        }
    }
}

/// Four sums times their factors, rounded half to even by the conversion.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn double(acc: __m128i, factor: __m128) -> __m128i {
    unsafe { _mm256_cvtpd_epi32(_mm256_mul_pd(_mm256_cvtepi32_pd(acc), _mm256_cvtps_pd(factor))) }
}

/// A layer's output range in registers.
pub(super) struct Target {
    /// [`MAGIC`] minus the zero point.
    magic: __m256i,
    zero_point: __m256i,
    /// Least and greatest sum in the saturated form, with [`MAGIC`].
    sums: [__m256i; 2],
    /// Beyond the reach of any output, and far from the ends of i32.
    least: __m256i,
    most: __m256i,
    low: __m128i,
    high: __m128i,
    clamp: Clamp,
}

impl Target {
    /// # Safety
    /// AVX2.
    #[inline(always)]
    pub unsafe fn new(clamp: Clamp) -> Target {
        unsafe {
            let byte = |x: i32| x.clamp(-128, 127) as i8;
            // Where the bounds cross, the low one wins.
            let (low, high) = (byte(clamp.low), byte(clamp.high));
            Target {
                magic: _mm256_set1_epi32(MAGIC.wrapping_sub(clamp.zero_point)),
                zero_point: _mm256_set1_epi32(clamp.zero_point),
                sums: [_mm256_set1_epi32(MAGIC - SATURATED_REACH), _mm256_set1_epi32(MAGIC + SATURATED_REACH)],
                least: _mm256_set1_epi32(-(1 << 14)),
                most: _mm256_set1_epi32(1 << 14),
                low: _mm_set1_epi8(low),
                high: _mm_set1_epi8(high),
                clamp,
            }
        }
    }
}
