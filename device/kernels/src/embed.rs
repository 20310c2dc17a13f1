//! From the backbone's output to the embedding that is stored.

use core::fmt;

/// Why an output has no embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoSignal {
    /// Every element is zero: it has no direction.
    Zero,
    /// The sum of squares leaves i64.
    TooLarge,
}

impl fmt::Display for NoSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoSignal::Zero => "backbone output is zero in every element; it has no direction",
            NoSignal::TooLarge => "backbone output is too large to be normalised",
        })
    }
}

impl core::error::Error for NoSignal {}

/// Normalises a backbone output into its int8 embedding.
///
/// `e = clamp(round_ties_even(inv_scale * x / |x|), -127, 127)`, evaluated left to right in f64: sum of squares in i64,
/// its square root, per element one multiplication and one division, all correctly rounded, so that every CPU agrees.
///
/// Shapes: `x` integer output minus its zero point, `[D]`; `out` `[D]`. Elements past the shorter of both are ignored.
///
/// # Errors
/// [`NoSignal`] if `x` is zero or its squares leave i64; `out` is untouched.
pub fn normalise(x: &[i32], inv_scale: f64, out: &mut [i8]) -> Result<(), NoSignal> {
    let square = |v: &i32| i64::from(*v) * i64::from(*v);
    let squares = x.iter().try_fold(0i64, |sum, v| sum.checked_add(square(v))).ok_or(NoSignal::TooLarge)?;
    if squares == 0 {
        return Err(NoSignal::Zero);
    }
    let norm = libm::sqrt(squares as f64);
    for (out, x) in out.iter_mut().zip(x) {
        let value = inv_scale * f64::from(*x) / norm;
        *out = libm::rint(value).clamp(-127.0, 127.0) as i8;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn embedding(x: &[i32], inv_scale: f64) -> Result<Vec<i8>, NoSignal> {
        let mut out = vec![0; x.len()];
        normalise(x, inv_scale, &mut out).map(|()| out)
    }

    #[test]
    fn a_known_vector_has_its_embedding() {
        assert_eq!(embedding(&[3, -4], 100.0), Ok(vec![60, -80]));
        // 0.6 * 12.5 = 7.5 and 0.8 * 12.5 = 10: the tie goes to the even 8.
        assert_eq!(embedding(&[-3, 4], 12.5), Ok(vec![-8, 10]));
        assert_eq!(embedding(&[1, 0], 500.0), Ok(vec![127, 0]), "clamped");
        assert_eq!(embedding(&[-1, 0], 500.0), Ok(vec![-127, 0]), "never -128");
    }

    #[test]
    fn no_direction_is_refused() {
        assert_eq!(embedding(&[0, 0, 0], 100.0), Err(NoSignal::Zero));
        assert_eq!(embedding(&[], 100.0), Err(NoSignal::Zero));
        assert_eq!(embedding(&[i32::MIN; 4], 100.0), Err(NoSignal::TooLarge));
        assert_eq!(embedding(&[i32::MIN; 1], 100.0), Ok(vec![-100]));
    }

    proptest! {
        #[test]
        fn halving_the_scale_of_x_changes_nothing_but_rounding(x in prop::collection::vec(-40_000i32..40_000, 1..64)) {
            // Doubling is exact in every step: the norm doubles, the quotient stays.
            let doubled: Vec<i32> = x.iter().map(|v| v * 2).collect();
            prop_assert_eq!(embedding(&x, 444.5), embedding(&doubled, 444.5));
        }

        #[test]
        fn sign_is_symmetric(x in prop::collection::vec(-40_000i32..40_000, 1..64)) {
            let negative: Vec<i32> = x.iter().map(|v| -v).collect();
            let expected = embedding(&x, 300.0).map(|e| e.iter().map(|v| -v).collect::<Vec<i8>>());
            prop_assert_eq!(embedding(&negative, 300.0), expected);
        }
    }
}
