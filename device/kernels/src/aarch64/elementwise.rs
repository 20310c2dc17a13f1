//! Addition and look-up, 16 values at a time.

use core::arch::aarch64::*;

use crate::add::{AddParams, add_one};
use crate::table::plain;

const LANES: usize = 16;

/// True if [`add`] computes exactly what the definition asks: every sum fits i32.
pub(crate) fn can_add(params: &AddParams) -> bool {
    params.multipliers.iter().all(|m| m.unsigned_abs() <= 1 << 21)
        && params.zero_points_in.iter().all(|zp| (-128..=127).contains(zp))
        && (-128..=127).contains(&params.clamp.zero_point)
        && (1..=24).contains(&params.shift)
}

/// [`crate::add::add`] of equal shapes, for parameters that [`can_add`] allows.
///
/// `S = a * m0 + b * m1` with both zero points in the starting value stays below 2^30. Half to even is
/// `(S + half - 1 + odd) >> shift`, `odd` the quotient's lowest bit. It matters at ties alone, where `S - 1` has the same
/// bit: so the sums start one lower, that bit is added, and the shift itself adds the half.
pub(crate) fn add(params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) {
    let n = out.len() / LANES * LANES;
    // SAFETY: NEON is part of every aarch64.
    unsafe { add_sixteens(params, a, b, out) };
    let rest = a[n..].iter().zip(&b[n..]);
    out[n..].iter_mut().zip(rest).for_each(|(out, (a, b))| *out = add_one(params, *a, *b));
}

#[target_feature(enable = "neon")]
fn add_sixteens(params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) {
    let start = -params.zero_points_in[0] * params.multipliers[0] - params.zero_points_in[1] * params.multipliers[1];
    let clamp = params.clamp;
    // Sums saturate to i16 on the way: what is beyond it is beyond i8 with any zero point.
    let zero_point = vdupq_n_s16(clamp.zero_point as i16);
    let byte = |x: i32| vdupq_n_s8(x.clamp(-128, 127) as i8);
    let (low, high) = (byte(clamp.low), byte(clamp.high));
    let start = vdupq_n_s32(start - 1);
    let multipliers = params.multipliers.map(|m| vdupq_n_s32(m));
    let (to_sign, down) = (vdupq_n_s32(31 - params.shift as i32), vdupq_n_s32(-(params.shift as i32)));
    let round = |a: int16x4_t, b: int16x4_t| {
        let sum = vmlaq_s32(vmlaq_s32(start, vmovl_s16(a), multipliers[0]), vmovl_s16(b), multipliers[1]);
        let odd = vreinterpretq_u32_s32(vshlq_s32(sum, to_sign));
        let sum = vreinterpretq_s32_u32(vsraq_n_u32::<31>(vreinterpretq_u32_s32(sum), odd));
        vqmovn_s32(vrshlq_s32(sum, down))
    };
    let eight = |a: int16x8_t, b: int16x8_t| {
        let rounded = vcombine_s16(round(vget_low_s16(a), vget_low_s16(b)), round(vget_high_s16(a), vget_high_s16(b)));
        vqmovn_s16(vqaddq_s16(rounded, zero_point))
    };
    let chunks = a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).zip(out.chunks_exact_mut(LANES));
    for ((a, b), out) in chunks {
        // SAFETY: 16 values each.
        unsafe {
            let (a, b) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
            let low_half = eight(vmovl_s8(vget_low_s8(a)), vmovl_s8(vget_low_s8(b)));
            let sum = vcombine_s8(low_half, eight(vmovl_high_s8(a), vmovl_high_s8(b)));
            vst1q_s8(out.as_mut_ptr(), vmaxq_s8(vminq_s8(sum, high), low));
        }
    }
}

/// [`crate::table::table`]: four look-ups of 64 entries each.
pub(crate) fn table(entries: &[i8; 256], input: &[i8], output: &mut [i8]) {
    let n = input.len() / LANES * LANES;
    // SAFETY: NEON is part of every aarch64.
    unsafe { table_sixteens(entries, input, output) };
    plain(entries, &input[n..], &mut output[n..]);
}

#[target_feature(enable = "neon")]
fn table_sixteens(entries: &[i8; 256], input: &[i8], output: &mut [i8]) {
    // SAFETY: 64 entries from each multiple of 64 below 256.
    let quarters: [int8x16x4_t; 4] = core::array::from_fn(|i| unsafe { vld1q_s8_x4(entries.as_ptr().add(64 * i)) });
    let [first, rest @ ..] = quarters;
    let (flip, quarter) = (vdupq_n_u8(0x80), vdupq_n_u8(64));
    for (x, out) in input.chunks_exact(LANES).zip(output.chunks_exact_mut(LANES)) {
        // SAFETY: 16 values each.
        unsafe {
            let mut at = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(x.as_ptr())), flip);
            let mut result = vqtbl4q_s8(first, at);
            for entries in rest {
                at = vsubq_u8(at, quarter);
                result = vqtbx4q_s8(result, entries, at);
            }
            vst1q_s8(out.as_mut_ptr(), result);
        }
    }
}
