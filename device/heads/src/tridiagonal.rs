//! One factorisation for all lambdas: a symmetric matrix as Q T Q^T with T tridiagonal.
//!
//! Ridge with a grid of lambdas and closed-form leave-one-out needs `(A + kappa I)^-1` for every kappa. An
//! eigendecomposition would give it, at several times the cost and with an iteration that must converge. Householder's
//! reduction is direct, costs 4/3 m^3, and `T + kappa I = L D L^T` takes m steps per kappa. A single kappa is
//! [`Cholesky`](crate::cholesky::Cholesky)'s.
//! Source: Golub & Van Loan, Matrix Computations, 4th ed., algorithms 8.3.1 and 4.1.2.

use alloc::vec;
use alloc::vec::Vec;

use crate::vector::{add_scaled, dot};

/// Rows that share one pass over the reflectors; eight of them stay in the first-level cache.
const ROWS_PER_PASS: usize = 8;

/// `A = Q T Q^T`.
pub(crate) struct Tridiagonal {
    size: usize,
    /// Diagonal of T, `[m]`.
    diagonal: Vec<f64>,
    /// `below[k]` couples k - 1 and k, `[m]`; the first is unused.
    below: Vec<f64>,
    /// Row k holds in its first k places the vector v of the reflector `I - beta v v^T`, `[m, m]`.
    reflectors: Vec<f64>,
    /// 0 where there was nothing to reflect, `[m]`.
    betas: Vec<f64>,
}

/// `T + kappa I = L D L^T`, ready to whiten.
pub(crate) struct Whitener {
    /// Multipliers below the diagonal of L, `[m]`; the first is unused.
    multipliers: Vec<f64>,
    /// `D^-1/2`, `[m]`.
    inverse_roots: Vec<f64>,
}

impl Tridiagonal {
    /// Reduces a symmetric `matrix` `[m, m]`, of which the lower triangle is read.
    pub fn reduce(mut matrix: Vec<f64>, size: usize) -> Self {
        let (mut diagonal, mut below, mut betas) = (vec![0.0; size], vec![0.0; size], vec![0.0; size]);
        let mut product = vec![0.0; size];
        for k in (1..size).rev() {
            let (active, rest) = matrix.split_at_mut(k * size);
            diagonal[k] = rest[k];
            let v = &mut rest[..k];
            let last = v[k - 1];
            if dot(&v[..k - 1], &v[..k - 1]) == 0.0 {
                below[k] = last;
                continue;
            }
            // Reflect row k onto its last place before the diagonal; the sign avoids cancellation.
            let length = libm::sqrt(dot(v, v));
            below[k] = if last >= 0.0 { -length } else { length };
            v[k - 1] = last - below[k];
            let beta = 1.0 / (length * (length + last.abs()));
            betas[k] = beta;
            reflect_both_sides(active, size, v, beta, &mut product[..k]);
        }
        if size > 0 {
            diagonal[0] = matrix[0];
        }
        Self { size, diagonal, below, reflectors: matrix, betas }
    }

    /// Replaces every row r of `rows` `[any, m]` by r Q.
    pub fn rotate(&self, rows: &mut [f64]) {
        for pass in rows.chunks_mut((ROWS_PER_PASS * self.size).max(1)) {
            for k in (2..self.size).rev() {
                self.reflect(k, pass);
            }
        }
    }

    fn reflect(&self, k: usize, rows: &mut [f64]) {
        let v = &self.reflectors[k * self.size..][..k];
        for row in rows.chunks_exact_mut(self.size) {
            let row = &mut row[..k];
            let step = self.betas[k] * dot(v, row);
            add_scaled(row, -step, v);
        }
    }

    /// Factors `T + kappa I`; None at a pivot that is not positive.
    pub fn whitener(&self, kappa: f64) -> Option<Whitener> {
        let (mut multipliers, mut inverse_roots) = (vec![0.0; self.size], vec![0.0; self.size]);
        let mut pivot = 0.0;
        for k in 0..self.size {
            let mut next = self.diagonal[k] + kappa;
            if k > 0 {
                multipliers[k] = self.below[k] / pivot;
                next -= multipliers[k] * self.below[k];
            }
            // Written so that NaN fails as well.
            if !(next > 0.0 && next.is_finite()) {
                return None;
            }
            pivot = next;
            inverse_roots[k] = 1.0 / libm::sqrt(pivot);
        }
        Some(Whitener { multipliers, inverse_roots })
    }
}

impl Whitener {
    /// Replaces every row r of `rows` `[any, m]` by `D^-1/2 L^-1 r`: dot products of rows become those under
    /// `(T + kappa I)^-1`.
    pub fn whiten(&self, rows: &mut [f64]) {
        for row in rows.chunks_exact_mut(self.inverse_roots.len().max(1)) {
            let mut before = 0.0;
            for (value, multiplier) in row.iter_mut().zip(&self.multipliers) {
                *value -= multiplier * before;
                before = *value;
            }
            for (value, inverse_root) in row.iter_mut().zip(&self.inverse_roots) {
                *value *= inverse_root;
            }
        }
    }
}

/// `A = H A H` on the leading `[k, k]` of `matrix` (lower triangle), `H = I - beta v v^T`, k the length of `v`.
fn reflect_both_sides(matrix: &mut [f64], size: usize, v: &[f64], beta: f64, product: &mut [f64]) {
    product.fill(0.0);
    for i in 0..v.len() {
        let row = &matrix[i * size..][..=i];
        let value = dot(&row[..i], &v[..i]) + row[i] * v[i];
        add_scaled(&mut product[..i], v[i], &row[..i]);
        product[i] += value;
    }
    // q = beta A v - (beta^2 / 2) (v^T A v) v; then A -= v q^T + q v^T.
    let half = beta * beta * dot(product, v) / 2.0;
    for (q, v) in product.iter_mut().zip(v) {
        *q = beta * *q - half * v;
    }
    for i in 0..v.len() {
        let row = &mut matrix[i * size..][..=i];
        for (j, value) in row.iter_mut().enumerate() {
            *value -= v[i] * product[j] + product[i] * v[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Lcg;

    /// Gram matrix of `rank` random rows, `[m, m]`.
    fn gram(size: usize, rank: usize, seed: u64) -> Vec<f64> {
        let mut lcg = Lcg(seed);
        let rows: Vec<f64> = (0..size * rank).map(|_| f64::from(lcg.component(100))).collect();
        let row = |i: usize| &rows[i * rank..][..rank];
        (0..size * size).map(|at| dot(row(at / size), row(at % size))).collect()
    }

    #[test]
    fn whitened_rows_multiply_as_under_the_inverse() {
        for (size, rank) in [(1, 1), (2, 2), (3, 1), (17, 30), (40, 12)] {
            let mut matrix = gram(size, rank, 5);
            let tridiagonal = Tridiagonal::reduce(matrix.clone(), size);
            let white = |mut rows: Vec<f64>| {
                tridiagonal.rotate(&mut rows);
                tridiagonal.whitener(50.0).unwrap().whiten(&mut rows);
                rows
            };
            (0..size).for_each(|k| matrix[k * size + k] += 50.0);
            let units = (0..size * size).map(|at| f64::from(u8::from(at / size == at % size))).collect();
            let (a, b) = (white(matrix), white(units));
            for (i, a) in a.chunks_exact(size).enumerate() {
                for (j, b) in b.chunks_exact(size).enumerate() {
                    // Row i of the matrix times column j of its inverse. Condition number up to 1e5 * size / 50, times 2^-52.
                    let expected = f64::from(u8::from(i == j));
                    assert!((dot(a, b) - expected).abs() < 1e-8, "{size} {rank}: {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn rotation_keeps_lengths_and_angles() {
        let tridiagonal = Tridiagonal::reduce(gram(20, 20, 1), 20);
        let before: Vec<f64> = (0..60).map(f64::from).collect();
        let mut rows = before.clone();
        tridiagonal.rotate(&mut rows);
        for (i, j) in [(0, 0), (1, 1), (0, 1), (1, 2)] {
            let of = |rows: &[f64]| dot(&rows[20 * i..][..20], &rows[20 * j..][..20]);
            assert!((of(&rows) / of(&before) - 1.0).abs() < 1e-12, "{i}, {j}");
        }
    }

    #[test]
    fn an_indefinite_matrix_has_no_whitener() {
        assert!(Tridiagonal::reduce(vec![1.0, 0.0, 3.0, 1.0], 2).whitener(0.5).is_none());
        assert!(Tridiagonal::reduce(vec![f64::NAN], 1).whitener(0.5).is_none());
    }
}
