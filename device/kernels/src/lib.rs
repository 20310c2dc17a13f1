//! The arithmetic of graft, defined once.
//!
//! Every op of a bundle's graph is a free function here, over slices in channels-last order (`[H, W, C]`) with plain
//! parameter structs. The scalar code *is* the definition: integers in i32 (wrapping) and i64, floats in a fixed order
//! without fused multiply-add. Twins for vector instructions must give the same bits and are chosen by [`Isa`], an
//! argument: nothing here asks the CPU, and nothing here allocates. What needs memory (packed weights, scratch) says
//! how much and lets the caller own it.
//!
//! Functions are not generic in public: callers are often built without optimisation, and a generic hot loop would be
//! compiled with them. Element types travel in [`View`] and [`ViewMut`] instead and are resolved here.
//!
//! Every function checks the lengths and types that it relies on and returns [`KernelError`]; none panics. Ranges of
//! values (multipliers, zero points, accumulators that cannot overflow) are the loader's to check: breaking them gives
//! wrong numbers, never more than that.
#![no_std]
#![deny(clippy::unwrap_used, clippy::expect_used)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(test)]
extern crate std;

use core::fmt;

/// Defines `$name(isa, ..)`: `$plain(..)`, an `#[inline(always)]` function shaped for compilers, which gets the vectors of
/// each set of x86-64 instructions.
macro_rules! in_vectors_of_each_isa {
    (fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $plain:path) => {
        fn $name(isa: Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            unsafe fn avx512($($arg: $type),*) $(-> $result)? {
                $plain($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            unsafe fn avx2($($arg: $type),*) $(-> $result)? {
                $plain($($arg),*)
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the caller vouches for the CPU.
                Isa::Avx512Vnni => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Isa::Avx2 | Isa::AvxVnni => unsafe { avx2($($arg),*) },
                _ => $plain($($arg),*),
            }
        }
    };
}

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub mod add;
#[cfg(any(target_arch = "aarch64", all(target_arch = "arm", target_os = "linux")))]
mod arm;
#[cfg(all(target_arch = "arm", target_os = "linux"))]
mod armv7;
pub mod conv;
mod dense;
pub mod dot;
pub mod embed;
pub mod float;
pub mod matmul;
pub mod mul;
pub mod packed;
pub mod peak;
pub mod pool;
pub mod requantize;
pub mod resize;
pub mod shape;
pub mod table;
pub mod view;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use requantize::{Clamp, Requantize};
pub use view::{Dims, View, ViewMut, Window};

/// Which twin of a kernel runs. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// What every CPU of the architecture has; all but sums of products in plain Rust: the definition.
    Scalar,
    /// Arm NEON: armv8.0 (Cortex-A53, A72) and armv7.
    Neon,
    /// Arm NEON with dot products (Cortex-A76 and later).
    NeonDot,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX2 and the VNNI of 256 bits.
    AvxVnni,
    /// x86-64 with AVX-512 (F, BW, VL) and VNNI.
    Avx512Vnni,
}

impl Isa {
    /// All there are, slowest first.
    pub const ALL: &[Isa] = &[Isa::Scalar, Isa::Neon, Isa::NeonDot, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni];

    /// As `GRAFT_ISA` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon_dot",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx_vnni",
            Isa::Avx512Vnni => "avx512_vnni",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }

    /// What this machine runs; the engine asks likewise.
    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.iter().copied().filter(|isa| match isa {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => std::is_x86_feature_detected!("avxvnni") && std::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                std::is_x86_feature_detected!("avx512vnni")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            // Tests run where it is there; asking is not stable.
            #[cfg(target_arch = "arm")]
            Isa::Neon => true,
            _ => false,
        })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a kernel did not run: the caller's slices do not fit its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice has another length than the shapes say.
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// By the shapes.
        expected: usize,
    },
    /// The op is not defined for these element types.
    Types {
        /// Which op.
        op: &'static str,
    },
    /// The shapes contradict each other.
    Shapes {
        /// Which op.
        op: &'static str,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { what, found, expected } => {
                write!(f, "{what} has {found} elements; its shape has {expected}")
            }
            Self::Types { op } => write!(f, "{op} is not defined for these element types"),
            Self::Shapes { op } => write!(f, "shapes of {op} contradict each other"),
        }
    }
}

impl core::error::Error for KernelError {}

/// The first `expected` values of scratch, if there are so many.
pub(crate) fn scratch_of<T>(scratch: &mut [T], expected: usize) -> Result<&mut [T], KernelError> {
    let found = scratch.len();
    scratch.get_mut(..expected).ok_or(KernelError::Length { what: "scratch", found, expected })
}

/// Checks one length.
pub(crate) fn expect_len(what: &'static str, found: usize, expected: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Length { what, found, expected }) }
}
