//! Seven patches by 16 channels (8 at the end) for cores with dot products: Cortex-A76 and later.
//!
//! `sdot` adds four products per lane, for any weights: 28 accumulators of four channels leave four registers, so
//! patches are interleaved first, `[depth / 4, 8, 4]` per seven ([`Micro::arrange`]); a step of four then loads two
//! registers of patches and four of weights for 28 `sdot`. Seven divides the pictures of most networks; the eighth
//! slot repeats the seventh.
//!
//! `vdotq_s32` is not stable in Rust, and compilers spill: assembly, with the extension named in place. Registers:
//! accumulators v0-v27, patches v28 and v29, weights v30 and v31.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::aarch64::neon::{finish_integers, narrow, store};
use crate::arm::dense::{Micro, Range, Run};
use crate::arm::pack::{BLOCK, Form, Header, Order};

/// For any weights.
pub(crate) struct Quads;

const PIXELS: usize = 7;

/// Bytes of eight patches of depth 1, the seventh twice.
const PANEL: usize = 8;

/// One register of weights against seven patches.
macro_rules! dots {
    ($w:literal, $c0:literal $c1:literal $c2:literal $c3:literal $c4:literal $c5:literal $c6:literal) => {
        concat!(
            "sdot v",
            $c0,
            ".4s, v",
            $w,
            ".16b, v28.4b[0]\n",
            "sdot v",
            $c1,
            ".4s, v",
            $w,
            ".16b, v28.4b[1]\n",
            "sdot v",
            $c2,
            ".4s, v",
            $w,
            ".16b, v28.4b[2]\n",
            "sdot v",
            $c3,
            ".4s, v",
            $w,
            ".16b, v28.4b[3]\n",
            "sdot v",
            $c4,
            ".4s, v",
            $w,
            ".16b, v29.4b[0]\n",
            "sdot v",
            $c5,
            ".4s, v",
            $w,
            ".16b, v29.4b[1]\n",
            "sdot v",
            $c6,
            ".4s, v",
            $w,
            ".16b, v29.4b[2]\n",
        )
    };
}

macro_rules! step16 {
    () => {
        concat!(
            "ldp q28, q29, [{a}], #32\n", "ldp q30, q31, [{w}], #32\n",
            dots!(30, 0 4 8 12 16 20 24), dots!(31, 1 5 9 13 17 21 25),
            "ldp q30, q31, [{w}], #32\n",
            dots!(30, 2 6 10 14 18 22 26), dots!(31, 3 7 11 15 19 23 27),
        )
    };
}

macro_rules! step8 {
    () => {
        concat!(
            "ldp q28, q29, [{a}], #32\n", "ldp q30, q31, [{w}], #32\n",
            dots!(30, 0 2 4 6 8 10 12), dots!(31, 1 3 5 7 9 11 13),
        )
    };
}

macro_rules! accumulate {
    ($name:ident, $n:literal, $step:ident, [$($start:expr),*], [$($reg:tt $i:literal),*], [$($spare:tt),*]) => {
        /// Sums of seven patches with one block, pixel by pixel; they start from `bias`.
        ///
        /// # Safety
        /// `panel` points at `8 * depth` bytes, `weights` at `depth * channels`, `bias` at the block's; the CPU has
        /// dot products.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $name(panel: *const i8, bias: *const i32, weights: *const i8, depth: usize) -> [int32x4_t; $n] {
            let mut acc = [vdupq_n_s32(0); $n];
            // SAFETY: reads what the caller vouches for: panel and weights in steps of 16 and a last one of 8, which
            // together are `depth`; writes registers only.
            unsafe {
                asm!(
                    ".arch_extension dotprod",
                    $($start,)*
                    "lsr {steps}, {depth}, #4",
                    "cbz {steps}, 3f",
                    "2:",
                    $step!(), $step!(), $step!(), $step!(),
                    "subs {steps}, {steps}, #1",
                    "b.ne 2b",
                    "3:",
                    "tbz {depth}, #3, 4f",
                    $step!(), $step!(),
                    "4:",
                    a = inout(reg) panel => _, bias = in(reg) bias, w = inout(reg) weights => _, depth = in(reg) depth,
                    steps = out(reg) _,
                    $(out($reg) acc[$i],)*
                    $(out($spare) _,)*
                    options(nostack, readonly)
                );
            }
            acc
        }
    };
}

accumulate!(
    sums16, 28, step16,
    [
        "ldp q0, q1, [{bias}]", "ldp q2, q3, [{bias}, #32]", "ldp q4, q5, [{bias}]", "ldp q6, q7, [{bias}, #32]",
        "ldp q8, q9, [{bias}]", "ldp q10, q11, [{bias}, #32]", "ldp q12, q13, [{bias}]", "ldp q14, q15, [{bias}, #32]",
        "ldp q16, q17, [{bias}]", "ldp q18, q19, [{bias}, #32]", "ldp q20, q21, [{bias}]", "ldp q22, q23, [{bias}, #32]",
        "ldp q24, q25, [{bias}]", "ldp q26, q27, [{bias}, #32]"
    ],
    [
        "v0" 0, "v1" 1, "v2" 2, "v3" 3, "v4" 4, "v5" 5, "v6" 6, "v7" 7, "v8" 8, "v9" 9, "v10" 10, "v11" 11, "v12" 12,
        "v13" 13, "v14" 14, "v15" 15, "v16" 16, "v17" 17, "v18" 18, "v19" 19, "v20" 20, "v21" 21, "v22" 22, "v23" 23,
        "v24" 24, "v25" 25, "v26" 26, "v27" 27
    ],
    ["v28", "v29", "v30", "v31"]
);
accumulate!(
    sums8, 14, step8,
    [
        "ldp q0, q1, [{bias}]", "ldp q2, q3, [{bias}]", "ldp q4, q5, [{bias}]", "ldp q6, q7, [{bias}]",
        "ldp q8, q9, [{bias}]", "ldp q10, q11, [{bias}]", "ldp q12, q13, [{bias}]"
    ],
    [
        "v0" 0, "v1" 1, "v2" 2, "v3" 3, "v4" 4, "v5" 5, "v6" 6, "v7" 7, "v8" 8, "v9" 9, "v10" 10, "v11" 11, "v12" 12,
        "v13" 13
    ],
    ["v28", "v29", "v30", "v31"]
);

/// Two registers of sums to eight results of 16 bits, in the first register; addends are loaded where the sum is made.
macro_rules! scale {
    (short, $a:literal, $b:literal, $at:literal) => {
        concat!(
            "ldp q30, q31, [{addend}, #",
            $at,
            "]\n",
            "fmla v30.4s, v",
            $a,
            ".4s, v28.4s\n",
            "fmla v31.4s, v",
            $b,
            ".4s, v29.4s\n",
            "uzp1 v",
            $a,
            ".8h, v30.8h, v31.8h\n",
        )
    };
    // Shifting the magic number out leaves the result's sign on top.
    (long, $a:literal, $b:literal, $at:literal) => {
        concat!(
            "ldp q30, q31, [{addend}, #",
            $at,
            "]\n",
            "fmla v30.4s, v",
            $a,
            ".4s, v28.4s\n",
            "fmla v31.4s, v",
            $b,
            ".4s, v29.4s\n",
            "shl v30.4s, v30.4s, #10\n",
            "shl v31.4s, v31.4s, #10\n",
            "sqshrn v",
            $a,
            ".4h, v30.4s, #10\n",
            "sqshrn2 v",
            $a,
            ".8h, v31.4s, #10\n",
        )
    };
}

macro_rules! scale16 {
    ($name:ident, $form:ident) => {
        /// Requantizes seven pixels of a block in float form to 16 bits, `[7][16]`.
        #[inline]
        #[target_feature(enable = "neon")]
        fn $name(mut acc: [int32x4_t; 28], header: &Header) -> [int16x8_t; 14] {
            // SAFETY: reads the header's factors and addends; writes registers only.
            unsafe {
                asm!(
                    "ldp q28, q29, [{factor}]",
                    scale!($form, 0, 1, 0), scale!($form, 4, 5, 0), scale!($form, 8, 9, 0), scale!($form, 12, 13, 0),
                    scale!($form, 16, 17, 0), scale!($form, 20, 21, 0), scale!($form, 24, 25, 0),
                    "ldp q28, q29, [{factor}, #32]",
                    scale!($form, 2, 3, 32), scale!($form, 6, 7, 32), scale!($form, 10, 11, 32),
                    scale!($form, 14, 15, 32), scale!($form, 18, 19, 32), scale!($form, 22, 23, 32),
                    scale!($form, 26, 27, 32),
                    factor = in(reg) header.factor.as_ptr(), addend = in(reg) header.addend.as_ptr(),
                    inout("v0") acc[0], in("v1") acc[1], inout("v2") acc[2], in("v3") acc[3], inout("v4") acc[4],
                    in("v5") acc[5], inout("v6") acc[6], in("v7") acc[7], inout("v8") acc[8], in("v9") acc[9],
                    inout("v10") acc[10], in("v11") acc[11], inout("v12") acc[12], in("v13") acc[13],
                    inout("v14") acc[14], in("v15") acc[15], inout("v16") acc[16], in("v17") acc[17],
                    inout("v18") acc[18], in("v19") acc[19], inout("v20") acc[20], in("v21") acc[21],
                    inout("v22") acc[22], in("v23") acc[23], inout("v24") acc[24], in("v25") acc[25],
                    inout("v26") acc[26], in("v27") acc[27],
                    out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                    options(nostack, readonly, pure)
                );
            }
            core::array::from_fn(|i| vreinterpretq_s16_s32(acc[2 * i]))
        }
    };
}

scale16!(scale16_short, short);
scale16!(scale16_long, long);

impl Micro for Quads {
    const PIXELS: usize = PIXELS;
    const ORDER: Order = Order::Quads;
    const PANEL: usize = PANEL;

    unsafe fn arrange(rows: *const i8, stride: usize, n: usize, depth: usize, panel: *mut i8) {
        // SAFETY: the caller's.
        unsafe { interleave(rows, stride, n, depth, panel) }
    }

    unsafe fn run(run: &Run<'_>) {
        // SAFETY: the caller's.
        unsafe { run_tiles(run) }
    }
}

/// Seven rows at a time into `[depth / 4, 8, 4]`.
///
/// # Safety
/// As [`Micro::arrange`].
#[target_feature(enable = "neon")]
unsafe fn interleave(rows: *const i8, stride: usize, n: usize, depth: usize, mut panel: *mut i8) {
    for first in (0..n).step_by(PIXELS) {
        let last = PIXELS.min(n - first) - 1;
        // SAFETY: rows `first..=first + last` have `depth` bytes, read in steps of 16 and a last one of 8; each step
        // writes eight times as much.
        unsafe {
            let from: [*const i8; 8] = core::array::from_fn(|p| rows.add((first + p.min(last)) * stride));
            let mut at = 0;
            while at + 16 <= depth {
                let x: [int32x4_t; 8] = core::array::from_fn(|p| vreinterpretq_s32_s8(vld1q_s8(from[p].add(at))));
                let (low, high) = (transpose([x[0], x[1], x[2], x[3]]), transpose([x[4], x[5], x[6], x[7]]));
                for (low, high) in low.into_iter().zip(high) {
                    vst1q_s8(panel, vreinterpretq_s8_s32(low));
                    vst1q_s8(panel.add(16), vreinterpretq_s8_s32(high));
                    panel = panel.add(32);
                }
                at += 16;
            }
            if at < depth {
                for at in [at, at + 4] {
                    for from in from {
                        panel.cast::<[i8; 4]>().write(from.add(at).cast::<[i8; 4]>().read());
                        panel = panel.add(4);
                    }
                }
            }
        }
    }
}

/// Four rows of four words to four columns.
#[inline]
#[target_feature(enable = "neon")]
fn transpose(rows: [int32x4_t; 4]) -> [int32x4_t; 4] {
    let pairs = |a, b| (vreinterpretq_s64_s32(vtrn1q_s32(a, b)), vreinterpretq_s64_s32(vtrn2q_s32(a, b)));
    let ((even, odd), (even2, odd2)) = (pairs(rows[0], rows[1]), pairs(rows[2], rows[3]));
    [vzip1q_s64(even, even2), vzip1q_s64(odd, odd2), vzip2q_s64(even, even2), vzip2q_s64(odd, odd2)]
        .map(|x| vreinterpretq_s32_s64(x))
}

/// Computes a run tile by tile.
///
/// # Safety
/// As [`Micro::run`].
#[target_feature(enable = "neon")]
unsafe fn run_tiles(run: &Run<'_>) {
    let (mut panel, mut out, mut left) = (run.patches, run.out, run.n);
    let (header, range, bias) = (run.header, run.range, run.header.bias.as_ptr());
    let common = run.channels == BLOCK && run.n_channels == BLOCK && header.form == Form::SHORT_FLOAT;
    // SAFETY: panels hold seven patches each, even where fewer pixels are left; stores reach the pixels and channels
    // that exist.
    unsafe {
        if common && header.plain == 1 {
            while left >= PIXELS {
                for pair in scale16_short(sums16(panel, bias, run.weights, run.depth), header).chunks_exact(2) {
                    vst1q_s8(out, vqmovn_high_s16(vqmovn_s16(pair[0]), pair[1]));
                    out = out.add(run.out_stride);
                }
                (panel, left) = (panel.add(PANEL * run.depth), left - PIXELS);
            }
        } else if common {
            while left >= PIXELS {
                for pair in scale16_short(sums16(panel, bias, run.weights, run.depth), header).chunks_exact(2) {
                    vst1q_s8(out, narrow(pair[0], pair[1], header, range));
                    out = out.add(run.out_stride);
                }
                (panel, left) = (panel.add(PANEL * run.depth), left - PIXELS);
            }
        }
        while left > 0 {
            let n = left.min(PIXELS);
            let sums = if run.channels == BLOCK {
                sums16(panel, bias, run.weights, run.depth)
            } else {
                let sums = sums8(panel, bias, run.weights, run.depth);
                core::array::from_fn(|i| if i % 4 < 2 { sums[i / 4 * 2 + i % 4] } else { vdupq_n_s32(0) })
            };
            for (p, result) in finish(sums, header, range).into_iter().enumerate().take(n) {
                store(out.add(p * run.out_stride), result, run.n_channels);
            }
            (panel, left) = (panel.wrapping_add(PANEL * run.depth), left - n);
            out = out.wrapping_add(n * run.out_stride);
        }
    }
}

/// Results of seven pixels of any block.
#[inline]
#[target_feature(enable = "neon")]
fn finish(sums: [int32x4_t; 28], header: &Header, range: &Range) -> [int8x16_t; PIXELS] {
    let scaled = match header.form {
        Form::SHORT_FLOAT => scale16_short(sums, header),
        Form::FLOAT => scale16_long(sums, header),
        _ => {
            return core::array::from_fn(|p| finish_integers(core::array::from_fn(|g| sums[4 * p + g]), header, range));
        }
    };
    core::array::from_fn(|p| narrow(scaled[2 * p], scaled[2 * p + 1], header, range))
}
