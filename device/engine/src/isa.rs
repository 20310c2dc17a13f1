//! Which kernels this machine runs. Asked once, here; kernels are told.

use graft_kernels::Isa;

use crate::error::IsaError;

/// The fastest instruction set that this machine has, or the one that the environment variable `GRAFT_ISA` names.
///
/// # Errors
/// [`IsaError`] if `GRAFT_ISA` is set to anything else than a name of [`available_isas`].
pub fn detect_isa() -> Result<Isa, IsaError> {
    match std::env::var_os("GRAFT_ISA") {
        None => Ok(available_isas().last().unwrap_or(Isa::Scalar)),
        Some(name) => isa_named(&name.to_string_lossy()),
    }
}

/// The instruction sets that this machine has and that there are kernels for, slowest first.
pub fn available_isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.iter().copied().filter(|isa| is_available(*isa))
}

/// True if this machine has the instructions.
pub(crate) fn is_available(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => true,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => is_available(Isa::Avx2) && is_x86_feature_detected!("avxvnni"),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => true,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
        #[cfg(all(target_arch = "arm", target_os = "linux"))]
        Isa::Neon => armv7_has_neon(),
        _ => false,
    }
}

/// What the kernel told this process: the standard library's question is not stable for armv7.
#[cfg(all(target_arch = "arm", target_os = "linux"))]
fn armv7_has_neon() -> bool {
    // Pairs of words, `AT_HWCAP` = 16, `HWCAP_NEON` = bit 12: Linux, include/uapi/linux/auxvec.h and
    // arch/arm/include/uapi/asm/hwcap.h.
    let entries = std::fs::read("/proc/self/auxv").unwrap_or_default();
    entries.as_chunks::<8>().0.iter().any(|[a, b, c, d, value @ ..]| {
        u32::from_le_bytes([*a, *b, *c, *d]) == 16 && u32::from_le_bytes(*value) & 1 << 12 != 0
    })
}

fn isa_named(name: &str) -> Result<Isa, IsaError> {
    Isa::from_name(name).filter(|isa| is_available(*isa)).ok_or_else(|| IsaError { found: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_or_refused_with_what_there_is() {
        for isa in available_isas() {
            assert_eq!(isa_named(isa.name()), Ok(isa));
        }
        let names: Vec<&str> = available_isas().map(Isa::name).collect();
        let error = isa_named("avx1024").unwrap_err().to_string();
        assert_eq!(error, format!("GRAFT_ISA is \"avx1024\"; this machine has: {}", names.join(", ")));
        let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        assert!(isa_named(foreign).is_err());
    }
}
