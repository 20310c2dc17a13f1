//! Addition of two tensors with their own scales.

#[cfg(target_arch = "aarch64")]
use crate::aarch64::elementwise;
use crate::requantize::{Clamp, IN_F64, RealClamp, round_half_even_shift};
use crate::view::{Activation, Broadcast, Dims, View, ViewMut, broadcast_of, for_each_pair, pairs_of_each_type};
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{Isa, KernelError};

/// Values of one addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddParams {
    /// Of `a` and `b`, each within its tensor's type.
    pub zero_points_in: [i32; 2],
    /// In -2^21..=2^21, one per input; negative subtracts.
    pub multipliers: [i32; 2],
    /// 1..=24.
    pub shift: u32,
    /// Where it lands.
    pub clamp: Clamp,
}

/// `q = clamp(zp + round_half_even(((a - zp_a) * multipliers[0] + (b - zp_b) * multipliers[1]) / 2^shift))`, in i64.
///
/// Shapes: `dims` of `a` and `b`: equal, or `b` `[1, 1, C]` or `[1, 1, 1]`; the output is shaped as `a`. Each i8 or i16.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn add(
    isa: Isa,
    dims: [Dims; 2],
    params: &AddParams,
    a: View<'_>,
    b: View<'_>,
    mut output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let broadcast = broadcast_of("Add", dims, [a.len(), b.len(), output.len()])?;
    // A shift by more than i64 has bits would be an error of the caller; any number is as good.
    let params = AddParams { shift: params.shift.clamp(1, 62), ..*params };
    if let (View::I8(a), View::I8(b), ViewMut::I8(out), Broadcast::Same) = (a, b, output.reborrow(), broadcast)
        && params.shift <= 24
    {
        add_i8(isa, &params, a, b, out);
        return Ok(());
    }
    add_wide(isa, &params, broadcast, a, b, output)
}

in_vectors_of_each_isa! {
    fn add_wide(params: &AddParams, broadcast: Broadcast, a: View<'_>, b: View<'_>, output: ViewMut<'_>)
        -> Result<(), KernelError> = add_any
}

#[inline(always)]
fn add_any(
    params: &AddParams,
    broadcast: Broadcast,
    a: View<'_>,
    b: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    let one = AddOne::new(params);
    pairs_of_each_type!("Add", a, b, broadcast, output, |a, b| one.of(a, b));
    Ok(())
}

/// One addition, its constants at hand.
#[derive(Clone, Copy)]
struct AddOne {
    params: AddParams,
    multipliers: [f64; 2],
    clamp: RealClamp,
}

impl AddOne {
    #[inline(always)]
    fn new(params: &AddParams) -> Self {
        let unit = 1.0 / (1u64 << params.shift) as f64;
        let multipliers = params.multipliers.map(|multiplier| f64::from(multiplier) * unit);
        Self { params: *params, multipliers, clamp: RealClamp::new(params.clamp) }
    }

    #[inline(always)]
    fn of<A: Activation, B: Activation, O: Activation>(self, a: A, b: B) -> O {
        if !IN_F64 {
            return add_one(&self.params, a, b);
        }
        let [za, zb] = self.params.zero_points_in;
        let [a, b] = [a.to_i32().wrapping_sub(za), b.to_i32().wrapping_sub(zb)].map(f64::from);
        O::from_i32(self.clamp.apply(a * self.multipliers[0] + b * self.multipliers[1]))
    }
}

/// Residual additions. With multipliers up to 2^21 and differences up to 255 both terms and the rounding fit i32.
fn add_i8(isa: Isa, params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) {
    match isa {
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot if elementwise::can_add(params) => elementwise::add(params, a, b, out),
        #[cfg(target_arch = "x86_64")]
        _ if x86::can_add(isa, params) => x86::add(params, a, b, out),
        _ => add_i8_in_vectors(isa, params, a, b, out),
    }
}

in_vectors_of_each_isa! {
    fn add_i8_in_vectors(params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) = add_i8_plain
}

/// Shaped for compilers: every set of instructions gets this loop in its own vectors.
#[inline(always)]
fn add_i8_plain(params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) {
    let AddParams { zero_points_in: [za, zb], multipliers: [ma, mb], shift, clamp } = *params;
    // The zero points' share of the sum and all of the rounding that does not depend on the value.
    let start = za.wrapping_mul(ma).wrapping_add(zb.wrapping_mul(mb)).wrapping_neg();
    let half = (1i32 << (shift - 1)) - 1;
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let sum = i32::from(*a).wrapping_mul(ma).wrapping_add(i32::from(*b).wrapping_mul(mb)).wrapping_add(start);
        let rounded = sum.wrapping_add(half).wrapping_add((sum >> shift) & 1) >> shift;
        *out = (rounded.wrapping_add(clamp.zero_point)).min(clamp.high).max(clamp.low) as i8;
    }
}

#[inline(always)]
pub(crate) fn add_one<A: Activation, B: Activation, O: Activation>(params: &AddParams, a: A, b: B) -> O {
    let centred =
        [a.to_i32().wrapping_sub(params.zero_points_in[0]), b.to_i32().wrapping_sub(params.zero_points_in[1])];
    let term = |i: usize| i64::from(centred[i]) * i64::from(params.multipliers[i]);
    O::from_i32(params.clamp.apply(round_half_even_shift(term(0).wrapping_add(term(1)), params.shift)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const HALF: AddParams = AddParams {
        zero_points_in: [1, -1],
        multipliers: [1, -1],
        shift: 1,
        clamp: Clamp { zero_point: 10, low: -128, high: 127 },
    };

    fn dims(h: usize, w: usize, c: usize) -> Dims {
        Dims { h, w, c }
    }

    #[test]
    fn halves_go_to_even_and_signs_subtract() {
        let mut out = [0i8; 4];
        let (a, b) = ([1i8, 2, 4, 127], [-1i8, -1, -1, -128]);
        let shapes = [dims(1, 2, 2); 2];
        add(Isa::Scalar, shapes, &HALF, View::I8(&a), View::I8(&b), ViewMut::I8(&mut out)).unwrap();
        // 0/2, 1/2 -> 0, 3/2 -> 2, (126 + 127)/2 = 126.5 -> 126, clamped.
        assert_eq!(out, [10, 10, 12, 127]);
    }

    #[test]
    fn channel_and_scalar_broadcast_meet_every_pixel() {
        let params = AddParams { zero_points_in: [0, 0], multipliers: [2, 2], ..HALF };
        let a = [0i8, 1, 2, 3, 4, 5];
        let mut out = [0i16; 6];
        let run = |b: &[i16], shape, out: &mut [i16]| {
            let shapes = [dims(1, 3, 2), shape];
            add(Isa::Scalar, shapes, &params, View::I8(&a), View::I16(b), ViewMut::I16(out))
        };
        run(&[100, -100], dims(1, 1, 2), &mut out).unwrap();
        assert_eq!(out, [110, -89, 112, -87, 114, -85]);
        run(&[7], dims(1, 1, 1), &mut out).unwrap();
        assert_eq!(out, [17, 18, 19, 20, 21, 22]);
        assert_eq!(run(&[7], dims(1, 3, 1), &mut out), Err(KernelError::Shapes { op: "Add" }));
        assert!(matches!(run(&[7], dims(1, 1, 2), &mut out), Err(KernelError::Length { .. })));
    }

    #[test]
    fn floats_are_refused() {
        let result =
            add(Isa::Scalar, [dims(1, 1, 1); 2], &HALF, View::F32(&[1.0]), View::I8(&[1]), ViewMut::I8(&mut [0]));
        assert_eq!(result, Err(KernelError::Types { op: "Add" }));
    }

    proptest! {
        #[test]
        fn twins_give_the_plain_bits(
            pairs in prop::collection::vec((any::<i8>(), any::<i8>()), 1..100),
            multipliers in prop_oneof![
                [-(1i32 << 21)..=1 << 21, -(1i32 << 21)..=1 << 21], [-32_767i32..=32_767, -32_767..=32_767], [-64i32..64, -64..64]
            ],
            zero_points_in in any::<[i8; 2]>(), shift in 1u32..=24, zero_point in any::<i8>(), range in any::<[i8; 2]>(),
        ) {
            let clamp = Clamp { zero_point: zero_point.into(), low: range[0].into(), high: range[1].into() };
            let params = AddParams { zero_points_in: zero_points_in.map(i32::from), multipliers, shift, clamp };
            let (a, b): (Vec<i8>, Vec<i8>) = pairs.iter().copied().unzip();
            let run = |isa| {
                let mut out = vec![0; a.len()];
                add(isa, [dims(1, 1, a.len()); 2], &params, View::I8(&a), View::I8(&b), ViewMut::I8(&mut out)).unwrap();
                out
            };
            for isa in Isa::available() {
                prop_assert_eq!(run(isa), run(Isa::Scalar));
            }
        }

        #[test]
        fn equals_the_book(
            pairs in prop::collection::vec((any::<i16>(), any::<i16>()), 1..40),
            multipliers in [-(1i32 << 21)..=1 << 21, -(1i32 << 21)..=1 << 21],
            zero_points_in in any::<[i16; 2]>(), shift in 1u32..=24, zero_point in any::<i16>(),
        ) {
            let clamp = Clamp { zero_point: zero_point.into(), low: -30_000, high: 30_000 };
            let params = AddParams { zero_points_in: zero_points_in.map(i32::from), multipliers, shift, clamp };
            let (a, b): (Vec<i16>, Vec<i16>) = pairs.iter().copied().unzip();
            let mut out = vec![0i16; a.len()];
            let shapes = [dims(1, 1, a.len()); 2];
            add(Isa::Scalar, shapes, &params, View::I16(&a), View::I16(&b), ViewMut::I16(&mut out)).unwrap();
            for ((a, b), out) in a.iter().zip(&b).zip(out) {
                let sum = (i128::from(*a) - i128::from(zero_points_in[0])) * i128::from(multipliers[0])
                    + (i128::from(*b) - i128::from(zero_points_in[1])) * i128::from(multipliers[1]);
                // Twice the value over twice the divisor, by comparison with the halves.
                let divisor = 1i128 << shift;
                let floor = sum.div_euclid(divisor);
                let twice = 2 * sum.rem_euclid(divisor);
                let up = twice > divisor || (twice == divisor && floor % 2 != 0);
                let expected = (floor + i128::from(up) + i128::from(zero_point)).clamp(-30_000, 30_000);
                prop_assert_eq!(i128::from(out), expected);
            }
        }
    }
}
