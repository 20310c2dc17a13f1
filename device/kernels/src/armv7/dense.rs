//! Two patches by 16 channels (8 at the end); the method is [`Order::Pairs`], as on aarch64 without dot products.
//!
//! Registers: patches q0 and q1, weights q2-q5, products q6 and q7, accumulators q8-q15. Between rounds the patches are
//! rotated in place: by one pair, by three, by one.

use core::arch::asm;

use crate::arm::dense::{Micro, Run};
use crate::arm::pack::{BLOCK, Order};
use crate::armv7::scale;

/// The micro-kernel.
pub(crate) struct Pairs;

const PIXELS: usize = 2;

macro_rules! pair_product {
    ($acc:literal, $t:literal, $a:literal $b:literal, $v:literal $w:literal) => {
        concat!(
            "vmull.s8 q",
            $t,
            ", d",
            $a,
            ", d",
            $v,
            "\n",
            "vmlal.s8 q",
            $t,
            ", d",
            $b,
            ", d",
            $w,
            "\n",
            "vpadal.s16 q",
            $acc,
            ", q",
            $t,
            "\n",
        )
    };
}

macro_rules! any_product {
    ($acc:literal, $t:literal, $a:literal $b:literal, $v:literal $w:literal) => {
        concat!(
            "vmull.s8 q",
            $t,
            ", d",
            $a,
            ", d",
            $v,
            "\n",
            "vpadal.s16 q",
            $acc,
            ", q",
            $t,
            "\n",
            "vmull.s8 q",
            $t,
            ", d",
            $b,
            ", d",
            $w,
            "\n",
            "vpadal.s16 q",
            $acc,
            ", q",
            $t,
            "\n",
        )
    };
}

/// Both patches against the next weights.
macro_rules! round16 {
    ($product:ident) => {
        concat!(
            "vld1.8 {{d4-d7}}, [{w}]!\n", "vld1.8 {{d8-d11}}, [{w}]!\n",
            $product!(8, 6, 0 1, 4 5), $product!(12, 7, 2 3, 4 5), $product!(9, 6, 0 1, 6 7), $product!(13, 7, 2 3, 6 7),
            $product!(10, 6, 0 1, 8 9), $product!(14, 7, 2 3, 8 9), $product!(11, 6, 0 1, 10 11),
            $product!(15, 7, 2 3, 10 11),
        )
    };
}

macro_rules! round8 {
    ($product:ident) => {
        concat!(
            "vld1.8 {{d4-d7}}, [{w}]!\n",
            $product!(8, 6, 0 1, 4 5), $product!(12, 7, 2 3, 4 5), $product!(9, 6, 0 1, 6 7), $product!(13, 7, 2 3, 6 7),
        )
    };
}

macro_rules! rotate {
    ($op:literal) => {
        concat!("v", $op, " q0, q0\n", "v", $op, " q1, q1\n")
    };
}

/// 16 results from four registers of sums.
macro_rules! finish16 {
    ($out:literal, $d0:literal $d1:literal $d2:literal $d3:literal $d4:literal $d5:literal $d6:literal $d7:literal,
     $q0:literal $q1:literal $q2:literal $q3:literal) => {
        concat!(
            scale!($d0, $d1, 0, 1, 6, 7),
            scale!($d2, $d3, 2, 3, 6, 7),
            scale!($d4, $d5, 4, 5, 6, 7),
            scale!($d6, $d7, 6, 7, 6, 7),
            "vqmovn.s32 d",
            $d0,
            ", q",
            $q0,
            "\n",
            "vqmovn.s32 d",
            $d1,
            ", q",
            $q1,
            "\n",
            "vqmovn.s32 d",
            $d2,
            ", q",
            $q2,
            "\n",
            "vqmovn.s32 d",
            $d3,
            ", q",
            $q3,
            "\n",
            "vld1.16 {{d8-d11}}, [{header}]\n",
            "vld1.8 {{d12-d15}}, [{range}]\n",
            "vqadd.s16 q",
            $q0,
            ", q",
            $q0,
            ", q4\n",
            "vqadd.s16 q",
            $q1,
            ", q",
            $q1,
            ", q5\n",
            "vqmovn.s16 d",
            $d0,
            ", q",
            $q0,
            "\n",
            "vqmovn.s16 d",
            $d1,
            ", q",
            $q1,
            "\n",
            "vmin.s8 q",
            $q0,
            ", q",
            $q0,
            ", q6\n",
            "vmax.s8 q",
            $q0,
            ", q",
            $q0,
            ", q7\n",
            "vst1.8 {{d",
            $d0,
            "-d",
            $d1,
            "}}, [",
            $out,
            "]\n",
        )
    };
}

/// Eight results from two registers of sums.
macro_rules! finish8 {
    ($out:literal, $d0:literal $d1:literal $d2:literal $d3:literal, $q0:literal $q1:literal) => {
        concat!(
            scale!($d0, $d1, 0, 1, 6, 7),
            scale!($d2, $d3, 2, 3, 6, 7),
            "vqmovn.s32 d",
            $d0,
            ", q",
            $q0,
            "\n",
            "vqmovn.s32 d",
            $d1,
            ", q",
            $q1,
            "\n",
            "vld1.16 {{d8-d9}}, [{header}]\n",
            "vld1.8 {{d12-d15}}, [{range}]\n",
            "vqadd.s16 q",
            $q0,
            ", q",
            $q0,
            ", q4\n",
            "vqmovn.s16 d",
            $d0,
            ", q",
            $q0,
            "\n",
            "vmin.s8 d",
            $d0,
            ", d",
            $d0,
            ", d12\n",
            "vmax.s8 d",
            $d0,
            ", d",
            $d0,
            ", d14\n",
            "vst1.8 {{d",
            $d0,
            "}}, [",
            $out,
            "]\n",
        )
    };
}

macro_rules! tile {
    ($name:ident, $product:ident, $round:ident, [$($start:expr),*], [$($finish:expr),*]) => {
        /// Two pixels of one block, from patches to results; a block of 16 writes 16 bytes per pixel, one of 8, eight.
        ///
        /// # Safety
        /// `rows` point at `run.depth` bytes each, `out` at room for a pixel's results; the rest as [`Micro::run`].
        #[inline(always)]
        unsafe fn $name(run: &Run<'_>, rows: [*const i8; PIXELS], out: [*mut i8; PIXELS]) {
            // SAFETY: reads the caller's rows and weights in steps of 16 and a last one of 8, which together are the
            // depth, the header and `range`; writes two pixels.
            unsafe {
                asm!(
                    ".fpu neon",
                    $($start,)*
                    "cmp {steps}, #0",
                    "beq 3f",
                    "2:",
                    "vld1.8 {{d0-d1}}, [{r0}]!", "vld1.8 {{d2-d3}}, [{r1}]!",
                    $round!($product), rotate!("rev32.16"), $round!($product), rotate!("rev64.16"), $round!($product),
                    rotate!("rev32.16"), $round!($product),
                    "subs {steps}, #1",
                    "bne 2b",
                    "3:",
                    "cmp {last}, #0",
                    "beq 4f",
                    "vld1.8 {{d0}}, [{r0}]", "vrev32.16 d1, d0", "vld1.8 {{d2}}, [{r1}]", "vrev32.16 d3, d2",
                    $round!($product), rotate!("rev64.32"), $round!($product),
                    "4:",
                    "vld1.32 {{d0-d3}}, [{header}]!", "vld1.32 {{d4-d7}}, [{header}]!", "add {header}, #64",
                    $($finish,)*
                    r0 = inout(reg) rows[0] => _, r1 = inout(reg) rows[1] => _, w = inout(reg) run.weights => _,
                    header = inout(reg) run.header => _, range = in(reg) run.range,
                    steps = inout(reg) run.depth / 16 => _, last = in(reg) run.depth % 16,
                    out0 = in(reg) out[0], out1 = in(reg) out[1],
                    out("q0") _, out("q1") _, out("q2") _, out("q3") _, out("q4") _, out("q5") _, out("q6") _,
                    out("q7") _, out("q8") _, out("q9") _, out("q10") _, out("q11") _, out("q12") _, out("q13") _,
                    out("q14") _, out("q15") _,
                    options(nostack)
                );
            }
        }
    };
}

macro_rules! tile16 {
    ($name:ident, $product:ident) => {
        tile!(
            $name, $product, round16,
            [
                "vld1.32 {{d16-d19}}, [{header}]!", "vld1.32 {{d20-d23}}, [{header}]!", "vmov q12, q8", "vmov q13, q9",
                "vmov q14, q10", "vmov q15, q11"
            ],
            [
                finish16!("{out0}", 16 17 18 19 20 21 22 23, 8 9 10 11),
                finish16!("{out1}", 24 25 26 27 28 29 30 31, 12 13 14 15)
            ]
        );
    };
}

macro_rules! tile8 {
    ($name:ident, $product:ident) => {
        tile!(
            $name, $product, round8,
            ["vld1.32 {{d16-d19}}, [{header}]!", "vmov q12, q8", "vmov q13, q9", "add {header}, #32"],
            [finish8!("{out0}", 16 17 18 19, 8 9), finish8!("{out1}", 24 25 26 27, 12 13)]
        );
    };
}

tile16!(pairs16, pair_product);
tile16!(any16, any_product);
tile8!(pairs8, pair_product);
tile8!(any8, any_product);

impl Micro for Pairs {
    const PIXELS: usize = PIXELS;
    const ORDER: Order = Order::Pairs;
    const PANEL: usize = 0;

    unsafe fn arrange(_rows: *const i8, _stride: usize, _n: usize, _depth: usize, _panel: *mut i8) {}

    unsafe fn run(run: &Run<'_>) {
        // SAFETY: the caller's.
        unsafe {
            match (run.header.has_least, run.channels) {
                (0, BLOCK) => tiles(run, |rows, out| pairs16(run, rows, out)),
                (0, _) => tiles(run, |rows, out| pairs8(run, rows, out)),
                (_, BLOCK) => tiles(run, |rows, out| any16(run, rows, out)),
                _ => tiles(run, |rows, out| any8(run, rows, out)),
            }
        }
    }
}

/// Stores whole pairs of pixels in place, the rest through a buffer.
///
/// # Safety
/// As [`Micro::run`]; `tile` reads two rows and writes `run.channels` bytes to each of two places.
#[inline(always)]
unsafe fn tiles(run: &Run<'_>, tile: impl Fn([*const i8; PIXELS], [*mut i8; PIXELS])) {
    for first in (0..run.n).step_by(PIXELS) {
        let n = PIXELS.min(run.n - first);
        // SAFETY: pixels `first..first + n` lie within the run; a lone one is computed twice. Results that are not
        // whole go to a buffer, of which `n_channels` bytes per pixel are copied.
        unsafe {
            let rows = core::array::from_fn(|p| run.patches.add((first + p.min(n - 1)) * run.stride));
            let out: [*mut i8; PIXELS] = core::array::from_fn(|p| run.out.wrapping_add((first + p) * run.out_stride));
            if n == PIXELS && run.n_channels == run.channels {
                tile(rows, out);
            } else {
                let mut buffer = [[0i8; BLOCK]; PIXELS];
                let [a, b] = &mut buffer;
                tile(rows, [a.as_mut_ptr(), b.as_mut_ptr()]);
                for (result, out) in buffer.iter().zip(out).take(n) {
                    core::ptr::copy_nonoverlapping(result.as_ptr(), out, run.n_channels);
                }
            }
        }
    }
}
