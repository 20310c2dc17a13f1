//! Depthwise rows, 16 channels wide.
//!
//! A pixel's 16 channels are one register. Products of two taps are added in i16 (`smull`, `smlal`: exact while no
//! weight is -128), then widened into i32 four registers wide. Windows of 3x3 keep the columns that the next output
//! meets again.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::aarch64::neon::{finish_integers, narrow, store};
use crate::arm::dense::Range;
use crate::arm::depthwise::{Row, RowKernel};
use crate::arm::pack::{BLOCK, Form, Header, Taps};

/// The micro-kernel.
pub(crate) struct Rows;

impl RowKernel for Rows {
    const TAPS: Taps = Taps::ByTap;

    unsafe fn row(row: &Row<'_>) {
        let pairs = row.kernel == [3, 3] && row.dilation == 1 && row.header.has_least == 0;
        let in_place = pairs && row.header.form != Form::INTEGER && row.n_channels == BLOCK;
        let plain = row.header.form == Form::SHORT_FLOAT && row.header.plain == 1;
        // SAFETY: the caller's; taps are `[kernel_h, kernel_w, 16]`.
        unsafe {
            match (in_place, plain, row.step) {
                (true, true, 1) => plain_step1(row),
                (true, true, 2) => plain_step2(row),
                (true, false, 1) => any_step1(row),
                (true, false, 2) => any_step2(row),
                _ => any_window(row, |ky, kx| vld1q_s8(row.taps.add((ky * row.kernel[1] + kx) * BLOCK))),
            }
        }
    }
}

/// Any window, any weights; `tap` gives 16 channels' taps.
///
/// # Safety
/// As [`RowKernel::row`].
#[inline]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn any_window(row: &Row<'_>, tap: impl Fn(usize, usize) -> int8x16_t) {
    for x in 0..row.n {
        // SAFETY: the caller vouches for 16 channels at every tap of every output, and for the outputs.
        unsafe {
            let mut acc = bias_of(row.header);
            for (ky, line) in row.rows.iter().enumerate() {
                for kx in 0..row.kernel[1] {
                    let x = vld1q_s8(line.add(row.block + (x * row.step + kx * row.dilation) * row.pixel));
                    let w = tap(ky, kx);
                    add_wide(&mut acc, vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w));
                }
            }
            store(row.out.add(x * row.out_stride), finish(acc, row.header, row.range), row.n_channels);
        }
    }
}

// Registers: taps v0-v8, starting values v9-v12, three columns v13-v15, v16-v18, v19-v21, sums v22-v25, products v26
// and v27, factors v28-v31. Addends are loaded where the sum is made.

/// The next pixel of three rows.
macro_rules! column {
    ($a:literal $b:literal $c:literal) => {
        concat!(
            "ld1 {{v",
            $a,
            ".16b}}, [{r0}], {pixel}\n",
            "ld1 {{v",
            $b,
            ".16b}}, [{r1}], {pixel}\n",
            "ld1 {{v",
            $c,
            ".16b}}, [{r2}], {pixel}\n",
        )
    };
}

/// Adds the products in v26 and v27 to the sums, which come from registers `a..d`.
macro_rules! widen {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "saddw v22.4s, v",
            $a,
            ".4s, v26.4h\n",
            "saddw2 v23.4s, v",
            $b,
            ".4s, v26.8h\n",
            "saddw v24.4s, v",
            $c,
            ".4s, v27.4h\n",
            "saddw2 v25.4s, v",
            $d,
            ".4s, v27.8h\n",
        )
    };
}

macro_rules! product {
    ($x:literal $w:literal) => {
        concat!("smull v26.8h, v", $x, ".8b, v", $w, ".8b\n", "smull2 v27.8h, v", $x, ".16b, v", $w, ".16b\n",)
    };
}

macro_rules! products {
    ($x:literal $w:literal, $y:literal $v:literal) => {
        concat!(
            product!($x $w),
            "smlal v26.8h, v", $y, ".8b, v", $v, ".8b\n", "smlal2 v27.8h, v", $y, ".16b, v", $v, ".16b\n",
        )
    };
}

/// The scaled sums in v26 and v27 to eight of 16 bits in `to`, then those in v22 and v24 to results: where 16 bits
/// hold the scaled sums and saturating them does it all, or for any block in float form.
macro_rules! plain {
    (narrow $to:literal) => {
        concat!("uzp1 v", $to, ".8h, v26.8h, v27.8h\n")
    };
    (finish) => {
        "/* {range} */ sqxtn v22.8b, v22.8h\n sqxtn2 v22.16b, v24.8h\n"
    };
}

macro_rules! any {
    // Shifting the magic number out leaves the result's sign on top.
    (narrow $to:literal) => {
        concat!(
            "shl v26.4s, v26.4s, #10\n",
            "shl v27.4s, v27.4s, #10\n",
            "sqshrn v",
            $to,
            ".4h, v26.4s, #10\n",
            "sqshrn2 v",
            $to,
            ".8h, v27.4s, #10\n",
        )
    };
    (finish) => {
        concat!(
            "ldp q26, q27, [{header}, #192]\n",
            "sqadd v22.8h, v22.8h, v26.8h\n",
            "sqadd v24.8h, v24.8h, v27.8h\n",
            "sqxtn v22.8b, v22.8h\n",
            "sqxtn2 v22.16b, v24.8h\n",
            "ldp q26, q27, [{range}]\n",
            "smin v22.16b, v22.16b, v26.16b\n",
            "smax v22.16b, v22.16b, v27.16b\n",
        )
    };
}

/// One output from three columns.
macro_rules! output {
    ($narrow:ident, $a0:literal $a1:literal $a2:literal, $b0:literal $b1:literal $b2:literal, $c0:literal $c1:literal $c2:literal) => {
        concat!(
            products!($a0 0, $b0 1), widen!(9 10 11 12),
            products!($c0 2, $a1 3), widen!(22 23 24 25),
            products!($b1 4, $c1 5), widen!(22 23 24 25),
            products!($a2 6, $b2 7), widen!(22 23 24 25),
            product!($c2 8), widen!(22 23 24 25),
            "ldp q26, q27, [{header}, #128]\n", "fmla v26.4s, v22.4s, v28.4s\n", "fmla v27.4s, v23.4s, v29.4s\n",
            $narrow!(narrow 22),
            "ldp q26, q27, [{header}, #160]\n", "fmla v26.4s, v24.4s, v30.4s\n", "fmla v27.4s, v25.4s, v31.4s\n",
            $narrow!(narrow 24),
            $narrow!(finish),
            "st1 {{v22.16b}}, [{out}], {out_stride}\n", "subs {n}, {n}, #1\n",
        )
    };
}

macro_rules! three_by_three {
    ($name:ident, [$($body:expr),*]) => {
        /// # Safety
        /// As [`RowKernel::row`]; the window is 3x3, its taps dense, the block whole and in float form.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $name(row: &Row<'_>) {
            // SAFETY: reads three rows up to the last output's window, nine taps and the header, writes `n` outputs:
            // the caller's. `n` is at least 1.
            unsafe {
                asm!(
                    "ldp q0, q1, [{taps}]", "ldp q2, q3, [{taps}, #32]", "ldp q4, q5, [{taps}, #64]",
                    "ldp q6, q7, [{taps}, #96]", "ldr q8, [{taps}, #128]",
                    "ldp q9, q10, [{header}]", "ldp q11, q12, [{header}, #32]",
                    "ldp q28, q29, [{header}, #64]", "ldp q30, q31, [{header}, #96]",
                    $($body,)*
                    "3:",
                    r0 = inout(reg) row.rows[0].add(row.block) => _, r1 = inout(reg) row.rows[1].add(row.block) => _, r2 = inout(reg) row.rows[2].add(row.block) => _,
                    pixel = in(reg) row.pixel, taps = in(reg) row.taps, header = in(reg) row.header,
                    range = in(reg) row.range, out = inout(reg) row.out => _, out_stride = in(reg) row.out_stride,
                    n = inout(reg) row.n => _,
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
                    out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
                    out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
                    out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
                    out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                    options(nostack)
                );
            }
        }
    };
}

/// Two columns are met again by the next output.
macro_rules! step1 {
    ($name:ident, $narrow:ident) => {
        three_by_three!($name, [
            column!(13 14 15), column!(16 17 18), "2:",
            column!(19 20 21), output!($narrow, 13 14 15, 16 17 18, 19 20 21), "b.eq 3f",
            column!(13 14 15), output!($narrow, 16 17 18, 19 20 21, 13 14 15), "b.eq 3f",
            column!(16 17 18), output!($narrow, 19 20 21, 13 14 15, 16 17 18), "b.ne 2b"
        ]);
    };
}

/// One column is met again by the next output.
macro_rules! step2 {
    ($name:ident, $narrow:ident) => {
        three_by_three!($name, [
            column!(13 14 15), "2:",
            column!(16 17 18), column!(19 20 21), output!($narrow, 13 14 15, 16 17 18, 19 20 21), "b.eq 3f",
            column!(16 17 18), column!(13 14 15), output!($narrow, 19 20 21, 16 17 18, 13 14 15), "b.ne 2b"
        ]);
    };
}

step1!(plain_step1, plain);
step1!(any_step1, any);
step2!(plain_step2, plain);
step2!(any_step2, any);

#[inline]
#[target_feature(enable = "neon")]
fn add_wide(acc: &mut [int32x4_t; 4], low: int16x8_t, high: int16x8_t) {
    acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
    acc[1] = vaddw_high_s16(acc[1], low);
    acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
    acc[3] = vaddw_high_s16(acc[3], high);
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn bias_of(header: &Header) -> [int32x4_t; 4] {
    // SAFETY: 16 values.
    core::array::from_fn(|i| unsafe { vld1q_s32(header.bias.as_ptr().add(4 * i)) })
}

/// Results of any block.
#[inline]
#[target_feature(enable = "neon")]
fn finish(acc: [int32x4_t; 4], header: &Header, range: &Range) -> int8x16_t {
    if header.form == Form::INTEGER {
        return finish_integers(acc, header, range);
    }
    let scaled: [int16x4_t; 4] = core::array::from_fn(|i| {
        // SAFETY: 16 values each.
        let (factor, addend) =
            unsafe { (vld1q_f32(header.factor.as_ptr().add(4 * i)), vld1q_f32(header.addend.as_ptr().add(4 * i))) };
        let scaled = vreinterpretq_s32_f32(vfmaq_f32(addend, vreinterpretq_f32_s32(acc[i]), factor));
        // Shifting the magic number out leaves the result's sign on top.
        vqshrn_n_s32::<10>(vshlq_n_s32::<10>(scaled))
    });
    narrow(vcombine_s16(scaled[0], scaled[1]), vcombine_s16(scaled[2], scaled[3]), header, range)
}
