//! NumPy's `.npz`: a zip archive of `.npy` files, stored (`np.savez`) or deflated (`np.savez_compressed`).
//!
//! Sizes are taken from the central directory, as zip readers do. Reference: PKWARE APPNOTE 6.3.10, sections 4.3.7
//! (local header), 4.3.12 (central directory), 4.3.16 (its end). Zip64 is needed only beyond 4 GiB, and refused.

use std::io::Read;

use crate::array::Array;
use crate::error::InputError;
use crate::{Limits, kind, npy};

/// Most arrays in one archive.
const ENTRIES_MAX: usize = 4096;
const END_LEN: usize = 22;
const ENTRY_LEN: usize = 46;
const LOCAL_LEN: usize = 30;

/// Decodes every `.npy` in an archive, in the archive's order; names without `.npy`.
///
/// `limits.decoder_bytes_max` holds for all arrays and their unpacked files together.
///
/// # Errors
/// [`InputError::Malformed`], [`InputError::CutOff`], limits, and the errors of [`crate::decode_npy`].
pub fn decode_npz(bytes: &[u8], limits: &Limits) -> Result<Vec<(String, Array)>, InputError> {
    limits.check_file(bytes)?;
    if !kind::is_zip(bytes) {
        return Err(malformed("it is no zip archive"));
    }
    let entries = directory(bytes)?;
    // Arrays stay, the unpacked file of one entry at a time lies beside them.
    let mut left = limits.decoder_bytes_max;
    let mut arrays = Vec::new();
    for entry in entries.iter().filter(|entry| entry.name.ends_with(".npy")) {
        let unpacked_len = u64::from(entry.unpacked_len);
        limits.check_memory((limits.decoder_bytes_max - left).checked_add(unpacked_len))?;
        let file = entry.unpack(bytes)?;
        let share = Limits { decoder_bytes_max: left - unpacked_len, ..*limits };
        let array = npy::decode_entry(&file, &share)?;
        left = left.saturating_sub(4 * array.values.len() as u64);
        let name = entry.name.strip_suffix(".npy").unwrap_or(&entry.name).to_string();
        arrays.push((name, array));
    }
    Ok(arrays)
}

fn malformed(reason: impl Into<String>) -> InputError {
    InputError::Malformed { format: ".npz", reason: reason.into() }
}

/// One row of the central directory.
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    packed_len: u32,
    unpacked_len: u32,
    local_at: u32,
}

fn directory(bytes: &[u8]) -> Result<Vec<Entry>, InputError> {
    let cut_off = || InputError::CutOff { format: ".npz", bytes: bytes.len() as u64 };
    // The end record is followed by a comment of at most 65,535 bytes.
    let tail_at = bytes.len().saturating_sub(END_LEN + 0xffff);
    let tail = bytes.get(tail_at..).unwrap_or_default();
    let end = tail.windows(END_LEN).rposition(|window| window.starts_with(b"PK\x05\x06")).ok_or_else(cut_off)?;
    let end = tail.get(end..).unwrap_or_default();
    let n_entries = usize::from(u16_at(end, 10).ok_or_else(cut_off)?);
    if n_entries > ENTRIES_MAX {
        return Err(malformed(format!("it has {n_entries} entries, at most {ENTRIES_MAX} are allowed")));
    }
    let start = u32_at(end, 16).ok_or_else(cut_off)?;
    let mut rest = bytes.get(start as usize..).ok_or_else(|| malformed("its directory lies behind its end"))?;
    let mut entries = Vec::with_capacity(n_entries);
    for _ in 0..n_entries {
        let (entry, len) = Entry::read(rest).ok_or_else(|| malformed("its directory is damaged"))?;
        rest = rest.get(len..).unwrap_or_default();
        entries.push(entry);
    }
    Ok(entries)
}

impl Entry {
    /// The row at the start of `bytes`, and its length.
    fn read(bytes: &[u8]) -> Option<(Entry, usize)> {
        if !bytes.starts_with(b"PK\x01\x02") {
            return None;
        }
        let name_end = ENTRY_LEN + usize::from(u16_at(bytes, 28)?);
        let len = name_end + usize::from(u16_at(bytes, 30)?) + usize::from(u16_at(bytes, 32)?);
        let entry = Entry {
            name: String::from_utf8_lossy(bytes.get(ENTRY_LEN..name_end)?).into_owned(),
            flags: u16_at(bytes, 8)?,
            method: u16_at(bytes, 10)?,
            crc: u32_at(bytes, 16)?,
            packed_len: u32_at(bytes, 20)?,
            unpacked_len: u32_at(bytes, 24)?,
            local_at: u32_at(bytes, 42)?,
        };
        Some((entry, len))
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>, InputError> {
        let refuse = |problem: String| malformed(format!("entry {:?} {problem}", self.name));
        if self.flags & 1 != 0 {
            return Err(refuse("is encrypted".to_string()));
        }
        if [self.packed_len, self.unpacked_len, self.local_at].contains(&u32::MAX) {
            return Err(refuse("is zip64, files beyond 4 GiB are not read".to_string()));
        }
        let local = bytes.get(self.local_at as usize..).unwrap_or_default();
        let skip = || Some(LOCAL_LEN + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?));
        let packed = skip()
            .filter(|_| local.starts_with(b"PK\x03\x04"))
            .and_then(|skip| local.get(skip..)?.get(..self.packed_len as usize))
            .ok_or_else(|| refuse("does not lie where the directory says".to_string()))?;
        let unpacked = match self.method {
            0 => packed.to_vec(),
            8 => {
                // Grows with what is really there; the reader stops one byte behind the stated length.
                let mut unpacked = Vec::new();
                flate2::read::DeflateDecoder::new(packed)
                    .take(u64::from(self.unpacked_len) + 1)
                    .read_to_end(&mut unpacked)
                    .map_err(|error| refuse(format!("cannot be unpacked: {error}")))?;
                unpacked
            }
            method => return Err(refuse(format!("has compression method {method}, allowed are 0 and 8"))),
        };
        if unpacked.len() as u64 != u64::from(self.unpacked_len) {
            return Err(refuse(format!("does not have the {} bytes that the directory says", self.unpacked_len)));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&unpacked);
        if crc.sum() != self.crc {
            return Err(refuse(format!("has CRC-32 {:08x}, the directory says {:08x}", crc.sum(), self.crc)));
        }
        Ok(unpacked)
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an archive of one entry; `unpacked` is what the directory claims.
    fn archive(name: &str, method: u16, flags: u16, packed: &[u8], unpacked: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(unpacked);
        let mut common = Vec::new();
        for field in [20, flags, method, 0, 0] {
            common.extend(u16::to_le_bytes(field));
        }
        for field in [crc.sum(), packed.len() as u32, unpacked.len() as u32] {
            common.extend(field.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        let mut zip = [b"PK\x03\x04", &common[..], name.as_bytes(), packed].concat();
        let start = zip.len() as u32;
        zip.extend(b"PK\x01\x02\x14\0");
        zip.extend(&common);
        zip.extend([0; 14]);
        zip.extend(name.as_bytes());
        let len = zip.len() as u32 - start;
        zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        zip.extend(len.to_le_bytes());
        zip.extend(start.to_le_bytes());
        zip.extend([0; 2]);
        zip
    }

    fn npy(n: u32) -> Vec<u8> {
        let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({n},), }}");
        header.push('\n');
        let len = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\0", &len[..], header.as_bytes(), &vec![7; n as usize]].concat()
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn text(zip: &[u8], limits: &Limits) -> String {
        decode_npz(zip, limits).unwrap_err().to_string()
    }

    #[test]
    fn stored_and_deflated_give_the_same_array() {
        let file = npy(300);
        let expected = vec![("a".to_string(), Array { shape: vec![300], values: vec![7.0; 300] })];
        for zip in [archive("a.npy", 0, 0, &file, &file), archive("a.npy", 8, 0, &deflated(&file), &file)] {
            assert_eq!(decode_npz(&zip, &Limits::default()).unwrap(), expected);
        }
        assert_eq!(decode_npz(&archive("a.txt", 0, 0, &file, &file), &Limits::default()).unwrap(), []);
    }

    #[test]
    fn a_bomb_is_refused_by_its_claim_and_by_its_content() {
        let limits = Limits { decoder_bytes_max: 10_000, ..Limits::default() };
        let file = npy(1_000_000);
        let honest = archive("a.npy", 8, 0, &deflated(&file), &file);
        assert_eq!(
            text(&honest, &limits),
            format!("decoding needs {} bytes of memory, at most 10000 are allowed", file.len())
        );
        let lying = archive("a.npy", 8, 0, &deflated(&file), &file[..5000]);
        assert_eq!(
            text(&lying, &limits),
            ".npz file cannot be decoded: entry \"a.npy\" does not have the 5000 bytes that the directory says"
        );
    }

    #[test]
    fn damage_is_named() {
        let file = npy(3);
        let limits = Limits::default();
        let good = archive("a.npy", 0, 0, &file, &file);
        let short = &good[..good.len() - 1];
        assert_eq!(text(short, &limits), format!(".npz file is cut off after {} bytes; copy it again", short.len()));
        let mut flipped = good.clone();
        flipped[35 + file.len() - 1] ^= 1;
        assert_eq!(
            text(&flipped, &limits),
            ".npz file cannot be decoded: entry \"a.npy\" has CRC-32 162441b9, the directory says 6123712f"
        );
        assert_eq!(
            text(&archive("a.npy", 12, 0, &file, &file), &limits),
            ".npz file cannot be decoded: entry \"a.npy\" has compression method 12, allowed are 0 and 8"
        );
        assert_eq!(
            text(&archive("a.npy", 0, 1, &file, &file), &limits),
            ".npz file cannot be decoded: entry \"a.npy\" is encrypted"
        );
        assert_eq!(text(b"hello", &limits), ".npz file cannot be decoded: it is no zip archive");
    }
}
