//! Depthwise outputs, 16 channels wide; the method is that of aarch64 without dot products.

use core::arch::asm;

use crate::arm::dense::Range;
use crate::arm::depthwise::{Row, RowKernel};
use crate::arm::pack::{BLOCK, Header, Taps};
use crate::armv7::scale;

/// The micro-kernel.
pub(crate) struct Rows;

impl RowKernel for Rows {
    const TAPS: Taps = Taps::ByTap;

    unsafe fn row(row: &Row<'_>) {
        let pairs = row.kernel == [3, 3] && row.dilation == 1 && row.header.has_least == 0;
        for x in 0..row.n {
            let at = row.block + x * row.step * row.pixel;
            // SAFETY: the caller vouches for 16 channels at every tap of every output.
            unsafe {
                if let ([a, b, c], true) = (row.rows, pairs) {
                    put(row, x, |out| three_by_three(row, [a.add(at), b.add(at), c.add(at)], out));
                } else {
                    any_window(row, x, at);
                }
            }
        }
    }
}

/// Output `x` of any window and weights; its windows start at byte `at` of the rows.
///
/// # Safety
/// As [`RowKernel::row`].
unsafe fn any_window(row: &Row<'_>, x: usize, at: usize) {
    let mut acc = row.header.bias;
    let mut taps = row.taps;
    // SAFETY: the caller's.
    unsafe {
        for line in row.rows {
            for kx in 0..row.kernel[1] {
                add_tap(&mut acc, line.add(at + kx * row.dilation * row.pixel), taps);
                taps = taps.add(BLOCK);
            }
        }
        put(row, x, |out| requantize(&acc, row.header, row.range, out));
    }
}

/// Hands `compute` 16 bytes: the output itself where it has as many channels.
///
/// # Safety
/// Output `x` has room for the channels that exist.
#[inline(always)]
unsafe fn put(row: &Row<'_>, x: usize, compute: impl FnOnce(*mut i8)) {
    // SAFETY: the caller's.
    unsafe {
        let out = row.out.add(x * row.out_stride);
        if row.n_channels == BLOCK {
            compute(out);
        } else {
            let mut buffer = [0i8; BLOCK];
            compute(buffer.as_mut_ptr());
            core::ptr::copy_nonoverlapping(buffer.as_ptr(), out, row.n_channels);
        }
    }
}

/// Requantizes the sums in q12-q15; the factors are next at `header`.
macro_rules! finish {
    () => {
        concat!(
            "vld1.32 {{d18-d19}}, [{header}]!\n",
            scale!(24, 25, 18, 19, 10, 11),
            "vld1.32 {{d18-d19}}, [{header}]!\n",
            scale!(26, 27, 18, 19, 10, 11),
            "vld1.32 {{d18-d19}}, [{header}]!\n",
            scale!(28, 29, 18, 19, 10, 11),
            "vld1.32 {{d18-d19}}, [{header}]!\n",
            scale!(30, 31, 18, 19, 10, 11),
            "vqmovn.s32 d24, q12\n",
            "vqmovn.s32 d25, q13\n",
            "vqmovn.s32 d26, q14\n",
            "vqmovn.s32 d27, q15\n",
            "add {header}, #64\n",
            "vld1.16 {{d18-d21}}, [{header}]\n",
            "vqadd.s16 q12, q12, q9\n",
            "vqadd.s16 q13, q13, q10\n",
            "vqmovn.s16 d24, q12\n",
            "vqmovn.s16 d25, q13\n",
            "vld1.8 {{d18-d21}}, [{range}]\n",
            "vmin.s8 q12, q12, q9\n",
            "vmax.s8 q12, q12, q10\n",
            "vst1.8 {{d24-d25}}, [{out}]\n",
        )
    };
}

/// Adds the products in q10 and q11.
macro_rules! widen {
    () => {
        concat!(
            "vaddw.s16 q12, q12, d20\n",
            "vaddw.s16 q13, q13, d21\n",
            "vaddw.s16 q14, q14, d22\n",
            "vaddw.s16 q15, q15, d23\n",
        )
    };
}

/// The next pixel of a row, times the taps in `$v`, `$w`.
macro_rules! product {
    ($op:literal, $row:literal, $v:literal $w:literal) => {
        concat!(
            "vld1.8 {{d18-d19}}, [",
            $row,
            "], {pixel}\n",
            $op,
            ".s8 q10, d18, d",
            $v,
            "\n",
            $op,
            ".s8 q11, d19, d",
            $w,
            "\n",
        )
    };
}

/// One output of a 3x3 window. Registers: taps q0-q8, a pixel q9, products q10 and q11, sums q12-q15.
///
/// # Safety
/// `rows` have three pixels of 16 channels each, `row.pixel` bytes apart, `row.taps` nine taps, `out` 16 bytes.
#[inline(always)]
unsafe fn three_by_three(row: &Row<'_>, rows: [*const i8; 3], out: *mut i8) {
    // SAFETY: reads the caller's, the header and `range`; writes `out`.
    unsafe {
        asm!(
            ".fpu neon",
            "vld1.8 {{d0-d3}}, [{taps}]!", "vld1.8 {{d4-d7}}, [{taps}]!", "vld1.8 {{d8-d11}}, [{taps}]!",
            "vld1.8 {{d12-d15}}, [{taps}]!", "vld1.8 {{d16-d17}}, [{taps}]",
            "vld1.32 {{d24-d27}}, [{header}]!", "vld1.32 {{d28-d31}}, [{header}]!",
            product!("vmull", "{r0}", 0 1), product!("vmlal", "{r0}", 2 3), widen!(),
            product!("vmull", "{r0}", 4 5), product!("vmlal", "{r1}", 6 7), widen!(),
            product!("vmull", "{r1}", 8 9), product!("vmlal", "{r1}", 10 11), widen!(),
            product!("vmull", "{r2}", 12 13), product!("vmlal", "{r2}", 14 15), widen!(),
            product!("vmull", "{r2}", 16 17), widen!(),
            finish!(),
            r0 = inout(reg) rows[0] => _, r1 = inout(reg) rows[1] => _, r2 = inout(reg) rows[2] => _,
            pixel = in(reg) row.pixel, taps = inout(reg) row.taps => _, header = inout(reg) row.header => _,
            range = in(reg) row.range, out = in(reg) out,
            out("q0") _, out("q1") _, out("q2") _, out("q3") _, out("q4") _, out("q5") _, out("q6") _, out("q7") _,
            out("q8") _, out("q9") _, out("q10") _, out("q11") _, out("q12") _, out("q13") _, out("q14") _,
            out("q15") _,
            options(nostack)
        );
    }
}

/// Adds one tap of 16 channels.
///
/// # Safety
/// `x` and `w` have 16 bytes.
#[inline(always)]
unsafe fn add_tap(acc: &mut [i32; BLOCK], x: *const i8, w: *const i8) {
    // SAFETY: reads 16 bytes each, reads and writes the sums.
    unsafe {
        asm!(
            ".fpu neon",
            "vld1.32 {{d24-d27}}, [{acc}]!", "vld1.32 {{d28-d31}}, [{acc}]", "sub {acc}, #32",
            "vld1.8 {{d18-d19}}, [{x}]", "vld1.8 {{d0-d1}}, [{w}]",
            "vmull.s8 q10, d18, d0", "vmull.s8 q11, d19, d1", widen!(),
            "vst1.32 {{d24-d27}}, [{acc}]!", "vst1.32 {{d28-d31}}, [{acc}]",
            acc = inout(reg) acc.as_mut_ptr() => _, x = in(reg) x, w = in(reg) w,
            out("q0") _, out("q9") _, out("q10") _, out("q11") _, out("q12") _, out("q13") _, out("q14") _,
            out("q15") _,
            options(nostack)
        );
    }
}

/// Requantizes 16 channels.
///
/// # Safety
/// `out` has 16 bytes.
#[inline(always)]
unsafe fn requantize(acc: &[i32; BLOCK], header: &Header, range: &Range, out: *mut i8) {
    // SAFETY: reads the sums, the header from its factors on and `range`; writes `out`.
    unsafe {
        asm!(
            ".fpu neon",
            "vld1.32 {{d24-d27}}, [{acc}]!", "vld1.32 {{d28-d31}}, [{acc}]",
            finish!(),
            acc = inout(reg) acc.as_ptr() => _, header = inout(reg) header.factor.as_ptr() => _,
            range = in(reg) range, out = in(reg) out,
            out("q9") _, out("q10") _, out("q11") _, out("q12") _, out("q13") _, out("q14") _, out("q15") _,
            options(nostack)
        );
    }
}
