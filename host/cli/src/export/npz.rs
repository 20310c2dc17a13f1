//! A head's numbers as npz: a zip archive of npy files, stored, for `numpy.load`. Text is arrays of unicode strings.
//!
//! Formats: numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0; PKWARE APPNOTE 4.3.

use super::{Dtype, Exported};

/// The bytes of the file.
pub fn npz(head: &Exported<'_>, labels: &[&str]) -> Vec<u8> {
    let mut archive = Archive::default();
    for (name, dtype, shape, bytes) in head.arrays() {
        let dtype = match dtype {
            Dtype::F32 => "<f4",
            Dtype::F64 => "<f8",
        };
        archive.add(name, &npy(dtype, &shape, &bytes));
    }
    archive.add("labels", &text(labels, &[labels.len()]));
    for (key, value) in head.metadata.iter().filter(|(key, _)| *key != "labels") {
        archive.add(key, &text(&[value], &[]));
    }
    archive.finish()
}

fn npy(dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version and length are 10 bytes; the whole is padded to 64 and ends with a line feed.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - 1 - header.len()));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// An array of unicode strings, UTF-32 padded with zeros.
fn text(values: &[&str], shape: &[usize]) -> Vec<u8> {
    let width = values.iter().map(|value| value.chars().count()).max().unwrap_or(0).max(1);
    let padded = values.iter().flat_map(|value| value.chars().map(u32::from).chain(std::iter::repeat(0)).take(width));
    npy(&format!("<U{width}"), shape, &padded.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

/// A zip archive of stored files.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    n_files: u16,
}

impl Archive {
    fn add(&mut self, name: &str, data: &[u8]) {
        let name = format!("{name}.npy");
        let offset = self.bytes.len() as u32;
        // Version needed 2.0, no flags, stored, 1980-01-01 00:00: the same head, the same file.
        let mut common: Vec<u8> = [20u16, 0, 0, 0, 0x21].iter().flat_map(|value| value.to_le_bytes()).collect();
        for value in [crc32(data), data.len() as u32, data.len() as u32] {
            common.extend(value.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&common);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(data);
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&common);
        // Comment, disk, attributes inside: none; attributes outside: none.
        self.directory.extend([0; 10]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.n_files += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let (start, length) = (self.bytes.len() as u32, self.directory.len() as u32);
        self.bytes.extend(self.directory);
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend([self.n_files, self.n_files].map(u16::to_le_bytes).as_flattened());
        self.bytes.extend([length, start].map(u32::to_le_bytes).as_flattened());
        self.bytes.extend([0; 2]);
        self.bytes
    }
}

/// CRC-32 of zip.
fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::message::HeadChoice;

    #[test]
    fn crc_agrees_with_the_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn npy_headers_are_padded_to_64() {
        let file = npy("<f4", &[2, 3], &[0; 24]);
        assert_eq!((file.len() - 24) % 64, 0);
        assert!(file.starts_with(b"\x93NUMPY\x01\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (2,3,), }"));
        assert!(npy("<f8", &[], &[0; 8]).windows(11).any(|w| w == b"'shape': ()"));
    }

    #[test]
    fn the_archive_lists_every_array() {
        let head = super::super::tests::head(HeadChoice::Ncm);
        let file = npz(&Exported::of(&head, "ncm").unwrap(), &["a", "ü"]);
        let n_files = u16::from_le_bytes(file[file.len() - 12..][..2].try_into().unwrap());
        assert_eq!(n_files, 9); // centre, offsets, matrix, labels, five of metadata
        assert!(file.windows(10).any(|w| w == b"labels.npy"));
    }
}
