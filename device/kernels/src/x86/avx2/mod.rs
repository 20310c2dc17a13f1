//! Twins for AVX2 with FMA.
//!
//! Activations and weights enter the multiply-add in pairs of 16 bits, which no sum of two products leaves; the zero point
//! goes into the starting value of the accumulators: `bias - zero_point * sum(w)`, wrapping like the sums themselves.

pub(super) mod dense;
pub(super) mod depthwise;
mod header;
