use super::*;

fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let len = header.len() as u32;
    let len = if version == 1 { (len as u16).to_le_bytes().to_vec() } else { len.to_le_bytes().to_vec() };
    [b"\x93NUMPY", &[version, 0][..], &len, header.as_bytes(), data].concat()
}

fn vector(descr: &str, n: usize, data: &[u8]) -> Vec<u8> {
    file(1, &format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({n},), }}   \n"), data)
}

fn values(bytes: &[u8]) -> Vec<f32> {
    decode_npy(bytes, &Limits::default()).unwrap().values
}

fn text(bytes: &[u8]) -> String {
    decode_npy(bytes, &Limits::default()).unwrap_err().to_string()
}

#[test]
fn every_element_type_is_read_in_both_byte_orders() {
    let cases: [(&str, &[u8], f32); 17] = [
        ("<f4", &[0, 0, 0x20, 0xc0], -2.5),
        (">f4", &[0xc0, 0x20, 0, 0], -2.5),
        ("<f8", &[0, 0, 0, 0, 0, 0, 4, 0xc0], -2.5),
        (">f8", &[0xc0, 4, 0, 0, 0, 0, 0, 0], -2.5),
        ("<f2", &[0x00, 0xc1], -2.5),
        (">f2", &[0xc1, 0x00], -2.5),
        ("|i1", &[0xfe], -2.0),
        ("|u1", &[0xfe], 254.0),
        ("<i2", &[0xfe, 0xff], -2.0),
        (">i2", &[0xff, 0xfe], -2.0),
        ("<u2", &[0xfe, 0xff], 65534.0),
        ("<i4", &[0xfe, 0xff, 0xff, 0xff], -2.0),
        (">u4", &[0, 0, 1, 2], 258.0),
        ("<i8", &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], -2.0),
        (">i8", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], -2.0),
        ("<u8", &[0, 0, 0, 0, 1, 0, 0, 0], 4_294_967_296.0),
        ("|b1", &[2], 1.0),
    ];
    for (descr, data, value) in cases {
        assert_eq!(values(&vector(descr, 1, data)), [value], "{descr}");
    }
}

#[test]
fn halves_are_exact() {
    let cases: [(u16, f32); 8] = [
        (0x0000, 0.0),
        (0x8000, -0.0),
        (0x0001, 5.960_464_5e-8),
        (0x03ff, 6.097_555e-5),
        (0x0400, 6.103_515_6e-5),
        (0x3c00, 1.0),
        (0x7bff, 65504.0),
        (0xfc00, f32::NEG_INFINITY),
    ];
    for (bits, value) in cases {
        assert_eq!(half_to_f32(bits).to_bits(), value.to_bits(), "{bits:04x}");
    }
    assert!(half_to_f32(0x7e00).is_nan());
}

#[test]
fn fortran_order_becomes_c_order() {
    let header = "{'fortran_order': True, 'shape': (2, 3, 2), 'descr': '|u1'}";
    // Element [i, j, k] holds 100 i + 10 j + k, first axis fastest.
    let data = [0, 100, 10, 110, 20, 120, 1, 101, 11, 111, 21, 121];
    let array = decode_npy(&file(2, header, &data), &Limits::default()).unwrap();
    assert_eq!(array.shape, [2, 3, 2]);
    assert_eq!(array.values, [0., 1., 10., 11., 20., 21., 100., 101., 110., 111., 120., 121.]);
}

#[test]
fn scalars_versions_and_old_integers_are_read() {
    assert_eq!(values(&file(3, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}", &[5])), [5.0]);
    assert_eq!(values(&file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 1L)}", &[5, 6])), [5.0, 6.0]);
    assert_eq!(values(&vector("<f4", 0, &[])), [0f32; 0]);
}

#[test]
fn errors_say_what_was_seen_and_allowed() {
    let good = vector("<f4", 2, &[0; 8]);
    assert_eq!(
        text(&good[..good.len() - 1]),
        format!(".npy file is cut off after {} bytes; copy it again", good.len() - 1)
    );
    assert_eq!(text(b"\x93NUMPY\x01\0\x40\0{"), ".npy file is cut off after 11 bytes; copy it again");
    assert_eq!(
        text(&vector("<f4", 2, &[0; 9])),
        ".npy file cannot be decoded: it has 9 bytes of data, its shape [2] asks for 8"
    );
    assert_eq!(
        text(&vector("<c8", 1, &[0; 8])),
        "array has element type \"<c8\"; allowed are f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 and b1"
    );
    let list = file(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4]);
    assert_eq!(
        text(&list),
        "array has element type \"[('a', '<f4')]\"; allowed are f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 and b1"
    );
    assert_eq!(
        text(&file(1, "{'descr': '<f4', 'shape': (1,), }", &[0; 4])),
        ".npy file cannot be decoded: its header is not the dict that NumPy writes"
    );
    assert_eq!(text(&file(9, "{}", &[])), ".npy file cannot be decoded: it has format version 9, allowed are 1 to 3");
    assert_eq!(
        text(b"\x93NUMPY\x02\0\xff\xff\xff\xff"),
        ".npy file cannot be decoded: its header has 4294967295 bytes, at most 65536 are allowed"
    );
    assert_eq!(text(b"PK"), ".npy file cannot be decoded: it does not begin with \\x93NUMPY");
}

#[test]
fn huge_shapes_are_refused_before_they_are_allocated() {
    let huge = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 4000000000, 4000000000), }";
    assert_eq!(
        text(&file(1, huge, &[])),
        "decoding needs 18446744073709551615 bytes of memory, at most 536870912 are allowed"
    );
    let large = "{'descr': '|u1', 'fortran_order': True, 'shape': (10000, 10000), }";
    assert_eq!(text(&file(1, large, &[])), "decoding needs 800000000 bytes of memory, at most 536870912 are allowed");
}
