//! Files to the int8 input tensor: decode, preprocess, quantize.
//!
//! Everything here is defined in integers, or in f64 operations that IEEE 754 rounds exactly, so that a host and every
//! board make the same bytes from the same file. Bytes from outside never panic: each length is checked against
//! [`Limits`] before anything is allocated for it.
//!
//! - [`prepare`]: the one function for a file of any kind;
//! - [`decode_picture`]: PNG and JPEG to RGB; which choices that takes is written in [`picture`];
//! - [`geometry`]: resize, crop, letterbox or strokes, see [`frame`], [`resize`] and [`mod@strokes`];
//! - [`decode_npy`], [`decode_npz`], [`array_to_tensor`]: NumPy's files.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod array;
mod error;
mod exif;
pub mod frame;
mod jpeg;
mod kind;
mod npy;
mod npz;
pub mod picture;
mod png;
pub mod resize;
pub mod strokes;

use graft_bundle::input::{ImageSpec, InputSpec};

pub use array::{Array, array_to_tensor};
pub use error::InputError;
pub use frame::geometry;
pub use kind::{Kind, kind_of};
pub use npy::decode_npy;
pub use npz::decode_npz;
pub use picture::{Picture, decode_picture};
pub use strokes::{StrokesError, strokes};

/// What one file may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest accepted file, bytes.
    pub file_bytes_max: u64,
    /// Most pixels of a picture, width * height.
    pub pixels_max: u64,
    /// Most memory that decoding may take beside the file itself, bytes; for `.npz`, of all its arrays together.
    pub decoder_bytes_max: u64,
}

impl Default for Limits {
    /// 64 MiB, 100 million pixels, 512 MiB.
    fn default() -> Limits {
        Limits { file_bytes_max: 64 << 20, pixels_max: 100_000_000, decoder_bytes_max: 512 << 20 }
    }
}

impl Limits {
    fn check_file(&self, bytes: &[u8]) -> Result<(), InputError> {
        let found = bytes.len() as u64;
        if found == 0 {
            return Err(InputError::EmptyFile);
        }
        if found > self.file_bytes_max {
            return Err(InputError::FileTooLong { bytes: found, max: self.file_bytes_max });
        }
        Ok(())
    }

    fn check_pixels(&self, width: u32, height: u32) -> Result<(), InputError> {
        if u64::from(width) * u64::from(height) > self.pixels_max {
            return Err(InputError::TooManyPixels { width, height, max: self.pixels_max });
        }
        Ok(())
    }

    /// `needed` is `None` when the sum does not even fit.
    fn check_memory(&self, needed: Option<u64>) -> Result<(), InputError> {
        let needed = needed.unwrap_or(u64::MAX);
        if needed > self.decoder_bytes_max {
            return Err(InputError::TooMuchMemory { needed, max: self.decoder_bytes_max });
        }
        Ok(())
    }
}

/// Turns a file into the input tensor of a bundle: the one function for files, on host and board alike.
///
/// Pictures: [`decode_picture`], [`geometry`], then `spec.image.table`. Arrays: [`decode_npy`] (or the only array of an
/// `.npz`), then [`array_to_tensor`].
///
/// Shape of the result: `[H, W, C]`, int8; for arrays that are not pictures, the model's shape with channels last.
///
/// # Errors
/// Any [`InputError`]; the bytes may be anything.
pub fn prepare(bytes: &[u8], spec: &InputSpec, limits: &Limits) -> Result<Vec<i8>, InputError> {
    limits.check_file(bytes)?;
    match kind_of(bytes) {
        Some(Kind::Array) => array_to_tensor(&only_array(bytes, limits)?, &spec.array),
        // Decoding also finds the words for a file of no known kind.
        Some(Kind::Image) | None => {
            let Some(image) = &spec.image else {
                kind::refuse_unless_decodable(bytes)?;
                return Err(InputError::ImageNotAccepted { shape: spec.array.shape.clone() });
            };
            let pixels = geometry(&decode_picture(bytes, limits)?, image)?;
            quantize_pixels(&pixels, image)
        }
    }
}

fn only_array(bytes: &[u8], limits: &Limits) -> Result<Array, InputError> {
    if !kind::is_zip(bytes) {
        return decode_npy(bytes, limits);
    }
    let mut arrays = decode_npz(bytes, limits)?;
    match (arrays.pop(), arrays.is_empty()) {
        (Some((_, array)), true) => Ok(array),
        (last, _) => {
            let names = arrays.into_iter().chain(last).map(|(name, _)| name).collect();
            Err(InputError::NpzCount { names })
        }
    }
}

/// `[H, W, C]` u8 -> `[H, W, C]` int8 through each channel's table.
fn quantize_pixels(pixels: &[u8], spec: &ImageSpec) -> Result<Vec<i8>, InputError> {
    let (tables, rest) = spec.table.as_chunks::<256>();
    let n_channels = spec.channels.count() as usize;
    if tables.len() != n_channels || !rest.is_empty() {
        let problem = format!("table has {} bytes, must have {}", spec.table.len(), 256 * n_channels);
        return Err(InputError::Spec { problem });
    }
    let mut tensor = Vec::with_capacity(pixels.len());
    for pixel in pixels.chunks_exact(n_channels) {
        // A u8 always lies in a table of 256.
        tensor.extend(pixel.iter().zip(tables).map(|(&v, table)| table.get(usize::from(v)).map_or(0, |&q| q as i8)));
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests;
