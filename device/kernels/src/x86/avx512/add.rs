//! Addition of int8 tensors of equal shapes, 64 values at a time.

use core::arch::x86_64::*;

use super::header::{BLOCK, Target, first_of_64};
use crate::add::AddParams;

/// True if [`add`] computes exactly what the definition asks: multipliers are i16, and every sum is exact as f32.
pub(in crate::x86) fn can_add(params: &AddParams) -> bool {
    params.multipliers.iter().all(|m| m.unsigned_abs() <= 32_767)
        && params.zero_points_in.iter().all(|zp| (-128..=127).contains(zp))
        && (3..=24).contains(&params.shift)
}

/// `S = a * m0 + b * m1` with both zero points in the starting value: pairs of i16 in one multiply-add, below 2^24. As f32
/// over `2^shift` it is below 2^22, as [`Target::round`] asks.
///
/// # Safety
/// AVX-512 F, BW, VL and VNNI; slices are equally long, and [`can_add`] holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::x86) unsafe fn add(params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) {
    assert!(a.len() == out.len() && b.len() == out.len());
    let [m0, m1] = params.multipliers;
    let start = -(params.zero_points_in[0] + 128) * m0 - (params.zero_points_in[1] + 128) * m1;
    // SAFETY: the CPU has the instructions.
    let adder = unsafe {
        Adder {
            start: _mm512_set1_epi32(start),
            multipliers: _mm512_set1_epi32(m0 & 0xFFFF | m1 << 16),
            factor: _mm512_set1_ps(1.0 / (1u32 << params.shift) as f32),
            target: Target::new(params.clamp),
        }
    };
    let (a_blocks, a_rest) = a.as_chunks::<BLOCK>();
    let (b_blocks, b_rest) = b.as_chunks::<BLOCK>();
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    for ((a, b), out) in a_blocks.iter().zip(b_blocks).zip(blocks) {
        // SAFETY: 64 bytes each.
        unsafe {
            let sums = adder.block(_mm512_loadu_si512(a.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().cast()));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), sums);
        }
    }
    if !rest.is_empty() {
        let mask = first_of_64(rest.len());
        // SAFETY: the mask is as long as what is left.
        unsafe {
            let (a, b) =
                (_mm512_maskz_loadu_epi8(mask, a_rest.as_ptr()), _mm512_maskz_loadu_epi8(mask, b_rest.as_ptr()));
            _mm512_mask_storeu_epi8(rest.as_mut_ptr(), mask, adder.block(a, b));
        }
    }
}

struct Adder {
    start: __m512i,
    /// Of `a` in the low halves, of `b` in the high ones.
    multipliers: __m512i,
    factor: __m512,
    target: Target,
}

impl Adder {
    /// # Safety
    /// As [`add`].
    #[inline(always)]
    unsafe fn block(&self, a: __m512i, b: __m512i) -> __m512i {
        unsafe {
            let (sign, zero) = (_mm512_set1_epi8(-128), _mm512_setzero_si512());
            let (a, b) = (_mm512_xor_si512(a, sign), _mm512_xor_si512(b, sign));
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let mut sums = [
                _mm512_unpacklo_epi8(low, zero),
                _mm512_unpackhi_epi8(low, zero),
                _mm512_unpacklo_epi8(high, zero),
                _mm512_unpackhi_epi8(high, zero),
            ];
            for sum in &mut sums {
                let exact = _mm512_dpwssd_epi32(self.start, *sum, self.multipliers);
                *sum = self.target.round(_mm512_cvtepi32_ps(exact), self.factor);
            }
            self.target.narrow_block(sums)
        }
    }
}
