//! Depthwise rows of 3x3 windows by dot products, 16 channels wide.
//!
//! Zipping the three rows of a column gives each channel its taps side by side, so that one `sdot` adds a column of
//! four channels; the fourth tap repeats the third and meets a weight of zero. Columns that the next output meets again
//! stay in registers.

use core::arch::aarch64::vld4q_s8;
use core::arch::asm;

use crate::Window;
use crate::aarch64::depthwise::any_window;
use crate::arm::depthwise::{Row, RowKernel};
use crate::arm::pack::{BLOCK, Form, Taps};

/// The micro-kernel.
pub(crate) struct Columns;

impl Columns {
    /// True for windows of 3x3 with dense taps.
    pub(crate) fn takes(window: &Window) -> bool {
        window.kernel == [3, 3] && window.dilation == [1, 1]
    }
}

impl RowKernel for Columns {
    const TAPS: Taps = Taps::Columns;

    unsafe fn row(row: &Row<'_>) {
        let in_place = row.header.form != Form::INTEGER && row.n_channels == BLOCK;
        let plain = row.header.form == Form::SHORT_FLOAT && row.header.plain == 1;
        // SAFETY: the caller's; taps are `[3, 16, 4]`, here read whole and de-interleaved.
        let tap = |ky: usize, kx: usize| unsafe {
            let column = vld4q_s8(row.taps.add(kx * BLOCK * 4));
            [column.0, column.1, column.2, column.3][ky & 3]
        };
        // SAFETY: the caller's.
        unsafe {
            match (in_place, plain, row.step) {
                (true, true, 1) => plain_step1(row),
                (true, true, 2) => plain_step2(row),
                (true, false, 1) => any_step1(row),
                (true, false, 2) => any_step2(row),
                _ => any_window(row, tap),
            }
        }
    }
}

// Registers: weights v0-v11, three columns v12-v15, v16-v19, v20-v23, sums v28-v31, the rest for a while.

/// The next pixel of three rows, as four registers of (channel, tap).
macro_rules! column {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "ld1 {{v24.16b}}, [{r0}], {pixel}\n",
            "ld1 {{v25.16b}}, [{r1}], {pixel}\n",
            "ld1 {{v26.16b}}, [{r2}], {pixel}\n",
            "zip1 v27.16b, v24.16b, v25.16b\n",
            "zip2 v28.16b, v24.16b, v25.16b\n",
            "zip1 v29.16b, v26.16b, v26.16b\n",
            "zip2 v30.16b, v26.16b, v26.16b\n",
            "zip1 v",
            $a,
            ".8h, v27.8h, v29.8h\n",
            "zip2 v",
            $b,
            ".8h, v27.8h, v29.8h\n",
            "zip1 v",
            $c,
            ".8h, v28.8h, v30.8h\n",
            "zip2 v",
            $d,
            ".8h, v28.8h, v30.8h\n",
        )
    };
}

/// One column against its weights.
macro_rules! dots {
    ($a:literal $b:literal $c:literal $d:literal, $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            "sdot v28.4s, v",
            $a,
            ".16b, v",
            $w0,
            ".16b\n",
            "sdot v29.4s, v",
            $b,
            ".16b, v",
            $w1,
            ".16b\n",
            "sdot v30.4s, v",
            $c,
            ".16b, v",
            $w2,
            ".16b\n",
            "sdot v31.4s, v",
            $d,
            ".16b, v",
            $w3,
            ".16b\n",
        )
    };
}

/// The scaled sums in v26 and v27 to eight of 16 bits in `to`, then those in v28 and v30 to results: where 16 bits
/// hold the scaled sums and saturating them does it all, or for any block in float form.
macro_rules! plain {
    (narrow $to:literal) => {
        concat!("uzp1 v", $to, ".8h, v26.8h, v27.8h\n")
    };
    (finish) => {
        "/* {range} */ sqxtn v28.8b, v28.8h\n sqxtn2 v28.16b, v30.8h\n"
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
            "sqadd v28.8h, v28.8h, v26.8h\n",
            "sqadd v30.8h, v30.8h, v27.8h\n",
            "sqxtn v28.8b, v28.8h\n",
            "sqxtn2 v28.16b, v30.8h\n",
            "ldp q26, q27, [{range}]\n",
            "smin v28.16b, v28.16b, v26.16b\n",
            "smax v28.16b, v28.16b, v27.16b\n",
        )
    };
}

/// One output from three columns.
macro_rules! output {
    ($narrow:ident, [$($a:literal)*], [$($b:literal)*], [$($c:literal)*]) => {
        concat!(
            "ldp q28, q29, [{header}]\n", "ldp q30, q31, [{header}, #32]\n",
            dots!($($a)*, 0 1 2 3), dots!($($b)*, 4 5 6 7), dots!($($c)*, 8 9 10 11),
            "ldp q24, q25, [{header}, #64]\n", "ldp q26, q27, [{header}, #128]\n",
            "fmla v26.4s, v28.4s, v24.4s\n", "fmla v27.4s, v29.4s, v25.4s\n", $narrow!(narrow 28),
            "ldp q24, q25, [{header}, #96]\n", "ldp q26, q27, [{header}, #160]\n",
            "fmla v26.4s, v30.4s, v24.4s\n", "fmla v27.4s, v31.4s, v25.4s\n", $narrow!(narrow 30),
            $narrow!(finish),
            "st1 {{v28.16b}}, [{out}], {out_stride}\n", "subs {n}, {n}, #1\n",
        )
    };
}

macro_rules! three_by_three {
    ($name:ident, [$($body:expr),*]) => {
        /// # Safety
        /// As [`RowKernel::row`]; the window is 3x3, its taps dense, the block whole and in float form; the CPU has dot products.
        #[target_feature(enable = "neon")]
        unsafe fn $name(row: &Row<'_>) {
            // SAFETY: reads three rows up to the last output's window, twelve registers of taps and the header, writes
            // `n` outputs: the caller's. `n` is at least 1.
            unsafe {
                asm!(
                    ".arch_extension dotprod",
                    "ldp q0, q1, [{taps}]", "ldp q2, q3, [{taps}, #32]", "ldp q4, q5, [{taps}, #64]",
                    "ldp q6, q7, [{taps}, #96]", "ldp q8, q9, [{taps}, #128]", "ldp q10, q11, [{taps}, #160]",
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
            column!(12 13 14 15), column!(16 17 18 19), "2:",
            column!(20 21 22 23), output!($narrow, [12 13 14 15], [16 17 18 19], [20 21 22 23]), "b.eq 3f",
            column!(12 13 14 15), output!($narrow, [16 17 18 19], [20 21 22 23], [12 13 14 15]), "b.eq 3f",
            column!(16 17 18 19), output!($narrow, [20 21 22 23], [12 13 14 15], [16 17 18 19]), "b.ne 2b"
        ]);
    };
}

/// One column is met again by the next output.
macro_rules! step2 {
    ($name:ident, $narrow:ident) => {
        three_by_three!($name, [
            column!(12 13 14 15), "2:",
            column!(16 17 18 19), column!(20 21 22 23),
            output!($narrow, [12 13 14 15], [16 17 18 19], [20 21 22 23]), "b.eq 3f",
            column!(16 17 18 19), column!(12 13 14 15),
            output!($narrow, [20 21 22 23], [16 17 18 19], [12 13 14 15]), "b.ne 2b"
        ]);
    };
}

step1!(plain_step1, plain);
step1!(any_step1, any);
step2!(plain_step2, plain);
step2!(any_step2, any);
