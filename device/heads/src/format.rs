//! The bytes of a head, versions 1 and 2.
//!
//! | field | bytes |
//! |---|---|
//! | magic `"grafthd\0"` | 8 |
//! | version | u16 |
//! | kind: 0 nearest class mean, 1 ridge, 2 discriminant analysis, 3 softmax regression, 4 neighbours, 5 projected ridge, 6 Euclidean nearest class mean, 7 nearest trimmed class mean | u8 |
//! | reason, as numbered in [`ChoiceReason`] | u8 |
//! | space | 32 |
//! | set digest | 32 |
//! | samples trained on | u32 |
//! | D | u32 |
//! | C | u32 |
//! | balanced accuracy; -1 where none was measured | f64 |
//! | strength: lambda_rel; shrinkage of discriminant analysis, between 0 and 1; -1 for nearest class means and neighbours | f64 |
//! | labels, strictly ascending: length u8 and UTF-8 | C times |
//! | nearest class mean, trimmed or not: centre | f64 `[D]` |
//! | nearest class mean: offsets; others: biases | f64 `[C]` |
//! | nearest class mean: prototypes; others: weights (projected ridge: of D as `projection` widens it) | f32 `[C, D]` |
//!
//! Neighbours have other numbers:
//!
//! | field | bytes |
//! |---|---|
//! | k, 1 to 9 | u32 |
//! | N, samples kept | u32 |
//! | centre | f64 `[D]` |
//! | classes of the samples, places in the list of labels | u16 `[N]` |
//! | samples, -127 to 127 | i8 `[N, D]` |
//!
//! Version 2 goes on with the calibration, see `calibration_format`; a head without one is version 1.
//!
//! Little-endian, nothing after it, all numbers finite. The large matrix is f32: 5 classes of 1,280 components are
//! 26 KB, and a head of 800 such classes, or of 300 with calibration, still fits one
//! message. One head has one encoding; its hash names it.
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use alloc::vec::Vec;

use graft_wire::limits::{CLASSES_MAX, EMBEDDING_LEN_MAX, LABEL_BYTES_MAX};
use graft_wire::message::ChoiceReason;
use graft_wire::{Digest, Label, SpaceId};

use crate::calibration_format;
use crate::head::{Head, Model};
use crate::knn::{K_MAX, Knn};
use crate::linear::Linear;
use crate::ncm::Ncm;
use crate::projection::width;

/// First bytes of every head.
pub const MAGIC: &[u8; 8] = b"grafthd\0";
/// Newest version, of heads with a calibration.
pub const VERSION: u16 = 2;
/// Oldest version, of heads without one.
pub const VERSION_PLAIN: u16 = 1;

const KIND_NCM: u8 = 0;
const KIND_RIDGE: u8 = 1;
const KIND_LDA: u8 = 2;
const KIND_LOGISTIC: u8 = 3;
const KIND_KNN: u8 = 4;
const KIND_RP: u8 = 5;
const KIND_NCM_EUCLIDEAN: u8 = 6;
const KIND_NCM_TRIMMED: u8 = 7;
/// Stands for a value that there is not.
const NONE: f64 = -1.0;

/// Why bytes are not a head.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadFormatError {
    /// The first bytes are others.
    #[error("bytes are not a graft head")]
    Magic,
    /// Written by a newer graft.
    #[error("head has version {found}; this program reads {VERSION_PLAIN} to {VERSION}")]
    Version {
        /// Version seen.
        found: u16,
    },
    /// Cut short.
    #[error("head ends within its {field}")]
    Truncated {
        /// What could not be read whole.
        field: &'static str,
    },
    /// Something comes after the head.
    #[error("{n_bytes} bytes are left after the head")]
    Trailing {
        /// Bytes left.
        n_bytes: usize,
    },
    /// A number out of its range.
    #[error("head has {found} {field}; allowed are {min} to {max}")]
    Range {
        /// Which number.
        field: &'static str,
        /// Value seen.
        found: u32,
        /// Least value allowed.
        min: u32,
        /// Greatest value allowed.
        max: u32,
    },
    /// Not a label in the stored form, or out of order.
    #[error("label {index} of the head is not canonical, or not greater than the one before")]
    Label {
        /// Its place.
        index: u32,
    },
    /// NaN, infinite, or outside the range of its field.
    #[error("head holds a number in its {field} that cannot be there")]
    Number {
        /// Where.
        field: &'static str,
    },
}

pub(crate) fn encode(head: &Head) -> Vec<u8> {
    let (kind, centre, offsets, matrix) = match &head.model {
        Model::Ncm(ncm) => (KIND_NCM, &ncm.centre[..], &ncm.offsets[..], &ncm.prototypes[..]),
        Model::NcmTrimmed(ncm) => (KIND_NCM_TRIMMED, &ncm.centre[..], &ncm.offsets[..], &ncm.prototypes[..]),
        Model::NcmEuclidean(linear) => (KIND_NCM_EUCLIDEAN, &[][..], &linear.biases[..], &linear.weights[..]),
        Model::Ridge { ridge, .. } => (KIND_RIDGE, &[][..], &ridge.biases[..], &ridge.weights[..]),
        Model::Lda { lda, .. } => (KIND_LDA, &[][..], &lda.biases[..], &lda.weights[..]),
        Model::Logistic { logistic, .. } => (KIND_LOGISTIC, &[][..], &logistic.biases[..], &logistic.weights[..]),
        Model::Rp { ridge, .. } => (KIND_RP, &[][..], &ridge.biases[..], &ridge.weights[..]),
        // Its numbers are of other types.
        Model::Knn(_) => (KIND_KNN, &[][..], &[][..], &[][..]),
    };
    let mut bytes =
        Vec::with_capacity(128 + 65 * head.labels.len() + 8 * (centre.len() + offsets.len()) + 4 * matrix.len());
    bytes.extend_from_slice(MAGIC);
    let version = if head.calibration.is_some() { VERSION } else { VERSION_PLAIN };
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.push(kind);
    bytes.push(reason_number(head.reason));
    bytes.extend_from_slice(&head.space.0);
    bytes.extend_from_slice(&head.set_digest.0);
    // Both are capped far below 2^32.
    for number in [head.n_samples, head.embedding_len as u32, head.labels.len() as u32] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&head.balanced_accuracy.unwrap_or(NONE).to_le_bytes());
    bytes.extend_from_slice(&head.lambda_rel().unwrap_or(NONE).to_le_bytes());
    for label in &head.labels {
        let text = label.as_str().as_bytes();
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text);
    }
    centre.iter().chain(offsets).for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    matrix.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    if let Model::Knn(knn) = &head.model {
        encode_knn(knn, &mut bytes);
    }
    if let Some(calibration) = &head.calibration {
        calibration_format::encode(calibration, &mut bytes);
    }
    bytes
}

fn encode_knn(knn: &Knn, bytes: &mut Vec<u8>) {
    // A head keeps 4,096 samples at most.
    for number in [knn.k, knn.classes.len() as u32] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    knn.centre.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    knn.classes.iter().for_each(|class| bytes.extend_from_slice(&class.to_le_bytes()));
    bytes.extend(knn.rows.iter().map(|value| value.cast_unsigned()));
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Head, HeadFormatError> {
    let mut reader = Reader { bytes };
    if reader.take::<8>("magic").map_err(|_| HeadFormatError::Magic)? != *MAGIC {
        return Err(HeadFormatError::Magic);
    }
    let version = u16::from_le_bytes(reader.take("version")?);
    if !(VERSION_PLAIN..=VERSION).contains(&version) {
        return Err(HeadFormatError::Version { found: version });
    }
    let [kind, reason] = reader.take("kind")?;
    let kind = range("kind", u32::from(kind), 0, u32::from(KIND_NCM_TRIMMED))? as u8;
    let reason = range("reason", u32::from(reason), 0, REASONS.len() as u32 - 1)?;
    let reason = REASONS.get(reason as usize).copied().unwrap_or(ChoiceReason::Named);
    let space = SpaceId(reader.take("space")?);
    let set_digest = Digest(reader.take("set digest")?);
    let n_samples = range("samples", reader.u32("samples")?, 2, u32::MAX)?;
    let embedding_len = range("components", reader.u32("components")?, 1, EMBEDDING_LEN_MAX as u32)? as usize;
    let n_classes = range("classes", reader.u32("classes")?, 2, CLASSES_MAX as u32)? as usize;
    let balanced_accuracy = optional("balanced accuracy", reader.f64("balanced accuracy")?, 1.0)?;
    let lambda_rel = optional("lambda", reader.f64("lambda")?, f64::MAX)?;
    let labels = reader.labels(n_classes)?;
    let model = match (kind, lambda_rel) {
        (KIND_NCM, None) => Model::Ncm(reader.ncm(n_classes, embedding_len)?),
        (KIND_NCM_TRIMMED, None) => Model::NcmTrimmed(reader.ncm(n_classes, embedding_len)?),
        (KIND_NCM_EUCLIDEAN, None) => Model::NcmEuclidean(reader.linear(n_classes, embedding_len)?),
        (KIND_RIDGE, Some(lambda_rel)) => Model::Ridge { ridge: reader.linear(n_classes, embedding_len)?, lambda_rel },
        // At neither end is there a covariance that could be inverted, or a strength that could be found again.
        (KIND_LDA, Some(shrinkage)) if shrinkage > 0.0 && shrinkage < 1.0 => {
            Model::Lda { lda: reader.linear(n_classes, embedding_len)?, shrinkage }
        }
        (KIND_LOGISTIC, Some(lambda_rel)) => {
            Model::Logistic { logistic: reader.linear(n_classes, embedding_len)?, lambda_rel }
        }
        (KIND_KNN, None) => Model::Knn(reader.knn(n_classes, embedding_len)?),
        (KIND_RP, Some(lambda_rel)) => Model::Rp { ridge: reader.linear(n_classes, width(embedding_len))?, lambda_rel },
        _ => return Err(HeadFormatError::Number { field: "lambda" }),
    };
    let calibration = match version {
        VERSION_PLAIN => None,
        _ => Some(calibration_format::decode(&mut reader, n_classes, embedding_len)?),
    };
    if !reader.bytes.is_empty() {
        return Err(HeadFormatError::Trailing { n_bytes: reader.bytes.len() });
    }
    Ok(Head { space, set_digest, n_samples, reason, balanced_accuracy, embedding_len, labels, model, calibration })
}

/// Reasons by their number.
const REASONS: [ChoiceReason; 5] = [
    ChoiceReason::Named,
    ChoiceReason::BestBySession,
    ChoiceReason::BestByOne,
    ChoiceReason::OneShot,
    ChoiceReason::Pushed,
];

fn reason_number(reason: ChoiceReason) -> u8 {
    match reason {
        ChoiceReason::Named => 0,
        ChoiceReason::BestBySession => 1,
        ChoiceReason::BestByOne => 2,
        ChoiceReason::OneShot => 3,
        ChoiceReason::Pushed => 4,
    }
}

pub(crate) fn range(field: &'static str, found: u32, min: u32, max: u32) -> Result<u32, HeadFormatError> {
    if (min..=max).contains(&found) { Ok(found) } else { Err(HeadFormatError::Range { field, found, min, max }) }
}

pub(crate) fn optional(field: &'static str, value: f64, max: f64) -> Result<Option<f64>, HeadFormatError> {
    match value {
        value if value == NONE => Ok(None),
        // -0 would be a second encoding of 0.
        value if (0.0..=max).contains(&value) && value.is_sign_positive() => Ok(Some(value)),
        _ => Err(HeadFormatError::Number { field }),
    }
}

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], HeadFormatError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(HeadFormatError::Truncated { field })?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn slice(&mut self, field: &'static str, n_bytes: usize) -> Result<&'a [u8], HeadFormatError> {
        let (taken, rest) = self.bytes.split_at_checked(n_bytes).ok_or(HeadFormatError::Truncated { field })?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, HeadFormatError> {
        Ok(u32::from_le_bytes(self.take(field)?))
    }

    pub(crate) fn f64(&mut self, field: &'static str) -> Result<f64, HeadFormatError> {
        Ok(f64::from_le_bytes(self.take(field)?))
    }

    fn labels(&mut self, n_classes: usize) -> Result<Vec<Label>, HeadFormatError> {
        let mut labels: Vec<Label> = Vec::new();
        for index in 0..n_classes as u32 {
            let [length] = self.take("labels")?;
            let length = range("bytes in a label", u32::from(length), 1, LABEL_BYTES_MAX as u32)? as usize;
            let text = self.slice("labels", length)?;
            let label = core::str::from_utf8(text).ok().and_then(|text| Label::new(text).ok());
            let label = label.filter(|label| label.as_str().as_bytes() == text);
            let label = label.filter(|label| labels.last().is_none_or(|last| last < label));
            labels.push(label.ok_or(HeadFormatError::Label { index })?);
        }
        Ok(labels)
    }

    /// The length is checked against the bytes before anything is allocated.
    pub(crate) fn vector(&mut self, field: &'static str, n: usize) -> Result<Vec<f64>, HeadFormatError> {
        let (values, _) = self.slice(field, 8 * n)?.as_chunks::<8>();
        let values: Vec<f64> = values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(HeadFormatError::Number { field }) }
    }

    fn linear(&mut self, n_classes: usize, embedding_len: usize) -> Result<Linear, HeadFormatError> {
        let biases = self.vector("biases", n_classes)?;
        Ok(Linear { biases, weights: self.matrix("weights", n_classes * embedding_len)? })
    }

    fn ncm(&mut self, n_classes: usize, embedding_len: usize) -> Result<Ncm, HeadFormatError> {
        Ok(Ncm {
            centre: self.vector("centre", embedding_len)?,
            offsets: self.vector("offsets", n_classes)?,
            prototypes: self.matrix("prototypes", n_classes * embedding_len)?,
        })
    }

    fn knn(&mut self, n_classes: usize, embedding_len: usize) -> Result<Knn, HeadFormatError> {
        let k = range("neighbours", self.u32("neighbours")?, 1, K_MAX)?;
        let n = range("samples kept", self.u32("samples kept")?, n_classes as u32, CLASSES_MAX as u32)? as usize;
        let centre = self.vector("centre", embedding_len)?;
        let (classes, _) = self.slice("classes of samples", 2 * n)?.as_chunks::<2>();
        let classes: Vec<u16> = classes.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
        if classes.iter().any(|class| usize::from(*class) >= n_classes) {
            return Err(HeadFormatError::Number { field: "classes of samples" });
        }
        let rows: Vec<i8> = self.slice("samples", n * embedding_len)?.iter().map(|byte| byte.cast_signed()).collect();
        if rows.contains(&i8::MIN) {
            return Err(HeadFormatError::Number { field: "samples" });
        }
        Ok(Knn::new(k, centre, classes, rows, n_classes))
    }

    pub(crate) fn matrix(&mut self, field: &'static str, n: usize) -> Result<Vec<f32>, HeadFormatError> {
        let (values, _) = self.slice(field, 4 * n)?.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(HeadFormatError::Number { field }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use alloc::string::ToString;
    use alloc::vec;
    use graft_wire::message::{HeadChoice, HeadKind};
    use proptest::prelude::*;

    fn small() -> Head {
        // Centre (5, 5), prototypes (1, -1) and (-1, 1) over root 2, no offsets.
        let rows = [(0, vec![10, 0]), (1, vec![0, 10])];
        Head::train(&synthetic::set_of(&rows), HeadChoice::Ncm).unwrap()
    }

    #[test]
    fn bytes_are_golden() {
        let head = small();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"grafthd\0\x01\0\0\0");
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&head.set_digest.0);
        expected.extend_from_slice(&[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0xf0, 0xbf, 0, 0, 0, 0, 0, 0, 0xf0, 0xbf]);
        expected.extend_from_slice(b"\x09class 000\x09class 001");
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0x14, 0x40, 0, 0, 0, 0, 0, 0, 0x14, 0x40]);
        expected.extend_from_slice(&[0; 16]);
        let (plus, minus) = ([0xf3, 0x04, 0x35, 0x3f], [0xf3, 0x04, 0x35, 0xbf]);
        expected.extend([plus, minus, minus, plus].as_flattened());
        assert_eq!(head.encode(), expected);
        assert_eq!(Head::decode(&expected), Ok(head));
    }

    #[test]
    fn every_kind_of_head_round_trips() {
        for choice in HeadChoice::all() {
            for shots in [1, 5] {
                let head = Head::train(&synthetic::clusters(3, shots, 16, 1), choice).unwrap();
                assert_eq!(Head::decode(&head.encode()), Ok(head), "{choice:?}");
            }
        }
    }

    #[test]
    fn every_shortened_head_is_refused() {
        for choice in HeadKind::ALL.map(HeadKind::choice) {
            let bytes = Head::train(&synthetic::clusters(2, 3, 2, 1), choice).unwrap().encode();
            // Of the 32 KiB of a projected head, every length of the first 200 bytes and some of the others.
            for n in (0..bytes.len()).filter(|n| *n < 200 || n % 97 == 0) {
                assert!(Head::decode(&bytes[..n]).is_err(), "{choice:?} {n}");
            }
        }
        let bytes = small().encode();
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Head::decode(&longer).unwrap_err().to_string(), "1 bytes are left after the head");
    }

    #[test]
    fn damage_is_named() {
        let refused = |at: usize, to: &[u8]| {
            let mut bytes = small().encode();
            bytes[at..at + to.len()].copy_from_slice(to);
            Head::decode(&bytes).unwrap_err().to_string()
        };
        assert_eq!(refused(0, b"x"), "bytes are not a graft head");
        assert_eq!(refused(8, &[9]), "head has version 9; this program reads 1 to 2");
        assert_eq!(refused(10, &[9]), "head has 9 kind; allowed are 0 to 7");
        assert_eq!(refused(10, &[1]), "head holds a number in its lambda that cannot be there");
        assert_eq!(refused(80, &[0xff; 4]), "head has 4294967295 components; allowed are 1 to 8192");
        assert_eq!(refused(84, &[1]), "head has 1 classes; allowed are 2 to 4096");
        assert_eq!(refused(80, &[0, 0x20]), "head ends within its centre");
        assert_eq!(
            refused(88, &2.0f64.to_le_bytes()),
            "head holds a number in its balanced accuracy that cannot be there"
        );
        let zero = "head holds a number in its balanced accuracy that cannot be there";
        assert_eq!(refused(88, &(-0.0f64).to_le_bytes()), zero);
        assert_eq!(refused(104, &[200]), "head has 200 bytes in a label; allowed are 1 to 64");
        let label = "label 1 of the head is not canonical, or not greater than the one before";
        assert_eq!(refused(114, b"\x09class 000"), label);
        assert_eq!(refused(114, b"\x09class 00 "), label);
        assert_eq!(refused(114, b"\x09blass 001"), label);
        assert_eq!(refused(114, b"\x09class 00\xff"), label);
        assert_eq!(refused(124, &f64::NAN.to_le_bytes()), "head holds a number in its centre that cannot be there");
        assert_eq!(
            refused(156, &f32::INFINITY.to_le_bytes()),
            "head holds a number in its prototypes that cannot be there"
        );
    }

    #[test]
    fn damaged_neighbours_are_named() {
        let bytes = Head::train(&synthetic::clusters(2, 3, 2, 1), HeadChoice::Knn).unwrap().encode();
        let refused = |at: usize, to: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[124 + at..][..to.len()].copy_from_slice(to);
            Head::decode(&bytes).unwrap_err().to_string()
        };
        assert_eq!(refused(0, &[10]), "head has 10 neighbours; allowed are 1 to 9");
        assert_eq!(refused(4, &[1]), "head has 1 samples kept; allowed are 2 to 4096");
        assert_eq!(refused(4, &[0, 16]), "head ends within its classes of samples");
        assert_eq!(refused(24, &[2]), "head holds a number in its classes of samples that cannot be there");
        assert_eq!(refused(36, &[0x80]), "head holds a number in its samples that cannot be there");
    }

    #[test]
    fn a_shrinkage_lies_between_0_and_1() {
        let mut bytes = Head::train(&synthetic::clusters(2, 3, 2, 1), HeadChoice::Lda).unwrap().encode();
        for shrinkage in [0.0f64, 1.0, -1.0, f64::NAN] {
            bytes[96..104].copy_from_slice(&shrinkage.to_le_bytes());
            let error = Head::decode(&bytes).unwrap_err().to_string();
            assert_eq!(error, "head holds a number in its lambda that cannot be there");
        }
    }

    proptest! {
        /// Whatever decodes is what encodes: no second encoding, no panic.
        #[test]
        fn damaged_heads_decode_to_themselves_or_not_at_all(flips in proptest::collection::vec((0usize..1000, any::<u8>()), 1..6)) {
            for choice in HeadKind::ALL.map(HeadKind::choice) {
                let head = Head::train(&synthetic::clusters(2, 3, 2, 1), choice).unwrap();
                let mut bytes = head.encode();
                for (at, to) in &flips {
                    let at = at % bytes.len();
                    bytes[at] = *to;
                }
                if let Ok(head) = Head::decode(&bytes) {
                    prop_assert_eq!(head.encode(), bytes);
                    head.classify(&[1, 2]);
                }
            }
        }
    }
}
