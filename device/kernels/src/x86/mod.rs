//! Twins for x86-64: [`avx2`], the same with AVX-VNNI, and [`avx512`] with VNNI.
//!
//! Inputs are copied once per tile into scratch on the way, so that padding is there, bytes are as the multiply-add wants
//! them, and every load that follows is in order.

use crate::Isa;
use crate::add::AddParams;
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};
use crate::pool::PoolShape;

mod avx2;
mod avx512;

pub fn has_twin(isa: Isa, _: &ConvShape) -> bool {
    matches!(isa, Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni)
}

pub fn packed_lines(isa: Isa, shape: &ConvShape) -> usize {
    match (isa, shape.is_depthwise()) {
        (Isa::Avx2 | Isa::AvxVnni, true) => avx2::depthwise::packed_lines(shape),
        (Isa::Avx2 | Isa::AvxVnni, false) => avx2::dense::packed_lines(shape, isa == Isa::AvxVnni),
        (_, true) => avx512::depthwise::packed_lines(shape),
        (_, false) => avx512::dense::packed_lines(shape),
    }
}

pub fn scratch_lines(isa: Isa, shape: &ConvShape) -> usize {
    match (isa, shape.is_depthwise()) {
        (Isa::Avx2 | Isa::AvxVnni, true) => avx2::depthwise::scratch_lines(shape),
        (Isa::Avx2 | Isa::AvxVnni, false) => avx2::dense::scratch_lines(shape, isa == Isa::AvxVnni),
        (_, true) => avx512::depthwise::scratch_lines(shape),
        (_, false) => avx512::dense::scratch_lines(shape),
    }
}

pub fn pack(isa: Isa, shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    match (isa, shape.is_depthwise()) {
        (Isa::Avx2 | Isa::AvxVnni, true) => avx2::depthwise::pack(shape, layer, packed),
        (Isa::Avx2 | Isa::AvxVnni, false) => avx2::dense::pack(shape, layer, packed, isa == Isa::AvxVnni),
        (_, true) => avx512::depthwise::pack(shape, layer, packed),
        (_, false) => avx512::dense::pack(shape, layer, packed),
    }
}

pub fn conv(isa: Isa, layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    // SAFETY: the caller vouches for the CPU (`packed::conv`), and lengths were checked there.
    unsafe {
        match (isa, layer.shape.is_depthwise()) {
            (Isa::Avx2 | Isa::AvxVnni, true) => {
                avx2::depthwise::depthwise(layer, scratch, output);
            }
            (Isa::Avx2, false) => avx2::dense::dense(layer, scratch, output),
            (Isa::AvxVnni, false) => avx2::dense::dense_vnni(layer, scratch, output),
            (_, true) => avx512::depthwise::depthwise(layer, scratch, output),
            (_, false) => avx512::dense::dense(layer, scratch, output),
        }
    }
}

/// True if [`add`] has a twin for these parameters.
pub fn can_add(isa: Isa, params: &AddParams) -> bool {
    isa == Isa::Avx512Vnni && avx512::add::can_add(params)
}

/// Addition of slices of equal lengths, for parameters that [`can_add`] allows.
pub fn add(params: &AddParams, a: &[i8], b: &[i8], out: &mut [i8]) {
    // SAFETY: the caller vouches for the CPU (`add::add`).
    unsafe { avx512::add::add(params, a, b, out) }
}

/// Maximum pooling of checked shapes with AVX-512.
pub fn max_pool(shape: &PoolShape, input: &[i8], output: &mut [i8]) {
    // SAFETY: the caller vouches for the CPU and has checked the shapes (`pool::max_pool`).
    unsafe { avx512::pool::max_pool(shape, input, output) }
}
