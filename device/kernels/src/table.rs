//! Any function of one int8 value, as its 256 results.

use crate::{Isa, KernelError, expect_len};

/// `q = table[x + 128]`.
///
/// # Errors
/// [`KernelError::Length`] if input and output differ in length.
pub fn table(isa: Isa, table: &[i8; 256], input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    expect_len("output", output.len(), input.len())?;
    match isa {
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot => crate::aarch64::elementwise::table(table, input, output),
        _ => plain(table, input, output),
    }
    Ok(())
}

pub(crate) fn plain(table: &[i8; 256], input: &[i8], output: &mut [i8]) {
    // Flipping the sign bit adds 128 and stays within a byte, so no bound is left to check.
    output.iter_mut().zip(input).for_each(|(out, x)| *out = table[usize::from(*x as u8 ^ 0x80)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_finds_its_entry() {
        let square = core::array::from_fn(|i| ((i * i) % 251) as u8 as i8);
        let input: [i8; 256] = core::array::from_fn(|i| i as u8 as i8);
        let mut output = [0; 256];
        // Where an instruction set has no twin, the plain code runs.
        for isa in [Isa::Scalar, Isa::Neon] {
            table(isa, &square, &input, &mut output).unwrap();
            for (x, out) in input.iter().zip(output) {
                assert_eq!(out, square[(i32::from(*x) + 128) as usize]);
            }
            table(isa, &square, &input[3..30], &mut output[..27]).unwrap();
            assert_eq!(output[26], square[usize::from(input[29] as u8 ^ 0x80)]);
        }
        assert!(table(Isa::Scalar, &square, &input, &mut output[1..]).is_err());
    }
}
