//! Picture files to RGB, defined to the bit.
//!
//! | file has | becomes |
//! |---|---|
//! | grey | R = G = B |
//! | palette, 1, 2 or 4 bits per sample | 8 bits per sample: `v * 255 / (2^bits - 1)`, palette entries as they are |
//! | 16 bits per sample | `(v * 255 + 32895) >> 16`, which is `v / 257` rounded to nearest |
//! | alpha or a transparent colour | over black: `(v * alpha + 127) / 255`, on 8-bit values; no ties can occur |
//! | CMYK, YCCK (JPEG) | stored inverted as Adobe does; then `k' - c k' / 255` per channel, as Pillow converts |
//! | EXIF orientation 1 to 8 | applied, from JPEG's APP1 or PNG's eXIf |
//! | several pictures (APNG) | the default one |
//! | gamma, ICC profile, sRGB chunk | ignored, as in the training of the usual backbones |
//!
//! PNG is lossless, so nothing else is to be defined. JPEG's inverse transform, upsampling and colour conversion are
//! those of `jpeg-decoder`, integers without SIMD; the golden hashes in `tests/golden.rs` pin them.

use crate::error::InputError;
use crate::exif::Orientation;
use crate::{Limits, jpeg, kind, png};

/// A decoded picture, the right way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`: red, green, blue.
    pub rgb: Vec<u8>,
}

/// Decodes a PNG or JPEG file.
///
/// # Errors
/// Formats other than PNG and JPEG, damaged or incomplete files, and files beyond `limits`: see [`InputError`].
pub fn decode_picture(bytes: &[u8], limits: &Limits) -> Result<Picture, InputError> {
    limits.check_file(bytes)?;
    kind::refuse_unless_decodable(bytes)?;
    let (picture, orientation) =
        if kind::is_png(bytes) { png::decode(bytes, limits)? } else { jpeg::decode(bytes, limits)? };
    Ok(oriented(picture, orientation))
}

/// 16-bit sample to 8 bits, rounded to nearest; exact for all 65,536 values.
pub(crate) fn narrow(v: u16) -> u8 {
    ((u32::from(v) * 255 + 32895) >> 16) as u8
}

/// Sample over black.
pub(crate) fn over_black(v: u8, alpha: u8) -> u8 {
    ((u16::from(v) * u16::from(alpha) + 127) / 255) as u8
}

/// Ink (0 = none) to light. With `k' = 255 - k`: `k' - round(c * k' / 255)`, as Pillow converts.
pub(crate) fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - k;
    [c, m, y].map(|ink| light - over_black(ink, light))
}

/// Turns a picture the right way up.
fn oriented(picture: Picture, orientation: Orientation) -> Picture {
    if orientation == Orientation::UPRIGHT {
        return picture;
    }
    let Picture { width, height, rgb } = picture;
    let (pixels, _) = rgb.as_chunks::<3>();
    let stored_width = width as usize;
    let (width, height) = if orientation.transpose { (height, width) } else { (width, height) };
    let mut turned = Vec::with_capacity(rgb.len());
    for y in 0..height as usize {
        let y = if orientation.mirror_y { height as usize - 1 - y } else { y };
        // The result's row `y` is a row of `pixels`, or, transposed, a column.
        let (start, step) = if orientation.transpose { (y, stored_width) } else { (y * stored_width, 1) };
        let line = pixels.iter().skip(start).step_by(step.max(1)).take(width as usize);
        let from = turned.len();
        turned.extend(line.copied());
        if orientation.mirror_x
            && let Some(row) = turned.get_mut(from..)
        {
            row.reverse();
        }
    }
    Picture { width, height, rgb: turned.into_flattened() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_to_nearest_for_every_value() {
        for v in 0..=u16::MAX {
            assert_eq!(u32::from(narrow(v)), (u32::from(v) + 128) / 257, "{v}");
        }
    }

    #[test]
    fn blending_rounds_to_nearest_for_every_pair() {
        for v in 0..=255u8 {
            for alpha in 0..=255u8 {
                let exact = f64::from(v) * f64::from(alpha) / 255.0;
                assert_eq!(f64::from(over_black(v, alpha)), exact.round(), "{v} {alpha}");
            }
        }
    }

    #[test]
    fn ink_takes_light_away() {
        assert_eq!(cmyk_to_rgb([0, 0, 0, 0]), [255, 255, 255]);
        assert_eq!(cmyk_to_rgb([0, 0, 0, 255]), [0, 0, 0]);
        assert_eq!(cmyk_to_rgb([255, 0, 128, 55]), [0, 200, 100]);
    }

    /// EXIF's own words (DC-008 table "Orientation"): where the stored row 0 and column 0 are seen.
    #[test]
    fn orientations_put_row_and_column_zero_where_exif_says() {
        // Stored: a b c / d e f.
        let stored = Picture { width: 3, height: 2, rgb: b"abcdef".iter().flat_map(|&v| [v; 3]).collect() };
        let expected: [(u16, &str); 8] = [
            (1, "abc/def"),
            (2, "cba/fed"),
            (3, "fed/cba"),
            (4, "def/abc"),
            (5, "ad/be/cf"),
            (6, "da/eb/fc"),
            (7, "fc/eb/da"),
            (8, "cf/be/ad"),
        ];
        for (value, rows) in expected {
            let mut tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            tiff.extend(value.to_le_bytes());
            let seen = oriented(stored.clone(), crate::exif::orientation(&tiff));
            let lines: Vec<String> = seen
                .rgb
                .chunks(3 * seen.width as usize)
                .map(|row| row.iter().step_by(3).map(|&v| char::from(v)).collect())
                .collect();
            assert_eq!(lines.join("/"), rows, "orientation {value}");
            assert_eq!(lines.len(), seen.height as usize);
        }
    }
}
