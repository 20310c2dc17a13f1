//! `A + kappa I = U^T U` for one kappa, at an eighth of the cost of [`Tridiagonal`](crate::tridiagonal::Tridiagonal).
//!
//! Right-looking: finished rows of U are taken out of all rows below, a panel of rows at a time and a strip of columns at a
//! time, so that the strip of the panel stays in the first-level cache. Every element subtracts its products in ascending
//! order of the row they come from, whatever panels, strips and vector registers there are.
//! Source: Golub & Van Loan, Matrix Computations, 4th ed., algorithm 4.2.2 and section 4.2.9.

use alloc::vec;
use alloc::vec::Vec;

use crate::vector::{add_scaled, dot};

/// Rows of a panel.
const PANEL: usize = 8;
/// Columns of a strip: a panel of 16 KiB.
const STRIP: usize = 256;
/// Side of the squares in which the input is transposed.
const SQUARE: usize = 16;

/// A factored symmetric positive definite matrix.
pub(crate) struct Cholesky {
    size: usize,
    /// U, `[m, m]`; below the diagonal zeros.
    upper: Vec<f64>,
}

impl Cholesky {
    /// Factors `matrix + kappa I`, `matrix` symmetric `[m, m]`, of which the lower triangle is read; None at a pivot that is
    /// not positive.
    pub fn of(matrix: &[f64], size: usize, kappa: f64) -> Option<Self> {
        let mut upper = transposed(matrix, size);
        for k in 0..size {
            upper[k * size + k] += kappa;
        }
        for first in (0..size).step_by(PANEL) {
            let end = (first + PANEL).min(size);
            for k in first..end {
                let (done, rest) = upper.split_at_mut(k * size);
                let row = &mut rest[k..size];
                for above in done.chunks_exact(size).skip(first) {
                    add_scaled(row, -above[k], &above[k..]);
                }
                let pivot = row[0];
                // Written so that NaN fails as well.
                if !(pivot > 0.0 && pivot.is_finite()) {
                    return None;
                }
                let root = libm::sqrt(pivot);
                row[0] = root;
                row[1..].iter_mut().for_each(|value| *value /= root);
            }
            let (done, below) = upper.split_at_mut(end * size);
            take_out(&done[first * size..], below, size, end);
        }
        Some(Self { size, upper })
    }

    /// Replaces every row x of `rows` `[any, m]` by `(A + kappa I)^-1 x`.
    pub fn solve(&self, rows: &mut [f64]) {
        for (k, upper) in self.upper.chunks_exact(self.size.max(1)).enumerate() {
            for row in rows.chunks_exact_mut(self.size) {
                let (value, below) = (row[k] / upper[k], k + 1);
                row[k] = value;
                add_scaled(&mut row[below..], -value, &upper[below..]);
            }
        }
        for (k, upper) in self.upper.chunks_exact(self.size.max(1)).enumerate().rev() {
            for row in rows.chunks_exact_mut(self.size) {
                row[k] = (row[k] - dot(&upper[k + 1..], &row[k + 1..])) / upper[k];
            }
        }
    }
}

/// Subtracts from the rows `below` `[m - end, m]` what the finished rows of `panel` `[PANEL, m]` take out of them.
fn take_out(panel: &[f64], below: &mut [f64], size: usize, end: usize) {
    if below.is_empty() {
        return;
    }
    for left in (end..size).step_by(STRIP) {
        let right = (left + STRIP).min(size);
        for (j, row) in below.chunks_exact_mut(size).enumerate().take(right - end) {
            let j = end + j;
            let from = left.max(j);
            let mut factors = [0.0; PANEL];
            let mut strips = [&panel[..0]; PANEL];
            for ((factor, strip), finished) in factors.iter_mut().zip(&mut strips).zip(panel.chunks_exact(size)) {
                (*factor, *strip) = (finished[j], &finished[from..right]);
            }
            let [a, b, c, d, e, f, g, h] = strips;
            let pairs = a.iter().zip(b).zip(c.iter().zip(d)).zip(e.iter().zip(f).zip(g.iter().zip(h)));
            for (value, (((a, b), (c, d)), ((e, f), (g, h)))) in row[from..right].iter_mut().zip(pairs) {
                let mut left = *value;
                for (factor, x) in factors.iter().zip([a, b, c, d, e, f, g, h]) {
                    left -= factor * x;
                }
                *value = left;
            }
        }
    }
}

/// The lower triangle as the upper one, square by square.
fn transposed(matrix: &[f64], size: usize) -> Vec<f64> {
    let mut upper = vec![0.0; size * size];
    for top in (0..size).step_by(SQUARE) {
        for left in (0..=top).step_by(SQUARE) {
            for i in top..(top + SQUARE).min(size) {
                for j in left..(left + SQUARE).min(i + 1) {
                    upper[j * size + i] = matrix[i * size + j];
                }
            }
        }
    }
    upper
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `X X^T` of a fixed irregular X, lower triangle.
    fn gram(size: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..size * size).map(|i| ((i * i + 7 * i) % 31) as f64 - 15.0).collect();
        let mut matrix = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..=i {
                matrix[i * size + j] = dot(&x[i * size..][..size], &x[j * size..][..size]);
            }
        }
        matrix
    }

    #[test]
    fn solves_what_it_factors() {
        // Less than a panel, panels that end early, more than a strip.
        for size in [1, 2, 7, 8, 9, 31, 300] {
            let (matrix, kappa) = (gram(size), 3.0);
            let cholesky = Cholesky::of(&matrix, size, kappa).unwrap();
            let wanted: Vec<f64> = (0..2 * size).map(|i| (i % 5) as f64 - 2.0).collect();
            let at = |i: usize, j: usize| matrix[i.max(j) * size + i.min(j)] + if i == j { kappa } else { 0.0 };
            let mut rows: Vec<f64> = (0..2 * size)
                .map(|place| (0..size).map(|j| at(place % size, j) * wanted[place / size * size + j]).sum())
                .collect();
            cholesky.solve(&mut rows);
            let largest = rows.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(largest < 1e-6, "{size}: {largest}");
        }
    }

    #[test]
    fn panels_and_strips_do_not_show_in_the_bits() {
        let size = 300;
        let matrix = gram(size);
        let mut plain = transposed(&matrix, size);
        for k in 0..size {
            plain[k * size + k] += 1.5;
            for above in 0..k {
                let factor = plain[above * size + k];
                for i in k..size {
                    plain[k * size + i] -= factor * plain[above * size + i];
                }
            }
            let root = libm::sqrt(plain[k * size + k]);
            plain[k * size + k] = root;
            plain[k * size + k + 1..(k + 1) * size].iter_mut().for_each(|value| *value /= root);
        }
        assert!(Cholesky::of(&matrix, size, 1.5).unwrap().upper == plain);
    }

    #[test]
    fn an_indefinite_matrix_is_refused() {
        assert!(Cholesky::of(&[1.0, 0.0, 2.0, 1.0], 2, 0.0).is_none());
        assert!(Cholesky::of(&[f64::NAN], 1, 1.0).is_none());
        assert!(Cholesky::of(&[1.0, 0.0, 2.0, 1.0], 2, 4.0).is_some());
    }
}
