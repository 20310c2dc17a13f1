//! Average, maximum and global sum.

use crate::requantize::{Clamp, MULTIPLIER_BITS, round_half_even_div};
use crate::view::{Activation, Dims, View, ViewMut, Window};
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{Isa, KernelError, expect_len};

/// Channels of one block of accumulators.
const CHANNELS: usize = 32;
/// Channels of one block of maxima.
const MAX_CHANNELS: usize = 64;

/// Shapes of one pooling op; input and output have the same channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Of the input.
    pub input: Dims,
    /// Of the output.
    pub output: Dims,
    /// Window.
    pub window: Window,
}

/// Values of one average pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AverageParams {
    /// Divide by the kernel's size at the edges, too.
    pub count_pad: bool,
    /// Of the input.
    pub zero_point_in: i32,
    /// In 1..2^23.
    pub multiplier: i32,
    /// Where it lands.
    pub clamp: Clamp,
}

impl PoolShape {
    /// True if window and channels give exactly `output`, no size is zero, and every window meets the picture.
    pub fn is_consistent(&self) -> bool {
        self.input.c == self.output.c
            && !self.input.is_empty()
            && !self.output.is_empty()
            && self.window.output(self.input) == Some([self.output.h, self.output.w])
            && self.meets_picture(0, self.input.h, self.output.h)
            && self.meets_picture(1, self.input.w, self.output.w)
    }

    fn meets_picture(&self, axis: usize, size: usize, n_windows: usize) -> bool {
        (0..n_windows).all(|at| self.window.inside(axis, at, size).1 > 0)
    }

    fn check(&self, op: &'static str, input: usize, output: usize) -> Result<(), KernelError> {
        if !self.is_consistent() {
            return Err(KernelError::Shapes { op });
        }
        expect_len("input", input, self.input.len())?;
        expect_len("output", output, self.output.len())
    }

    /// Input pixels under the window at output pixel `(oy, ox)`.
    #[inline(always)]
    pub(crate) fn under(&self, oy: usize, ox: usize) -> Under {
        let (window, width) = (&self.window, self.input.w);
        let ((y, n_y), (x, n_x)) = (window.inside(0, oy, self.input.h), window.inside(1, ox, width));
        Under { first: y * width + x, n: [n_y, n_x], steps: [window.dilation[0] * width, window.dilation[1]] }
    }
}

/// Pixels `first + i * steps[0] + j * steps[1]`. Loops over it are written out: closures would not get the instructions of
/// the function around them.
#[derive(Clone, Copy)]
pub(crate) struct Under {
    pub first: usize,
    pub n: [usize; 2],
    pub steps: [usize; 2],
}

/// Mean over the window: `q = clamp(zp + round_half_even(sum(x - zp_in) * multiplier / (n * 2^22)))`, the sum in i32,
/// the rest in i64; n the elements inside the picture, or all of the kernel if `count_pad`.
///
/// Input and output each i8 or i16.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn average_pool(
    isa: Isa,
    shape: &PoolShape,
    params: &AverageParams,
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    shape.check("AveragePool", input.len(), output.len())?;
    match (isa, input, output) {
        (_, View::I8(x), ViewMut::I8(y)) => average(shape, params, x, y),
        (_, View::I8(x), ViewMut::I16(y)) => average(shape, params, x, y),
        (_, View::I16(x), ViewMut::I8(y)) => average(shape, params, x, y),
        (_, View::I16(x), ViewMut::I16(y)) => average(shape, params, x, y),
        _ => return Err(KernelError::Types { op: "AveragePool" }),
    }
    Ok(())
}

fn average<I: Activation, O: Activation>(shape: &PoolShape, params: &AverageParams, input: &[I], output: &mut [O]) {
    let c = shape.input.c;
    for (oy, row) in output.chunks_exact_mut(shape.output.w * c).enumerate() {
        for (ox, out) in row.chunks_exact_mut(c).enumerate() {
            let Under { first, n: [n_y, n_x], steps: [down, right] } = shape.under(oy, ox);
            let n = if params.count_pad { shape.window.n_taps() } else { n_y * n_x };
            let divisor = (n as i64) << MULTIPLIER_BITS;
            for (block, out) in out.chunks_mut(CHANNELS).enumerate() {
                let mut sums = [0i32; CHANNELS];
                for i in 0..n_y {
                    for j in 0..n_x {
                        let x = &input[(first + i * down + j * right) * c + block * CHANNELS..][..out.len()];
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = sum.wrapping_add(x.to_i32().wrapping_sub(params.zero_point_in));
                        }
                    }
                }
                for (out, sum) in out.iter_mut().zip(sums) {
                    let product = i64::from(sum) * i64::from(params.multiplier);
                    *out = O::from_i32(params.clamp.apply(round_half_even_div(product, divisor)));
                }
            }
        }
    }
}

/// Largest element of the window inside the picture; i8 to i8 or i16 to i16.
///
/// # Errors
/// [`KernelError`] if shapes, lengths or types do not fit.
pub fn max_pool(isa: Isa, shape: &PoolShape, input: View<'_>, output: ViewMut<'_>) -> Result<(), KernelError> {
    shape.check("MaxPool", input.len(), output.len())?;
    match (input, output) {
        (View::I8(x), ViewMut::I8(y)) => match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => x86::max_pool(shape, x, y),
            _ => maximum_i8(isa, shape, x, y),
        },
        (View::I16(x), ViewMut::I16(y)) => maximum(shape, x, y),
        _ => return Err(KernelError::Types { op: "MaxPool" }),
    }
    Ok(())
}

in_vectors_of_each_isa! {
    fn maximum_i8(shape: &PoolShape, input: &[i8], output: &mut [i8]) = maximum
}

/// Full blocks of channels have a known length, that of the array they grow in.
#[inline(always)]
fn maximum<T: Activation>(shape: &PoolShape, input: &[T], output: &mut [T]) {
    let c = shape.input.c;
    for (oy, row) in output.chunks_exact_mut(shape.output.w * c).enumerate() {
        for (ox, out) in row.chunks_exact_mut(c).enumerate() {
            let under = shape.under(oy, ox);
            let (blocks, rest) = out.as_chunks_mut::<MAX_CHANNELS>();
            let first_of_rest = blocks.len() * MAX_CHANNELS;
            for (block, out) in blocks.iter_mut().enumerate() {
                let mut most = [T::MIN; MAX_CHANNELS];
                raise(under, &input[block * MAX_CHANNELS..], c, &mut most);
                *out = most;
            }
            if !rest.is_empty() {
                rest.fill(T::MIN);
                raise(under, &input[first_of_rest..], c, rest);
            }
        }
    }
}

/// Raises `most` to the values of as many channels of the pixels `under` a window; `input` begins with the first channel.
#[inline(always)]
fn raise<T: Activation>(under: Under, input: &[T], c: usize, most: &mut [T]) {
    let Under { first, n: [n_y, n_x], steps: [down, right] } = under;
    for i in 0..n_y {
        for j in 0..n_x {
            let x = &input[(first + i * down + j * right) * c..][..most.len()];
            for (most, x) in most.iter_mut().zip(x) {
                *most = (*most).max(*x);
            }
        }
    }
}

/// `sum(x - zero_point_in)` over height and width, exact in i32 while the sums fit. `[H, W, C] -> [1, 1, C]`.
///
/// Input i8 or i16, output i32.
///
/// # Errors
/// [`KernelError`] if lengths or types do not fit.
pub fn global_sum(
    isa: Isa,
    dims: Dims,
    zero_point_in: i32,
    input: View<'_>,
    output: ViewMut<'_>,
) -> Result<(), KernelError> {
    expect_len("input", input.len(), dims.len())?;
    expect_len("output", output.len(), dims.c)?;
    match (input, output) {
        (View::I8(x), ViewMut::I32(y)) => sum_i8(isa, zero_point_in, x, y),
        (View::I16(x), ViewMut::I32(y)) => sum(zero_point_in, x, y),
        _ => return Err(KernelError::Types { op: "GlobalSum" }),
    }
    Ok(())
}

in_vectors_of_each_isa! {
    fn sum_i8(zero_point: i32, input: &[i8], output: &mut [i32]) = sum
}

/// In blocks as [`maximum`].
#[inline(always)]
fn sum<T: Activation>(zero_point: i32, input: &[T], output: &mut [i32]) {
    let c = output.len().max(1);
    // Wrapping like the sums themselves.
    let start = zero_point.wrapping_mul((input.len() / c) as i32).wrapping_neg();
    let (blocks, rest) = output.as_chunks_mut::<CHANNELS>();
    let first_of_rest = blocks.len() * CHANNELS;
    for (block, sums) in blocks.iter_mut().enumerate() {
        let mut totals = [start; CHANNELS];
        for pixel in input.chunks_exact(c) {
            add_to(&mut totals, &pixel[block * CHANNELS..][..CHANNELS]);
        }
        *sums = totals;
    }
    rest.fill(start);
    for pixel in input.chunks_exact(c) {
        add_to(rest, &pixel[first_of_rest..]);
    }
}

/// Adds the first channels of a pixel, as many as there are totals.
#[inline(always)]
fn add_to<T: Activation>(totals: &mut [i32], pixel: &[T]) {
    for (total, x) in totals.iter_mut().zip(pixel) {
        *total = total.wrapping_add(x.to_i32());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn shape_of(input: Dims, window: Window) -> Option<PoolShape> {
        let [h, w] = window.output(input)?;
        Some(PoolShape { input, output: Dims { h, w, c: input.c }, window })
    }

    /// Elements under the window, by signed coordinates.
    fn naive_elements(shape: &PoolShape, x: &[i8], oy: usize, ox: usize, c: usize) -> Vec<i8> {
        let Window { kernel, stride, dilation, pad_before, .. } = shape.window;
        let mut elements = vec![];
        for ky in 0..kernel[0] {
            for kx in 0..kernel[1] {
                let y = (oy * stride[0] + ky * dilation[0]) as i64 - pad_before[0] as i64;
                let xx = (ox * stride[1] + kx * dilation[1]) as i64 - pad_before[1] as i64;
                if y >= 0 && xx >= 0 && y < shape.input.h as i64 && xx < shape.input.w as i64 {
                    elements.push(x[(y as usize * shape.input.w + xx as usize) * shape.input.c + c]);
                }
            }
        }
        elements
    }

    #[test]
    fn a_window_in_the_padding_alone_is_inconsistent() {
        let window = Window { kernel: [2, 1], stride: [1, 1], dilation: [2, 1], pad_before: [1, 0], pad_after: [1, 0] };
        assert!(!shape_of(Dims { h: 1, w: 1, c: 1 }, window).unwrap().is_consistent());
        assert!(shape_of(Dims { h: 2, w: 1, c: 1 }, window).unwrap().is_consistent());
        let far = Window { pad_before: [3, 0], ..window };
        assert!(!shape_of(Dims { h: 4, w: 1, c: 1 }, far).unwrap().is_consistent());
    }

    #[test]
    fn global_sum_is_exact() {
        let x: Vec<i8> = vec![-128; 3 * 1000];
        let mut out = [1, 2, 3];
        let dims = Dims { h: 10, w: 100, c: 3 };
        global_sum(Isa::Scalar, dims, 127, View::I8(&x), ViewMut::I32(&mut out)).unwrap();
        assert_eq!(out, [-255_000; 3]);
        global_sum(Isa::Scalar, dims, -7, View::I16(&[5; 3000]), ViewMut::I32(&mut out)).unwrap();
        assert_eq!(out, [12_000; 3]);
    }

    #[test]
    fn wrong_types_and_lengths_are_refused() {
        let dims = Dims { h: 1, w: 1, c: 1 };
        let types = global_sum(Isa::Scalar, dims, 0, View::I8(&[1]), ViewMut::I8(&mut [0]));
        assert_eq!(types, Err(KernelError::Types { op: "GlobalSum" }));
        let length = global_sum(Isa::Scalar, dims, 0, View::I8(&[1, 2]), ViewMut::I32(&mut [0]));
        assert_eq!(length, Err(KernelError::Length { what: "input", found: 2, expected: 1 }));
    }

    proptest! {
        #[test]
        fn pools_equal_the_book(
            (h, w, c) in (1usize..7, 1usize..7, 1usize..70),
            kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3], dilation in [1usize..3, 1usize..3],
            pad_before in [0usize..3, 0usize..3], pad_after in [0usize..3, 0usize..3],
            zero_point_in in any::<i8>(), zero_point in any::<i8>(), multiplier in 1i32..1 << 23,
            count_pad in any::<bool>(), values in prop::collection::vec(any::<i8>(), 6 * 6 * 70),
        ) {
            let window = Window { kernel, stride, dilation, pad_before, pad_after };
            let input = Dims { h, w, c };
            let Some(shape) = shape_of(input, window) else { return Ok(()) };
            let x = &values[..input.len()];
            let at = |i: usize| (i / c / shape.output.w, i / c % shape.output.w, i % c);
            let elements = |i| { let (oy, ox, c) = at(i); naive_elements(&shape, x, oy, ox, c) };
            let all: Vec<Vec<i8>> = (0..shape.output.len()).map(elements).collect();
            prop_assert_eq!(shape.is_consistent(), all.iter().all(|e| !e.is_empty()));
            if !shape.is_consistent() {
                return Ok(());
            }
            let mut out = vec![0i8; shape.output.len()];
            let expected: Vec<i8> = all.iter().map(|e| *e.iter().max().unwrap()).collect();
            for isa in Isa::available() {
                max_pool(isa, &shape, View::I8(x), ViewMut::I8(&mut out)).unwrap();
                prop_assert_eq!(&out, &expected);
            }

            let clamp = Clamp { zero_point: zero_point.into(), low: -100, high: 127 };
            let params = AverageParams { count_pad, zero_point_in: zero_point_in.into(), multiplier, clamp };
            average_pool(Isa::Scalar, &shape, &params, View::I8(x), ViewMut::I8(&mut out)).unwrap();
            for (out, elements) in out.iter().zip(&all) {
                let n = if count_pad { kernel[0] * kernel[1] } else { elements.len() } as i128;
                let sum: i128 = elements.iter().map(|x| i128::from(*x) - i128::from(zero_point_in)).sum();
                let (product, divisor) = (sum * i128::from(multiplier), n << 22);
                let floor = product.div_euclid(divisor);
                let twice = 2 * product.rem_euclid(divisor);
                let up = twice > divisor || (twice == divisor && floor % 2 != 0);
                let expected = (floor + i128::from(up) + i128::from(zero_point)).clamp(-100, 127);
                prop_assert_eq!(i128::from(*out), expected);
            }
        }
    }
}
