//! Any function of one integer, as its results: 256 of an int8, so many as the table has of an int16.

use crate::view::{Activation, View, ViewMut};
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

/// `q = table[clamp(x, -n / 2, n / 2 - 1) + n / 2]` with the n entries of a table of I8 or I16; an empty table gives
/// zeros. The same as [`table`] for 256 entries of I8.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn wide_table(_isa: Isa, table: View<'_>, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    expect_len("output", output.len(), input.len())?;
    match (table, input, output) {
        (View::I8(table), View::I8(x), ViewMut::I8(y)) => look_up(table, x, y),
        (View::I16(table), View::I8(x), ViewMut::I16(y)) => look_up(table, x, y),
        (View::I8(table), View::I16(x), ViewMut::I8(y)) => look_up(table, x, y),
        (View::I16(table), View::I16(x), ViewMut::I16(y)) => look_up(table, x, y),
        _ => return Err(KernelError::Types { op: "Table" }),
    }
    Ok(())
}

fn look_up<I: Activation, O: Activation + Default>(table: &[O], input: &[I], output: &mut [O]) {
    // Whole numbers: n / 2 of an odd n is rounded down, so that the last entry is never read.
    let half = (table.len() / 2) as i32;
    let entry = |x: I| (x.to_i32().clamp(-half, (half - 1).max(-half)) + half) as usize;
    output.iter_mut().zip(input).for_each(|(out, x)| *out = table.get(entry(*x)).copied().unwrap_or_default());
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

    #[test]
    fn wide_tables_end_where_their_entries_do() {
        let entries: std::vec::Vec<i16> = (0..6).map(|i| 100 * i).collect();
        let mut output = [7i16; 6];
        let input = [i16::MIN, -3, -1, 0, 2, i16::MAX];
        wide_table(Isa::Scalar, View::I16(&entries), View::I16(&input), ViewMut::I16(&mut output)).unwrap();
        assert_eq!(output, [0, 0, 200, 300, 500, 500]);
        wide_table(Isa::Scalar, View::I16(&entries), View::I8(&[-128, -2, 0, 1, 3, 127]), ViewMut::I16(&mut output))
            .unwrap();
        assert_eq!(output, [0, 100, 300, 400, 500, 500]);
        wide_table(Isa::Scalar, View::I16(&[]), View::I8(&[0; 6]), ViewMut::I16(&mut output)).unwrap();
        assert_eq!(output, [0; 6]);
        let types = wide_table(Isa::Scalar, View::I16(&entries), View::I8(&[0]), ViewMut::I8(&mut [0]));
        assert_eq!(types, Err(KernelError::Types { op: "Table" }));
    }
}
