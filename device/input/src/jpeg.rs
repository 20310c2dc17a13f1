//! JPEG to RGB, through `jpeg-decoder`, after a look at the file's markers.
//!
//! The look decides, before anything is allocated, whether the file is whole, how much memory its sampling and process
//! take, and whether it repeats its scans without end. Reference: ITU-T T.81, annex B.

use std::io::ErrorKind;

use jpeg_decoder::{Decoder, Error, PixelFormat};

use crate::Limits;
use crate::error::InputError;
use crate::exif::{self, Orientation};
use crate::picture::{Picture, cmyk_to_rgb};

/// Most scans of one file. Encoders write 1 to 14; each may cost a pass over all blocks however short it is.
const SCANS_MAX: usize = 100;

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Picture, Orientation), InputError> {
    let outline = Outline::read(bytes);
    if !outline.is_whole {
        return Err(InputError::CutOff { format: "JPEG", bytes: bytes.len() as u64 });
    }
    let Some(frame) = outline.frame else {
        return Err(malformed("it has no frame header".to_string()));
    };
    if frame.is_lossless {
        return Err(malformed("it is lossless JPEG; baseline, extended and progressive are allowed".to_string()));
    }
    limits.check_pixels(u32::from(frame.width), u32::from(frame.height))?;
    limits.check_memory(frame.decoder_bytes())?;
    if outline.n_scans > SCANS_MAX {
        return Err(malformed(format!("it has {} scans, at most {SCANS_MAX} are allowed", outline.n_scans)));
    }

    let refuse = |error: Error| describe(error, bytes);
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(usize::try_from(limits.decoder_bytes_max).unwrap_or(usize::MAX));
    decoder.read_info().map_err(refuse)?;
    let Some(info) = decoder.info() else {
        return Err(malformed("it has no frame header".to_string()));
    };
    // The limits were checked on our reading of the header.
    if (info.width, info.height) != (frame.width, frame.height) {
        return Err(malformed(format!("it has two frame headers, {frame} and {}x{}", info.width, info.height)));
    }
    let samples = decoder.decode().map_err(refuse)?;
    let orientation = decoder.exif_data().map_or(Orientation::UPRIGHT, exif::orientation);
    drop(decoder);
    let rgb: Vec<u8> = match info.pixel_format {
        PixelFormat::RGB24 => samples,
        PixelFormat::L8 => samples.iter().flat_map(|&v| [v; 3]).collect(),
        // The decoder has undone Adobe's inversion, which every program that writes CMYK JPEG follows: 0 is no ink.
        PixelFormat::CMYK32 => samples.as_chunks::<4>().0.iter().flat_map(|&ink| cmyk_to_rgb(ink)).collect(),
        PixelFormat::L16 => return Err(malformed("it has 16 bits per sample, 8 are allowed".to_string())),
    };
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    if rgb.len() as u64 != 3 * u64::from(width) * u64::from(height) {
        return Err(malformed(format!("{width}x{height} pixels were expected, {} bytes came", rgb.len())));
    }
    Ok((Picture { width, height, rgb }, orientation))
}

fn malformed(reason: String) -> InputError {
    InputError::Malformed { format: "JPEG", reason }
}

fn describe(error: Error, bytes: &[u8]) -> InputError {
    match error {
        Error::Io(io) if io.kind() == ErrorKind::UnexpectedEof => {
            InputError::CutOff { format: "JPEG", bytes: bytes.len() as u64 }
        }
        Error::Format(reason) => malformed(reason),
        Error::Unsupported(feature) => malformed(format!("it uses {feature:?}, which is not supported")),
        other => malformed(other.to_string()),
    }
}

/// What the markers of a file say, without decoding.
struct Outline {
    /// The end-of-image marker was reached.
    is_whole: bool,
    n_scans: usize,
    frame: Option<Frame>,
}

#[derive(Clone, Copy)]
struct Frame {
    width: u16,
    height: u16,
    is_progressive: bool,
    is_lossless: bool,
    n_components: u64,
    /// Blocks of 8 x 8 samples in one MCU, all components together.
    mcu_blocks: u64,
    /// Largest horizontal and vertical sampling factor.
    sampling_max: (u64, u64),
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl Outline {
    fn read(bytes: &[u8]) -> Outline {
        let mut outline = Outline { is_whole: false, n_scans: 0, frame: None };
        let mut rest = bytes;
        // A marker is FF, any number of further FF, and a code. Within a scan FF is followed by 00 (a literal FF) or by
        // a restart marker, so that the same search also passes over scans.
        while let Some(start) = rest.iter().position(|&byte| byte == 0xff) {
            rest = rest.get(start..).unwrap_or_default();
            let Some(code_at) = rest.iter().position(|&byte| byte != 0xff) else { return outline };
            let Some((&code, after)) = rest.get(code_at..).unwrap_or_default().split_first() else { return outline };
            rest = after;
            match code {
                // Stuffing, TEM, RST0..7, SOI: no length follows.
                0x00 | 0x01 | 0xd0..=0xd8 => continue,
                0xd9 => {
                    outline.is_whole = true;
                    return outline;
                }
                0xda => outline.n_scans += 1,
                _ => {}
            }
            let Some(&[high, low]) = rest.get(..2) else { return outline };
            let len = usize::from(u16::from_be_bytes([high, low]));
            // SOF0..15 without DHT (c4), JPG (c8) and DAC (cc).
            if matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc) && outline.frame.is_none() {
                outline.frame = Frame::read(code, rest);
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        outline
    }
}

impl Frame {
    /// `segment` begins at its length: Lf, P, Y, X, Nf, then Ci, Hi/Vi, Tqi for each component.
    fn read(code: u8, segment: &[u8]) -> Option<Frame> {
        let &[_, _, _, y1, y0, x1, x0, n_components] = segment.get(..8)? else { return None };
        let components = segment.get(8..8 + 3 * usize::from(n_components))?;
        let sampling =
            components.chunks_exact(3).filter_map(|c| c.get(1)).map(|&hv| (u64::from(hv >> 4), u64::from(hv & 15)));
        let sampling_max = sampling.clone().fold((1, 1), |max, hv| (max.0.max(hv.0), max.1.max(hv.1)));
        Some(Frame {
            width: u16::from_be_bytes([x1, x0]),
            height: u16::from_be_bytes([y1, y0]),
            is_progressive: matches!(code, 0xc2 | 0xc6 | 0xca | 0xce),
            is_lossless: matches!(code, 0xc3 | 0xc7 | 0xcb | 0xcf),
            n_components: u64::from(n_components),
            mcu_blocks: sampling.map(|(h, v)| h * v).sum(),
            sampling_max,
        })
    }

    /// Most memory that decoding takes, bytes. The decoder hands rows of i16 coefficients to one thread per component
    /// over unbounded queues, and keeps all coefficients of a progressive file; planes and result are u8.
    fn decoder_bytes(&self) -> Option<u64> {
        let (h, v) = self.sampling_max;
        let n_mcus = u64::from(self.width).div_ceil(8 * h) * u64::from(self.height).div_ceil(8 * v);
        let n_samples = n_mcus.checked_mul(64 * self.mcu_blocks)?;
        let result = u64::from(self.width) * u64::from(self.height) * self.n_components.max(3);
        let kept = if self.is_progressive { n_samples.checked_mul(2)? } else { 0 };
        // Either queued rows and planes, or planes and result; a turned or converted picture exists beside the result.
        let decoding = kept.checked_add(n_samples.checked_mul(3)?)?;
        let composing = kept.checked_add(n_samples)?.checked_add(result)?;
        Some(decoding.max(composing).max(result.checked_mul(2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOF_420: &[u8] = b"\xff\xc0\0\x11\x08\x0f\xa0\x17\x70\x03\x01\x22\0\x02\x11\x01\x03\x11\x01";

    fn file(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn outline_passes_over_segments_stuffing_restarts_and_fill() {
        // The APP1 segment holds what looks like an end and a scan; the scan holds a literal ff and a restart.
        let whole = file(&[
            b"\xff\xd8\xff\xe1\0\x08\xff\xd9\xff\xda\0\0",
            SOF_420,
            b"\xff\xff\xda\0\x03\0\x12\xff\0\xff\xd0\x34\xff\xd9",
        ]);
        let outline = Outline::read(&whole);
        assert!(outline.is_whole);
        assert_eq!(outline.n_scans, 1);
        let frame = outline.frame.unwrap();
        assert_eq!((frame.width, frame.height), (6000, 4000));
        for len in 0..whole.len() {
            assert!(!Outline::read(&whole[..len]).is_whole, "{len} bytes");
        }
    }

    #[test]
    fn memory_follows_sampling_and_process() {
        let baseline = Outline::read(SOF_420).frame.unwrap();
        // 24 million pixels; planes and queue of a 4:2:0 file take 1.5 * 3 bytes each, the picture twice takes 6.
        assert_eq!(baseline.decoder_bytes(), Some(2 * 72_000_000));
        let progressive = Frame { is_progressive: true, ..baseline };
        assert_eq!(progressive.decoder_bytes(), Some(36_000_000 * 5));
    }

    #[test]
    fn endless_scans_are_refused() {
        let mut bytes = file(&[b"\xff\xd8", SOF_420]);
        for _ in 0..101 {
            bytes.extend(b"\xff\xda\0\x02");
        }
        bytes.extend(b"\xff\xd9");
        let error = decode(&bytes, &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "JPEG file cannot be decoded: it has 101 scans, at most 100 are allowed");
    }
}
