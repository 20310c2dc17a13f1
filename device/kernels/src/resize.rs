//! Bilinear interpolation at given positions: any enlargement or reduction of a picture.
//!
//! `q = round_half_even(sum of the four pixels around, each times its weights along height and width, / 2^22)`. Weights
//! are a position's fraction and what is left to one, in steps of 2^-11. They sum up to one, so that scale and zero point
//! stay as they are.

use crate::requantize::round_half_even_shift;
use crate::view::{Activation, Dims, View, ViewMut};
use crate::{Isa, KernelError, expect_len};

/// Fraction bits of a position: in steps of 1/2048 pixel.
pub const POSITION_BITS: u32 = 11;

const ONE: i32 = 1 << POSITION_BITS;

/// Resizes `[H, W, C]` to `[rows, columns, C]`.
///
/// `positions`: of each row and column of the output in the input, in steps of 2^-[`POSITION_BITS`] pixel, from 0 to the
/// last pixel. Beyond it they count as the last one.
///
/// # Errors
/// [`KernelError`] if a size is zero, or lengths or types do not fit.
pub fn resize(
    isa: Isa,
    dims: Dims,
    positions: [&[u32]; 2],
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("input", input.len(), dims.len())?;
    let large = Dims { h: positions[0].len(), w: positions[1].len(), c: dims.c };
    expect_len("output", output.len(), large.len())?;
    if dims.is_empty() || large.is_empty() {
        return Err(KernelError::Shapes { op: "Resize" });
    }
    match (input, output) {
        (View::I8(x), ViewMut::I8(y)) => narrow(isa, dims, positions, x, y),
        (View::I16(x), ViewMut::I16(y)) => wide(isa, dims, positions, x, y),
        _ => return Err(KernelError::Types { op: "Resize" }),
    }
    Ok(())
}

in_vectors_of_each_isa! {
    fn narrow(dims: Dims, positions: [&[u32]; 2], input: &[i8], output: &mut [i8]) = narrow_plain
}

in_vectors_of_each_isa! {
    fn wide(dims: Dims, positions: [&[u32]; 2], input: &[i16], output: &mut [i16]) = wide_plain
}

/// Sums of i8 stay below 2^30.
#[inline(always)]
fn narrow_plain(dims: Dims, positions: [&[u32]; 2], input: &[i8], output: &mut [i8]) {
    each_pixel(dims, positions, input, output, |pixels, weights| {
        let sum: i32 = (0..4).map(|i| i32::from(pixels[i]) * weights[i]).sum();
        // As `round_half_even_shift`, in 32 bits.
        let odd = (sum >> (2 * POSITION_BITS)) & 1;
        ((sum + (1 << (2 * POSITION_BITS - 1)) - 1 + odd) >> (2 * POSITION_BITS)) as i8
    });
}

#[inline(always)]
fn wide_plain(dims: Dims, positions: [&[u32]; 2], input: &[i16], output: &mut [i16]) {
    each_pixel(dims, positions, input, output, |pixels, weights| {
        let sum = (0..4).map(|i| i64::from(pixels[i]) * i64::from(weights[i])).sum();
        round_half_even_shift(sum, 2 * POSITION_BITS) as i16
    });
}

/// Calls `f` on the four elements around each output element and their weights: above left, above right, below left,
/// below right.
#[inline(always)]
fn each_pixel<T: Activation>(
    dims: Dims,
    [rows, columns]: [&[u32]; 2],
    input: &[T],
    output: &mut [T],
    f: impl Fn([T; 4], [i32; 4]) -> T,
) {
    let Dims { h, w, c } = dims;
    for (row, out) in rows.iter().zip(output.chunks_exact_mut(columns.len() * c)) {
        let (y, [above, below]) = place(*row, h);
        let [above_row, below_row] = y.map(|y| &input[y * w * c..][..w * c]);
        for (column, out) in columns.iter().zip(out.chunks_exact_mut(c)) {
            let (x, [left, right]) = place(*column, w);
            let [a, b] = x.map(|x| &above_row[x * c..][..c]);
            let [d, e] = x.map(|x| &below_row[x * c..][..c]);
            let weights = [above * left, above * right, below * left, below * right];
            for ((((out, a), b), d), e) in out.iter_mut().zip(a).zip(b).zip(d).zip(e) {
                *out = f([*a, *b, *d, *e], weights);
            }
        }
    }
}

/// The two elements of `n` around a position, and their weights.
#[inline(always)]
fn place(position: u32, n: usize) -> ([usize; 2], [i32; 2]) {
    let first = ((position >> POSITION_BITS) as usize).min(n - 1);
    let fraction = (position as i32) & (ONE - 1);
    ([first, (first + 1).min(n - 1)], [ONE - fraction, fraction])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// By the definition, in rationals over 2^22.
    fn naive(dims: Dims, positions: [&[u32]; 2], input: &[i16]) -> Vec<i16> {
        let mut out = vec![];
        for row in positions[0] {
            for column in positions[1] {
                for c in 0..dims.c {
                    let mut sum = 0i64;
                    for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let weight = |position: u32, second: usize| {
                            let fraction = i64::from(position % 2048);
                            if second == 1 { fraction } else { 2048 - fraction }
                        };
                        let at =
                            |position: u32, second: usize, n: usize| ((position / 2048) as usize + second).min(n - 1);
                        let pixel = at(*row, y, dims.h) * dims.w + at(*column, x, dims.w);
                        sum += weight(*row, y) * weight(*column, x) * i64::from(input[pixel * dims.c + c]);
                    }
                    out.push(round_half_even_shift(sum, 22) as i16);
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            h in 1usize..6, w in 1usize..6, c in prop_oneof![1usize..4, 30usize..70],
            rows in prop::collection::vec(any::<u32>(), 1..7), columns in prop::collection::vec(any::<u32>(), 1..7),
            values in prop::collection::vec(any::<i16>(), 5 * 5 * 69), extreme in any::<bool>(), halves in any::<bool>(),
        ) {
            let dims = Dims { h, w, c };
            let values: Vec<i16> =
                if extreme { values.iter().map(|x| if *x < 0 { i16::MIN } else { i16::MAX }).collect() } else { values };
            let inside = |positions: Vec<u32>, n: usize| -> Vec<u32> {
                let step = if halves { 1024 } else { 1 };
                positions.iter().map(|p| p % ((n as u32 - 1) * 2048 + 1) / step * step).collect()
            };
            let (rows, columns) = (inside(rows, h), inside(columns, w));
            let positions = [&rows[..], &columns[..]];
            let wide = &values[..dims.len()];
            let narrow: Vec<i8> = wide.iter().map(|x| (*x >> 8) as i8).collect();
            let of_narrow: Vec<i16> = narrow.iter().map(|x| i16::from(*x)).collect();
            for isa in Isa::available() {
                let mut out = vec![0i16; rows.len() * columns.len() * c];
                resize(isa, dims, positions, View::I16(wide), ViewMut::I16(&mut out)).unwrap();
                prop_assert_eq!(out, naive(dims, positions, wide), "{}", isa);
                let mut out = vec![0i8; rows.len() * columns.len() * c];
                resize(isa, dims, positions, View::I8(&narrow), ViewMut::I8(&mut out)).unwrap();
                let out: Vec<i16> = out.iter().map(|x| i16::from(*x)).collect();
                prop_assert_eq!(out, naive(dims, positions, &of_narrow), "{}", isa);
            }
        }
    }

    #[test]
    fn whole_positions_copy_and_halves_are_means() {
        let dims = Dims { h: 2, w: 2, c: 1 };
        let mut out = [0i8; 9];
        let positions = [0, 1024, 2048];
        let pixels = View::I8(&[10, 20, -30, 40]);
        resize(Isa::Scalar, dims, [&positions; 2], pixels, ViewMut::I8(&mut out)).unwrap();
        assert_eq!(out, [10, 15, 20, -10, 10, 30, -30, 5, 40]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let dims = Dims { h: 2, w: 2, c: 1 };
        let run = |positions: [&[u32]; 2], n: usize, out: ViewMut<'_>| {
            resize(Isa::Scalar, dims, positions, View::I8(&vec![0; n]), out)
        };
        let mut out = [0; 4];
        assert_eq!(run([&[0, 0], &[0, 9_999_999]], 4, ViewMut::I8(&mut out)), Ok(()), "beyond is the last pixel");
        assert!(matches!(run([&[0; 2]; 2], 3, ViewMut::I8(&mut out)), Err(KernelError::Length { what: "input", .. })));
        assert!(matches!(run([&[0; 3]; 2], 4, ViewMut::I8(&mut out)), Err(KernelError::Length { .. })));
        assert_eq!(run([&[], &[]], 4, ViewMut::I8(&mut [])), Err(KernelError::Shapes { op: "Resize" }));
        assert_eq!(run([&[0; 2]; 2], 4, ViewMut::I16(&mut [0; 4])), Err(KernelError::Types { op: "Resize" }));
    }
}
