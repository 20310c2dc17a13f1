//! The first message each way. Its layout never changes, so that any two versions can tell each other what they are.
//!
//! 64 bytes: magic `"graft?"` (host) or `"graft!"` (board) `[6]`, oldest and newest message version the sender
//! speaks u16 u16, longest message u32, longest frame payload u32, longest embedding u32, most classes u32,
//! device or client id `[16]` (a client id is padded with zeros), reserved zeros `[22]`. Little-endian.

use crate::error::DecodeError;
use crate::limits::{CLASSES_MAX, EMBEDDING_LEN_MAX, FRAME_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Length of an encoded [`Hello`].
pub const HELLO_BYTES: usize = 64;
/// Oldest message version this code accepts.
pub const VERSION_OLDEST: u16 = 1;
/// Message version this code speaks.
pub const VERSION: u16 = 1;

const MAGIC_HOST: &[u8; 6] = b"graft?";
const MAGIC_BOARD: &[u8; 6] = b"graft!";

/// Which end says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `graft`.
    Host,
    /// `graftd`.
    Board,
}

/// Versions and caps of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub end: End,
    /// Oldest message version understood.
    pub version_oldest: u16,
    /// Newest message version understood.
    pub version: u16,
    /// Longest message in bytes.
    pub message_bytes_max: u32,
    /// Longest frame payload in bytes.
    pub frame_payload_bytes_max: u32,
    /// Longest embedding in components.
    pub embedding_len_max: u32,
    /// Most classes.
    pub classes_max: u32,
    /// Device id of a board; client id of a host, padded with zeros.
    pub id: [u8; 16],
}

impl Hello {
    /// The hello of this code's version and caps.
    pub fn new(end: End, id: [u8; 16]) -> Self {
        Self {
            end,
            version_oldest: VERSION_OLDEST,
            version: VERSION,
            message_bytes_max: MESSAGE_BYTES_MAX as u32,
            frame_payload_bytes_max: FRAME_PAYLOAD_BYTES_MAX as u32,
            embedding_len_max: EMBEDDING_LEN_MAX as u32,
            classes_max: CLASSES_MAX as u32,
            id,
        }
    }

    /// True if the two ends share a message version.
    pub fn speaks_with(&self, other: &Hello) -> bool {
        self.version_oldest <= other.version && other.version_oldest <= self.version
    }

    /// The 64 bytes of this hello.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let magic = match self.end {
            End::Host => MAGIC_HOST,
            End::Board => MAGIC_BOARD,
        };
        let mut bytes = [0u8; HELLO_BYTES];
        let fields: [&[u8]; 8] = [
            magic,
            &self.version_oldest.to_le_bytes(),
            &self.version.to_le_bytes(),
            &self.message_bytes_max.to_le_bytes(),
            &self.frame_payload_bytes_max.to_le_bytes(),
            &self.embedding_len_max.to_le_bytes(),
            &self.classes_max.to_le_bytes(),
            &self.id,
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`DecodeError::Hello`] if length or magic are not those of a hello.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes: &[u8; HELLO_BYTES] = bytes.try_into().map_err(|_| DecodeError::Hello)?;
        let (magic, rest) = bytes.split_first_chunk::<6>().ok_or(DecodeError::Hello)?;
        let end = match magic {
            MAGIC_HOST => End::Host,
            MAGIC_BOARD => End::Board,
            _ => return Err(DecodeError::Hello),
        };
        let (version_oldest, rest) = take::<2>(rest)?;
        let (version, rest) = take::<2>(rest)?;
        let (message_bytes_max, rest) = take::<4>(rest)?;
        let (frame_payload_bytes_max, rest) = take::<4>(rest)?;
        let (embedding_len_max, rest) = take::<4>(rest)?;
        let (classes_max, rest) = take::<4>(rest)?;
        let (id, _reserved) = take::<16>(rest)?;
        Ok(Self {
            end,
            version_oldest: u16::from_le_bytes(version_oldest),
            version: u16::from_le_bytes(version),
            message_bytes_max: u32::from_le_bytes(message_bytes_max),
            frame_payload_bytes_max: u32::from_le_bytes(frame_payload_bytes_max),
            embedding_len_max: u32::from_le_bytes(embedding_len_max),
            classes_max: u32::from_le_bytes(classes_max),
            id,
        })
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), DecodeError> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(DecodeError::Hello)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_golden() {
        let mut expected = [0u8; 64];
        expected[..6].copy_from_slice(b"graft!");
        expected[6..26].copy_from_slice(&[1, 0, 1, 0, 0, 0, 0x40, 0, 0, 8, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0]);
        expected[26..42].copy_from_slice(&[7; 16]);
        let hello = Hello::new(End::Board, [7; 16]);
        assert_eq!(hello.encode(), expected);
        assert_eq!(Hello::decode(&expected), Ok(hello));
    }

    #[test]
    fn other_bytes_are_not_a_hello() {
        assert_eq!(Hello::decode(b"login: "), Err(DecodeError::Hello));
        assert_eq!(Hello::decode(&[b'g'; 64]), Err(DecodeError::Hello));
    }

    #[test]
    fn versions_must_overlap() {
        let ours = Hello::new(End::Host, [0; 16]);
        let newer = Hello { version_oldest: 2, version: 3, ..ours };
        assert!(ours.speaks_with(&ours));
        assert!(!ours.speaks_with(&newer) && !newer.speaks_with(&ours));
    }
}
