//! Micro-kernels for aarch64; what surrounds them is in [`crate::arm`].

pub(crate) mod depthwise;
pub(crate) mod depthwise_dot;
pub(crate) mod dot;
pub(crate) mod elementwise;
pub(crate) mod neon;
