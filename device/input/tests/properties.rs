//! Any bytes give a tensor or an error: never a panic, never more than the limits allow. Seeds of failures are printed
//! and kept by proptest; `PROPTEST_CASES` runs more.

use std::path::{Path, PathBuf};

use graft_bundle::input::{ArraySpec, Channels, Filter, Geometry, ImageSpec, InputSpec};
use graft_input::{Limits, decode_npy, decode_npz, decode_picture, kind_of, prepare};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const LIMITS: Limits = Limits { file_bytes_max: 1 << 16, pixels_max: 1 << 16, decoder_bytes_max: 1 << 20 };

fn spec() -> InputSpec {
    let array = ArraySpec { shape: vec![3, 4, 5], channels_first: true, inv_scale: 100.0, zero_point: 3 };
    let image = ImageSpec {
        width: 12,
        height: 9,
        channels: Channels::Rgb,
        geometry: Geometry::ShortestCrop { shorter_side: 13 },
        filter: Filter::Bicubic,
        table: vec![1; 768],
    };
    InputSpec { array, image: Some(image) }
}

/// Every way in, on the same bytes.
fn feed(bytes: &[u8]) {
    let _ = kind_of(bytes);
    if let Ok(picture) = decode_picture(bytes, &LIMITS) {
        let n_pixels = u64::from(picture.width) * u64::from(picture.height);
        assert!(n_pixels <= LIMITS.pixels_max);
        assert_eq!(picture.rgb.len() as u64, 3 * n_pixels);
    }
    if let Ok(array) = decode_npy(bytes, &LIMITS) {
        assert!(4 * array.values.len() as u64 <= LIMITS.decoder_bytes_max);
    }
    if let Ok(arrays) = decode_npz(bytes, &LIMITS) {
        let n_values: usize = arrays.iter().map(|(_, array)| array.values.len()).sum();
        assert!(4 * n_values as u64 <= LIMITS.decoder_bytes_max);
    }
    if let Ok(tensor) = prepare(bytes, &spec(), &LIMITS) {
        assert!(tensor.len() == 12 * 9 * 3 || tensor.len() == 60);
    }
}

/// The files of `fixtures`: pictures and arrays, each valid.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "txt"));
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).expect("fixture")).collect();
    assert!(files.len() > 30);
    files
}

/// One change to a valid file.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), prop_oneof![Just(0u8), Just(0xff), any::<u8>()]).prop_map(|(at, v)| Change::Set(at, v)),
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, v)| Change::Insert(at, v)),
        1 => (at(), 1usize..200).prop_map(|(at, len)| Change::Repeat(at, len)),
    ]
}

/// `head` keeps changes within the first bytes, where the headers are.
fn apply(bytes: &mut Vec<u8>, change: &Change, head: bool) {
    if bytes.is_empty() {
        return;
    }
    let reach = if head { bytes.len().min(200) } else { bytes.len() };
    match change {
        Change::Set(at, value) => bytes[at.index(reach)] = *value,
        Change::Flip(at, bit) => bytes[at.index(reach)] ^= 1 << bit,
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Insert(at, values) => {
            let at = at.index(reach);
            bytes.splice(at..at, values.iter().copied());
        }
        Change::Repeat(at, len) => {
            let at = at.index(reach);
            let part = bytes[at..bytes.len().min(at + len)].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

/// PNG checks each chunk's CRC: without mending it, no change would get past it.
fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(len) = bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let Some(covered) = bytes.get(at + 4..at.saturating_add(8).saturating_add(len)) else { return };
        let mut crc = flate2::Crc::new();
        crc.update(covered);
        let crc_at = at + 8 + len;
        let Some(place) = bytes.get_mut(crc_at..crc_at + 4) else { return };
        place.copy_from_slice(&crc.sum().to_be_bytes());
        at = crc_at + 4;
    }
}

fn npy(shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': True, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

proptest! {
    // The default looks for a lib.rs above the test and finds none.
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_are_survived(
        magic in prop::sample::select(vec![
            &b""[..], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY\x01\0", b"PK\x03\x04",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        feed(&[magic, &tail].concat());
    }

    #[test]
    fn changed_files_are_survived(
        file in prop::sample::select(seeds()),
        changes in prop::collection::vec(change(), 1..6),
        head in any::<bool>(),
        mend in any::<bool>(),
    ) {
        let mut bytes = file;
        for change in &changes {
            apply(&mut bytes, change, head);
        }
        if mend && bytes.starts_with(b"\x89PNG") {
            mend_png(&mut bytes);
        }
        feed(&bytes);
    }

    #[test]
    fn changed_arrays_are_survived(
        shape in prop::sample::select(vec!["(3, 4, 5)", "(1, 3, 4, 5)", "(60,)"]),
        data in prop::collection::vec(any::<u8>(), 240),
        changes in prop::collection::vec(change(), 0..4),
        head in any::<bool>(),
    ) {
        let mut bytes = npy(shape, &data);
        for change in &changes {
            apply(&mut bytes, change, head);
        }
        feed(&bytes);
    }
}
