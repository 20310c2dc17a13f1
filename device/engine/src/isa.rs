//! Which kernels this machine runs. Asked once, here; kernels are told.

use graft_kernels::Isa;

use crate::error::IsaError;

/// The fastest instruction set that this machine has, or the one that the environment variable `GRAFT_ISA` names.
///
/// # Errors
/// [`IsaError`] if `GRAFT_ISA` is set to anything else than a name of [`Isa::ALL`].
pub fn detect_isa() -> Result<Isa, IsaError> {
    match std::env::var_os("GRAFT_ISA") {
        None => Ok(Isa::Scalar),
        Some(name) => isa_named(&name.to_string_lossy()),
    }
}

fn isa_named(name: &str) -> Result<Isa, IsaError> {
    Isa::from_name(name).ok_or_else(|| IsaError { found: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_or_refused_with_what_there_is() {
        assert_eq!(isa_named("scalar"), Ok(Isa::Scalar));
        let error = isa_named("avx1024").unwrap_err().to_string();
        assert_eq!(error, "GRAFT_ISA is \"avx1024\"; this machine has: scalar");
    }
}
