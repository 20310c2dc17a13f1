//! NumPy's `.npy`, versions 1 to 3. Reference: `numpy/lib/format.py`, "Format Version 1.0" and after.
//!
//! The header is a Python dict literal; the little of Python that NumPy writes there is read, nothing is evaluated.

use crate::array::Array;
use crate::error::InputError;
use crate::{Limits, kind};

/// Longest accepted header, bytes. NumPy itself refuses more than 10,000 by default.
const HEADER_BYTES_MAX: usize = 65_536;
/// Most axes; NumPy allows 64.
const AXES_MAX: usize = 64;

/// Decodes an `.npy` file.
///
/// Element types f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 and b1 (true is 1), either byte order; each value is
/// rounded to the nearest f32. C and Fortran order; the result is in C order, last axis fastest.
///
/// # Errors
/// [`InputError::Malformed`], [`InputError::CutOff`], [`InputError::ElementType`] and limits.
pub fn decode_npy(bytes: &[u8], limits: &Limits) -> Result<Array, InputError> {
    limits.check_file(bytes)?;
    decode_entry(bytes, limits)
}

/// As [`decode_npy`], for an entry of an archive, whose length is already accounted for.
pub(crate) fn decode_entry(bytes: &[u8], limits: &Limits) -> Result<Array, InputError> {
    let cut_off = || InputError::CutOff { format: ".npy", bytes: bytes.len() as u64 };
    if !kind::is_npy(bytes) {
        return Err(malformed("it does not begin with \\x93NUMPY"));
    }
    let &[major, _minor] = bytes.get(6..8).ok_or_else(cut_off)? else { return Err(cut_off()) };
    let (header_len, header_at) = match (major, bytes.get(8..).unwrap_or_default()) {
        (1, &[a, b, ..]) => (usize::from(u16::from_le_bytes([a, b])), 10),
        (2 | 3, &[a, b, c, d, ..]) => (u32::from_le_bytes([a, b, c, d]) as usize, 12),
        (1..=3, _) => return Err(cut_off()),
        _ => return Err(malformed(format!("it has format version {major}, allowed are 1 to 3"))),
    };
    if header_len > HEADER_BYTES_MAX {
        return Err(malformed(format!("its header has {header_len} bytes, at most {HEADER_BYTES_MAX} are allowed")));
    }
    let header = bytes.get(header_at..header_at + header_len).ok_or_else(cut_off)?;
    let header = Header::parse(header).ok_or_else(|| malformed("its header is not the dict that NumPy writes"))?;
    let element = Element::parse(&header.descr)?;
    let n_elements = header.shape.iter().try_fold(1u64, |n, &axis| n.checked_mul(u64::from(axis)));
    // The values as f32, and once more while Fortran order is undone.
    let copies = if header.fortran_order { 8 } else { 4 };
    limits.check_memory(n_elements.and_then(|n| n.checked_mul(copies)))?;
    let expected = n_elements.and_then(|n| n.checked_mul(element.size as u64)).unwrap_or(u64::MAX);
    let data = bytes.get(header_at + header_len..).unwrap_or_default();
    let found = data.len() as u64;
    if found < expected {
        return Err(cut_off());
    }
    if found > expected {
        let reason = format!("it has {found} bytes of data, its shape {:?} asks for {expected}", header.shape);
        return Err(malformed(reason));
    }
    let values: Vec<f32> = data.chunks_exact(element.size).map(|raw| element.read(raw)).collect();
    let values = if header.fortran_order { to_c_order(&values, &header.shape) } else { values };
    Ok(Array { shape: header.shape, values })
}

fn malformed(reason: impl Into<String>) -> InputError {
    InputError::Malformed { format: ".npy", reason: reason.into() }
}

/// First axis fastest -> last axis fastest.
fn to_c_order(values: &[f32], shape: &[u32]) -> Vec<f32> {
    // Step in `values` of each axis.
    let mut step = 1usize;
    let axes: Vec<(usize, usize)> = shape
        .iter()
        .map(|&len| {
            let axis = (len as usize, step);
            step = step.saturating_mul(len as usize);
            axis
        })
        .collect();
    let mut index = vec![0usize; shape.len()];
    let mut offset = 0usize;
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.extend(values.get(offset));
        for (position, &(len, step)) in index.iter_mut().zip(&axes).rev() {
            *position += 1;
            offset += step;
            if *position < len {
                break;
            }
            offset -= step * len;
            *position = 0;
        }
    }
    out
}

/// Type of an element: NumPy's `descr` as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Element {
    kind: char,
    size: usize,
    big_endian: bool,
}

impl Element {
    fn parse(descr: &str) -> Result<Element, InputError> {
        let mut letters = descr.chars();
        let (order, kind) = (letters.next(), letters.next());
        let element = match (order, kind, letters.as_str().parse::<usize>()) {
            (Some(order @ ('<' | '>' | '|')), Some(kind), Ok(size)) if order != '|' || size == 1 => {
                Element { kind, size, big_endian: order == '>' }
            }
            _ => return Err(InputError::ElementType { seen: descr.to_string() }),
        };
        match (element.kind, element.size) {
            ('f', 2 | 4 | 8) | ('i' | 'u', 1 | 2 | 4 | 8) | ('b', 1) => Ok(element),
            _ => Err(InputError::ElementType { seen: descr.to_string() }),
        }
    }

    /// `raw` has `size` bytes.
    fn read(self, raw: &[u8]) -> f32 {
        let mut wide = [0u8; 8];
        // Little-endian into the low bytes.
        for (to, &from) in wide.iter_mut().zip(raw) {
            *to = from;
        }
        let mut bits = u64::from_le_bytes(wide);
        if self.big_endian {
            bits = bits.swap_bytes() >> (64 - 8 * self.size);
        }
        let unused = 64 - 8 * self.size as u32;
        match (self.kind, self.size) {
            ('f', 2) => half_to_f32(bits as u16),
            ('f', 4) => f32::from_bits(bits as u32),
            ('f', _) => f64::from_bits(bits) as f32,
            ('i', _) => ((bits << unused) as i64 >> unused) as f32,
            ('b', _) => f32::from(u8::from(bits != 0)),
            _ => bits as f32,
        }
    }
}

/// IEEE 754 binary16; every value has an exact f32.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 31;
    let mantissa = u32::from(bits) & 1023;
    let magnitude = match exponent {
        0 => (mantissa as f32 / 16_777_216.0).to_bits(),
        31 => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u32>,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 224, 224), }`, keys in any order, spaces after.
    fn parse(text: &[u8]) -> Option<Header> {
        let mut rest = Cursor { text: std::str::from_utf8(text).ok()? };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        rest.take("{")?;
        while rest.take("}").is_none() {
            let key = rest.string()?;
            rest.take(":")?;
            match key {
                "descr" => descr = Some(rest.string_or_list()?.to_string()),
                "fortran_order" => fortran_order = Some(rest.boolean()?),
                "shape" => shape = Some(rest.shape()?),
                _ => return None,
            }
            if rest.take(",").is_none() {
                rest.take("}")?;
                break;
            }
        }
        rest.skip_space();
        let header = Header { descr: descr?, fortran_order: fortran_order?, shape: shape? };
        rest.text.is_empty().then_some(header)
    }
}

struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        self.text = self.text.trim_start_matches([' ', '\n', '\t', '\r']);
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.skip_space();
        self.text = self.text.strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        self.skip_space();
        let quote = self.text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (inside, after) = self.text.get(1..)?.split_once(quote)?;
        self.text = after;
        Some(inside)
    }

    /// A structured type is a list; its text is kept for the error that names it.
    fn string_or_list(&mut self) -> Option<&'a str> {
        self.skip_space();
        if !self.text.starts_with('[') {
            return self.string();
        }
        let end = self.text.find(']')? + 1;
        let (list, after) = self.text.split_at_checked(end)?;
        self.text = after;
        Some(list)
    }

    fn boolean(&mut self) -> Option<bool> {
        if self.take("True").is_some() { Some(true) } else { self.take("False").map(|()| false) }
    }

    fn shape(&mut self) -> Option<Vec<u32>> {
        let mut shape = Vec::new();
        self.take("(")?;
        while self.take(")").is_none() {
            self.skip_space();
            let end = self.text.find(|c: char| !c.is_ascii_digit())?;
            let (digits, after) = self.text.split_at_checked(end)?;
            shape.push(digits.parse().ok()?);
            if shape.len() > AXES_MAX {
                return None;
            }
            // Python 2 wrote long integers as `3L`.
            self.text = after.strip_prefix('L').unwrap_or(after);
            if self.take(",").is_none() {
                self.take(")")?;
                break;
            }
        }
        Some(shape)
    }
}

#[cfg(test)]
mod tests;
