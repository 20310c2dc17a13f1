//! The one EXIF tag that changes pixels: orientation (0x0112), from the TIFF structure that JPEG's APP1 and PNG's eXIf
//! hold. Reference: CIPA DC-008 (EXIF 2.3), 4.6.2 and 4.6.4; TIFF 6.0 section 2.
//!
//! A damaged EXIF block is common and says nothing about the picture, so it means "no orientation" and is no error.

/// How the stored rows and columns lie in the picture that a viewer shows; EXIF's values 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation {
    /// Rows and columns change places, before the mirrors.
    pub transpose: bool,
    /// Left and right change places in the result.
    pub mirror_x: bool,
    /// Top and bottom change places in the result.
    pub mirror_y: bool,
}

impl Orientation {
    /// As stored.
    pub const UPRIGHT: Orientation = Orientation { transpose: false, mirror_x: false, mirror_y: false };

    fn from_value(value: u16) -> Option<Orientation> {
        let (transpose, mirror_x, mirror_y) = match value {
            1 => (false, false, false),
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            // Stored on its left side: turn clockwise.
            6 => (true, true, false),
            7 => (true, true, true),
            // Stored on its right side: turn counter-clockwise.
            8 => (true, false, true),
            _ => return None,
        };
        Some(Orientation { transpose, mirror_x, mirror_y })
    }
}

/// Reads the orientation from a TIFF structure (`II*\0...` or `MM\0*...`); upright if there is none.
pub(crate) fn orientation(tiff: &[u8]) -> Orientation {
    orientation_value(tiff).and_then(Orientation::from_value).unwrap_or(Orientation::UPRIGHT)
}

fn orientation_value(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |offset: usize| -> Option<u16> {
        let bytes = tiff.get(offset..offset.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let u32_at = |offset: usize| -> Option<u32> {
        let bytes = tiff.get(offset..offset.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(u32_at(4)?).ok()?;
    let n_entries = usize::from(u16_at(directory)?);
    // At most 65,535 entries of 12 bytes, each read inside `tiff`: tag, type (3 = SHORT), count, value.
    (0..n_entries).find_map(|i| {
        let entry = directory.checked_add(2 + 12 * i)?;
        let is_orientation = u16_at(entry)? == 0x0112 && u16_at(entry + 2)? == 3 && u32_at(entry + 4)? == 1;
        if is_orientation { u16_at(entry + 8) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn little(value: u16) -> Vec<u8> {
        let mut tiff = b"II*\0\x08\0\0\0\x02\0".to_vec();
        tiff.extend(b"\x10\x01\x02\0\x04\0\0\0abc\0");
        tiff.extend(b"\x12\x01\x03\0\x01\0\0\0");
        tiff.extend(value.to_le_bytes());
        tiff.extend([0; 6]);
        tiff
    }

    #[test]
    fn both_byte_orders_are_read() {
        assert_eq!(orientation_value(&little(6)), Some(6));
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0";
        assert_eq!(orientation_value(big), Some(8));
    }

    #[test]
    fn damage_means_upright() {
        assert_eq!(orientation(&little(0)), Orientation::UPRIGHT);
        assert_eq!(orientation(&little(9)), Orientation::UPRIGHT);
        let whole = little(3);
        assert_eq!(orientation(&whole), Orientation { transpose: false, mirror_x: true, mirror_y: true });
        // The value lies at 30..32.
        for len in 0..32 {
            assert_eq!(orientation(&whole[..len]), Orientation::UPRIGHT, "{len} bytes");
        }
        let mut far = whole.clone();
        far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(orientation(&far), Orientation::UPRIGHT);
    }
}
