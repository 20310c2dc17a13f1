//! Shapes, windows and typed slices that the kernels share.

/// Shape of a channels-last tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Dims {
    /// Elements. Saturates, so that a shape that no slice can have matches none.
    pub fn len(self) -> usize {
        self.h.saturating_mul(self.w).saturating_mul(self.c)
    }

    /// True if a dimension is zero.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Height times width.
    pub fn n_pixels(self) -> usize {
        self.h.saturating_mul(self.w)
    }
}

/// Sliding window; sizes in elements, order height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Kernel size.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Spacing of kernel elements; 1 is dense.
    pub dilation: [usize; 2],
    /// Padding above and left.
    pub pad_before: [usize; 2],
    /// Padding below and right.
    pub pad_after: [usize; 2],
}

impl Window {
    /// Elements of the kernel.
    pub fn n_taps(self) -> usize {
        self.kernel[0].saturating_mul(self.kernel[1])
    }

    /// Height and width of the output, `(in + pads - reach) / stride + 1`; `None` if the kernel does not fit or a size
    /// is zero.
    pub fn output(self, input: Dims) -> Option<[usize; 2]> {
        let along = |axis: usize, size: usize| {
            let reach = self.kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])?.checked_add(1)?;
            let padded = size.checked_add(self.pad_before[axis])?.checked_add(self.pad_after[axis])?;
            if self.dilation[axis] == 0 {
                return None;
            }
            padded.checked_sub(reach)?.checked_div(self.stride[axis])?.checked_add(1)
        };
        Some([along(0, input.h)?, along(1, input.w)?])
    }

    /// Sources along an axis that lie inside for window `at`: the first one, and how many there are, `dilation` apart.
    #[inline(always)]
    pub(crate) fn inside(&self, axis: usize, at: usize, size: usize) -> (usize, usize) {
        let (start, step, pad) = (at * self.stride[axis], self.dilation[axis], self.pad_before[axis]);
        let (before, inside) = (pad.saturating_sub(start), (size + pad).saturating_sub(start));
        // Divisions cost more than the pixels under a window.
        let [first, end] = if step == 1 { [before, inside] } else { [before.div_ceil(step), inside.div_ceil(step)] };
        let end = end.min(self.kernel[axis]);
        ((start + first * step).saturating_sub(pad), end.saturating_sub(first))
    }

    /// Input coordinate that kernel element `tap` meets at output coordinate `at`; `None` in the padding.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, at: usize, tap: usize, size: usize) -> Option<usize> {
        let padded = at * self.stride[axis] + tap * self.dilation[axis];
        padded.checked_sub(self.pad_before[axis]).filter(|source| *source < size)
    }
}

/// The same bytes, signed.
pub fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: u8 and i8 have the same size and alignment, and any byte is either.
    unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// Elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// Activations.
    I8(&'a [i8]),
    /// Wide activations.
    I16(&'a [i16]),
    /// Sums.
    I32(&'a [i32]),
    /// Floats.
    F32(&'a [f32]),
}

/// Elements of a tensor, to be written.
#[derive(Debug)]
pub enum ViewMut<'a> {
    /// Activations.
    I8(&'a mut [i8]),
    /// Wide activations.
    I16(&'a mut [i16]),
    /// Sums.
    I32(&'a mut [i32]),
    /// Floats.
    F32(&'a mut [f32]),
}

impl View<'_> {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            View::I8(x) => x.len(),
            View::I16(x) => x.len(),
            View::I32(x) => x.len(),
            View::F32(x) => x.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ViewMut<'_> {
    /// The same elements for a shorter while, for a caller that writes them in parts.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        match self {
            ViewMut::I8(x) => ViewMut::I8(x),
            ViewMut::I16(x) => ViewMut::I16(x),
            ViewMut::I32(x) => ViewMut::I32(x),
            ViewMut::F32(x) => ViewMut::F32(x),
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            ViewMut::I8(x) => x.len(),
            ViewMut::I16(x) => x.len(),
            ViewMut::I32(x) => x.len(),
            ViewMut::F32(x) => x.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How the second operand of a two-operand op meets the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// Element by element: equal shapes.
    Same,
    /// `[1, 1, C]` on every pixel.
    Channel,
    /// `[1, 1, 1]` on every element.
    Scalar,
}

impl Broadcast {
    /// How `b` meets `a`, if it may; equal shapes first.
    pub fn of(a: Dims, b: Dims) -> Option<Self> {
        match b {
            _ if a == b => Some(Self::Same),
            Dims { h: 1, w: 1, c: 1 } => Some(Self::Scalar),
            Dims { h: 1, w: 1, c } if c == a.c => Some(Self::Channel),
            _ => None,
        }
    }
}

/// Calls `$one` on each pair of operands of whatever two types, and its output of a third, each i8 or i16; else returns
/// an error that names `$op`.
macro_rules! pairs_of_each_type {
    ($op:literal, $a:expr, $b:expr, $broadcast:expr, $output:expr, $one:expr) => {
        pairs_of_each_type!(@ $op, $a, $b, $broadcast, $output, $one;
            I8 I8 I8, I8 I8 I16, I8 I16 I8, I8 I16 I16, I16 I8 I8, I16 I8 I16, I16 I16 I8, I16 I16 I16)
    };
    (@ $op:literal, $a:expr, $b:expr, $broadcast:expr, $output:expr, $one:expr; $($x:ident $y:ident $z:ident),*) => {
        match ($a, $b, $output) {
            $((View::$x(a), View::$y(b), ViewMut::$z(out)) => for_each_pair(a, b, $broadcast, out, $one),)*
            _ => return Err(KernelError::Types { op: $op }),
        }
    };
}
pub(crate) use pairs_of_each_type;

/// Calls `f` on each pair of operands and its output; `a` and `output` of one length, `b` as `broadcast` says.
#[inline(always)]
pub(crate) fn for_each_pair<A: Copy, B: Copy, O>(
    a: &[A],
    b: &[B],
    broadcast: Broadcast,
    output: &mut [O],
    f: impl Fn(A, B) -> O,
) {
    let row_len = match broadcast {
        Broadcast::Scalar => {
            let Some(b) = b.first() else { return };
            return output.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a, *b));
        }
        Broadcast::Same | Broadcast::Channel => b.len().max(1),
    };
    for (out, a) in output.chunks_mut(row_len).zip(a.chunks(row_len)) {
        out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = f(*a, *b));
    }
}

/// Shape check of two-operand ops.
pub(crate) fn broadcast_of(
    op: &'static str,
    dims: [Dims; 2],
    lens: [usize; 3],
) -> Result<Broadcast, crate::KernelError> {
    let broadcast = Broadcast::of(dims[0], dims[1]).ok_or(crate::KernelError::Shapes { op })?;
    crate::expect_len("first input", lens[0], dims[0].len())?;
    crate::expect_len("second input", lens[1], dims[1].len())?;
    crate::expect_len("output", lens[2], dims[0].len())?;
    Ok(broadcast)
}

/// An activation type: i8 or i16.
pub(crate) trait Activation: Copy + Ord {
    /// Holds `x - zero_point` of any two values.
    type Centred: Copy;
    const MIN: Self;

    fn to_i32(self) -> i32;
    /// Of a value that the caller clamped into the type's range.
    fn from_i32(value: i32) -> Self;
    /// `x - zero_point`, for zero points of the same type.
    fn centred(self, zero_point: i32) -> Self::Centred;
    /// [`Activation::centred`] where it fits i16: always from i8, from i16 with a zero point of 0.
    fn centred_i16(self, zero_point: i32) -> i16;
    /// `centred * weight`, exact.
    fn product(centred: Self::Centred, weight: i16) -> i32;
}

impl Activation for i8 {
    type Centred = i16;
    const MIN: Self = i8::MIN;

    #[inline(always)]
    fn to_i32(self) -> i32 {
        self.into()
    }

    #[inline(always)]
    fn from_i32(value: i32) -> Self {
        value as i8
    }

    #[inline(always)]
    fn centred(self, zero_point: i32) -> i16 {
        i16::from(self).wrapping_sub(zero_point as i16)
    }

    #[inline(always)]
    fn centred_i16(self, zero_point: i32) -> i16 {
        self.centred(zero_point)
    }

    #[inline(always)]
    fn product(centred: i16, weight: i16) -> i32 {
        i32::from(centred).wrapping_mul(weight.into())
    }
}

impl Activation for i16 {
    type Centred = i32;
    const MIN: Self = i16::MIN;

    #[inline(always)]
    fn to_i32(self) -> i32 {
        self.into()
    }

    #[inline(always)]
    fn from_i32(value: i32) -> Self {
        value as i16
    }

    #[inline(always)]
    fn centred(self, zero_point: i32) -> i32 {
        i32::from(self).wrapping_sub(zero_point)
    }

    #[inline(always)]
    fn centred_i16(self, zero_point: i32) -> i16 {
        self.wrapping_sub(zero_point as i16)
    }

    #[inline(always)]
    fn product(centred: i32, weight: i16) -> i32 {
        centred.wrapping_mul(weight.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_size_follows_window_and_refuses_what_does_not_fit() {
        let window = Window { kernel: [3, 2], stride: [2, 1], dilation: [1, 3], pad_before: [1, 0], pad_after: [0, 2] };
        assert_eq!(window.output(Dims { h: 8, w: 5, c: 1 }), Some([4, 4]));
        assert_eq!(window.output(Dims { h: 1, w: 1, c: 1 }), None);
        assert_eq!(Window { stride: [0, 1], ..window }.output(Dims { h: 8, w: 5, c: 1 }), None);
        assert_eq!(Window { kernel: [0, 1], ..window }.output(Dims { h: 8, w: 5, c: 1 }), None);
        assert_eq!(Window { dilation: [0, 1], ..window }.output(Dims { h: 8, w: 5, c: 1 }), None);
        assert_eq!(Window { pad_after: [usize::MAX; 2], ..window }.output(Dims { h: 8, w: 5, c: 1 }), None);
    }

    #[test]
    fn bytes_are_signed_in_place() {
        assert_eq!(signed(&[0, 127, 128, 255]), [0, 127, -128, -1]);
    }

    #[test]
    fn source_is_none_in_the_padding() {
        let window = Window { kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pad_before: [1, 1], pad_after: [1, 1] };
        let sources: std::vec::Vec<_> = (0..3).map(|tap| window.source(0, 0, tap, 2)).collect();
        assert_eq!(sources, [None, Some(0), Some(1)]);
        assert_eq!(window.source(0, 1, 2, 2), None);
    }
}
