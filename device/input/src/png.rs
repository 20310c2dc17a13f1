//! PNG to RGB, through the `png` crate.

use std::io::{Cursor, ErrorKind};

use png::{BitDepth, ColorType, DecodingError, Transformations};

use crate::Limits;
use crate::error::InputError;
use crate::exif::{self, Orientation};
use crate::picture::{Picture, narrow, over_black};

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Picture, Orientation), InputError> {
    let refuse = |error: DecodingError| describe(error, bytes, limits);
    let mut options = png::DecodeOptions::default();
    // A wrong checksum is damage, like a wrong CRC, which is checked anyway.
    options.set_ignore_adler32(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(png::Limits { bytes: usize::try_from(limits.decoder_bytes_max).unwrap_or(usize::MAX) });
    decoder.set_transformations(Transformations::EXPAND);
    // The size is known, and refused if need be, before a row is allocated.
    let header = decoder.read_header_info().map_err(refuse)?;
    let (width, height) = header.size();
    // At worst RGBA as stored, then its 8-bit form (16 bits) or RGB; or RGB twice, where it is turned.
    let bytes_per_pixel = if header.bit_depth == BitDepth::Sixteen { 8 + 4 } else { 4 + 3 };
    limits.check_pixels(width, height)?;
    limits.check_memory(Some(bytes_per_pixel * u64::from(width) * u64::from(height)))?;

    let mut reader = decoder.read_info().map_err(refuse)?;
    let Some(len) = reader.output_buffer_size() else {
        return Err(InputError::TooMuchMemory { needed: u64::MAX, max: limits.decoder_bytes_max });
    };
    let mut samples = vec![0; len];
    let frame = reader.next_frame(&mut samples).map_err(refuse)?;
    // To the end: orientation may follow the pixels, and a file without its end is damaged.
    reader.finish().map_err(refuse)?;
    let orientation = reader.info().exif_metadata.as_deref().map_or(Orientation::UPRIGHT, exif::orientation);
    if (frame.width, frame.height) != (width, height) {
        let reason = format!("its default picture is {}x{} inside {width}x{height}", frame.width, frame.height);
        return Err(InputError::Malformed { format: "PNG", reason });
    }
    if frame.bit_depth == BitDepth::Sixteen {
        // PNG is big-endian, and so is what the decoder returns.
        let (pairs, _) = samples.as_chunks::<2>();
        samples = pairs.iter().map(|&pair| narrow(u16::from_be_bytes(pair))).collect();
    }
    let rgb = match frame.color_type {
        ColorType::Rgb => samples,
        ColorType::Rgba => {
            samples.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, a]| [r, g, b].map(|v| over_black(v, a))).collect()
        }
        ColorType::Grayscale => samples.iter().flat_map(|&v| [v; 3]).collect(),
        ColorType::GrayscaleAlpha => {
            samples.as_chunks::<2>().0.iter().flat_map(|&[v, a]| [over_black(v, a); 3]).collect()
        }
        ColorType::Indexed => {
            let reason = "its palette was not expanded".to_string();
            return Err(InputError::Malformed { format: "PNG", reason });
        }
    };
    Ok((Picture { width, height, rgb }, orientation))
}

fn describe(error: DecodingError, bytes: &[u8], limits: &Limits) -> InputError {
    match error {
        DecodingError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            InputError::CutOff { format: "PNG", bytes: bytes.len() as u64 }
        }
        DecodingError::LimitsExceeded => {
            let reason = format!("a part of it needs more than {} bytes of memory", limits.decoder_bytes_max);
            InputError::Malformed { format: "PNG", reason }
        }
        other => InputError::Malformed { format: "PNG", reason: other.to_string() },
    }
}
