//! How an input becomes the int8 tensor, as data. `graft-input` executes it with integers, so that every CPU and the
//! host make the same bytes.

use serde::{Deserialize, Serialize};

/// What a bundle accepts. Every bundle takes arrays; most take images too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Float arrays in the layout of the original model.
    pub array: ArraySpec,
    /// Image files.
    pub image: Option<ImageSpec>,
}

/// How a float array in the original model's layout is quantized.
///
/// `q = clamp(round_half_even(x * inv_scale) + zero_point, -128, 127)`, computed in f64, one multiplication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArraySpec {
    /// Shape without the batch axis, in the original model's order, e.g. `[3, 224, 224]`.
    pub shape: Vec<u32>,
    /// True if the original order is channels first (`[C, H, W]`) and the tensor becomes `[H, W, C]`.
    pub channels_first: bool,
    /// Integer steps per real unit.
    pub inv_scale: f64,
    /// Integer that stands for real zero.
    pub zero_point: i8,
}

/// How a decoded picture becomes the `[height, width, channels]` int8 tensor.
///
/// Order: decode (EXIF orientation applied, alpha over black) -> `channels` (grey is computed before the resize) ->
/// `geometry` -> `table`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Width of the tensor in pixels.
    pub width: u32,
    /// Height of the tensor in pixels.
    pub height: u32,
    /// Which channels, in which order.
    pub channels: Channels,
    /// How the picture is brought to that size.
    pub geometry: Geometry,
    /// Interpolation.
    pub filter: Filter,
    /// `[C, 256]`: the int8 value, as its byte, of each channel's u8 value; the normalisation lives in here.
    pub table: Vec<u8>,
}

/// Channels of an image tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel: `(77 R + 150 G + 29 B + 128) >> 8`.
    Grey,
}

impl Channels {
    /// How many.
    pub fn count(self) -> u32 {
        match self {
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Grey => 1,
        }
    }
}

/// How a picture is brought to the tensor's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Geometry {
    /// Both sides resized, aspect ignored.
    Squash,
    /// Shorter side resized to `shorter_side`, aspect kept, then the centre cropped.
    ShortestCrop {
        /// In pixels, at least the larger side of the tensor.
        shorter_side: u32,
    },
    /// Aspect kept, longer side fits, the rest filled with `fill` on both sides.
    Letterbox {
        /// u8 value of the border in every channel.
        fill: u8,
    },
    /// The box around the strokes with a margin, as ink on empty paper; see `graft-input`'s `strokes`. Grey only,
    /// square only.
    Strokes,
}

/// Interpolation of a resize; defined as Pillow's 8-bit resampling: two passes, 22-bit coefficients, support scaled
/// when shrinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Keys cubic with a = -0.5.
    Bicubic,
    /// Nearest source pixel.
    Nearest,
}
