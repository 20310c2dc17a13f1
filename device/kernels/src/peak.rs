//! The most multiply-accumulates that a set of instructions can do: what convolutions are measured against.

use crate::Isa;

/// Multiply-accumulates of one round.
const ROUND: u64 = 16 * 64;

/// Runs `n_rounds` rounds of int8 multiply-accumulates that wait for nothing and load nothing, as the convolutions of `isa`
/// do them, and says how many these were; 0 where that is not known. The CPU must have the instructions of `isa`.
pub fn multiply_accumulates(isa: Isa, n_rounds: u64) -> u64 {
    let is_known = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => {
            // SAFETY: the caller vouches for the CPU.
            unsafe { x86::avx512(n_rounds) };
            true
        }
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => {
            // SAFETY: as above.
            unsafe { x86::avx_vnni(n_rounds) };
            true
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: as above.
            unsafe { x86::avx2(n_rounds) };
            true
        }
        _ => false,
    };
    if is_known { n_rounds * ROUND } else { 0 }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;
    use core::hint::black_box;

    use super::ROUND;

    /// Accumulators: enough to hide the latency.
    const N: usize = 16;

    /// # Safety
    /// AVX-512 F and VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub unsafe fn avx512(n_rounds: u64) {
        const { assert!(ROUND == N as u64 * 64) };
        let (x, w) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); N];
        for _ in 0..n_rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, w);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// AVX-VNNI.
    #[target_feature(enable = "avx2,avxvnni")]
    pub unsafe fn avx_vnni(n_rounds: u64) {
        const N: usize = 8;
        let (x, w) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(5)));
        let mut sums = [_mm256_setzero_si256(); N];
        for _ in 0..n_rounds * ROUND / (32 * N as u64) {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, x, w);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn avx2(n_rounds: u64) {
        const N: usize = 14;
        let w = black_box(_mm256_set1_epi16(5));
        let mut sums = black_box([_mm256_set1_epi16(3); N]);
        // Sixteen at a time. Products of the sums themselves: others would be computed once.
        for _ in 0..n_rounds * ROUND / (16 * N as u64) {
            for sum in &mut sums {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, w));
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_where_they_are_known() {
        assert_eq!(multiply_accumulates(Isa::Scalar, 3), 0);
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") {
            assert_eq!(multiply_accumulates(Isa::Avx2, 3), 3 * 1024);
        }
    }
}
