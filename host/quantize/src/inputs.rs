//! Calibration inputs: found in a folder, chosen by seed, decoded with the code that the board runs.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use graft_input::{Array, Kind, Limits, decode_npy, decode_npz, decode_picture, geometry, kind_of};
use serde::Serialize;

use crate::error::{QuantizeError, SpecError};
use crate::input_spec::{PictureInput, QuantizedInput};
use crate::model::ModelInput;

/// One input, decoded.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where it came from.
    pub path: PathBuf,
    /// What it holds.
    pub content: Content,
}

/// A decoded input.
#[derive(Clone, Debug)]
pub enum Content {
    /// u8 `[H, W, C]` of the network's size.
    Pixels(Vec<u8>),
    /// Floats in the model's own layout.
    Floats(Vec<f32>),
}

/// A file that was passed over.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What a folder gave.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Usable ones.
    pub samples: Vec<Sample>,
    /// Tried and passed over.
    pub skipped: Vec<Skipped>,
    /// Files with a picture or array in them, chosen or not.
    pub n_seen: usize,
}

/// All pictures and arrays under a folder, by content, in path order. Hidden files and folders are ignored, and links
/// to folders are not followed.
///
/// # Errors
/// [`QuantizeError::Folder`] if a folder cannot be read.
pub fn find_files(folder: &Path) -> Result<Vec<PathBuf>, QuantizeError> {
    if folder.is_file() {
        return Ok(vec![folder.into()]);
    }
    let (mut found, mut folders) = (vec![], vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let unreadable = |e: std::io::Error| QuantizeError::Folder { path: folder.clone(), message: e.to_string() };
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let mut head = Vec::new();
                let head_read = fs::File::open(&path).and_then(|f| f.take(512).read_to_end(&mut head));
                if head_read.is_ok() && kind_of(&head).is_some() {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Up to `n_max` files in seeded order; the same files for the same seed and folder.
pub fn choose(mut files: Vec<PathBuf>, seed: u64) -> Vec<PathBuf> {
    // Fisher-Yates with splitmix64 (Steele, Lea, Flood 2014).
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    for i in (1..files.len()).rev() {
        let j = (next() % (i as u64 + 1)) as usize;
        files.swap(i, j);
    }
    files
}

/// Loads up to `n_max` usable inputs from a folder or file.
///
/// # Errors
/// [`QuantizeError::Folder`]; [`QuantizeError::NoCalibration`] if none is usable; [`SpecError::NormMissing`] if there are
/// pictures but no preprocessing for them.
pub fn load_folder(
    folder: &Path,
    n_max: usize,
    seed: u64,
    input: &ModelInput,
    picture: Option<&PictureInput>,
) -> Result<Samples, QuantizeError> {
    let files = choose(find_files(folder)?, seed);
    let mut loaded = Samples { n_seen: files.len(), ..Samples::default() };
    for path in files {
        if loaded.samples.len() >= n_max {
            break;
        }
        match load(&path, input, picture) {
            Ok(contents) => {
                let room = n_max - loaded.samples.len();
                loaded
                    .samples
                    .extend(contents.into_iter().take(room).map(|content| Sample { path: path.clone(), content }));
            }
            Err(LoadError::NormMissing) => return Err(SpecError::NormMissing.into()),
            Err(LoadError::File(reason)) => loaded.skipped.push(Skipped { path, reason }),
        }
    }
    if loaded.samples.is_empty() {
        return Err(QuantizeError::NoCalibration {
            path: folder.into(),
            n_seen: loaded.n_seen,
            n_skipped: loaded.skipped.len(),
            first_reason: loaded
                .skipped
                .first()
                .map(|s| format!("{}: {}", s.path.display(), s.reason))
                .unwrap_or_default(),
        });
    }
    Ok(loaded)
}

/// Why a file gave nothing.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// A picture, and nobody said how it is normalised.
    NormMissing,
    File(String),
}

/// Loads one file: a picture, an array, or an array of several inputs along its first axis.
pub(crate) fn load(path: &Path, input: &ModelInput, picture: Option<&PictureInput>) -> Result<Vec<Content>, LoadError> {
    let file = |e: &dyn std::fmt::Display| LoadError::File(e.to_string());
    let limits = Limits::default();
    let length = fs::metadata(path).map_err(|e| file(&e))?.len();
    if length > limits.file_bytes_max {
        return Err(LoadError::File(format!("it has {length} bytes; at most {} are read", limits.file_bytes_max)));
    }
    let bytes = fs::read(path).map_err(|e| file(&e))?;
    match kind_of(&bytes) {
        Some(Kind::Array) => {
            let array = if bytes.starts_with(b"PK") {
                let mut arrays = decode_npz(&bytes, &limits).map_err(|e| file(&e))?;
                match (arrays.pop(), arrays.len()) {
                    (Some((_, array)), 0) => array,
                    (_, n) => return Err(LoadError::File(format!("it holds {} arrays; 1 is expected", n + 1))),
                }
            } else {
                decode_npy(&bytes, &limits).map_err(|e| file(&e))?
            };
            floats(array, input).map_err(LoadError::File)
        }
        Some(Kind::Image) | None => {
            let decoded = decode_picture(&bytes, &limits).map_err(|e| file(&e))?;
            let picture = picture.ok_or(LoadError::NormMissing)?;
            Ok(vec![Content::Pixels(geometry(&decoded, &picture.image).map_err(|e| file(&e))?)])
        }
    }
}

/// An array as the network's inputs, its shape and values checked.
fn floats(array: Array, input: &ModelInput) -> Result<Vec<Content>, String> {
    let strip = |shape: &[usize]| shape.iter().copied().skip_while(|d| *d == 1).collect::<Vec<_>>();
    let seen: Vec<usize> = array.shape.iter().map(|d| *d as usize).collect();
    let stacked = seen.len() == input.shape.len() && input.shape.len() > 1 && seen.get(1..) == input.shape.get(1..);
    if strip(&seen) != strip(&input.shape) && !stacked {
        return Err(format!("its shape is {seen:?}; the model takes {:?}", input.shape));
    }
    if let Some((at, value)) = array.values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(format!("its element {at} is {value}; only finite values are taken"));
    }
    let n: usize = input.shape.iter().product();
    let inputs: Vec<Content> = array.values.chunks_exact(n.max(1)).map(|v| Content::Floats(v.to_vec())).collect();
    if inputs.is_empty() { Err("it is empty".into()) } else { Ok(inputs) }
}

impl Sample {
    /// The float network's input, in the model's layout.
    pub fn floats(&self, input: &ModelInput, picture: Option<&PictureInput>) -> Vec<f32> {
        let (pixels, picture) = match (&self.content, picture) {
            (Content::Floats(values), _) => return values.clone(),
            (Content::Pixels(pixels), Some(picture)) => (pixels, picture),
            (Content::Pixels(_), None) => return vec![],
        };
        let c = picture.affine.len();
        let value = |i: usize, v: u8| {
            let [a, b] = picture.affine[i];
            (a * f64::from(v) + b) as f32
        };
        if !input.channels_first {
            return pixels.iter().enumerate().map(|(i, v)| value(i % c, *v)).collect();
        }
        // [H * W, C] -> [C, H * W]
        (0..c)
            .flat_map(|channel| pixels.iter().skip(channel).step_by(c).map(move |v| (channel, *v)))
            .map(|(i, v)| value(i, v))
            .collect()
    }

    /// The integer network's input.
    pub fn tensor(&self, quantized: &QuantizedInput) -> Result<Vec<i8>, String> {
        match &self.content {
            Content::Pixels(pixels) => {
                let table = quantized.spec.image.as_ref().map(|i| &i.table[..]).unwrap_or_default();
                let c = (table.len() / 256).max(1);
                Ok(pixels
                    .iter()
                    .enumerate()
                    .map(|(i, v)| table.get(i % c * 256 + usize::from(*v)).map_or(0, |q| *q as i8))
                    .collect())
            }
            Content::Floats(values) => {
                let array = Array { shape: quantized.spec.array.shape.clone(), values: values.clone() };
                graft_input::array_to_tensor(&array, &quantized.spec.array).map_err(|e| e.to_string())
            }
        }
    }
}
