//! What a block of 64 output channels starts from and how it is requantized; a block of 16, 32 or 48 uses a part.

use core::arch::x86_64::*;

use crate::packed::{Layer, Line, float_form_is_exact};
use crate::requantize::{Clamp, MULTIPLIER_BITS};

/// Channels of one vector of accumulators.
pub(super) const LANES: usize = 16;
/// Channels of a full block: four vectors, one vector of results.
pub(super) const BLOCK: usize = 64;
/// Bits of 3 * 2^22 as f32: an integer below 2^22 in magnitude, added to them, reads as that float plus the integer.
const MAGIC: i32 = 0x4B40_0000;

/// Beginning of a block; its weights follow.
///
/// A `fast` block holds accumulators that read as floats: `start` carries [`MAGIC`], and `fma(acc, factor, addend)`
/// rounds half to even. Other blocks keep integers: `factor` holds the multipliers' bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Header {
    start: [i32; BLOCK],
    factor: [f32; BLOCK],
    /// `3 * (2^22 - M)`.
    addend: [f32; BLOCK],
    fast: u32,
    unused: [u32; 15],
}

/// Lines of a [`Header`].
pub(super) const HEADER_LINES: usize = size_of::<Header>() / size_of::<Line>();

const _: () = assert!(size_of::<Header>() == 13 * size_of::<Line>() && align_of::<Header>() == align_of::<Line>());

/// Channel of the block at lane `lane` of vector `vector`. Full blocks are narrowed by `packs`, which works in quarters:
/// there a quarter of four vectors is 16 neighbouring channels.
pub(super) fn channel_of(is_full: bool, vector: usize, lane: usize) -> usize {
    if is_full { lane / 4 * LANES + vector * 4 + lane % 4 } else { vector * LANES + lane }
}

impl Header {
    /// Of the channels `first..first + n` with weights `row_of(channel)`.
    pub fn of<'a>(layer: &Layer<'_>, first: usize, n: usize, row_of: impl Fn(usize) -> &'a [i8]) -> Header {
        let mut header =
            Header { start: [0; BLOCK], factor: [0.0; BLOCK], addend: [0.0; BLOCK], fast: 0, unused: [0; 15] };
        let requantize = layer.requantize;
        let fast = (first..first + n).all(|c| {
            let (row, m) = (row_of(c), requantize.multipliers[c]);
            float_form_is_exact(row, layer.bias[c], layer.zero_point_in, m, requantize.clamp)
        });
        header.fast = fast.into();
        for vector in 0..BLOCK / LANES {
            for lane in 0..LANES {
                let (at, channel) = (vector * LANES + lane, channel_of(n == BLOCK, vector, lane));
                if channel >= n {
                    continue;
                }
                let c = first + channel;
                let sum = row_of(c).iter().fold(0i32, |sum, w| sum.wrapping_add((*w).into()));
                let start = layer.bias[c].wrapping_sub(sum.wrapping_mul(layer.zero_point_in.wrapping_add(128)));
                let m = requantize.multipliers[c];
                if fast {
                    header.start[at] = start.wrapping_add(MAGIC);
                    header.factor[at] = m as f32 / (1 << MULTIPLIER_BITS) as f32;
                    // An integer below 2^24: exact.
                    header.addend[at] = (3 * ((1 << MULTIPLIER_BITS) - m)) as f32;
                } else {
                    header.start[at] = start;
                    header.factor[at] = f32::from_bits(m as u32);
                }
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
    pub unsafe fn requantize<const FAST: bool>(&self, acc: __m512i, vector: usize, to: &Target) -> __m512i {
        unsafe {
            let factor = self.factor.as_ptr().add(vector * LANES);
            if FAST {
                let addend = _mm512_load_ps(self.addend.as_ptr().add(vector * LANES));
                let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(acc), _mm512_load_ps(factor), addend);
                _mm512_sub_epi32(_mm512_castps_si512(scaled), to.magic)
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

    /// True if [`Header::requantize`] may run its float form.
    pub fn is_fast(&self) -> bool {
        self.fast != 0
    }
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
    low: __m512i,
    high: __m512i,
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
                low: _mm512_set1_epi8(low),
                high: _mm512_set1_epi8(high),
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
            _mm512_max_epi8(_mm512_min_epi8(bytes, self.high), self.low)
        }
    }

    /// One vector to 16 channels in order.
    ///
    /// # Safety
    /// AVX-512 F, BW and VL.
    #[inline(always)]
    pub unsafe fn narrow(&self, results: __m512i) -> __m128i {
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(results);
            let (low, high) = (_mm512_castsi512_si128(self.low), _mm512_castsi512_si128(self.high));
            _mm_max_epi8(_mm_min_epi8(bytes, high), low)
        }
    }
}

/// The first `n` of 64 bytes.
pub(super) fn first_of_64(n: usize) -> __mmask64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

/// The first `n` of 16 bytes.
pub(super) fn first_of_16(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}
