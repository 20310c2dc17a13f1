//! Ops that move elements and change none: concat, upsample, transpose, reshape. Any element type; input and output of
//! one.

use crate::view::{Dims, View, ViewMut};
use crate::{Isa, KernelError, expect_len};

/// Resolves the element type and calls a generic function on both slices.
macro_rules! same_type {
    ($op:literal, $isa:expr, $input:expr, $output:expr, |$x:ident, $y:ident| $body:expr) => {
        match ($isa, $input, $output) {
            (_, View::I8($x), ViewMut::I8($y)) => $body,
            (_, View::I16($x), ViewMut::I16($y)) => $body,
            (_, View::I32($x), ViewMut::I32($y)) => $body,
            (_, View::F32($x), ViewMut::F32($y)) => $body,
            _ => return Err(KernelError::Types { op: $op }),
        }
    };
}

/// Copies one input of a concatenation to its place.
///
/// `axis` 0 height, 1 width, 2 channels; `at` where the part begins along it. Other axes agree with the output's.
///
/// # Errors
/// [`KernelError`] if the part leaves the output, or lengths or types do not fit.
pub fn concat_part(
    isa: Isa,
    axis: usize,
    at: usize,
    part: Dims,
    input: View<'_>,
    whole: Dims,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("input", input.len(), part.len())?;
    expect_len("output", output.len(), whole.len())?;
    let (part_sizes, whole_sizes) = ([part.h, part.w, part.c], [whole.h, whole.w, whole.c]);
    let fits = |i: usize| {
        if i == axis {
            at.checked_add(part_sizes[i]).is_some_and(|end| end <= whole_sizes[i])
        } else {
            part_sizes[i] == whole_sizes[i]
        }
    };
    if axis > 2 || !(0..3).all(fits) {
        return Err(KernelError::Shapes { op: "Concat" });
    }
    // Everything from the axis inwards is contiguous in both.
    let inner = |sizes: [usize; 3]| sizes[axis..].iter().product::<usize>();
    let unit = whole_sizes[axis + 1..].iter().product::<usize>();
    let (part_run, whole_run) = (inner(part_sizes), inner(whole_sizes));
    if part_run == 0 {
        return Ok(());
    }
    same_type!("Concat", isa, input, output, |x, y| {
        for (from, to) in x.chunks_exact(part_run).zip(y.chunks_exact_mut(whole_run)) {
            to[at * unit..][..part_run].copy_from_slice(from);
        }
    });
    Ok(())
}

/// Nearest-neighbour enlargement by whole factors: `[H, W, C] -> [H * factor[0], W * factor[1], C]`.
///
/// # Errors
/// [`KernelError`] if a factor is zero, or lengths or types do not fit.
pub fn upsample(
    isa: Isa,
    dims: Dims,
    factor: [usize; 2],
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("input", input.len(), dims.len())?;
    let large = Dims { h: dims.h.saturating_mul(factor[0]), w: dims.w.saturating_mul(factor[1]), c: dims.c };
    expect_len("output", output.len(), large.len())?;
    if dims.is_empty() || large.is_empty() {
        return Err(KernelError::Shapes { op: "Upsample" });
    }
    same_type!("Upsample", isa, input, output, |x, y| {
        for (row, out) in y.chunks_exact_mut(large.w * large.c).enumerate() {
            let row = &x[row / factor[0] * dims.w * dims.c..][..dims.w * dims.c];
            for (pixel, out) in row.chunks_exact(dims.c).zip(out.chunks_exact_mut(factor[1] * dims.c)) {
                out.chunks_exact_mut(dims.c).for_each(|out| out.copy_from_slice(pixel));
            }
        }
    });
    Ok(())
}

/// Axes of `[H, W, C]` reordered: output axis i is input axis `axes[i]`.
///
/// # Errors
/// [`KernelError`] if `axes` is no permutation of 0, 1, 2, or lengths or types do not fit.
pub fn transpose(
    isa: Isa,
    dims: Dims,
    axes: [usize; 3],
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("input", input.len(), dims.len())?;
    expect_len("output", output.len(), dims.len())?;
    if !(0..3).all(|axis| axes.contains(&axis)) || dims.is_empty() {
        return Err(KernelError::Shapes { op: "Transpose" });
    }
    let (sizes, strides) = ([dims.h, dims.w, dims.c], [dims.w * dims.c, dims.c, 1]);
    let [_, w, c] = axes.map(|axis| sizes[axis]);
    let [stride_h, stride_w, stride_c] = axes.map(|axis| strides[axis]);
    same_type!("Transpose", isa, input, output, |x, y| {
        for (pixel, out) in y.chunks_exact_mut(c).enumerate() {
            let start = pixel / w * stride_h + pixel % w * stride_w;
            out.iter_mut().enumerate().for_each(|(i, out)| *out = x[start + i * stride_c]);
        }
    });
    Ok(())
}

/// The same elements under another shape of equal length.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn reshape(isa: Isa, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    expect_len("output", output.len(), input.len())?;
    same_type!("Reshape", isa, input, output, |x, y| y.copy_from_slice(x));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const SMALL: Dims = Dims { h: 2, w: 3, c: 4 };

    /// Every element names its place.
    fn numbered(dims: Dims) -> Vec<i16> {
        (0..dims.len() as i16).collect()
    }

    fn index(dims: Dims, [h, w, c]: [usize; 3]) -> usize {
        (h * dims.w + w) * dims.c + c
    }

    fn coordinates(dims: Dims) -> impl Iterator<Item = [usize; 3]> {
        (0..dims.len()).map(move |i| [i / dims.c / dims.w, i / dims.c % dims.w, i % dims.c])
    }

    #[test]
    fn concat_puts_parts_side_by_side_along_each_axis() {
        for axis in 0..3 {
            let mut sizes = [SMALL.h, SMALL.w, SMALL.c];
            sizes[axis] += 2;
            let whole = Dims { h: sizes[0], w: sizes[1], c: sizes[2] };
            let mut other_sizes = [SMALL.h, SMALL.w, SMALL.c];
            other_sizes[axis] = 2;
            let other = Dims { h: other_sizes[0], w: other_sizes[1], c: other_sizes[2] };
            let (a, b) = (numbered(SMALL), vec![-1i16; other.len()]);
            let mut out = vec![99i16; whole.len()];
            concat_part(Isa::Scalar, axis, 2, SMALL, View::I16(&a), whole, ViewMut::I16(&mut out)).unwrap();
            concat_part(Isa::Scalar, axis, 0, other, View::I16(&b), whole, ViewMut::I16(&mut out)).unwrap();
            for mut at in coordinates(whole) {
                let found = out[index(whole, at)];
                if at[axis] < 2 {
                    assert_eq!(found, -1, "{axis} {at:?}");
                } else {
                    at[axis] -= 2;
                    assert_eq!(found, a[index(SMALL, at)], "{axis} {at:?}");
                }
            }
            let outside = concat_part(Isa::Scalar, axis, 3, SMALL, View::I16(&a), whole, ViewMut::I16(&mut out));
            assert_eq!(outside, Err(KernelError::Shapes { op: "Concat" }));
        }
    }

    #[test]
    fn upsample_repeats_pixels() {
        let x = numbered(SMALL);
        let large = Dims { h: 4, w: 9, c: 4 };
        let mut out = vec![0i16; large.len()];
        upsample(Isa::Scalar, SMALL, [2, 3], View::I16(&x), ViewMut::I16(&mut out)).unwrap();
        for at in coordinates(large) {
            assert_eq!(out[index(large, at)], x[index(SMALL, [at[0] / 2, at[1] / 3, at[2]])]);
        }
        assert!(upsample(Isa::Scalar, SMALL, [0, 3], View::I16(&x), ViewMut::I16(&mut [])).is_err());
    }

    #[test]
    fn transpose_follows_every_permutation() {
        let x = numbered(SMALL);
        for axes in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let sizes = axes.map(|axis| [SMALL.h, SMALL.w, SMALL.c][axis]);
            let turned = Dims { h: sizes[0], w: sizes[1], c: sizes[2] };
            let mut out = vec![0i16; x.len()];
            transpose(Isa::Scalar, SMALL, axes, View::I16(&x), ViewMut::I16(&mut out)).unwrap();
            for at in coordinates(turned) {
                let mut from = [0; 3];
                axes.iter().zip(at).for_each(|(axis, at)| from[*axis] = at);
                assert_eq!(out[index(turned, at)], x[index(SMALL, from)], "{axes:?} {at:?}");
            }
        }
        let twice = transpose(Isa::Scalar, SMALL, [0, 0, 1], View::I16(&x), ViewMut::I16(&mut [0; 24]));
        assert_eq!(twice, Err(KernelError::Shapes { op: "Transpose" }));
    }

    #[test]
    fn reshape_copies_and_types_must_agree() {
        let mut out = [0.0f32; 2];
        reshape(Isa::Scalar, View::F32(&[1.5, -0.0]), ViewMut::F32(&mut out)).unwrap();
        assert_eq!(out.map(f32::to_bits), [1.5f32, -0.0].map(f32::to_bits));
        let mixed = reshape(Isa::Scalar, View::I8(&[1, 2]), ViewMut::F32(&mut out));
        assert_eq!(mixed, Err(KernelError::Types { op: "Reshape" }));
    }
}
