//! What a file is, by its content; names lie.

use crate::error::InputError;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture. Also formats that are known but refused with advice (HEIC, WebP, ...), so that a folder of such photos
    /// is reported rather than passed over.
    Image,
    /// `.npy`, or `.npz`: a zip archive whose first entry is an `.npy`.
    Array,
}

/// Tells pictures and arrays from everything else.
pub fn kind_of(bytes: &[u8]) -> Option<Kind> {
    if is_npy(bytes) || is_npz(bytes) {
        Some(Kind::Array)
    } else if is_png(bytes) || is_jpeg(bytes) || unsupported(bytes).is_some() {
        Some(Kind::Image)
    } else {
        None
    }
}

pub(crate) fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

pub(crate) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xd8\xff")
}

pub(crate) fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x93NUMPY")
}

/// Begins as a zip archive does, an empty one included.
pub(crate) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

fn is_npz(bytes: &[u8]) -> bool {
    // Local file header: name length at 26, name at 30 (APPNOTE 4.3.7). Other zip archives (documents, programs) are
    // none of ours.
    let Some(&[low, high]) = bytes.get(26..28) else { return false };
    let name = bytes.get(30..30 + usize::from(u16::from_le_bytes([low, high])));
    bytes.starts_with(b"PK\x03\x04") && name.is_some_and(|name| name.ends_with(b".npy"))
}

/// Refuses what is neither PNG nor JPEG, with advice where the format is known.
pub(crate) fn refuse_unless_decodable(bytes: &[u8]) -> Result<(), InputError> {
    if is_png(bytes) || is_jpeg(bytes) {
        return Ok(());
    }
    match unsupported(bytes) {
        Some((format, command)) => Err(InputError::UnsupportedFormat { format, command }),
        None => Err(InputError::UnknownKind { first: bytes.iter().copied().take(8).collect() }),
    }
}

/// Name and converting command of a picture format that we know by its first bytes but do not decode.
fn unsupported(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const HEIC: (&str, &str) = ("HEIC/HEIF", "heif-convert in.heic out.jpg");
    const AVIF: (&str, &str) = ("AVIF", "heif-convert in.avif out.png");
    if bytes.get(4..8) == Some(b"ftyp") {
        // ISO/IEC 14496-12: the major brand, then a version, then compatible brands up to the box's length. `mif1` and
        // `msf1` alone say "some HEIF".
        let brands = bytes.get(8..).unwrap_or_default().chunks_exact(4).take(8);
        return brands
            .filter_map(|brand| match brand {
                b"avif" | b"avis" => Some(AVIF),
                b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" | b"mif1" | b"msf1" => {
                    Some(HEIC)
                }
                _ => None,
            })
            // An AVIF file may list `mif1` first.
            .reduce(|first, next| if next == AVIF { next } else { first });
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some(("WebP", "dwebp in.webp -o out.png"));
    }
    // Two letters are a weak sign; the reserved zeros of BITMAPFILEHEADER make it a strong one.
    if bytes.starts_with(b"BM") && bytes.get(6..10) == Some(&[0; 4]) {
        return Some(("BMP", "magick in.bmp out.png"));
    }
    let table: [(&[u8], &str, &str); 7] = [
        (b"GIF87a", "GIF", "magick 'in.gif[0]' out.png"),
        (b"GIF89a", "GIF", "magick 'in.gif[0]' out.png"),
        (b"II*\0", "TIFF", "magick 'in.tif[0]' out.png"),
        (b"MM\0*", "TIFF", "magick 'in.tif[0]' out.png"),
        (b"\xff\x0a", "JPEG XL", "djxl in.jxl out.png"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL", "djxl in.jxl out.png"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000", "opj_decompress -i in.jp2 -o out.png"),
    ];
    table.iter().find(|(magic, ..)| bytes.starts_with(magic)).map(|&(_, format, command)| (format, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content() {
        assert_eq!(kind_of(b"\x89PNG\r\n\x1a\n"), Some(Kind::Image));
        assert_eq!(kind_of(b"\xff\xd8\xff\xe0"), Some(Kind::Image));
        assert_eq!(kind_of(b"\0\0\0\x18ftypheic\0\0\0\0"), Some(Kind::Image));
        assert_eq!(kind_of(b"\x93NUMPY\x01\0"), Some(Kind::Array));
        let mut zip = b"PK\x03\x04".to_vec();
        zip.resize(26, 0);
        zip.extend(b"\x05\0\0\0a.npy");
        assert_eq!(kind_of(&zip), Some(Kind::Array));
        zip.truncate(30);
        zip.extend(b"a.txt");
        assert_eq!(kind_of(&zip), None);
        assert_eq!(kind_of(b""), None);
        assert_eq!(kind_of(b"label,file\n"), None);
        assert_eq!(kind_of(b"BMW is a car"), None);
    }

    #[test]
    fn known_formats_are_refused_with_a_command() {
        let cases: [(&[u8], &str); 9] = [
            (
                b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
                "HEIC/HEIF pictures cannot be decoded; convert to JPEG or PNG, e.g. `heif-convert in.heic out.jpg`",
            ),
            (
                b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif",
                "AVIF pictures cannot be decoded; convert to JPEG or PNG, e.g. `heif-convert in.avif out.png`",
            ),
            (
                b"RIFF\0\0\0\0WEBPVP8 ",
                "WebP pictures cannot be decoded; convert to JPEG or PNG, e.g. `dwebp in.webp -o out.png`",
            ),
            (
                b"GIF89a\x01\0",
                "GIF pictures cannot be decoded; convert to JPEG or PNG, e.g. `magick 'in.gif[0]' out.png`",
            ),
            (
                b"BM\x36\0\0\0\0\0\0\0",
                "BMP pictures cannot be decoded; convert to JPEG or PNG, e.g. `magick in.bmp out.png`",
            ),
            (b"II*\0", "TIFF pictures cannot be decoded; convert to JPEG or PNG, e.g. `magick 'in.tif[0]' out.png`"),
            (b"\xff\x0a", "JPEG XL pictures cannot be decoded; convert to JPEG or PNG, e.g. `djxl in.jxl out.png`"),
            (
                b"\0\0\0\x0cjP  \r\n",
                "JPEG 2000 pictures cannot be decoded; convert to JPEG or PNG, e.g. `opj_decompress -i in.jp2 -o out.png`",
            ),
            (
                b"<html>",
                "file is neither picture nor array: begins with 3c 68 74 6d 6c 3e; allowed are PNG, JPEG, .npy and .npz",
            ),
        ];
        for (bytes, text) in cases {
            assert_eq!(refuse_unless_decodable(bytes).unwrap_err().to_string(), text);
        }
    }
}
