//! Product of two tensors.

use crate::requantize::{Clamp, IN_F64, MULTIPLIER_BITS, RealClamp, real_factor, round_half_even_shift};
use crate::view::{Activation, Broadcast, Dims, View, ViewMut, broadcast_of, for_each_pair, pairs_of_each_type};
use crate::{Isa, KernelError};

/// Values of one multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulParams {
    /// Of `a` and `b`, each within its tensor's type.
    pub zero_points_in: [i32; 2],
    /// In 1..2^23.
    pub multiplier: i32,
    /// Where it lands.
    pub clamp: Clamp,
}

/// `q = clamp(zp + round_half_even((a - zp_a) * (b - zp_b) * multiplier / 2^22))`, in i64.
///
/// Shapes: `dims` of `a` and `b`: equal, or `b` `[1, 1, C]` or `[1, 1, 1]`; the output is shaped as `a`. Each i8 or i16.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn mul(
    isa: Isa,
    dims: [Dims; 2],
    params: &MulParams,
    a: View<'_>,
    b: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let broadcast = broadcast_of("Mul", dims, [a.len(), b.len(), output.len()])?;
    mul_in_vectors(isa, params, broadcast, a, b, output)
}

in_vectors_of_each_isa! {
    fn mul_in_vectors(params: &MulParams, broadcast: Broadcast, a: View<'_>, b: View<'_>, output: ViewMut<'_>)
        -> Result<(), KernelError> = mul_any
}

#[inline(always)]
fn mul_any(
    params: &MulParams,
    broadcast: Broadcast,
    a: View<'_>,
    b: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let (factor, clamp) = (real_factor(params.multiplier), RealClamp::new(params.clamp));
    pairs_of_each_type!("Mul", a, b, broadcast, output, |a, b| mul_one(params, factor, clamp, a, b));
    Ok(())
}

#[inline(always)]
fn mul_one<A: Activation, B: Activation, O: Activation>(
    params: &MulParams,
    factor: f64,
    clamp: RealClamp,
    a: A,
    b: B,
) -> O {
    let [za, zb] = params.zero_points_in;
    let [a, b] = [a.to_i32().wrapping_sub(za), b.to_i32().wrapping_sub(zb)];
    if !IN_F64 {
        let product = i64::from(a).wrapping_mul(b.into()).wrapping_mul(params.multiplier.into());
        return O::from_i32(params.clamp.apply(round_half_even_shift(product, MULTIPLIER_BITS)));
    }
    O::from_i32(clamp.apply(f64::from(a) * f64::from(b) * factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn equals_the_book(
            pairs in prop::collection::vec((any::<i16>(), any::<i8>()), 1..40), channel in any::<bool>(),
            zero_points_in in (any::<i16>(), any::<i8>()), multiplier in 1i32..1 << 23, zero_point in any::<i8>(),
        ) {
            let clamp = Clamp { zero_point: zero_point.into(), low: -128, high: 100 };
            let zero_points_in = [zero_points_in.0.into(), zero_points_in.1.into()];
            let params = MulParams { zero_points_in, multiplier, clamp };
            let (a, mut b): (Vec<i16>, Vec<i8>) = pairs.iter().copied().unzip();
            // Two pixels share one factor per channel.
            let c = if channel && a.len() % 2 == 0 { a.len() / 2 } else { a.len() };
            b.truncate(c);
            let shapes = [Dims { h: a.len() / c, w: 1, c }, Dims { h: 1, w: 1, c }];
            let mut out = vec![0i8; a.len()];
            mul(Isa::Scalar, shapes, &params, View::I16(&a), View::I8(&b), ViewMut::I8(&mut out)).unwrap();
            for (i, out) in out.into_iter().enumerate() {
                let product = (i128::from(a[i]) - i128::from(zero_points_in[0]))
                    * (i128::from(b[i % c]) - i128::from(zero_points_in[1])) * i128::from(multiplier);
                let floor = product.div_euclid(1 << 22);
                let twice = 2 * product.rem_euclid(1 << 22);
                let up = twice > 1 << 22 || (twice == 1 << 22 && floor % 2 != 0);
                let expected = (floor + i128::from(up) + i128::from(zero_point)).clamp(-128, 100);
                prop_assert_eq!(i128::from(out), expected);
            }
        }
    }
}
