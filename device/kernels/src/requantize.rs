//! From accumulators to activations: multiply, round half to even, shift, clamp; integers only.

use crate::view::Activation;

/// Fraction bits of every multiplier: a multiplier M stands for the real factor `M / 2^22`.
pub const MULTIPLIER_BITS: u32 = 22;

/// Where an op's result lands: `clamp(zero_point + rounded, low, high)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// Of the output tensor.
    pub zero_point: i32,
    /// Smallest output; carries a fused activation.
    pub low: i32,
    /// Largest output.
    pub high: i32,
}

/// Requantization with a multiplier per output channel.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// `[C]`, each in 1..2^23.
    pub multipliers: &'a [i32],
    /// Where it lands.
    pub clamp: Clamp,
}

/// `x / 2^bits`, rounded to the nearest integer, ties to the even one.
///
/// `bits` in 1..=62, and `x + 2^(bits-1)` must not leave i64.
#[inline(always)]
pub fn round_half_even_shift(x: i64, bits: u32) -> i64 {
    // The floor's lowest bit decides ties: adding half minus one carries only above a tie, one more carries at it.
    let odd = (x >> bits) & 1;
    x.wrapping_add((1 << (bits - 1)) - 1).wrapping_add(odd) >> bits
}

/// `x / divisor`, rounded to the nearest integer, ties to the even one.
///
/// `divisor` in 1..2^62; any other gives 0.
#[inline(always)]
pub fn round_half_even_div(x: i64, divisor: i64) -> i64 {
    let (Some(floor), Some(rest)) = (x.checked_div_euclid(divisor), x.checked_rem_euclid(divisor)) else { return 0 };
    let twice = rest.wrapping_mul(2);
    let up = twice > divisor || (twice == divisor && floor & 1 == 1);
    floor.wrapping_add(up.into())
}

/// `clamp(zero_point + round_half_even(acc * multiplier / 2^22), low, high)`, the product in i64.
#[inline(always)]
pub fn requantize(acc: i32, multiplier: i32, clamp: Clamp) -> i32 {
    let rounded = round_half_even_shift(i64::from(acc) * i64::from(multiplier), MULTIPLIER_BITS);
    clamp.apply(rounded)
}

impl Clamp {
    /// `clamp(zero_point + rounded, low, high)`; `low` wins where they cross.
    #[inline(always)]
    pub fn apply(self, rounded: i64) -> i32 {
        let value = rounded.saturating_add(self.zero_point.into());
        value.min(self.high.into()).max(self.low.into()) as i32
    }
}

/// 3 * 2^51: an integer below 2^50 in magnitude, added to it, ends up in the lowest bits, rounded half to even.
const MAGIC: f64 = 6_755_399_441_055_744.0;

/// A [`Clamp`] of real numbers, which vector units of f64 round in fewer steps than i64.
///
/// Exact integers over a power of two give what i64 gives: below 2^53 they are exact as f64, and what an integer beyond
/// was rounded to is clamped, whatever it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealClamp {
    low: f64,
    high: f64,
    zero_point: i32,
}

impl RealClamp {
    #[inline(always)]
    pub(crate) fn new(clamp: Clamp) -> Self {
        let [low, high] = [clamp.low, clamp.high].map(|end| f64::from(end) - f64::from(clamp.zero_point));
        Self { low, high, zero_point: clamp.zero_point }
    }

    /// `clamp(zero_point + round_half_even(real), low, high)`.
    #[inline(always)]
    pub(crate) fn apply(self, real: f64) -> i32 {
        let real = if real > self.high { self.high } else { real };
        let real = if real < self.low { self.low } else { real };
        ((real + MAGIC).to_bits() as i32).wrapping_add(self.zero_point)
    }
}

/// True if sums are rounded in f64; armv7 has no vectors of it.
pub(crate) const IN_F64: bool = !cfg!(target_arch = "arm");

/// The real factor that a multiplier stands for, exact.
#[inline(always)]
pub(crate) fn real_factor(multiplier: i32) -> f64 {
    f64::from(multiplier) * (1.0 / (1u64 << MULTIPLIER_BITS) as f64)
}

/// One pixel's accumulators to its outputs, `[C]` each, as [`requantize`].
#[inline(always)]
pub(crate) fn requantize_row<O: Activation>(acc: &[i32], multipliers: &[i32], clamp: Clamp, output: &mut [O]) {
    if !IN_F64 {
        for ((out, acc), multiplier) in output.iter_mut().zip(acc).zip(multipliers) {
            *out = O::from_i32(requantize(*acc, *multiplier, clamp));
        }
        return;
    }
    let real = RealClamp::new(clamp);
    for ((out, acc), multiplier) in output.iter_mut().zip(acc).zip(multipliers) {
        *out = O::from_i32(real.apply(f64::from(*acc) * real_factor(*multiplier)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Clamp = Clamp { zero_point: 0, low: i32::MIN, high: i32::MAX };

    proptest! {
        #[test]
        fn rows_equal_single_values(
            acc in prop::collection::vec(prop_oneof![any::<i32>(), -70_000i32..70_000], 1..70),
            multiplier in prop_oneof![1i32..1 << 23, Just(1 << 21), Just((1 << 23) - 1)],
            zero_point in any::<i16>(), ends in any::<[i16; 2]>(),
        ) {
            let [low, high] = [ends[0].min(ends[1]), ends[0].max(ends[1])].map(i32::from);
            let clamp = Clamp { zero_point: zero_point.into(), low, high };
            let multipliers = std::vec![multiplier; acc.len()];
            let mut row = std::vec![0i16; acc.len()];
            requantize_row(&acc, &multipliers, clamp, &mut row);
            for (acc, out) in acc.iter().zip(row) {
                prop_assert_eq!(i32::from(out), requantize(*acc, multiplier, clamp));
            }
        }
    }

    /// By the book, in 128 bits: compare twice the remainder with the divisor.
    fn naive_round(x: i64, divisor: i64) -> i64 {
        let (x, divisor) = (i128::from(x), i128::from(divisor));
        let mut floor = x / divisor;
        if x % divisor < 0 {
            floor -= 1;
        }
        let rest = x - floor * divisor;
        let rounded = match (2 * rest).cmp(&divisor) {
            core::cmp::Ordering::Less => floor,
            core::cmp::Ordering::Greater => floor + 1,
            core::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
        };
        rounded as i64
    }

    #[test]
    fn ties_go_to_the_even_neighbour_on_both_sides_of_zero() {
        let halves: std::vec::Vec<i64> = (-5..=5).map(|x| round_half_even_shift(x, 1)).collect();
        assert_eq!(halves, [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]);
        let halves: std::vec::Vec<i64> = (-5..=5).map(|x| round_half_even_div(x, 2)).collect();
        assert_eq!(halves, [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]);
    }

    #[test]
    fn extremes_do_not_wrap() {
        assert_eq!(requantize(i32::MAX, (1 << 23) - 1, WIDE), i32::MAX);
        assert_eq!(requantize(i32::MIN, (1 << 23) - 1, WIDE), i32::MIN);
        assert_eq!(requantize(i32::MAX, 1 << 22, WIDE), i32::MAX);
        assert_eq!(requantize(100, 1 << 22, Clamp { zero_point: 50, low: -128, high: 127 }), 127);
        assert_eq!(requantize(-100, 1 << 22, Clamp { zero_point: 50, low: -20, high: 127 }), -20);
    }

    #[test]
    fn a_crossed_range_or_divisor_gives_a_number() {
        assert_eq!(Clamp { zero_point: 0, low: 5, high: -5 }.apply(0), 5);
        assert_eq!(round_half_even_div(7, 0), 0);
        assert_eq!(round_half_even_div(i64::MIN, -1), 0);
    }

    proptest! {
        #[test]
        fn shift_equals_the_book(x in -(1i64 << 60)..(1 << 60), bits in 1u32..40) {
            prop_assert_eq!(round_half_even_shift(x, bits), naive_round(x, 1 << bits));
            let tie = (x >> bits << bits) + (1 << (bits - 1));
            prop_assert_eq!(round_half_even_shift(tie, bits), naive_round(tie, 1 << bits));
        }

        #[test]
        fn division_equals_the_book(x in any::<i64>(), divisor in 1i64..(1 << 61)) {
            prop_assert_eq!(round_half_even_div(x, divisor), naive_round(x, divisor));
        }

        #[test]
        fn requantize_equals_the_book(acc in any::<i32>(), multiplier in 1..(1 << 23)) {
            let rounded = naive_round(i64::from(acc) * i64::from(multiplier), 1 << 22);
            let expected = rounded.clamp(i32::MIN.into(), i32::MAX.into());
            prop_assert_eq!(i64::from(requantize(acc, multiplier, WIDE)), expected);
        }
    }
}
