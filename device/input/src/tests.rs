use graft_bundle::input::{ArraySpec, Channels, Filter, Geometry};

use super::*;

fn spec() -> InputSpec {
    let array = ArraySpec { shape: vec![3, 1, 1], channels_first: true, inv_scale: 1.0, zero_point: 0 };
    // Table: u8 less 128, one more for green, two more for blue.
    let table = (0..3u8).flat_map(|c| (0..=255u8).map(move |v| v.wrapping_sub(128).wrapping_add(c))).collect();
    let image = ImageSpec {
        width: 1,
        height: 1,
        channels: Channels::Rgb,
        geometry: Geometry::Squash,
        filter: Filter::Bilinear,
        table,
    };
    InputSpec { array, image: Some(image) }
}

/// An RGB picture of one pixel.
fn png_of(rgb: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
    bytes
}

fn npy_of(values: [i8; 3]) -> Vec<u8> {
    let header = "{'descr': '|i1', 'fortran_order': False, 'shape': (1, 3, 1, 1), }\n";
    let values = values.map(|v| v as u8);
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

fn text(bytes: &[u8], spec: &InputSpec, limits: &Limits) -> String {
    prepare(bytes, spec, limits).unwrap_err().to_string()
}

#[test]
fn each_channel_goes_through_its_own_table() {
    let tensor = prepare(&png_of([10, 128, 250]), &spec(), &Limits::default()).unwrap();
    assert_eq!(tensor, [-118, 1, 124]);
}

#[test]
fn arrays_are_told_from_pictures() {
    assert_eq!(prepare(&npy_of([1, -2, 3]), &spec(), &Limits::default()).unwrap(), [1, -2, 3]);
}

#[test]
fn limits_are_checked_before_decoding() {
    let png = png_of([0; 3]);
    let limits = Limits { file_bytes_max: 10, ..Limits::default() };
    assert_eq!(text(&png, &spec(), &limits), format!("file has {} bytes, at most 10 are allowed", png.len()));
    let limits = Limits { pixels_max: 0, ..Limits::default() };
    assert_eq!(text(&png, &spec(), &limits), "picture is 1x1, at most 0 pixels are allowed");
    let limits = Limits { decoder_bytes_max: 6, ..Limits::default() };
    assert_eq!(text(&png, &spec(), &limits), "decoding needs 7 bytes of memory, at most 6 are allowed");
    assert_eq!(text(b"", &spec(), &limits), "file is empty; allowed are PNG, JPEG, .npy and .npz");
}

#[test]
fn a_picture_for_a_bundle_of_arrays_is_refused() {
    let arrays_only = InputSpec { image: None, ..spec() };
    assert_eq!(
        text(&png_of([0; 3]), &arrays_only, &Limits::default()),
        "a picture was given, this bundle takes arrays only: .npy of shape [3, 1, 1]"
    );
    assert_eq!(
        text(b"hello", &arrays_only, &Limits::default()),
        "file is neither picture nor array: begins with 68 65 6c 6c 6f; allowed are PNG, JPEG, .npy and .npz"
    );
}

#[test]
fn a_table_of_the_wrong_length_is_refused() {
    let mut short = spec();
    if let Some(image) = &mut short.image {
        image.table.pop();
    }
    assert_eq!(
        text(&png_of([0; 3]), &short, &Limits::default()),
        "the bundle's input description is not usable: table has 767 bytes, must have 768"
    );
}

#[test]
fn a_png_without_its_end_or_with_a_flipped_bit_is_refused() {
    let whole = png_of([1, 2, 3]);
    for len in 8..whole.len() {
        let text = text(&whole[..len], &spec(), &Limits::default());
        assert_eq!(text, format!("PNG file is cut off after {len} bytes; copy it again"));
    }
    // The pixels' CRC.
    let mut flipped = whole.clone();
    let crc_at = whole.len() - 12 - 1;
    flipped[crc_at] ^= 1;
    let text = text(&flipped, &spec(), &Limits::default());
    assert!(text.starts_with("PNG file cannot be decoded: CRC error"), "{text}");
}
