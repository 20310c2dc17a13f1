//! Twins for x86-64: AVX-512 with VNNI ([`dense`](mod@dense), [`depthwise`](mod@depthwise)).
//!
//! Activations enter the multiply-add as unsigned bytes, `q + 128`; the difference goes into the starting value of the
//! accumulators, as does the zero point: `bias - (zero_point + 128) * sum(w)`, wrapping like the sums themselves.
//! Inputs are copied once per tile into scratch on the way, so that padding is there, the sign is flipped, and every
//! load that follows is in order.

use crate::Isa;
use crate::conv::ConvShape;
use crate::packed::{Layer, Line};
use crate::requantize::Clamp;

mod dense;
mod depthwise;
mod header;

pub fn has_twin(isa: Isa, _: &ConvShape) -> bool {
    isa == Isa::Avx512Vnni
}

pub fn packed_lines(_: Isa, shape: &ConvShape) -> usize {
    if shape.is_depthwise() { depthwise::packed_lines(shape) } else { dense::packed_lines(shape) }
}

pub fn scratch_lines(_: Isa, shape: &ConvShape) -> usize {
    if shape.is_depthwise() { depthwise::scratch_lines(shape) } else { dense::scratch_lines(shape) }
}

pub fn pack(_: Isa, shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    if shape.is_depthwise() { depthwise::pack(shape, layer, packed) } else { dense::pack(shape, layer, packed) }
}

#[allow(clippy::too_many_arguments)]
pub fn conv(
    _: Isa,
    shape: &ConvShape,
    packed: &[Line],
    zero_point_in: i32,
    clamp: Clamp,
    input: &[i8],
    scratch: &mut [Line],
    output: &mut [i8],
) {
    // SAFETY: the caller vouches for the CPU (`packed::conv`), and lengths were checked there.
    unsafe {
        if shape.is_depthwise() {
            depthwise::depthwise(shape, packed, zero_point_in, clamp, input, scratch, output);
        } else {
            dense::dense(shape, packed, zero_point_in, clamp, input, scratch, output);
        }
    }
}
