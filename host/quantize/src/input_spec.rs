//! Preprocessing as the user states it, turned into what a bundle carries.
//!
//! Stated once: the same [`InputOptions`] give the float values that the network is calibrated on and the table that
//! the board uses. Sources, later ones win: defaults, `preprocessor_config.json` beside the model, options.

use std::path::Path;

use graft_bundle::input::{ArraySpec, Channels, Filter, Geometry, ImageSpec, InputSpec};
use serde_json::Value;

use crate::error::SpecError;
use crate::model::ModelInput;

/// How a picture is brought to the network's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Both sides resized, aspect ignored.
    Squash,
    /// Shorter side resized, centre cropped; see [`InputOptions::crop_ratio`].
    ShortestCrop,
    /// Aspect kept, the rest filled.
    Letterbox,
    /// The box around pen strokes; grey and square only.
    Strokes,
}

/// From a byte `v` to the network's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Norm {
    /// `(v - 127.5) / 127.5`.
    Tf,
    /// `(v / 255 - mean) / std` with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 (red, green, blue).
    Imagenet,
    /// `v / 255`.
    Unit,
    /// `v`.
    Raw,
    /// `(v * scale - mean) / std`, one mean and std per channel of the tensor, or one for all.
    MeanStd {
        /// Usually 1 / 255.
        scale: f64,
        /// In units of `v * scale`.
        mean: Vec<f64>,
        /// In units of `v * scale`.
        std: Vec<f64>,
    },
}

/// What the user said about the input; `None` where nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputOptions {
    /// Geometry; squash by default.
    pub resize: Option<Resize>,
    /// For shortest-crop: side of the crop over the shorter side of the resized picture, 0.875 by default.
    pub crop_ratio: Option<f64>,
    /// For shortest-crop: the shorter side after resizing, in pixels; wins over the ratio.
    pub shorter_side: Option<u32>,
    /// For letterbox: byte of the border, 0 by default.
    pub fill: Option<u8>,
    /// Interpolation; bilinear by default.
    pub filter: Option<Filter>,
    /// Channels and their order; by the network's channel count RGB or grey by default.
    pub channels: Option<Channels>,
    /// Normalisation; no default for float inputs.
    pub norm: Option<Norm>,
}

/// The preprocessing of a network with picture input, settled.
#[derive(Clone, Debug)]
pub struct PictureInput {
    /// Everything but the table.
    pub image: ImageSpec,
    /// Per channel `a, b`: the network's value is `a * v + b`.
    pub affine: Vec<[f64; 2]>,
    /// One line for the user.
    pub echo: String,
}

/// Reads `preprocessor_config.json` beside a model as a Hugging Face image processor; None if there is none.
///
/// # Errors
/// [`SpecError::Config`] if it cannot be followed exactly: a wrong guess would cost accuracy in silence.
pub fn read_config(model: &Path, height: u32, width: u32) -> Result<Option<InputOptions>, SpecError> {
    let path = model.parent().unwrap_or(Path::new("")).join("preprocessor_config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(SpecError::Config { reason: e.to_string() }),
    };
    let config: Value = serde_json::from_str(&text).map_err(|e| SpecError::Config { reason: e.to_string() })?;
    parse_config(&config, height, width).map(Some)
}

fn parse_config(config: &Value, height: u32, width: u32) -> Result<InputOptions, SpecError> {
    let wrong = |reason: String| SpecError::Config { reason };
    let flag = |key: &str, otherwise: bool| config.get(key).and_then(Value::as_bool).unwrap_or(otherwise);
    let number = |value: &Value| value.as_u64().and_then(|v| u32::try_from(v).ok());
    let size_of = |key: &str| -> (Option<u32>, Option<[u32; 2]>) {
        let Some(size) = config.get(key) else { return (None, None) };
        let side = |name: &str| size.get(name).and_then(number);
        match (number(size), side("shortest_edge"), side("height"), side("width")) {
            (Some(n), ..) => (Some(n), None),
            (_, Some(n), ..) => (Some(n), None),
            (_, _, Some(h), Some(w)) => (None, Some([h, w])),
            _ => (None, None),
        }
    };
    let mut options = InputOptions::default();
    let crop = flag("do_center_crop", false);
    if crop {
        let (side, both) = size_of("crop_size");
        let cropped = both.or(side.map(|s| [s, s]));
        if cropped.is_some_and(|c| c != [height, width]) {
            return Err(wrong(format!("it crops to {cropped:?}; the model takes [{height}, {width}]")));
        }
    }
    if flag("do_resize", true) {
        match size_of("size") {
            (Some(side), _) if crop || config.get("size").is_some_and(|s| s.get("shortest_edge").is_some()) => {
                // ConvNeXt's processor resizes to size / crop_pct below 384 and crops back.
                let side = match config.get("crop_pct").and_then(Value::as_f64) {
                    Some(ratio) if ratio > 0.0 && side < 384 => (f64::from(side) / ratio) as u32,
                    _ => side,
                };
                options.resize = Some(Resize::ShortestCrop);
                options.shorter_side = Some(side);
            }
            (Some(side), _) if [side, side] == [height, width] => options.resize = Some(Resize::Squash),
            (None, Some(both)) if both == [height, width] => options.resize = Some(Resize::Squash),
            (side, both) => {
                let seen = both.or(side.map(|s| [s, s]));
                let seen = seen.map_or("no stated size".into(), |s| format!("{s:?}"));
                return Err(wrong(format!("it resizes to {seen}; the model takes [{height}, {width}]")));
            }
        }
    } else if crop {
        return Err(wrong("it crops without resizing, which is not supported".into()));
    }
    options.filter = match config.get("resample").and_then(Value::as_u64) {
        None => None,
        Some(0) => Some(Filter::Nearest),
        Some(2) => Some(Filter::Bilinear),
        Some(3) => Some(Filter::Bicubic),
        Some(other) => return Err(wrong(format!("resample is {other}; allowed are 0, 2 and 3"))),
    };
    let list = |key: &str| -> Option<Vec<f64>> { config.get(key)?.as_array()?.iter().map(Value::as_f64).collect() };
    let rescale = if flag("do_rescale", true) {
        config.get("rescale_factor").and_then(Value::as_f64).unwrap_or(1.0 / 255.0)
    } else {
        1.0
    };
    let normalize = flag("do_normalize", config.get("image_mean").is_some());
    options.norm = Some(match (normalize, list("image_mean"), list("image_std")) {
        (false, ..) if rescale == 1.0 => Norm::Raw,
        (false, ..) => Norm::MeanStd { scale: rescale, mean: vec![0.0], std: vec![1.0] },
        (true, Some(mean), Some(std)) => Norm::MeanStd { scale: rescale, mean, std },
        (true, ..) => return Err(wrong("do_normalize without image_mean and image_std".into())),
    });
    Ok(options)
}

impl InputOptions {
    /// These options where they say something, `other` elsewhere.
    pub fn or(self, other: InputOptions) -> InputOptions {
        // A geometry comes with its own numbers: those of another source do not belong to it.
        let (ratio, side) = if self.resize.is_some() { (None, None) } else { (other.crop_ratio, other.shorter_side) };
        let keeps_side = self.crop_ratio.is_none();
        InputOptions {
            resize: self.resize.or(other.resize),
            crop_ratio: self.crop_ratio.or(ratio),
            shorter_side: self.shorter_side.or(side.filter(|_| keeps_side)),
            fill: self.fill.or(other.fill),
            filter: self.filter.or(other.filter),
            channels: self.channels.or(other.channels),
            norm: self.norm.or(other.norm),
        }
    }
}

/// `[H, W, C]` of a picture input; None if the input is no picture (not four axes, or not 1 or 3 channels).
pub fn picture_size(input: &ModelInput) -> Option<[u32; 3]> {
    let size = match input.shape[..] {
        [_, c, h, w] if input.channels_first => [h, w, c],
        [_, h, w, c] => [h, w, c],
        _ => return None,
    };
    matches!(size[2], 1 | 3).then(|| size.map(|s| s as u32))
}

/// Settles the preprocessing of a picture input. `None` without a normalisation and without any other option: the
/// bundle then takes arrays only.
///
/// # Errors
/// [`SpecError`].
pub fn picture_input(input: &ModelInput, options: &InputOptions) -> Result<Option<PictureInput>, SpecError> {
    let shape = || input.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let Some([height, width, n_channels]) = picture_size(input) else {
        return if *options == InputOptions::default() {
            Ok(None)
        } else {
            Err(SpecError::NotAPicture { shape: shape() })
        };
    };
    let value = |option, seen: String, allowed: &str| SpecError::Value { option, seen, allowed: allowed.into() };
    let norm = match (&options.norm, input.bytes) {
        (Some(norm), _) => norm.clone(),
        (None, true) => Norm::Raw,
        (None, false) if *options == InputOptions::default() => return Ok(None),
        (None, false) => return Err(SpecError::NormMissing),
    };
    let default = if n_channels == 1 { Channels::Grey } else { Channels::Rgb };
    let channels = options.channels.unwrap_or(default);
    if channels.count() != n_channels {
        return Err(value(
            "--channels",
            format!("{channels:?}").to_lowercase(),
            &format!("{n_channels} channels, as the model takes"),
        ));
    }
    let ratio = options.crop_ratio.unwrap_or(0.875);
    if !(ratio > 0.0 && ratio <= 1.0) {
        return Err(value("--crop-ratio", ratio.to_string(), "above 0 and at most 1"));
    }
    let longer = height.max(width);
    let side = options.shorter_side.unwrap_or((f64::from(longer) / ratio).round() as u32);
    if side < longer || side > 16_384 {
        return Err(value("the shorter side", side.to_string(), &format!("{longer} to 16384")));
    }
    let fill = options.fill.unwrap_or(0);
    let (geometry, shown) = match options.resize.unwrap_or(Resize::Squash) {
        Resize::Squash => (Geometry::Squash, "squash".to_string()),
        Resize::ShortestCrop => {
            (Geometry::ShortestCrop { shorter_side: side }, format!("shortest side to {side}, centre crop"))
        }
        Resize::Letterbox => (Geometry::Letterbox { fill }, format!("letterbox, border {fill}")),
        Resize::Strokes if channels == Channels::Grey && height == width => (Geometry::Strokes, "strokes".into()),
        Resize::Strokes => return Err(value("--resize", "strokes".into(), "a square grey input")),
    };
    let filter = options.filter.unwrap_or(Filter::Bilinear);
    let (affine, formula) = affine_of(&norm, channels)?;
    let image = ImageSpec { width, height, channels, geometry, filter, table: vec![] };
    let names = match channels {
        Channels::Rgb => "RGB",
        Channels::Bgr => "BGR",
        Channels::Grey => "grey",
    };
    let echo = format!("{width}x{height} {names}, {shown}, {}, {formula}", format!("{filter:?}").to_lowercase());
    Ok(Some(PictureInput { image, affine, echo }))
}

/// `a * v + b` per channel, and the formula in words.
fn affine_of(norm: &Norm, channels: Channels) -> Result<(Vec<[f64; 2]>, String), SpecError> {
    let n = channels.count() as usize;
    let (scale, mean, std, text) = match norm {
        Norm::Tf => return Ok((vec![[1.0 / 127.5, -1.0]; n], "tf: (v - 127.5) / 127.5".into())),
        Norm::Unit => return Ok((vec![[1.0 / 255.0, 0.0]; n], "unit: v / 255".into())),
        Norm::Raw => return Ok((vec![[1.0, 0.0]; n], "raw: v in 0..255".into())),
        Norm::Imagenet => {
            let (mut mean, mut std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
            match channels {
                Channels::Rgb => {}
                Channels::Bgr => {
                    mean.reverse();
                    std.reverse();
                }
                // The weights of the grey conversion, applied to the statistics.
                Channels::Grey => (mean, std) = (vec![0.4588], vec![0.2255]),
            }
            (1.0 / 255.0, mean, std, "imagenet: ")
        }
        Norm::MeanStd { scale, mean, std } => (*scale, mean.clone(), std.clone(), ""),
    };
    let spread = |option, list: Vec<f64>| match list.len() {
        1 => Ok(vec![list.first().copied().unwrap_or_default(); n]),
        m if m == n => Ok(list),
        m => Err(SpecError::Value { option, seen: format!("{m} values"), allowed: format!("1 or {n}") }),
    };
    let (mean, std) = (spread("--mean", mean)?, spread("--std", std)?);
    if let Some(bad) = std.iter().chain([&scale]).find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(SpecError::Value { option: "--std", seen: bad.to_string(), allowed: "above 0".into() });
    }
    if let Some(bad) = mean.iter().find(|m| !m.is_finite()) {
        return Err(SpecError::Value { option: "--mean", seen: bad.to_string(), allowed: "a finite number".into() });
    }
    let of_255 = (scale * 255.0 - 1.0).abs() < 1e-6;
    let pixel = if of_255 {
        "v / 255".into()
    } else if scale == 1.0 {
        "v".into()
    } else {
        format!("v * {scale}")
    };
    let formula = format!("{text}({pixel} - {mean:?}) / {std:?}");
    let scale = if of_255 { 1.0 / 255.0 } else { scale };
    Ok((mean.iter().zip(&std).map(|(m, s)| [scale / s, -m / s]).collect(), formula))
}

/// The int8 form of the input.
#[derive(Clone, Debug)]
pub struct QuantizedInput {
    /// What the bundle carries.
    pub spec: InputSpec,
    /// Real value per step.
    pub scale: f64,
    /// Integer of real zero.
    pub zero_point: i32,
    /// Per channel, the mean of (network's value - what the integer stands for) over all bytes: what rounding the zero
    /// point costs. The first layer's bias takes it back. Empty for arrays.
    pub offsets: Vec<f64>,
}

/// Chooses scale and zero point of the input tensor; `range` is what arrays span, for inputs that are no pictures.
pub fn quantized_input(input: &ModelInput, picture: Option<&PictureInput>, range: [f64; 2]) -> QuantizedInput {
    let (low, high) = match picture {
        Some(picture) => {
            let ends = picture.affine.iter().flat_map(|[a, b]| [*b, a * 255.0 + b]);
            ends.fold((0f64, 0f64), |(low, high), v| (low.min(v), high.max(v)))
        }
        None => (range[0].min(0.0), range[1].max(0.0)),
    };
    let one_scale = picture.and_then(|p| {
        let first = p.affine.first()?;
        // Every byte keeps a value of its own where one step is one byte in every channel, and zero is among them.
        let same = p.affine.iter().all(|[a, b]| a == &first[0] && b == &first[1]);
        (same && (high - low) <= first[0] * 255.0 * 1.000_001).then_some(first[0])
    });
    let scale = one_scale.unwrap_or((high - low) / 255.0);
    let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
    let zero_point = (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0);
    let array = ArraySpec {
        shape: input.shape.iter().skip(usize::from(input.shape.len() > 1)).map(|d| *d as u32).collect(),
        channels_first: input.channels_first,
        inv_scale: 1.0 / scale,
        zero_point: zero_point as i8,
    };
    let (mut table, mut offsets) = (vec![], vec![]);
    for [a, b] in picture.iter().flat_map(|p| &p.affine) {
        let mut error = 0.0;
        for v in 0..256 {
            let q = match one_scale {
                Some(_) => f64::from(v) - 128.0,
                None => ((a * f64::from(v) + b) / scale + zero_point).round_ties_even().clamp(-128.0, 127.0),
            };
            error += a * f64::from(v) + b - scale * (q - zero_point);
            table.push(q as i8 as u8);
        }
        offsets.push(error / 256.0);
    }
    let image = picture.map(|p| ImageSpec { table, ..p.image.clone() });
    QuantizedInput { spec: InputSpec { array, image }, scale, zero_point: zero_point as i32, offsets }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(shape: &[usize]) -> ModelInput {
        ModelInput { name: "x".into(), shape: shape.to_vec(), channels_first: true, bytes: false }
    }

    fn settled(norm: Norm) -> (PictureInput, QuantizedInput) {
        let options = InputOptions { norm: Some(norm), ..InputOptions::default() };
        let input = input(&[1, 3, 32, 24]);
        let picture = picture_input(&input, &options).unwrap().unwrap();
        let quantized = quantized_input(&input, Some(&picture), [0.0; 2]);
        (picture, quantized)
    }

    #[test]
    fn every_byte_keeps_its_own_integer_where_channels_share_a_scale() {
        for norm in [Norm::Tf, Norm::Unit, Norm::Raw] {
            let (_, quantized) = settled(norm.clone());
            let table = quantized.spec.image.as_ref().unwrap().table.clone();
            assert_eq!(table.len(), 768);
            assert!(table.iter().enumerate().all(|(v, q)| (*q as i8) as i32 == (v % 256) as i32 - 128), "{norm:?}");
        }
    }

    #[test]
    fn the_constant_error_of_a_rounded_zero_is_known() {
        // (v - 127.5) / 127.5 has its zero between two bytes: half a step is left for the first bias.
        let (_, quantized) = settled(Norm::Tf);
        assert_eq!(quantized.zero_point, 0);
        assert!(quantized.offsets.iter().all(|o| (o - 0.5 / 127.5).abs() < 1e-12), "{:?}", quantized.offsets);
        let (_, quantized) = settled(Norm::MeanStd { scale: 1.0 / 255.0, mean: vec![127.0 / 255.0], std: vec![0.5] });
        assert_eq!(quantized.zero_point, -1);
        assert!(quantized.offsets.iter().all(|o| o.abs() < 1e-12), "{:?}", quantized.offsets);
    }

    #[test]
    fn imagenet_tables_are_within_half_a_step() {
        let (picture, quantized) = settled(Norm::Imagenet);
        let table = &quantized.spec.image.as_ref().unwrap().table;
        for (c, [a, b]) in picture.affine.iter().enumerate() {
            for v in 0..256 {
                let real = quantized.scale * f64::from(i32::from(table[c * 256 + v] as i8) - quantized.zero_point);
                assert!((real - (a * v as f64 + b)).abs() <= quantized.scale * 1.001, "channel {c}, byte {v}");
            }
        }
        assert_eq!(
            picture.echo,
            "24x32 RGB, squash, bilinear, imagenet: (v / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]"
        );
    }

    #[test]
    fn a_hugging_face_config_is_followed_or_refused() {
        let parse = |text: &str| parse_config(&serde_json::from_str(text).unwrap(), 224, 224);
        let options = parse(
            r#"{"do_resize": true, "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224,
            "width": 224}, "resample": 3, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#,
        );
        let options = options.unwrap();
        assert_eq!((options.resize, options.shorter_side), (Some(Resize::ShortestCrop), Some(256)));
        assert_eq!(options.filter, Some(Filter::Bicubic));
        assert_eq!(options.norm, Some(Norm::MeanStd { scale: 1.0 / 255.0, mean: vec![0.5; 3], std: vec![0.5; 3] }));
        let error = parse(r#"{"size": {"height": 384, "width": 384}}"#).unwrap_err().to_string();
        assert_eq!(error, "preprocessor_config.json: it resizes to [384, 384]; the model takes [224, 224]");
        let error = parse(r#"{"size": 224, "resample": 1}"#).unwrap_err().to_string();
        assert_eq!(error, "preprocessor_config.json: resample is 1; allowed are 0, 2 and 3");
    }

    #[test]
    fn a_stated_option_replaces_the_configs() {
        let config =
            InputOptions { resize: Some(Resize::ShortestCrop), shorter_side: Some(256), ..InputOptions::default() };
        let squash = InputOptions { resize: Some(Resize::Squash), ..InputOptions::default() };
        assert_eq!(squash.clone().or(config.clone()).shorter_side, None);
        assert_eq!(InputOptions::default().or(config).shorter_side, Some(256));
    }

    #[test]
    fn options_that_make_no_sense_are_named() {
        let options = InputOptions { norm: Some(Norm::Unit), ..InputOptions::default() };
        let error = picture_input(&input(&[1, 640]), &options).unwrap_err().to_string();
        assert_eq!(error, "the model's input [1,640] is no picture; image options do not apply");
        let grey = InputOptions { channels: Some(Channels::Grey), ..options.clone() };
        let error = picture_input(&input(&[1, 3, 8, 8]), &grey).unwrap_err().to_string();
        assert_eq!(error, "--channels is grey; allowed is 3 channels, as the model takes");
        let strokes = InputOptions { resize: Some(Resize::Strokes), ..options };
        let error = picture_input(&input(&[1, 3, 8, 8]), &strokes).unwrap_err().to_string();
        assert_eq!(error, "--resize is strokes; allowed is a square grey input");
    }
}
