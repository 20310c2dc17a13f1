//! NEON on armv7 Linux, as assembly: the intrinsics are not stable in Rust, nor is naming the feature, so each block
//! says `.fpu neon` itself. Requantization is exact in i64, two lanes at a time, because fused multiply-add is missing
//! on Cortex-A8 and A9.

pub(crate) mod dense;
pub(crate) mod depthwise;

/// Requantizes registers `$acc` (two halves `$low`, `$high`) by the factors in `$f`, `$g`, with `$t` and `$u` for a while.
///
/// Half to even is `(p + half - 1 + odd) >> 22`; `odd` matters at ties alone, where `p - 1` has the same bit 22. So the
/// product is added to -1, its bit 22 is added, and the shift adds the half and saturates.
macro_rules! scale {
    ($low:literal, $high:literal, $f:literal, $g:literal, $t:literal, $u:literal) => {
        concat!(
            "vmov.i8 q",
            $t,
            ", #0xff\n",
            "vmlal.s32 q",
            $t,
            ", d",
            $low,
            ", d",
            $f,
            "\n",
            "vshl.i64 q",
            $u,
            ", q",
            $t,
            ", #41\n",
            "vsra.u64 q",
            $t,
            ", q",
            $u,
            ", #63\n",
            "vqrshrn.s64 d",
            $low,
            ", q",
            $t,
            ", #22\n",
            "vmov.i8 q",
            $t,
            ", #0xff\n",
            "vmlal.s32 q",
            $t,
            ", d",
            $high,
            ", d",
            $g,
            "\n",
            "vshl.i64 q",
            $u,
            ", q",
            $t,
            ", #41\n",
            "vsra.u64 q",
            $t,
            ", q",
            $u,
            ", #63\n",
            "vqrshrn.s64 d",
            $high,
            ", q",
            $t,
            ", #22\n",
        )
    };
}
pub(crate) use scale;
