//! The loop of regular and grouped convolutions whose centred inputs fit i16: any but those of i8 to i8 that have a twin.
//!
//! Patches of [`PIXELS`] output pixels are gathered as i16; [`BLOCK`] output channels are summed side by side, so that no
//! sum is ever reduced across lanes and requantization has whole vectors.

use crate::conv::{ConvParams, ConvShape, Under};
use crate::requantize::requantize_row;
use crate::view::Activation;

/// Output pixels computed together.
pub(crate) const PIXELS: usize = 4;
/// Output channels computed together.
pub(crate) const BLOCK: usize = 16;

/// What every CPU of this kind has.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) type Baseline = Plain;
#[cfg(target_arch = "x86_64")]
pub(crate) type Baseline = x86::Sse2;

/// Sums of a block, by pixel.
pub(crate) type Sums = [[i32; BLOCK]; PIXELS];

/// How a set of instructions multiplies and adds.
pub(crate) trait Products {
    /// Weights lie `[row / 2, BLOCK, 2]`, two of a channel beside each other; else `[row, BLOCK]`.
    const PAIRS: bool;

    /// Adds `sum(patch * weight)` over the row to each sum, wrapping.
    ///
    /// Shapes: `weights` `[row, BLOCK]` as [`Products::PAIRS`] says, `patches` `[row]` each, `row` even.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn add(sums: &mut Sums, weights: &[i16], patches: [&[i16]; PIXELS]);
}

/// Defines `$name(isa, ..)`: `$run::<P>(..)`, generic and `#[inline(always)]`, with the [`Products`] of each set.
macro_rules! with_products_of_each_isa {
    (fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty = $run:ident) => {
        fn $name(isa: $crate::Isa, $($arg: $type),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            unsafe fn avx2($($arg: $type),*) -> $result {
                // SAFETY: the caller vouches for the CPU.
                unsafe { $run::<$crate::dense::x86::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
            unsafe fn avx512($($arg: $type),*) -> $result {
                // SAFETY: the caller vouches for the CPU.
                unsafe { $run::<$crate::dense::x86::Avx512>($($arg),*) }
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the caller vouches for the CPU.
                $crate::Isa::Avx2 | $crate::Isa::AvxVnni => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::Isa::Avx512Vnni => unsafe { avx512($($arg),*) },
                // SAFETY: every CPU has it.
                _ => unsafe { $run::<$crate::dense::Baseline>($($arg),*) },
            }
        }
    };
}
pub(crate) use with_products_of_each_isa;

/// Shaped for compilers: a sum of widened products is a multiply-add of Arm's vector units.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) struct Plain;

#[cfg(not(target_arch = "x86_64"))]
impl Products for Plain {
    const PAIRS: bool = false;

    #[inline(always)]
    unsafe fn add(sums: &mut Sums, weights: &[i16], [a, b, c, d]: [&[i16]; PIXELS]) {
        let rows = weights.as_chunks::<BLOCK>().0.iter().zip(a).zip(b).zip(c).zip(d);
        let mut local = *sums;
        for ((((weights, a), b), c), d) in rows {
            for (sums, x) in local.iter_mut().zip([*a, *b, *c, *d]) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.wrapping_add(i32::from(x).wrapping_mul(i32::from(*weight)));
                }
            }
        }
        *sums = local;
    }
}

/// `pmaddwd` of 128 or 256 bits, `vpdpwssd` of 512.
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use core::arch::x86_64::*;

    use super::{BLOCK, PIXELS, Products, Sums};

    /// A pair as one lane.
    #[inline(always)]
    fn lane(pair: &[i16; 2]) -> i32 {
        i32::from(pair[0] as u16) | i32::from(pair[1]) << 16
    }

    /// Part of x86-64: what [`Isa::Scalar`](crate::Isa::Scalar) has there.
    pub(crate) struct Sse2;

    impl Products for Sse2 {
        const PAIRS: bool = true;

        #[inline]
        unsafe fn add(sums: &mut Sums, weights: &[i16], patches: [&[i16]; PIXELS]) {
            let weights = weights.as_chunks::<{ 2 * BLOCK }>().0;
            // Two pixels at a time have their sums in registers.
            for (sums, patches) in sums.as_chunks_mut::<2>().0.iter_mut().zip(patches.as_chunks::<2>().0) {
                let pairs = patches[0].as_chunks::<2>().0.iter().zip(patches[1].as_chunks().0);
                // SAFETY: SSE2 is there, and a chunk of 32 i16, like 16 i32, is four vectors.
                unsafe {
                    let mut local = [[_mm_setzero_si128(); 4]; 2];
                    for (weights, (a, b)) in weights.iter().zip(pairs) {
                        let first = weights.as_ptr().cast::<__m128i>();
                        for (sums, pair) in local.iter_mut().zip([a, b]) {
                            let x = _mm_set1_epi32(lane(pair));
                            for (i, sum) in sums.iter_mut().enumerate() {
                                *sum = _mm_add_epi32(*sum, _mm_madd_epi16(x, _mm_loadu_si128(first.add(i))));
                            }
                        }
                    }
                    for (sums, local) in sums.iter_mut().zip(local) {
                        let at = sums.as_mut_ptr().cast::<__m128i>();
                        for (i, local) in local.into_iter().enumerate() {
                            let at = at.add(i);
                            _mm_storeu_si128(at, _mm_add_epi32(_mm_loadu_si128(at), local));
                        }
                    }
                }
            }
        }
    }

    pub(crate) struct Avx2;

    impl Products for Avx2 {
        const PAIRS: bool = true;

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn add(sums: &mut Sums, weights: &[i16], [a, b, c, d]: [&[i16]; PIXELS]) {
            let mut local = [[_mm256_setzero_si256(); 2]; PIXELS];
            let weights = weights.as_chunks::<{ 2 * BLOCK }>().0;
            let pairs = a.as_chunks::<2>().0.iter().zip(b.as_chunks().0).zip(c.as_chunks().0).zip(d.as_chunks().0);
            for (weights, (((a, b), c), d)) in weights.iter().zip(pairs) {
                // SAFETY: two vectors of 16 values are what a chunk holds.
                let w = unsafe {
                    let first = weights.as_ptr().cast::<__m256i>();
                    [_mm256_loadu_si256(first), _mm256_loadu_si256(first.add(1))]
                };
                for (sums, pair) in local.iter_mut().zip([a, b, c, d]) {
                    let x = _mm256_set1_epi32(lane(pair));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, w));
                    }
                }
            }
            for (sums, local) in sums.iter_mut().zip(local) {
                for (sums, local) in sums.as_chunks_mut::<8>().0.iter_mut().zip(local) {
                    // SAFETY: eight i32 are one vector.
                    unsafe {
                        let at = sums.as_mut_ptr().cast();
                        _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), local));
                    }
                }
            }
        }
    }

    pub(crate) struct Avx512;

    impl Products for Avx512 {
        const PAIRS: bool = true;

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        unsafe fn add(sums: &mut Sums, weights: &[i16], [a, b, c, d]: [&[i16]; PIXELS]) {
            // Two sums each, so that none waits for its last addition.
            let mut local = [[_mm512_setzero_si512(); PIXELS]; 2];
            let (weights, last) = weights.as_chunks::<{ 4 * BLOCK }>();
            let fours = a.as_chunks::<4>().0.iter().zip(b.as_chunks().0).zip(c.as_chunks().0).zip(d.as_chunks().0);
            for (weights, (((a, b), c), d)) in weights.iter().zip(fours) {
                for (i, local) in local.iter_mut().enumerate() {
                    // SAFETY: two vectors of 32 values are what a chunk holds.
                    let w = unsafe { _mm512_loadu_si512(weights.as_ptr().cast::<__m512i>().add(i)) };
                    for (sum, four) in local.iter_mut().zip([a, b, c, d]) {
                        *sum = _mm512_dpwssd_epi32(*sum, _mm512_set1_epi32(lane(&[four[2 * i], four[2 * i + 1]])), w);
                    }
                }
            }
            if let Some(last) = last.first_chunk::<{ 2 * BLOCK }>() {
                // SAFETY: as above.
                let w = unsafe { _mm512_loadu_si512(last.as_ptr().cast()) };
                for (sum, row) in local[0].iter_mut().zip([a, b, c, d]) {
                    let pair = row.last_chunk::<2>().unwrap_or(&[0, 0]);
                    *sum = _mm512_dpwssd_epi32(*sum, _mm512_set1_epi32(lane(pair)), w);
                }
            }
            for ((sums, one), other) in sums.iter_mut().zip(local[0]).zip(local[1]) {
                let local = _mm512_add_epi32(one, other);
                // SAFETY: sixteen i32 are one vector.
                unsafe {
                    let at = sums.as_mut_ptr().cast();
                    _mm512_storeu_si512(at, _mm512_add_epi32(_mm512_loadu_si512(at), local));
                }
            }
        }
    }
}

/// i16 values of one group's packed weights.
pub(crate) fn group_len(shape: &ConvShape) -> usize {
    let channels = (shape.output.c / shape.groups.max(1)).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
    channels.saturating_mul(row_len(shape))
}

/// Elements of a patch, padded with a zero to whole pairs.
pub(crate) fn row_len(shape: &ConvShape) -> usize {
    shape.patch_len().checked_next_multiple_of(2).unwrap_or(usize::MAX)
}

/// Where element `i` of the patch meets channel `channel` of its group.
pub(crate) fn weight_at(shape: &ConvShape, pairs: bool, group: usize, channel: usize, i: usize) -> usize {
    let (block, lane) = (channel / BLOCK, channel % BLOCK);
    let within = if pairs { (i / 2 * BLOCK + lane) * 2 + i % 2 } else { i * BLOCK + lane };
    group * group_len(shape) + block * BLOCK * row_len(shape) + within
}

/// Runs it; lengths were checked.
///
/// # Safety
/// As [`Products::add`].
#[inline(always)]
pub(crate) unsafe fn dense<P: Products, I: Activation, O: Activation>(
    shape: &ConvShape,
    params: &ConvParams<'_>,
    input: &[I],
    patches: &mut [i16],
    output: &mut [O],
) {
    let (row_len, out_c) = (row_len(shape), shape.output.c);
    let out_per_group = out_c / shape.groups;
    let block_len = BLOCK * row_len;
    patches.fill(0);
    for (group, weights) in params.packed.chunks_exact(group_len(shape)).enumerate() {
        for (at, out) in output.chunks_mut(PIXELS * out_c).enumerate() {
            for (i, patch) in patches.chunks_exact_mut(row_len).take(out.len() / out_c).enumerate() {
                gather(shape, input, group, at * PIXELS + i, params.zero_point_in, patch);
            }
            let (a, b) = patches.split_at(2 * row_len);
            let ((a, b), (c, d)) = (a.split_at(row_len), b.split_at(row_len));
            for (block, weights) in weights.chunks_exact(block_len).enumerate() {
                let first = group * out_per_group + block * BLOCK;
                let n = BLOCK.min(out_per_group - block * BLOCK);
                let mut start = [0; BLOCK];
                start[..n].copy_from_slice(&params.bias[first..first + n]);
                let mut sums = [start; PIXELS];
                // SAFETY: the caller vouches for the CPU.
                unsafe { P::add(&mut sums, weights, [a, b, c, d]) };
                let multipliers = &params.requantize.multipliers[first..first + n];
                for (sums, out) in sums.iter().zip(out.chunks_exact_mut(out_c)) {
                    requantize_row(&sums[..n], multipliers, params.requantize.clamp, &mut out[first..first + n]);
                }
            }
        }
    }
}

/// Centred inputs under the window at output pixel `pixel`, in the weights' order; zero in the padding.
#[inline(always)]
fn gather<I: Activation>(
    shape: &ConvShape,
    input: &[I],
    group: usize,
    pixel: usize,
    zero_point: i32,
    patch: &mut [i16],
) {
    let (c, window, under) = (shape.in_per_group(), &shape.window, Under::of(shape, pixel));
    let row_len = window.kernel[1] * c;
    // A row of the window is one stretch of memory, unless elements or channels between are left out.
    let (n_stretches, stretch) =
        if window.dilation[1] == 1 && shape.groups == 1 { (1, under.n[1] * c) } else { (under.n[1], c) };
    for (ky, row) in patch.chunks_exact_mut(row_len).take(window.kernel[0]).enumerate() {
        let Some(y) = ky.checked_sub(under.tap[0]).filter(|y| *y < under.n[0] && under.n[1] > 0) else {
            row.fill(0);
            continue;
        };
        let at = (under.source[0] + y * window.dilation[0]) * shape.input.w + under.source[1];
        let (before, rest) = row.split_at_mut(under.tap[1] * c);
        let (inside, after) = rest.split_at_mut(under.n[1] * c);
        before.fill(0);
        after.fill(0);
        for i in 0..n_stretches {
            let from = (at + i * window.dilation[1]) * shape.input.c + group * c;
            let to = &mut inside[i * stretch..][..stretch];
            for (wide, x) in to.iter_mut().zip(&input[from..][..stretch]) {
                *wide = x.centred_i16(zero_point);
            }
        }
    }
}
