//! Why a file gives no tensor.

use std::fmt;

use thiserror::Error;

use crate::strokes::StrokesError;

/// Why a file gives no tensor. Each text says what failed, what was seen and what is allowed.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// No bytes at all.
    #[error("file is empty; allowed are PNG, JPEG, .npy and .npz")]
    EmptyFile,
    /// Longer than [`crate::Limits::file_bytes_max`].
    #[error("file has {bytes} bytes, at most {max} are allowed")]
    FileTooLong {
        /// Bytes seen.
        bytes: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// Neither a picture nor an array.
    #[error("file is neither picture nor array: begins with {}; allowed are PNG, JPEG, .npy and .npz", Hex(first))]
    UnknownKind {
        /// The first bytes, at most 8.
        first: Vec<u8>,
    },
    /// A picture format that is known but not decoded.
    #[error("{format} pictures cannot be decoded; convert to JPEG or PNG, e.g. `{command}`")]
    UnsupportedFormat {
        /// Its usual name.
        format: &'static str,
        /// A command that converts it.
        command: &'static str,
    },
    /// More than [`crate::Limits::pixels_max`].
    #[error("picture is {width}x{height}, at most {max} pixels are allowed")]
    TooManyPixels {
        /// Width seen, pixels.
        width: u32,
        /// Height seen, pixels.
        height: u32,
        /// Pixels allowed.
        max: u64,
    },
    /// More than [`crate::Limits::decoder_bytes_max`].
    #[error("decoding needs {needed} bytes of memory, at most {max} are allowed")]
    TooMuchMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The file ends before its format says so.
    #[error("{format} file is cut off after {bytes} bytes; copy it again")]
    CutOff {
        /// `JPEG`, `PNG`, `.npy` or `.npz`.
        format: &'static str,
        /// Bytes seen.
        bytes: u64,
    },
    /// The format's own rules are broken, or a rare variant of it is not decoded.
    #[error("{format} file cannot be decoded: {reason}")]
    Malformed {
        /// `JPEG`, `PNG`, `.npy` or `.npz`.
        format: &'static str,
        /// What was seen and allowed.
        reason: String,
    },
    /// A picture for a bundle that takes arrays alone.
    #[error("a picture was given, this bundle takes arrays only: .npy of shape {}", Shape(shape))]
    ImageNotAccepted {
        /// The shape that it takes.
        shape: Vec<u32>,
    },
    /// An archive with several arrays, or none, where one is needed.
    #[error(".npz file holds {} arrays ({}), exactly 1 is allowed", names.len(), names.join(", "))]
    NpzCount {
        /// Their names, in the file's order.
        names: Vec<String>,
    },
    /// An element type that is not read.
    #[error("array has element type {seen:?}; allowed are f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 and b1")]
    ElementType {
        /// NumPy's `descr` as seen.
        seen: String,
    },
    /// Another shape than the model's.
    #[error("array has shape {}, allowed is {} with or without leading axes of 1", Shape(seen), Shape(allowed))]
    ArrayShape {
        /// Shape seen.
        seen: Vec<u32>,
        /// The model's shape.
        allowed: Vec<u32>,
    },
    /// NaN or an infinite value.
    #[error("array holds {value} at index {}, only finite values are allowed", Shape(index))]
    NotFinite {
        /// Index of the first such element, in the array's own axes.
        index: Vec<u32>,
        /// The element.
        value: f32,
    },
    /// `geometry = strokes` found no sign.
    #[error("no sign found: {0}")]
    Strokes(#[from] StrokesError),
    /// The caller's picture does not hold what its sides ask for.
    #[error("picture of {width}x{height} holds {bytes} bytes, must hold 3 for each of at least 1 pixel")]
    PictureLength {
        /// Width, pixels.
        width: u32,
        /// Height, pixels.
        height: u32,
        /// Bytes seen.
        bytes: usize,
    },
    /// The bundle's input description contradicts itself.
    #[error("the bundle's input description is not usable: {problem}")]
    Spec {
        /// What was seen and allowed.
        problem: String,
    },
}

/// `[1, 3, 224]`.
struct Shape<'a>(&'a [u32]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// `ff d8 ff`.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{byte:02x}")?;
        }
        Ok(())
    }
}
