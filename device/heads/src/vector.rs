//! Float vector operations in one fixed order.
//!
//! A sum in eight lanes is as reproducible as one in a single lane as long as the order is written down, and it lets
//! the compiler use vector registers without being allowed to reorder anything.

const LANES: usize = 8;

/// Sum of `a[i] * b[i]`: element i goes to lane i mod 8, lanes are added pairwise at the end. The shorter slice ends it.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    debug_assert_eq!(a.len(), b.len());
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += x * y;
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// As [`dot`], with one side stored in single precision; every product is exact enough to be formed in f64.
pub fn dot_f32(a: &[f64], b: &[f32]) -> f64 {
    dot_with(a, b)
}

/// As [`dot`], with one side of another type, which is converted exactly.
pub fn dot_with<T: Copy + Into<f64>>(a: &[f64], b: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    debug_assert_eq!(a.len(), b.len());
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane].into();
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += x * (*y).into();
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// `y += factor * x`.
pub fn add_scaled(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// Index of the largest value; ties go to the smaller index. 0 for an empty slice.
pub fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// Replaces the lower triangle of `matrix` `[n, n]` by its Cholesky factor; false at a pivot that is not positive.
pub fn cholesky(matrix: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (above, row) = matrix.split_at_mut(i * n);
        for j in 0..i {
            let factor = &above[j * n..j * n + j + 1];
            row[j] = (row[j] - dot(&row[..j], &factor[..j])) / factor[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        // Written so that NaN fails as well.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        row[i] = libm::sqrt(pivot);
    }
    true
}

/// Solves `L x = b` in place, `L` the lower triangle of `factor` `[n, n]`.
pub fn solve_lower(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        let row = &factor[i * n..i * n + i + 1];
        x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
    }
}

/// Solves `L^T x = b` in place, `L` the lower triangle of `factor` `[n, n]`.
pub fn solve_lower_transposed(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in (0..n).rev() {
        let row = &factor[i * n..i * n + i + 1];
        x[i] /= row[i];
        let value = x[i];
        add_scaled(&mut x[..i], -value, &row[..i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn dot_counts_every_element_once() {
        for n in 0..40 {
            let a: Vec<f64> = (0..n).map(f64::from).collect();
            let b = vec![2.0; a.len()];
            assert_eq!(dot(&a, &b), f64::from(n * (n - 1)));
            assert_eq!(dot_f32(&a, &vec![2.0f32; a.len()]), f64::from(n * (n - 1)));
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn cholesky_solves() {
        let mut matrix = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 2.0, 1.0, 6.0];
        assert!(cholesky(&mut matrix, 3));
        let mut x = [14.0, 15.0, 22.0]; // [4 2 2; 2 5 1; 2 1 6] (1, 2, 3)
        solve_lower(&matrix, &mut x);
        solve_lower_transposed(&matrix, &mut x);
        assert!(x.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{x:?}");
        assert!(!cholesky(&mut [1.0, 0.0, 2.0, 1.0], 2));
    }
}
