//! Product of two activations, matrix by matrix: `q = clamp(zp + round_half_even(sum((a - zp_a) * (b - zp_b)) * M / 2^22))`.
//!
//! Each matrix of `b` is laid out as the dense convolution lays out weights, its rows as they are needed: blocks of
//! columns side by side, so that no sum is reduced across lanes.

use crate::dense::{BLOCK, PIXELS, Products, with_products_of_each_isa};
use crate::requantize::{Clamp, requantize_row};
use crate::view::{Activation, View, ViewMut};
use crate::{Isa, KernelError, expect_len, scratch_of};

/// `[n, rows, inner] x [n, inner, columns] -> [n, rows, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMulShape {
    /// Matrices.
    pub n: usize,
    /// Of each first factor and result.
    pub rows: usize,
    /// Products that are summed.
    pub inner: usize,
    /// Of each second factor and result.
    pub columns: usize,
}

/// Numbers of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMulParams {
    /// Of the two factors; 0 for i16.
    pub zero_points_in: [i32; 2],
    /// In 1..2^23.
    pub multiplier: i32,
    /// Where it lands.
    pub clamp: Clamp,
}

impl MatMulShape {
    /// i16 values of scratch that [`matmul`] needs.
    pub fn scratch_len(&self) -> usize {
        self.packed_len().saturating_add(self.row_len().saturating_mul(PIXELS))
    }

    /// Multiply-accumulates.
    pub fn n_macs(&self) -> u64 {
        [self.n, self.rows, self.inner, self.columns].iter().fold(1u64, |n, size| n.saturating_mul(*size as u64))
    }

    /// Elements of first factors, second factors and results.
    fn lens(&self) -> [usize; 3] {
        let len = |a: usize, b: usize| self.n.saturating_mul(a).saturating_mul(b);
        [len(self.rows, self.inner), len(self.inner, self.columns), len(self.rows, self.columns)]
    }

    /// A row of a first factor, padded with a zero to whole pairs.
    fn row_len(&self) -> usize {
        self.inner.checked_next_multiple_of(2).unwrap_or(usize::MAX)
    }

    /// A second factor in blocks of columns.
    fn packed_len(&self) -> usize {
        self.columns.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX).saturating_mul(self.row_len())
    }
}

/// Runs it.
///
/// Shapes: as [`MatMulShape`] says, each i8 or i16; `scratch` at least [`MatMulShape::scratch_len`].
///
/// # Errors
/// [`KernelError`] if a size is zero, or lengths or types do not fit.
pub fn matmul(
    isa: Isa,
    shape: &MatMulShape,
    params: &MatMulParams,
    factors: [View<'_>; 2],
    scratch: &mut [i16],
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let [a, b, out] = shape.lens();
    expect_len("first input", factors[0].len(), a)?;
    expect_len("second input", factors[1].len(), b)?;
    expect_len("output", output.len(), out)?;
    let scratch = scratch_of(scratch, shape.scratch_len())?;
    // No factor is empty where neither the first one nor the result is.
    if a == 0 || out == 0 {
        return Err(KernelError::Shapes { op: "MatMul" });
    }
    dispatch(isa, shape, params, factors, scratch, output)
}

with_products_of_each_isa! {
    fn dispatch(
        shape: &MatMulShape,
        params: &MatMulParams,
        factors: [View<'_>; 2],
        scratch: &mut [i16],
        output: ViewMut<'_>
    ) -> Result<(), KernelError> = run
}

/// # Safety
/// The CPU has the instructions of `P`.
#[inline(always)]
unsafe fn run<P: Products>(
    shape: &MatMulShape,
    params: &MatMulParams,
    [a, b]: [View<'_>; 2],
    scratch: &mut [i16],
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    // SAFETY: passed on.
    unsafe {
        match output {
            ViewMut::I8(out) => products::<P, _>(shape, params, a, b, scratch, out),
            ViewMut::I16(out) => products::<P, _>(shape, params, a, b, scratch, out),
            _ => Err(KernelError::Types { op: "MatMul" }),
        }
    }
}

/// # Safety
/// As [`Products::add`].
#[inline(always)]
unsafe fn products<P: Products, O: Activation>(
    shape: &MatMulShape,
    params: &MatMulParams,
    a: View<'_>,
    b: View<'_>,
    scratch: &mut [i16],
    output: &mut [O],
) -> Result<(), KernelError> {
    let MatMulShape { rows, inner, columns, .. } = *shape;
    let row_len = shape.row_len();
    let (packed, patches) = scratch.split_at_mut(shape.packed_len());
    // What pads rows and columns stays zero.
    packed.fill(0);
    patches.fill(0);
    let multipliers = [params.multiplier; BLOCK];
    for (i, out) in output.chunks_exact_mut(rows * columns).enumerate() {
        match b {
            View::I8(b) => pack::<P, _>(shape, params.zero_points_in[1], &b[i * inner * columns..], packed),
            View::I16(b) => pack::<P, _>(shape, params.zero_points_in[1], &b[i * inner * columns..], packed),
            _ => return Err(KernelError::Types { op: "MatMul" }),
        }
        for (at, out) in out.chunks_mut(PIXELS * columns).enumerate() {
            let first = (i * rows + at * PIXELS) * inner;
            let n = out.len() / columns;
            for (p, patch) in patches.chunks_exact_mut(row_len).take(n).enumerate() {
                let from = first + p * inner..first + (p + 1) * inner;
                match a {
                    View::I8(a) => centre(&a[from], params.zero_points_in[0], patch),
                    View::I16(a) => centre(&a[from], params.zero_points_in[0], patch),
                    _ => return Err(KernelError::Types { op: "MatMul" }),
                }
            }
            let (x, y) = patches.split_at(2 * row_len);
            let ((x, y), (z, w)) = (x.split_at(row_len), y.split_at(row_len));
            for (block, weights) in packed.chunks_exact(BLOCK * row_len).enumerate() {
                let first = block * BLOCK;
                let n = BLOCK.min(columns - first);
                let mut sums = [[0; BLOCK]; PIXELS];
                // SAFETY: the caller vouches for the CPU.
                unsafe { P::add(&mut sums, weights, [x, y, z, w]) };
                for (sums, out) in sums.iter().zip(out.chunks_exact_mut(columns)) {
                    requantize_row(&sums[..n], &multipliers[..n], params.clamp, &mut out[first..first + n]);
                }
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn centre<T: Activation>(from: &[T], zero_point: i32, to: &mut [i16]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.centred_i16(zero_point);
    }
}

/// Lays `[inner, columns]` out in blocks of columns, centred.
#[inline(always)]
fn pack<P: Products, T: Activation>(shape: &MatMulShape, zero_point: i32, from: &[T], packed: &mut [i16]) {
    let block_len = BLOCK * shape.row_len();
    let step = if P::PAIRS { 2 } else { 1 };
    for (i, row) in from.chunks_exact(shape.columns).take(shape.inner).enumerate() {
        let at = if P::PAIRS { i / 2 * BLOCK * 2 + i % 2 } else { i * BLOCK };
        for (row, block) in row.chunks(BLOCK).zip(packed.chunks_exact_mut(block_len)) {
            for (to, x) in block[at..].iter_mut().step_by(step).zip(row) {
                *to = x.centred_i16(zero_point);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requantize::requantize;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn shapes() -> impl Strategy<Value = MatMulShape> {
        let columns = prop_oneof![1usize..4, 14usize..35];
        (1usize..4, 1usize..10, prop_oneof![1usize..5, 30usize..37], columns)
            .prop_map(|(n, rows, inner, columns)| MatMulShape { n, rows, inner, columns })
    }

    /// By the definition.
    fn naive(shape: &MatMulShape, params: &MatMulParams, a: &[i32], b: &[i32]) -> Vec<i32> {
        let MatMulShape { n, rows, inner, columns } = *shape;
        let mut out = vec![];
        for (i, row) in (0..n).flat_map(|i| (0..rows).map(move |row| (i, row))) {
            for column in 0..columns {
                let product = |k: usize| {
                    let a = a[(i * rows + row) * inner + k] - params.zero_points_in[0];
                    a.wrapping_mul(b[(i * inner + k) * columns + column] - params.zero_points_in[1])
                };
                let sum = (0..inner).fold(0i32, |sum, k| sum.wrapping_add(product(k)));
                out.push(requantize(sum, params.multiplier, params.clamp));
            }
        }
        out
    }

    /// Of every set of instructions and both types of output.
    fn agrees(shape: &MatMulShape, params: &MatMulParams, factors: [View<'_>; 2]) -> Result<(), TestCaseError> {
        let wide = |view: View<'_>| match view {
            View::I8(x) => x.iter().map(|x| i32::from(*x)).collect::<Vec<_>>(),
            View::I16(x) => x.iter().map(|x| i32::from(*x)).collect(),
            _ => panic!("no activations"),
        };
        let expected = naive(shape, params, &wide(factors[0]), &wide(factors[1]));
        let narrow = |x: &i32| (*x).clamp(-128, 127);
        for isa in Isa::available() {
            let mut scratch = vec![77; shape.scratch_len()];
            let mut out = vec![0i16; expected.len()];
            matmul(isa, shape, params, factors, &mut scratch, ViewMut::I16(&mut out)).unwrap();
            prop_assert_eq!(out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), &expected[..], "{}", isa);
            let mut out = vec![0i8; expected.len()];
            let low = Clamp { low: params.clamp.low.max(-128), high: params.clamp.high.min(127), ..params.clamp };
            let params = MatMulParams { clamp: low, ..*params };
            matmul(isa, shape, &params, factors, &mut scratch, ViewMut::I8(&mut out)).unwrap();
            prop_assert_eq!(
                out.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(),
                expected.iter().map(narrow).collect::<Vec<_>>(),
                "{}",
                isa
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            shape in shapes(), seed in prop::collection::vec(any::<i8>(), 3 * 10 * 37 + 3 * 37 * 35),
            zero_points_in in any::<[i8; 2]>(), multiplier in 1i32..1 << 23, extreme in any::<bool>(),
            zero_point in -200i32..200,
        ) {
            let seed: Vec<i8> =
                if extreme { seed.iter().map(|x| if *x < 0 { i8::MIN } else { i8::MAX }).collect() } else { seed };
            let [a, b, _] = shape.lens();
            let (a, b) = (&seed[..a], &seed[seed.len() - b..]);
            let clamp = Clamp { zero_point, low: -30_000, high: 32_767 };
            let zero_points_in = zero_points_in.map(i32::from);
            agrees(&shape, &MatMulParams { zero_points_in, multiplier, clamp }, [View::I8(a), View::I8(b)])?;
            // Sixteen bits, on one side or both; -32,768 squared twice wraps.
            let wide = |x: &[i8]| x.iter().map(|x| i16::from(*x) * 256).collect::<Vec<_>>();
            let [wide_a, wide_b] = [wide(a), wide(b)];
            for (zero_points_in, factors) in [
                ([0, zero_points_in[1]], [View::I16(&wide_a), View::I8(b)]),
                ([zero_points_in[0], 0], [View::I8(a), View::I16(&wide_b)]),
                ([0, 0], [View::I16(&wide_a), View::I16(&wide_b)]),
            ] {
                agrees(&shape, &MatMulParams { zero_points_in, multiplier, clamp }, factors)?;
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let shape = MatMulShape { n: 1, rows: 2, inner: 3, columns: 2 };
        let clamp = Clamp { zero_point: 0, low: -128, high: 127 };
        let params = MatMulParams { zero_points_in: [0, 0], multiplier: 1 << 22, clamp };
        let (ones, scratch) = ([1i8; 6], shape.scratch_len());
        let run = |shape: &MatMulShape, factors: [View<'_>; 2], scratch: usize, out: &mut [i8]| {
            matmul(Isa::Scalar, shape, &params, factors, &mut vec![0; scratch], ViewMut::I8(out))
        };
        let [good, short] = [View::I8(&ones), View::I8(&ones[..5])];
        let mut out = [0; 4];
        assert_eq!(run(&shape, [good, good], scratch, &mut out), Ok(()));
        assert_eq!(out, [3; 4]);
        let length =
            |what: &'static str, found: usize, expected: usize| Err(KernelError::Length { what, found, expected });
        assert_eq!(run(&shape, [short, good], scratch, &mut out), length("first input", 5, 6));
        assert_eq!(run(&shape, [good, short], scratch, &mut out), length("second input", 5, 6));
        assert_eq!(run(&shape, [good, good], scratch, &mut out[..3]), length("output", 3, 4));
        assert_eq!(run(&shape, [good, good], scratch - 1, &mut out), length("scratch", scratch - 1, scratch));
        let float = View::F32(&[0.0; 6]);
        assert_eq!(run(&shape, [good, float], scratch, &mut out), Err(KernelError::Types { op: "MatMul" }));
        assert_eq!(run(&shape, [float, good], scratch, &mut out), Err(KernelError::Types { op: "MatMul" }));
        let empty = MatMulShape { columns: 0, ..shape };
        let nothing = View::I8(&[]);
        assert_eq!(run(&empty, [good, nothing], scratch, &mut []), Err(KernelError::Shapes { op: "MatMul" }));
        let huge = MatMulShape { n: usize::MAX, rows: 2, ..shape };
        assert!(run(&huge, [good, good], scratch, &mut out).is_err());
    }
}
