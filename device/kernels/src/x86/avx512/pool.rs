//! Maximum pooling, 64 channels at a time. Compilers keep the maxima of the plain loop in memory.

use core::arch::x86_64::*;

use super::header::first_of_64;
use crate::pool::{PoolShape, Under};

/// # Safety
/// AVX-512 F, BW and VL. `shape` is consistent, and lengths are as it says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::x86) unsafe fn max_pool(shape: &PoolShape, input: &[i8], output: &mut [i8]) {
    let c = shape.input.c;
    for (oy, row) in output.chunks_exact_mut(shape.output.w * c).enumerate() {
        for (ox, out) in row.chunks_exact_mut(c).enumerate() {
            let under = shape.under(oy, ox);
            let Under { first, n: [n_y, n_x], steps: [down, right] } = under;
            let last = first + n_y.saturating_sub(1) * down + n_x.saturating_sub(1) * right;
            assert!((last + 1) * c <= input.len());
            for (block, out) in out.chunks_mut(64).enumerate() {
                // SAFETY: no pixel lies behind the last one, which was just measured, nor channels behind its mask.
                unsafe {
                    let mask = first_of_64(out.len());
                    let mut most = _mm512_set1_epi8(i8::MIN);
                    for i in 0..n_y {
                        let mut from = input.as_ptr().add((first + i * down) * c + block * 64);
                        for _ in 0..n_x {
                            most = _mm512_max_epi8(most, _mm512_mask_loadu_epi8(most, mask, from));
                            from = from.wrapping_add(right * c);
                        }
                    }
                    _mm512_mask_storeu_epi8(out.as_mut_ptr(), mask, most);
                }
            }
        }
    }
}
