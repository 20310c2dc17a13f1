//! Five patches by 16 channels (8 at the end) for cores without dot products: Cortex-A53, A72.
//!
//! `smull` and `smlal2` multiply 16 bytes into eight sums of two products, which fit i16 while no weight is -128, and
//! `sadalp` adds neighbours into i32: three instructions for 16 multiply-accumulates. A lane holds one channel's pair
//! of the patch ([`Order::Pairs`]); `rev` moves each pair of the activations past each of four channels, so nothing is
//! duplicated and no sum crosses lanes. Blocks that hold -128 take `smull`, `sadalp` twice.
//!
//! The loops are assembly because compilers spill with 29 registers live; registers: accumulators v0-v19, patches
//! v20-v24, weights v25-v28, the rotated patch v29, products v30.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::arm::dense::{Micro, Range, Run};
use crate::arm::pack::{BLOCK, Form, Header, Order};
use crate::requantize::MULTIPLIER_BITS;

/// The micro-kernel.
pub(crate) struct Pairs;

const PIXELS: usize = 5;

macro_rules! pair_product {
    ($acc:literal, $a:literal, $w:literal) => {
        concat!(
            "smull v30.8h, v",
            $a,
            ".8b, v",
            $w,
            ".8b\n",
            "smlal2 v30.8h, v",
            $a,
            ".16b, v",
            $w,
            ".16b\n",
            "sadalp v",
            $acc,
            ".4s, v30.8h\n",
        )
    };
}

macro_rules! any_product {
    ($acc:literal, $a:literal, $w:literal) => {
        concat!(
            "smull v30.8h, v",
            $a,
            ".8b, v",
            $w,
            ".8b\n",
            "sadalp v",
            $acc,
            ".4s, v30.8h\n",
            "smull2 v30.8h, v",
            $a,
            ".16b, v",
            $w,
            ".16b\n",
            "sadalp v",
            $acc,
            ".4s, v30.8h\n",
        )
    };
}

/// Pairs past channels `j ^ 1`, `j ^ 2`, `j ^ 3`.
macro_rules! rotate {
    (1, $a:literal) => {
        concat!("rev32 v29.8h, v", $a, ".8h\n")
    };
    (2, $a:literal) => {
        concat!("rev64 v29.4s, v", $a, ".4s\n")
    };
    (3, $a:literal) => {
        concat!("rev64 v29.8h, v", $a, ".8h\n")
    };
}

/// One patch in register `a` against the weights in v25..: four or two registers.
macro_rules! patch {
    ($product:ident, $a:literal, $c0:literal $c1:literal $c2:literal $c3:literal) => {
        concat!($product!($c0, $a, 25), $product!($c1, $a, 26), $product!($c2, $a, 27), $product!($c3, $a, 28))
    };
    ($product:ident, $a:literal, $c0:literal $c1:literal) => {
        concat!($product!($c0, $a, 25), $product!($c1, $a, 26))
    };
}

/// One round: all patches, rotated by `r`, against the next weights.
macro_rules! round16 {
    ($product:ident, 0) => {
        concat!(
            "ldp q25, q26, [{w}], #32\n", "ldp q27, q28, [{w}], #32\n",
            patch!($product, 20, 0 1 2 3), patch!($product, 21, 4 5 6 7), patch!($product, 22, 8 9 10 11),
            patch!($product, 23, 12 13 14 15), patch!($product, 24, 16 17 18 19),
        )
    };
    ($product:ident, $r:tt) => {
        concat!(
            "ldp q25, q26, [{w}], #32\n", "ldp q27, q28, [{w}], #32\n",
            rotate!($r, 20), patch!($product, 29, 0 1 2 3),
            rotate!($r, 21), patch!($product, 29, 4 5 6 7),
            rotate!($r, 22), patch!($product, 29, 8 9 10 11),
            rotate!($r, 23), patch!($product, 29, 12 13 14 15),
            rotate!($r, 24), patch!($product, 29, 16 17 18 19),
        )
    };
}

macro_rules! round8 {
    ($product:ident, 0) => {
        concat!(
            "ldp q25, q26, [{w}], #32\n",
            patch!($product, 20, 0 1), patch!($product, 21, 2 3), patch!($product, 22, 4 5),
            patch!($product, 23, 6 7), patch!($product, 24, 8 9),
        )
    };
    ($product:ident, $r:tt) => {
        concat!(
            "ldp q25, q26, [{w}], #32\n",
            rotate!($r, 20), patch!($product, 29, 0 1),
            rotate!($r, 21), patch!($product, 29, 2 3),
            rotate!($r, 22), patch!($product, 29, 4 5),
            rotate!($r, 23), patch!($product, 29, 6 7),
            rotate!($r, 24), patch!($product, 29, 8 9),
        )
    };
}

/// The last eight of a patch: itself in the lower half, rotated by one in the upper one.
macro_rules! load_eight {
    ($a:literal, $pointer:literal) => {
        concat!("ldr d", $a, ", [", $pointer, "]\n", "rev32 v29.4h, v", $a, ".4h\n", "ins v", $a, ".d[1], v29.d[0]\n",)
    };
}

macro_rules! accumulate {
    ($name:ident, $n:literal, $product:ident, $round:ident, [$($start:expr),*], [$($reg:tt $i:literal),*]) => {
        /// Sums of five patches with one block, pixel by pixel; they start from `bias`.
        ///
        /// # Safety
        /// `rows` point at `depth` bytes each, `weights` at `depth * channels`, `bias` at the block's.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $name(rows: [*const i8; PIXELS], bias: *const i32, weights: *const i8, depth: usize) -> [int32x4_t; $n] {
            let mut acc = [vdupq_n_s32(0); $n];
            // SAFETY: reads what the caller vouches for: five rows and the weights in steps of 16 and a last one of 8,
            // which together are `depth`; writes registers only.
            unsafe {
                asm!(
                    $($start,)*
                    "lsr {steps}, {depth}, #4",
                    "cbz {steps}, 3f",
                    "2:",
                    "ldr q20, [{r0}], #16", "ldr q21, [{r1}], #16", "ldr q22, [{r2}], #16",
                    "ldr q23, [{r3}], #16", "ldr q24, [{r4}], #16",
                    $round!($product, 0), $round!($product, 1), $round!($product, 2), $round!($product, 3),
                    "subs {steps}, {steps}, #1",
                    "b.ne 2b",
                    "3:",
                    "tbz {depth}, #3, 4f",
                    load_eight!(20, "{r0}"), load_eight!(21, "{r1}"), load_eight!(22, "{r2}"),
                    load_eight!(23, "{r3}"), load_eight!(24, "{r4}"),
                    $round!($product, 0), $round!($product, 2),
                    "4:",
                    r0 = inout(reg) rows[0] => _, r1 = inout(reg) rows[1] => _, r2 = inout(reg) rows[2] => _,
                    r3 = inout(reg) rows[3] => _, r4 = inout(reg) rows[4] => _,
                    bias = in(reg) bias, w = inout(reg) weights => _, depth = in(reg) depth, steps = out(reg) _,
                    $(out($reg) acc[$i],)*
                    out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _,
                    out("v27") _, out("v28") _, out("v29") _, out("v30") _,
                    options(nostack, readonly)
                );
            }
            acc
        }
    };
}

macro_rules! accumulate16 {
    ($name:ident, $product:ident) => {
        accumulate!(
            $name, 20, $product, round16,
            [
                "ldp q0, q1, [{bias}]", "ldp q2, q3, [{bias}, #32]", "ldp q4, q5, [{bias}]", "ldp q6, q7, [{bias}, #32]",
                "ldp q8, q9, [{bias}]", "ldp q10, q11, [{bias}, #32]", "ldp q12, q13, [{bias}]",
                "ldp q14, q15, [{bias}, #32]", "ldp q16, q17, [{bias}]", "ldp q18, q19, [{bias}, #32]"
            ],
            [
                "v0" 0, "v1" 1, "v2" 2, "v3" 3, "v4" 4, "v5" 5, "v6" 6, "v7" 7, "v8" 8, "v9" 9, "v10" 10, "v11" 11,
                "v12" 12, "v13" 13, "v14" 14, "v15" 15, "v16" 16, "v17" 17, "v18" 18, "v19" 19
            ]
        );
    };
}

macro_rules! accumulate8 {
    ($name:ident, $product:ident) => {
        accumulate!(
            $name, 10, $product, round8,
            [
                "ldp q0, q1, [{bias}]", "ldp q2, q3, [{bias}]", "ldp q4, q5, [{bias}]", "ldp q6, q7, [{bias}]",
                "ldp q8, q9, [{bias}]"
            ],
            ["v0" 0, "v1" 1, "v2" 2, "v3" 3, "v4" 4, "v5" 5, "v6" 6, "v7" 7, "v8" 8, "v9" 9]
        );
    };
}

accumulate16!(pairs16, pair_product);
accumulate16!(any16, any_product);
accumulate8!(pairs8, pair_product);
accumulate8!(any8, any_product);

/// Two registers of sums to eight results of 16 bits, in the first register; addends are loaded where the sum is made.
macro_rules! scale {
    (short, $a:literal, $b:literal, $f:literal, $g:literal, $at:literal) => {
        concat!(
            "ldp q24, q25, [{addend}, #",
            $at,
            "]\n",
            "fmla v24.4s, v",
            $a,
            ".4s, v",
            $f,
            ".4s\n",
            "fmla v25.4s, v",
            $b,
            ".4s, v",
            $g,
            ".4s\n",
            "uzp1 v",
            $a,
            ".8h, v24.8h, v25.8h\n",
        )
    };
    // Shifting the magic number out leaves the result's sign on top.
    (long, $a:literal, $b:literal, $f:literal, $g:literal, $at:literal) => {
        concat!(
            "ldp q24, q25, [{addend}, #",
            $at,
            "]\n",
            "fmla v24.4s, v",
            $a,
            ".4s, v",
            $f,
            ".4s\n",
            "fmla v25.4s, v",
            $b,
            ".4s, v",
            $g,
            ".4s\n",
            "shl v24.4s, v24.4s, #10\n",
            "shl v25.4s, v25.4s, #10\n",
            "sqshrn v",
            $a,
            ".4h, v24.4s, #10\n",
            "sqshrn2 v",
            $a,
            ".8h, v25.4s, #10\n",
        )
    };
}

macro_rules! scale16 {
    ($name:ident, $form:ident) => {
        /// Requantizes five pixels of a block in float form to 16 bits, `[5][16]`.
        #[inline]
        #[target_feature(enable = "neon")]
        fn $name(mut acc: [int32x4_t; 20], header: &Header) -> [int16x8_t; 10] {
            // SAFETY: reads the header's factors and addends; writes registers only.
            unsafe {
                asm!(
                    "ldp q20, q21, [{factor}]", "ldp q22, q23, [{factor}, #32]",
                    scale!($form, 0, 1, 20, 21, 0), scale!($form, 2, 3, 22, 23, 32),
                    scale!($form, 4, 5, 20, 21, 0), scale!($form, 6, 7, 22, 23, 32),
                    scale!($form, 8, 9, 20, 21, 0), scale!($form, 10, 11, 22, 23, 32),
                    scale!($form, 12, 13, 20, 21, 0), scale!($form, 14, 15, 22, 23, 32),
                    scale!($form, 16, 17, 20, 21, 0), scale!($form, 18, 19, 22, 23, 32),
                    factor = in(reg) header.factor.as_ptr(), addend = in(reg) header.addend.as_ptr(),
                    inout("v0") acc[0], in("v1") acc[1], inout("v2") acc[2], in("v3") acc[3], inout("v4") acc[4],
                    in("v5") acc[5], inout("v6") acc[6], in("v7") acc[7], inout("v8") acc[8], in("v9") acc[9],
                    inout("v10") acc[10], in("v11") acc[11], inout("v12") acc[12], in("v13") acc[13],
                    inout("v14") acc[14], in("v15") acc[15], inout("v16") acc[16], in("v17") acc[17],
                    inout("v18") acc[18], in("v19") acc[19],
                    out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
                    options(nostack, readonly, pure)
                );
            }
            core::array::from_fn(|i| vreinterpretq_s16_s32(acc[2 * i]))
        }
    };
}

scale16!(scale16_short, short);
scale16!(scale16_long, long);

impl Micro for Pairs {
    const PIXELS: usize = PIXELS;
    const ORDER: Order = Order::Pairs;
    const PANEL: usize = 0;

    unsafe fn arrange(_rows: *const i8, _stride: usize, _n: usize, _depth: usize, _panel: *mut i8) {}

    unsafe fn run(run: &Run<'_>) {
        // SAFETY: the caller's.
        unsafe {
            if run.header.has_least == 0 {
                run_tiles(run, |rows, b, w, d| pairs16(rows, b, w, d), |rows, b, w, d| pairs8(rows, b, w, d));
            } else {
                run_tiles(run, |rows, b, w, d| any16(rows, b, w, d), |rows, b, w, d| any8(rows, b, w, d));
            }
        }
    }
}

/// Computes a run tile by tile: whole ones are stored in place, the rest through a buffer.
///
/// # Safety
/// As [`Micro::run`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn run_tiles(
    run: &Run<'_>,
    sums16: impl Fn([*const i8; PIXELS], *const i32, *const i8, usize) -> [int32x4_t; 20],
    sums8: impl Fn([*const i8; PIXELS], *const i32, *const i8, usize) -> [int32x4_t; 10],
) {
    let (mut row, mut out, mut left) = (run.patches, run.out, run.n);
    let bias = run.header.bias.as_ptr();
    let common = run.channels == BLOCK && run.n_channels == BLOCK && run.header.form == Form::SHORT_FLOAT;
    // SAFETY: while five pixels are left, five rows and outputs follow; a smaller tile repeats its last row, and
    // stores the pixels and channels that exist.
    unsafe {
        if common && run.header.plain == 1 {
            while left >= PIXELS {
                let sums = sums16(five(row, run.stride, PIXELS), bias, run.weights, run.depth);
                for (p, pair) in scale16_short(sums, run.header).chunks_exact(2).enumerate() {
                    vst1q_s8(out.add(p * run.out_stride), vqmovn_high_s16(vqmovn_s16(pair[0]), pair[1]));
                }
                (row, out, left) = (row.add(PIXELS * run.stride), out.add(PIXELS * run.out_stride), left - PIXELS);
            }
        } else if common {
            while left >= PIXELS {
                let sums = sums16(five(row, run.stride, PIXELS), bias, run.weights, run.depth);
                for (p, pair) in scale16_short(sums, run.header).chunks_exact(2).enumerate() {
                    vst1q_s8(out.add(p * run.out_stride), narrow(pair[0], pair[1], run.header, run.range));
                }
                (row, out, left) = (row.add(PIXELS * run.stride), out.add(PIXELS * run.out_stride), left - PIXELS);
            }
        }
        while left > 0 {
            let n = left.min(PIXELS);
            let rows = five(row, run.stride, n);
            let sums = if run.channels == BLOCK {
                sums16(rows, bias, run.weights, run.depth)
            } else {
                let sums = sums8(rows, bias, run.weights, run.depth);
                core::array::from_fn(|i| if i % 4 < 2 { sums[i / 4 * 2 + i % 4] } else { vdupq_n_s32(0) })
            };
            let results = finish(sums, run.header, run.range);
            for (p, result) in results.into_iter().enumerate().take(n) {
                store(out.add(p * run.out_stride), result, run.n_channels);
            }
            (row, out, left) = (row.wrapping_add(n * run.stride), out.wrapping_add(n * run.out_stride), left - n);
        }
    }
}

/// Five rows, `stride` bytes apart; the last of `n` stands in for those that do not exist.
///
/// # Safety
/// `n` rows lie within one allocation.
#[inline(always)]
unsafe fn five(row: *const i8, stride: usize, n: usize) -> [*const i8; PIXELS] {
    // SAFETY: the caller's.
    core::array::from_fn(|p| unsafe { row.add(p.min(n - 1) * stride) })
}

/// Results of five pixels of any block.
#[inline]
#[target_feature(enable = "neon")]
fn finish(sums: [int32x4_t; 20], header: &Header, range: &Range) -> [int8x16_t; PIXELS] {
    let scaled = match header.form {
        Form::SHORT_FLOAT => scale16_short(sums, header),
        Form::FLOAT => scale16_long(sums, header),
        _ => {
            return core::array::from_fn(|p| finish_integers(core::array::from_fn(|g| sums[4 * p + g]), header, range));
        }
    };
    core::array::from_fn(|p| narrow(scaled[2 * p], scaled[2 * p + 1], header, range))
}

/// Results of one pixel of a block in integer form.
///
/// Half to even is `(p + half - 1 + odd) >> 22`; `odd` matters at ties alone, where `p - 1` has the same bit 22. So the
/// product is added to -1, its bit 22 is added, and the shift adds the half and saturates.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn finish_integers(acc: [int32x4_t; 4], header: &Header, range: &Range) -> int8x16_t {
    let round = |product: int64x2_t| {
        let odd = vreinterpretq_u64_s64(vshlq_n_s64::<{ 63 - MULTIPLIER_BITS as i32 }>(product));
        let product = vsraq_n_u64::<63>(vreinterpretq_u64_s64(product), odd);
        vqrshrn_n_s64::<{ MULTIPLIER_BITS as i32 }>(vreinterpretq_s64_u64(product))
    };
    let results: [int16x4_t; 4] = core::array::from_fn(|i| {
        // SAFETY: 16 factors.
        let factor = unsafe { vld1q_s32(header.factor.as_ptr().add(4 * i).cast()) };
        let below = vdupq_n_s64(-1);
        let low = round(vmlal_s32(below, vget_low_s32(acc[i]), vget_low_s32(factor)));
        let high = round(vmlal_high_s32(below, acc[i], factor));
        vqmovn_s32(vcombine_s32(low, high))
    });
    narrow(vcombine_s16(results[0], results[1]), vcombine_s16(results[2], results[3]), header, range)
}

/// Adds what is left to add, saturates and clamps.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn narrow(low: int16x8_t, high: int16x8_t, header: &Header, range: &Range) -> int8x16_t {
    // SAFETY: 16 values each.
    let (rest, most, least) = unsafe {
        let rest = header.rest.as_ptr();
        ([vld1q_s16(rest), vld1q_s16(rest.add(8))], vld1q_s8(range.high.as_ptr()), vld1q_s8(range.low.as_ptr()))
    };
    let bytes = vqmovn_high_s16(vqmovn_s16(vqaddq_s16(low, rest[0])), vqaddq_s16(high, rest[1]));
    vmaxq_s8(vminq_s8(bytes, most), least)
}

/// Stores the first `n` of 16 results.
///
/// # Safety
/// `out` has room for `n` bytes, `n` at most 16.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn store(out: *mut i8, results: int8x16_t, n: usize) {
    // SAFETY: the caller's; the buffer has 16 bytes.
    unsafe {
        match n {
            16 => vst1q_s8(out, results),
            8 => vst1_s8(out, vget_low_s8(results)),
            _ => {
                let mut buffer = [0i8; BLOCK];
                vst1q_s8(buffer.as_mut_ptr(), results);
                core::ptr::copy_nonoverlapping(buffer.as_ptr(), out, n);
            }
        }
    }
}
