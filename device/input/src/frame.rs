//! Brings a picture to the size of the tensor.
//!
//! Order: channels (grey is computed before the resize, as Pillow users do, and because strokes need it), geometry,
//! then the bundle's table (in [`crate::prepare`]). All sizes are integers, with the roundings of torchvision where it
//! has them:
//!
//! - **squash**: both sides resized;
//! - **shortest crop**: the shorter side becomes `shorter_side`, the longer `floor(shorter_side * long / short)`; then a
//!   crop that begins at `(side - crop) / 2`, halves to even (Python's `int(round((side - crop) / 2.0))`);
//! - **letterbox**: the side that fits tighter becomes the tensor's, the other `side * scale` rounded to nearest (halves
//!   up), at least 1; centred, the odd pixel of border to the right and below;
//! - **strokes**: see [`mod@crate::strokes`].

use std::ops::Range;

use graft_bundle::input::{Channels, Filter, Geometry, ImageSpec};

use crate::error::InputError;
use crate::picture::Picture;
use crate::resize::{Axis, resize};
use crate::strokes::strokes;

/// Longest side of a tensor, and longest `shorter_side`, pixels. Keeps a damaged bundle from asking for gigabytes.
const SIDE_MAX: u32 = 4096;

/// Brings a picture to the tensor's size and channels: u8, before the table. The quantizer calibrates on these.
///
/// Returns `[spec.height, spec.width, C]`.
///
/// # Errors
/// [`InputError::Strokes`] if a picture for strokes shows nothing, [`InputError::PictureLength`] and
/// [`InputError::Spec`] if the arguments contradict themselves.
pub fn geometry(picture: &Picture, spec: &ImageSpec) -> Result<Vec<u8>, InputError> {
    check_spec(spec)?;
    let n_pixels = u64::from(picture.width) * u64::from(picture.height);
    if n_pixels == 0 || picture.rgb.len() as u64 != 3 * n_pixels {
        let Picture { width, height, ref rgb } = *picture;
        return Err(InputError::PictureLength { width, height, bytes: rgb.len() });
    }
    let sides = (picture.width, picture.height);
    match spec.channels {
        Channels::Rgb => Ok(place::<3>(&picture.rgb, sides, spec)),
        Channels::Bgr => {
            let mut pixels = place::<3>(&picture.rgb, sides, spec);
            pixels.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| pixel.reverse());
            Ok(pixels)
        }
        Channels::Grey => {
            let grey = grey(&picture.rgb);
            if spec.geometry == Geometry::Strokes {
                let [width, height, size] = [sides.0, sides.1, spec.width].map(|side| side as usize);
                return Ok(strokes(&grey, width, height, size)?);
            }
            Ok(place::<1>(&grey, sides, spec))
        }
    }
}

fn check_spec(spec: &ImageSpec) -> Result<(), InputError> {
    let (width, height) = (spec.width, spec.height);
    let refuse = |problem: String| Err(InputError::Spec { problem });
    let sides = 1..=SIDE_MAX;
    if !sides.contains(&width) || !sides.contains(&height) {
        return refuse(format!("tensor is {width}x{height}, sides must be 1..{SIDE_MAX}"));
    }
    match spec.geometry {
        Geometry::ShortestCrop { shorter_side } if shorter_side < width.max(height) || shorter_side > SIDE_MAX => {
            refuse(format!("shorter side is {shorter_side}, must be {}..{SIDE_MAX}", width.max(height)))
        }
        Geometry::Strokes if width != height || spec.channels != Channels::Grey => {
            refuse(format!("strokes are {width}x{height} {:?}, must be square and Grey", spec.channels))
        }
        _ => Ok(()),
    }
}

/// `(77 R + 150 G + 29 B + 128) >> 8`; the weights add up to 256.
fn grey(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    let weigh = |&[r, g, b]: &[u8; 3]| (77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b) + 128) >> 8;
    pixels.iter().map(|pixel| weigh(pixel) as u8).collect()
}

/// `[H, W, C]` -> `[spec.height, spec.width, C]`.
fn place<const C: usize>(pixels: &[u8], (width, height): (u32, u32), spec: &ImageSpec) -> Vec<u8> {
    let columns = |to: u64, window: Range<u64>| axis(spec.filter, width, to, window);
    let rows = |to: u64, window: Range<u64>| axis(spec.filter, height, to, window);
    let (out_width, out_height) = (u64::from(spec.width), u64::from(spec.height));
    let source_width = width as usize;
    match spec.geometry {
        // Strokes have returned already.
        Geometry::Squash | Geometry::Strokes => {
            resize::<C>(pixels, source_width, &columns(out_width, 0..out_width), &rows(out_height, 0..out_height))
        }
        Geometry::ShortestCrop { shorter_side } => {
            let (to_width, to_height) = shortest_sides(width, height, shorter_side);
            let columns = columns(to_width, crop(to_width, out_width));
            let rows = rows(to_height, crop(to_height, out_height));
            resize::<C>(pixels, source_width, &columns, &rows)
        }
        Geometry::Letterbox { fill } => {
            let (to_width, to_height) = letterbox_sides((width, height), (spec.width, spec.height));
            let inner =
                resize::<C>(pixels, source_width, &columns(to_width, 0..to_width), &rows(to_height, 0..to_height));
            let mut boxed = vec![fill; C * (out_width * out_height) as usize];
            let top = ((out_height - to_height) / 2) as usize;
            let left = C * ((out_width - to_width) / 2) as usize;
            let line_len = C * to_width as usize;
            let lines = boxed.chunks_exact_mut(C * out_width as usize).skip(top);
            for (line, inner_line) in lines.zip(inner.chunks_exact(line_len)) {
                if let Some(part) = line.get_mut(left..left + line_len) {
                    part.copy_from_slice(inner_line);
                }
            }
            boxed
        }
    }
}

fn axis(filter: Filter, source: u32, target: u64, window: Range<u64>) -> Axis {
    Axis::new(filter, source as usize, target, window)
}

/// torchvision's `_compute_resized_output_size`.
fn shortest_sides(width: u32, height: u32, shorter_side: u32) -> (u64, u64) {
    let [width, height, shorter] = [width, height, shorter_side].map(u64::from);
    if width <= height { (shorter, shorter * height / width) } else { (shorter * width / height, shorter) }
}

/// torchvision's `center_crop`; `side` is at least `crop`.
fn crop(side: u64, crop: u64) -> Range<u64> {
    let border = side - crop;
    let half = border / 2;
    // An odd border gives x.5, which goes to the even neighbour.
    let start = if border % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
    start..start + crop
}

fn letterbox_sides((width, height): (u32, u32), (out_width, out_height): (u32, u32)) -> (u64, u64) {
    let [width, height, out_width, out_height] = [width, height, out_width, out_height].map(u64::from);
    let rounded = |side: u64, to: u64, from: u64| ((2 * side * to + from) / (2 * from)).max(1);
    if width * out_height >= height * out_width {
        (out_width, rounded(height, out_width, width).min(out_height))
    } else {
        (rounded(width, out_height, height).min(out_width), out_height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(width: u32, height: u32, channels: Channels, geometry: Geometry) -> ImageSpec {
        let table = (0..channels.count()).flat_map(|_| 0..=255).collect();
        ImageSpec { width, height, channels, geometry, filter: Filter::Bilinear, table }
    }

    fn picture(width: u32, height: u32) -> Picture {
        Picture { width, height, rgb: (0..3 * width * height).map(|i| (i * 31 % 251) as u8).collect() }
    }

    #[test]
    fn shortest_crop_rounds_as_torchvision() {
        // Values of torchvision 0.21: _compute_resized_output_size and center_crop.
        assert_eq!(shortest_sides(500, 333, 256), (384, 256));
        assert_eq!(shortest_sides(333, 500, 256), (256, 384));
        assert_eq!(shortest_sides(320, 263, 256), (311, 256));
        assert_eq!(shortest_sides(7, 7, 256), (256, 256));
        assert_eq!(crop(256, 224), 16..240);
        assert_eq!(crop(311, 224), 44..268); // 43.5 -> 44
        assert_eq!(crop(309, 224), 42..266); // 42.5 -> 42
        assert_eq!(crop(224, 224), 0..224);
    }

    #[test]
    fn letterbox_centres_and_fills() {
        assert_eq!(letterbox_sides((400, 200), (224, 224)), (224, 112));
        assert_eq!(letterbox_sides((200, 401), (224, 224)), (112, 224));
        assert_eq!(letterbox_sides((5000, 1), (64, 64)), (64, 1));
        assert_eq!(letterbox_sides((3, 3), (5, 7)), (5, 5));
        let white = Picture { width: 2, height: 1, rgb: vec![255; 6] };
        let seen = geometry(&white, &spec(2, 4, Channels::Grey, Geometry::Letterbox { fill: 9 })).unwrap();
        assert_eq!(seen, [9, 9, 255, 255, 9, 9, 9, 9]);
        let seen = geometry(&white, &spec(2, 3, Channels::Rgb, Geometry::Letterbox { fill: 0 })).unwrap();
        assert_eq!(seen, [[0; 6], [255; 6], [0; 6]].concat());
    }

    #[test]
    fn bgr_is_rgb_reversed_and_grey_is_weighted() {
        let seen = |channels| geometry(&picture(2, 2), &spec(2, 2, channels, Geometry::Squash)).unwrap();
        let rgb = seen(Channels::Rgb);
        assert_eq!(rgb, picture(2, 2).rgb);
        let reversed: Vec<u8> = rgb.chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        assert_eq!(seen(Channels::Bgr), reversed);
        let weighed: Vec<u8> = rgb
            .chunks(3)
            .map(|p| ((77 * u32::from(p[0]) + 150 * u32::from(p[1]) + 29 * u32::from(p[2]) + 128) >> 8) as u8)
            .collect();
        assert_eq!(seen(Channels::Grey), weighed);
        assert_eq!(grey(&[255, 255, 255, 0, 0, 0]), [255, 0]);
    }

    #[test]
    fn extreme_aspect_ratios_cost_no_more_than_the_crop() {
        let line = Picture { width: 60_000, height: 1, rgb: vec![7; 180_000] };
        let crop = spec(224, 224, Channels::Rgb, Geometry::ShortestCrop { shorter_side: 256 });
        assert_eq!(geometry(&line, &crop).unwrap(), vec![7; 224 * 224 * 3]);
        let column = Picture { width: 1, height: 60_000, rgb: vec![7; 180_000] };
        assert_eq!(geometry(&column, &crop).unwrap(), vec![7; 224 * 224 * 3]);
    }

    #[test]
    fn contradictions_are_refused_with_numbers() {
        let text = |picture: &Picture, spec: &ImageSpec| geometry(picture, spec).unwrap_err().to_string();
        assert_eq!(
            text(&picture(2, 2), &spec(224, 224, Channels::Rgb, Geometry::ShortestCrop { shorter_side: 200 })),
            "the bundle's input description is not usable: shorter side is 200, must be 224..4096"
        );
        assert_eq!(
            text(&picture(2, 2), &spec(0, 5000, Channels::Rgb, Geometry::Squash)),
            "the bundle's input description is not usable: tensor is 0x5000, sides must be 1..4096"
        );
        assert_eq!(
            text(&picture(2, 2), &spec(32, 31, Channels::Grey, Geometry::Strokes)),
            "the bundle's input description is not usable: strokes are 32x31 Grey, must be square and Grey"
        );
        assert_eq!(
            text(&Picture { width: 3, height: 1, rgb: vec![0; 8] }, &spec(2, 2, Channels::Rgb, Geometry::Squash)),
            "picture of 3x1 holds 8 bytes, must hold 3 for each of at least 1 pixel"
        );
        let blank = Picture { width: 32, height: 32, rgb: vec![200; 32 * 32 * 3] };
        assert_eq!(
            text(&blank, &spec(32, 32, Channels::Grey, Geometry::Strokes)),
            "no sign found: empty picture: nothing stands out from the paper"
        );
    }
}
