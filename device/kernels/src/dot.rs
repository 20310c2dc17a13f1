//! Exact integer products of embeddings, for heads.

use crate::{Isa, KernelError, expect_len};

/// Rows whose products fit an i32 sum: `2^31 / 128^2`, minus one so that the bound itself is not met.
const ROWS_PER_I32: usize = (1 << 17) - 1;
/// Columns of one accumulator block, small enough for registers.
const BLOCK: usize = 32;

/// `sum(a * b)` in i32; exact below 2^17 elements. Elements past the shorter of both are ignored.
pub fn dot_i8(_isa: Isa, a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).fold(0, |sum, (a, b)| sum.wrapping_add(i32::from(i16::from(*a).wrapping_mul((*b).into()))))
}

/// Adds `X^T X` to `gram`: `gram[i][j] += sum over rows of x[i] * x[j]`, exact.
///
/// Shapes, row-major: `rows` `[N, D]`, `gram` `[D, D]`, symmetric if it was.
///
/// # Errors
/// [`KernelError::Length`] if `gram` is not `[D, D]` or `rows` is not whole rows.
pub fn gram_i8(_isa: Isa, rows: &[i8], d: usize, gram: &mut [i64]) -> Result<(), KernelError> {
    expect_len("gram", gram.len(), d.saturating_mul(d))?;
    let n = rows.len().checked_div(d).unwrap_or(0);
    expect_len("rows", rows.len(), n * d)?;
    if d > 0 {
        rows.chunks(ROWS_PER_I32 * d).for_each(|rows| gram_scalar(rows, d, gram));
    }
    Ok(())
}

/// At most [`ROWS_PER_I32`] rows; sums a block of one Gram row in i32, then widens. Blocks go outside, so that their
/// columns of `rows` stay in cache for every `i`.
fn gram_scalar(rows: &[i8], d: usize, gram: &mut [i64]) {
    for first in (0..d).step_by(BLOCK) {
        let n = BLOCK.min(d - first);
        for i in 0..first + n {
            let mut acc = [0i32; BLOCK];
            for row in rows.chunks_exact(d) {
                let x = i16::from(row[i]);
                for (acc, y) in acc.iter_mut().zip(&row[first..first + n]) {
                    *acc = acc.wrapping_add(x.wrapping_mul((*y).into()).into());
                }
            }
            // Only the upper triangle is kept; its mirror image gets the same addend.
            for (j, sum) in (first..first + n).zip(acc).filter(|(j, _)| *j >= i) {
                gram[i * d + j] += i64::from(sum);
                if j > i {
                    gram[j * d + i] += i64::from(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    fn naive_gram(rows: &[i8], d: usize) -> Vec<i64> {
        let mut gram = vec![0i64; d * d];
        for row in rows.chunks(d.max(1)) {
            for i in 0..d {
                for j in 0..d {
                    gram[i * d + j] += i64::from(row[i]) * i64::from(row[j]);
                }
            }
        }
        gram
    }

    #[test]
    fn extremes_are_exact() {
        assert_eq!(dot_i8(Isa::Scalar, &[-128; 8192], &[-128; 8192]), 8192 * 128 * 128);
        assert_eq!(dot_i8(Isa::Scalar, &[-128; 8192], &[127; 8192]), -8192 * 128 * 127);
        // More rows than an i32 sum holds.
        let mut gram = [7i64];
        gram_i8(Isa::Scalar, &[-128; 200_000], 1, &mut gram).unwrap();
        assert_eq!(gram, [7 + 200_000 * 16_384]);
    }

    #[test]
    fn lengths_are_checked() {
        let error = gram_i8(Isa::Scalar, &[1, 2, 3], 2, &mut [0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "rows has 3 elements; its shape has 2");
        let error = gram_i8(Isa::Scalar, &[1, 2], 2, &mut [0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "gram has 3 elements; its shape has 4");
        assert_eq!(gram_i8(Isa::Scalar, &[], 0, &mut []), Ok(()));
    }

    proptest! {
        #[test]
        fn gram_and_dot_equal_the_book(d in 1usize..150, n in 0usize..12, seed in any::<u64>()) {
            let mut state = seed;
            let rows: Vec<i8> = (0..n * d)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as i8
                })
                .collect();
            let mut gram = vec![0; d * d];
            gram_i8(Isa::Scalar, &rows, d, &mut gram).unwrap();
            prop_assert_eq!(&gram, &naive_gram(&rows, d));
            if n > 1 {
                let expected: i32 = (0..d).map(|i| i32::from(rows[i]) * i32::from(rows[d + i])).sum();
                prop_assert_eq!(dot_i8(Isa::Scalar, &rows[..d], &rows[d..2 * d]), expected);
            }
        }
    }
}
