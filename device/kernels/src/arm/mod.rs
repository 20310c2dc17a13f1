//! Twins for Arm: NEON on aarch64 (armv8.0: Cortex-A53, A72), NEON with dot products (Cortex-A76), NEON on armv7.
//!
//! Everything here computes in int8 and gives the scalar code's bits. A layer's values are laid out once
//! ([`pack`](mod@pack)): weights in blocks of output channels in the order in which a micro-kernel reads them, and
//! before each block what its accumulators start from and what requantization needs. Dense convolutions of any shape
//! become a product of a few pixels' patches with one block ([`dense`](mod@dense)); depthwise ones run along rows copied
//! once into a padded buffer ([`depthwise`](mod@depthwise)).
//!
//! Sums are exact because i32 addition wraps: the zero point of the input goes into the starting value as
//! `-zero_point * sum(w)`, the padding holds the zero point, and no intermediate value needs to fit.

use crate::Isa;
#[cfg(target_arch = "aarch64")]
use crate::aarch64::{depthwise::Rows, depthwise_dot::Columns, dot::Quads, neon::Pairs};
#[cfg(target_arch = "arm")]
use crate::armv7::{dense::Pairs, depthwise::Rows};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};

use self::dense::Micro;
use self::depthwise::RowKernel;
use self::pack::{Order, Taps};

pub(crate) mod dense;
pub(crate) mod depthwise;
pub(crate) mod pack;

/// Who computes a layer, by what it reads.
enum Route {
    Patches(Order),
    Rows(Taps),
}

fn route(isa: Isa, shape: &ConvShape) -> Route {
    let by_rows = shape.is_depthwise() && shape.window.kernel[0] <= depthwise::KERNEL_H_MAX;
    match (isa, by_rows) {
        #[cfg(target_arch = "aarch64")]
        (Isa::NeonDot, true) if Columns::takes(&shape.window) => Route::Rows(Columns::TAPS),
        #[cfg(target_arch = "aarch64")]
        (Isa::NeonDot, false) => Route::Patches(Quads::ORDER),
        (_, true) => Route::Rows(Rows::TAPS),
        (_, false) => Route::Patches(Pairs::ORDER),
    }
}

/// True for all shapes on the instruction sets of this architecture.
pub(crate) fn has_twin(isa: Isa, _shape: &ConvShape) -> bool {
    isa == Isa::Neon || (isa == Isa::NeonDot && cfg!(target_arch = "aarch64"))
}

/// Lines that [`pack`](fn@pack) writes.
pub(crate) fn packed_lines(isa: Isa, shape: &ConvShape) -> usize {
    match route(isa, shape) {
        Route::Patches(_) => pack::dense_lines(shape),
        Route::Rows(taps) => pack::depthwise_lines(taps, shape),
    }
}

/// Lines of scratch that [`conv`] needs.
pub(crate) fn scratch_lines(isa: Isa, shape: &ConvShape) -> usize {
    match route(isa, shape) {
        Route::Patches(Order::Pairs) => dense::scratch_lines::<Pairs>(shape),
        #[cfg(target_arch = "aarch64")]
        Route::Patches(Order::Quads) => dense::scratch_lines::<Quads>(shape),
        Route::Rows(_) => depthwise::scratch_lines(shape),
    }
}

/// Lays a layer's values out for [`conv`].
pub(crate) fn pack(isa: Isa, shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) {
    match route(isa, shape) {
        Route::Patches(order) => pack::pack_dense(order, shape, layer, packed),
        Route::Rows(taps) => pack::pack_depthwise(taps, shape, layer, packed),
    }
}

/// Runs a packed layer of i8 activations.
///
/// Lengths as [`packed_lines`], [`scratch_lines`] and `shape` say: asserted.
pub(crate) fn conv(isa: Isa, layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let run = match route(isa, layer.shape) {
        Route::Patches(Order::Pairs) => dense::dense::<Pairs>,
        #[cfg(target_arch = "aarch64")]
        Route::Patches(Order::Quads) => dense::dense::<Quads>,
        Route::Rows(Taps::ByTap) => depthwise::depthwise::<Rows>,
        #[cfg(target_arch = "aarch64")]
        Route::Rows(Taps::Columns) => depthwise::depthwise::<Columns>,
    };
    run(layer, scratch, output);
}
