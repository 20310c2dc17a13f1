//! Pixels of every format, hashed: the same numbers on every CPU. `fixtures/` and `expected.txt` come from
//! `make_fixtures.py`, that is, from Pillow: PNG and resizing are compared with it bit for bit, geometries too; JPEG with its means, and
//! with our own hash, which pins the decoder's rounding.

use std::path::Path;

use graft_bundle::input::{Channels, Filter, Geometry, ImageSpec};
use graft_input::resize::{Axis, resize};
use graft_input::{Array, Limits, Picture, decode_npy, decode_npz, decode_picture, geometry};

/// Our own pixels of each JPEG. A change here is a change of every space: never update it in passing.
const JPEG_HASHES: [(&str, &str); 17] = [
    ("s444.jpg", "988e3ec255f9f292"),
    ("s422.jpg", "83729ef0beb1de5c"),
    ("s420.jpg", "6aeea99419b6c6b7"),
    ("progressive.jpg", "6aeea99419b6c6b7"),
    ("restarts.jpg", "6aeea99419b6c6b7"),
    ("rgb.jpg", "b175c81b525acffa"),
    ("grey.jpg", "3bd54b08966acc35"),
    ("cmyk.jpg", "5f8a73280818f692"),
    ("ycck.jpg", "248daa96fccda900"),
    ("exif1.jpg", "252bcf35a96b4b4f"),
    ("exif2.jpg", "0848308bf62dc553"),
    ("exif3.jpg", "f612c63ecc20672f"),
    ("exif4.jpg", "4630ba581cbf4d4b"),
    ("exif5.jpg", "65c1ced0f8f0611f"),
    ("exif6.jpg", "d87ea459e57db4cf"),
    ("exif7.jpg", "0790f6dc11bd9327"),
    ("exif8.jpg", "97e3fc5d61e7c76f"),
];

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The generator of `make_fixtures.py`.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).expect("fixture")
}

fn picture(name: &str) -> Picture {
    decode_picture(&fixture(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Lines of `expected.txt` of one kind, split into words after the kind.
fn expected(kind: &str) -> Vec<Vec<String>> {
    let text = String::from_utf8(fixture("expected.txt")).expect("text");
    let lines = text.lines().map(|line| line.split(' ').map(str::to_string).collect::<Vec<_>>());
    lines.filter(|words| words[0] == kind).map(|words| words[1..].to_vec()).collect()
}

#[test]
fn png_pixels_equal_pillows() {
    let lines = expected("png");
    assert_eq!(lines.len(), 15);
    for line in lines {
        let picture = picture(&line[0]);
        assert_eq!(
            [picture.width.to_string(), picture.height.to_string(), fnv(&picture.rgb)],
            line[1..],
            "{}",
            line[0]
        );
    }
}

#[test]
fn jpeg_pixels_are_pinned() {
    let seen: Vec<(&str, String)> = JPEG_HASHES.iter().map(|&(name, _)| (name, fnv(&picture(name).rgb))).collect();
    assert_eq!(seen, JPEG_HASHES.map(|(name, hash)| (name, hash.to_string())));
}

#[test]
fn jpeg_means_equal_pillows() {
    let lines = expected("jpeg");
    assert_eq!(lines.len(), JPEG_HASHES.len());
    for line in lines {
        let picture = picture(&line[0]);
        let (width, height) = (picture.width as usize, picture.height as usize);
        assert_eq!([width.to_string(), height.to_string()], line[1..3], "{}", line[0]);
        for (i, mean) in line[3..].iter().enumerate() {
            let (cell, channel) = (i / 3, i % 3);
            let (row, column) = (cell / 4, cell % 4);
            let rows = row * height / 4..(row + 1) * height / 4;
            let columns = column * width / 4..(column + 1) * width / 4;
            let values = rows.flat_map(|y| columns.clone().map(move |x| (y, x)));
            let values: Vec<f64> = values.map(|(y, x)| f64::from(picture.rgb[3 * (y * width + x) + channel])).collect();
            let seen = values.iter().sum::<f64>() / values.len() as f64;
            let mean: f64 = mean.parse().expect("number");
            // libjpeg's inverse transform and upsampling round otherwise now and then, by 1 to 3 steps of 256.
            assert!((seen - mean).abs() < 0.8, "{} cell {cell} channel {channel}: {seen} for {mean}", line[0]);
        }
    }
}

#[test]
fn resizing_equals_pillows() {
    let lines = expected("resize");
    assert_eq!(lines.len(), 18);
    for line in lines {
        let filter = match line[0].as_str() {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Nearest,
        };
        let sides: Vec<u64> = line[1..5].iter().map(|side| side.parse().expect("number")).collect();
        let (width, height) = (sides[0] as usize, sides[1] as usize);
        let source = noise(3 * width * height, sides[0]);
        let columns = Axis::new(filter, width, sides[2], 0..sides[2]);
        let rows = Axis::new(filter, height, sides[3], 0..sides[3]);
        assert_eq!(fnv(&resize::<3>(&source, width, &columns, &rows)), line[5], "{line:?}");
    }
}

#[test]
fn numpys_files_are_read() {
    let expected = Array { shape: vec![2, 3, 4], values: (0..24u8).map(f32::from).collect() };
    assert_eq!(decode_npy(&fixture("fortran.npy"), &Limits::default()), Ok(expected.clone()));
    let named = |name: &str| (name.to_string(), expected.clone());
    assert_eq!(decode_npz(&fixture("stored.npz"), &Limits::default()), Ok(vec![named("a"), named("b")]));
    assert_eq!(decode_npz(&fixture("deflated.npz"), &Limits::default()), Ok(vec![named("a")]));
}

#[test]
fn geometries_equal_pillows_and_torchvisions() {
    let picture = Picture { width: 97, height: 61, rgb: noise(3 * 97 * 61, 97) };
    let lines = expected("geometry");
    assert_eq!(lines.len(), 4);
    for line in lines {
        let (channels, to, filter) = match line[0].as_str() {
            "bgr_shortest_crop_36_bilinear" => {
                (Channels::Bgr, Geometry::ShortestCrop { shorter_side: 36 }, Filter::Bilinear)
            }
            "rgb_shortest_crop_80_bicubic" => {
                (Channels::Rgb, Geometry::ShortestCrop { shorter_side: 80 }, Filter::Bicubic)
            }
            "rgb_letterbox_114_bilinear" => (Channels::Rgb, Geometry::Letterbox { fill: 114 }, Filter::Bilinear),
            "grey_squash_bilinear" => (Channels::Grey, Geometry::Squash, Filter::Bilinear),
            other => panic!("unknown case {other}"),
        };
        let table = vec![0; 256 * channels.count() as usize];
        let spec = ImageSpec { width: 32, height: 32, channels, geometry: to, filter, table };
        let pixels = geometry(&picture, &spec).expect("geometry");
        assert_eq!(pixels.len(), 32 * 32 * channels.count() as usize);
        assert_eq!(fnv(&pixels), line[1], "{}", line[0]);
    }
}

#[test]
fn a_jpeg_without_its_end_is_refused() {
    for name in ["s420.jpg", "progressive.jpg"] {
        let whole = fixture(name);
        for len in 3..whole.len() {
            let text = decode_picture(&whole[..len], &Limits::default()).expect_err("cut").to_string();
            assert_eq!(text, format!("JPEG file is cut off after {len} bytes; copy it again"));
        }
    }
}

#[test]
fn jpeg_limits_are_checked_before_decoding() {
    let text = |limits: &Limits| decode_picture(&fixture("s420.jpg"), limits).expect_err("limit").to_string();
    let limits = Limits { pixels_max: 2000, ..Limits::default() };
    assert_eq!(text(&limits), "picture is 61x45, at most 2000 pixels are allowed");
    // 4 x 3 MCUs of 6 blocks of 64 samples, 3 bytes each.
    let limits = Limits { decoder_bytes_max: 10_000, ..Limits::default() };
    assert_eq!(text(&limits), "decoding needs 16470 bytes of memory, at most 10000 are allowed");
}

#[test]
fn rare_jpegs_are_refused_by_name() {
    let text = |patch: fn(&mut Vec<u8>)| {
        let mut bytes = fixture("s444.jpg");
        patch(&mut bytes);
        decode_picture(&bytes, &Limits::default()).expect_err("rare").to_string()
    };
    fn frame_at(bytes: &[u8]) -> usize {
        bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("frame header")
    }
    let arithmetic = text(|bytes| {
        let at = frame_at(bytes);
        bytes[at + 1] = 0xc9;
    });
    let words = "JPEG file cannot be decoded: it uses ArithmeticEntropyCoding, which is not supported";
    assert_eq!(arithmetic, words);
    let deep = text(|bytes| {
        let at = frame_at(bytes);
        bytes[at + 1] = 0xc1;
        bytes[at + 4] = 12;
    });
    assert_eq!(deep, "JPEG file cannot be decoded: it uses SamplePrecision(12), which is not supported");
    let lossless = text(|bytes| {
        let at = frame_at(bytes);
        bytes[at + 1] = 0xc3;
    });
    let words = "JPEG file cannot be decoded: it is lossless JPEG; baseline, extended and progressive are allowed";
    assert_eq!(lossless, words);
}
