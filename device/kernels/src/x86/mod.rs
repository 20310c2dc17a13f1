//! Twins for x86-64: [`avx2`], the same with AVX-VNNI, and [`avx512`] with VNNI.
//!
//! Inputs are copied once per tile into scratch on the way, so that padding is there, bytes are as the multiply-add wants
//! them, and every load that follows is in order.

use core::arch::x86_64::*;

use crate::Isa;
use crate::add::AddParams;
use crate::conv::ConvShape;
use crate::packed::{self, Layer, Line, PackedConv};
use crate::pool::PoolShape;

mod avx2;
mod avx512;

/// [`packed::byte_sums`] with the sums of bytes that every x86-64 has.
pub fn byte_sums(row: &[i8]) -> [i64; 2] {
    let (chunks, rest) = row.as_chunks::<16>();
    // SAFETY: SSE2 is part of x86-64; a chunk is a vector.
    let [magnitude, shifted] = unsafe {
        let zero = _mm_setzero_si128();
        let mut sums = [zero; 2];
        for chunk in chunks {
            let w = _mm_loadu_si128(chunk.as_ptr().cast());
            // Of a byte and its negative, the magnitude is the smaller one without sign.
            let parts = [_mm_min_epu8(w, _mm_sub_epi8(zero, w)), _mm_xor_si128(w, _mm_set1_epi8(i8::MIN))];
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum = _mm_add_epi64(*sum, _mm_sad_epu8(part, zero));
            }
        }
        sums.map(|sum| _mm_cvtsi128_si64(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum))))
    };
    let of_rest = packed::byte_sums(rest);
    [magnitude + of_rest[0], shifted + of_rest[1]]
}

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
