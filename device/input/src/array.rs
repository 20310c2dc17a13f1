//! Float arrays in the original model's layout to the int8 tensor.

use graft_bundle::input::ArraySpec;

use crate::error::InputError;

/// An array as read from a file, C order (last axis fastest).
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length of each axis; `values` holds their product.
    pub shape: Vec<u32>,
    /// Rounded to the nearest f32 where the file has a wider type.
    pub values: Vec<f32>,
}

/// Quantizes an array: `clamp(round_half_even(x * inv_scale) + zero_point, -128, 127)` in f64, then channels last.
///
/// Shape of `array`: `spec.shape`, or more or fewer leading axes of 1 (a batch of one, or none). Returns int8
/// `[H, W, C]` where the model has `[C, H, W]`, else the model's own order.
///
/// # Errors
/// [`InputError::ArrayShape`] for any other shape, [`InputError::NotFinite`] at the first NaN or infinite value,
/// [`InputError::Spec`] if the description is not usable.
pub fn array_to_tensor(array: &Array, spec: &ArraySpec) -> Result<Vec<i8>, InputError> {
    if !(spec.inv_scale.is_finite() && spec.inv_scale > 0.0) {
        let problem = format!("inv_scale is {}, must be finite and above 0", spec.inv_scale);
        return Err(InputError::Spec { problem });
    }
    let n_allowed = spec.shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize));
    if without_leading_ones(&array.shape) != without_leading_ones(&spec.shape) || n_allowed != Some(array.values.len())
    {
        return Err(InputError::ArrayShape { seen: array.shape.clone(), allowed: spec.shape.clone() });
    }
    if let Some(offset) = array.values.iter().position(|value| !value.is_finite()) {
        let value = array.values.get(offset).copied().unwrap_or(f32::NAN);
        return Err(InputError::NotFinite { index: index_of(offset, &array.shape), value });
    }
    let quantize = |&value: &f32| {
        let steps = (f64::from(value) * spec.inv_scale).round_ties_even() + f64::from(spec.zero_point);
        steps.clamp(-128.0, 127.0) as i8
    };
    let n_channels = spec.shape.first().map_or(1, |&n| n as usize);
    let plane_len = array.values.len() / n_channels.max(1);
    if !spec.channels_first || plane_len == 0 {
        return Ok(array.values.iter().map(quantize).collect());
    }
    // [C, H * W] -> [H * W, C]
    let mut tensor = vec![0i8; array.values.len()];
    for (channel, plane) in array.values.chunks_exact(plane_len).enumerate() {
        let to = tensor.iter_mut().skip(channel).step_by(n_channels);
        for (q, value) in to.zip(plane) {
            *q = quantize(value);
        }
    }
    Ok(tensor)
}

fn without_leading_ones(shape: &[u32]) -> &[u32] {
    let n_ones = shape.iter().take_while(|&&axis| axis == 1).count();
    shape.get(n_ones..).unwrap_or_default()
}

/// Position in C order -> index along each axis.
fn index_of(offset: usize, shape: &[u32]) -> Vec<u32> {
    let mut rest = offset;
    let mut index: Vec<u32> = shape
        .iter()
        .rev()
        .map(|&axis| {
            let len = (axis as usize).max(1);
            let position = rest % len;
            rest /= len;
            position as u32
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ArraySpec {
        ArraySpec { shape: vec![3, 2, 2], channels_first: true, inv_scale: 10.0, zero_point: -3 }
    }

    fn array(shape: &[u32]) -> Array {
        let n: u32 = shape.iter().product();
        Array { shape: shape.to_vec(), values: (0..n).map(|i| i as f32 / 10.0).collect() }
    }

    #[test]
    fn channels_come_last_with_or_without_a_batch_axis() {
        let expected = [-3, 1, 5, -2, 2, 6, -1, 3, 7, 0, 4, 8];
        assert_eq!(array_to_tensor(&array(&[3, 2, 2]), &spec()).unwrap(), expected);
        assert_eq!(array_to_tensor(&array(&[1, 3, 2, 2]), &spec()).unwrap(), expected);
        assert_eq!(array_to_tensor(&array(&[1, 1, 3, 2, 2]), &spec()).unwrap(), expected);
        let last = ArraySpec { channels_first: false, ..spec() };
        let in_order: Vec<i8> = (-3..9).collect();
        assert_eq!(array_to_tensor(&array(&[3, 2, 2]), &last).unwrap(), in_order);
    }

    #[test]
    fn one_channel_may_lack_its_axis() {
        let grey = ArraySpec { shape: vec![1, 2, 2], channels_first: true, inv_scale: 10.0, zero_point: 0 };
        assert_eq!(array_to_tensor(&array(&[2, 2]), &grey).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn halves_go_to_even_and_the_rest_saturates() {
        let spec = ArraySpec { shape: vec![8], channels_first: false, inv_scale: 1.0, zero_point: 1 };
        let values = vec![0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, -129.0];
        let tensor = array_to_tensor(&Array { shape: vec![8], values }, &spec).unwrap();
        assert_eq!(tensor, [1, 3, 3, 1, -1, 127, -128, -128]);
    }

    #[test]
    fn other_shapes_are_refused_naming_both() {
        for shape in [&[2, 2, 3][..], &[2, 3, 2, 2], &[12], &[3, 2, 2, 1], &[]] {
            let error = array_to_tensor(&array(shape), &spec()).unwrap_err();
            let expected = format!("array has shape {shape:?}, allowed is [3, 2, 2] with or without leading axes of 1");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn values_that_are_not_finite_are_refused_with_their_index() {
        for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let mut bad = array(&[1, 3, 2, 2]);
            bad.values[9] = value;
            let error = array_to_tensor(&bad, &spec()).unwrap_err();
            let expected = format!("array holds {name} at index [0, 2, 0, 1], only finite values are allowed");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_scale_of_no_use_is_refused() {
        let bad = ArraySpec { inv_scale: f64::NAN, ..spec() };
        assert_eq!(
            array_to_tensor(&array(&[3, 2, 2]), &bad).unwrap_err().to_string(),
            "the bundle's input description is not usable: inv_scale is NaN, must be finite and above 0"
        );
    }
}
