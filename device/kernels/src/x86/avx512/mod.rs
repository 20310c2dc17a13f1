//! Twins for AVX-512 with VNNI.
//!
//! Activations enter the multiply-add as unsigned bytes, `q + 128`; the difference goes into the starting value of the
//! accumulators, as does the zero point: `bias - (zero_point + 128) * sum(w)`, wrapping like the sums themselves.

pub(super) mod add;
pub(super) mod dense;
pub(super) mod depthwise;
mod header;
mod panel;
pub(super) mod pool;
mod winograd;
