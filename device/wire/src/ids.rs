//! Fixed-width names: random for devices, clients and sessions; BLAKE3 for what has content.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Declares a byte-array id with hex `Display`, `FromStr` and postcard encoding as a plain array.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes, if `bytes` has exactly [`Self::LEN`] of them.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            /// Lower-case hex; `{:.N}` prints the first N digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let n_digits = f.precision().unwrap_or(2 * $len);
                for i in 0..n_digits.min(2 * $len) {
                    let byte = self.0.get(i / 2).copied().unwrap_or(0);
                    let digit = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
                    write!(f, "{digit:x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0u8; $len];
                parse_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

id!(
    /// Names a sample by its content, see [`crate::sample::SampleMeta::sample_id`].
    SampleId, 16
);
id!(
    /// Names an embedding space: embeddings of one space may be compared, others never.
    SpaceId, 32
);
id!(
    /// Names a board; random, made at its first start.
    DeviceId, 16
);
id!(
    /// Names one go of collecting; random unless the user names it.
    SessionId, 8
);
id!(
    /// Names one run of the host tool; request ids count within it.
    ClientId, 8
);
id!(
    /// BLAKE3 of some bytes: an input, a file, a sample set.
    Digest, 32
);

impl Digest {
    /// BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl SessionId {
    /// The session that a user calls `name`: the same name is the same session on every board.
    pub fn named(name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graft session v1");
        hasher.update(name.as_bytes());
        let mut id = [0u8; 8];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// A text that is not an id of the expected length in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("id has {found} characters; {expected} hex digits are needed")]
pub struct ParseIdError {
    /// Characters seen.
    pub found: usize,
    /// Hex digits wanted.
    pub expected: usize,
}

fn parse_hex(text: &str, bytes: &mut [u8]) -> Result<(), ParseIdError> {
    let error = ParseIdError { found: text.chars().count(), expected: 2 * bytes.len() };
    if text.len() != 2 * bytes.len() {
        return Err(error);
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let mut value = 0u8;
        for digit in pair {
            let digit = (*digit as char).to_digit(16).ok_or(error)?;
            value = value << 4 | digit as u8;
        }
        *byte = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn hex_round_trips_and_precision_cuts() {
        let id = SessionId([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(format!("{id}"), "0123456789abcdef");
        assert_eq!(format!("{id:.5}"), "01234");
        assert_eq!("0123456789abcdef".parse(), Ok(id));
        assert!("0123456789abcdeg".parse::<SessionId>().is_err());
        assert!("0123".parse::<SessionId>().is_err());
        assert!("é123456789abcde".parse::<SessionId>().is_err());
    }

    #[test]
    fn named_sessions_are_golden() {
        assert_eq!(SessionId::named("morning"), SessionId::named("morning"));
        assert_ne!(SessionId::named("morning"), SessionId::named("evening"));
    }
}
