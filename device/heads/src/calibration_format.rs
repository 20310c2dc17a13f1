//! The bytes of a calibration, at the end of a head of version 2. `C`, `D` as in the head.
//!
//! | field | bytes |
//! |---|---|
//! | inverse temperature; -1 where there is none | f64 |
//! | stated rate of false rejects; -1 where none is | f64 |
//! | n, calibration scores: 1 to 4,096 | u32 |
//! | m, negatives: 0 to 4,096 | u32 |
//! | calibration scores, ascending | f64 `[n]` |
//! | scores of negatives, ascending | f64 `[m]` |
//! | sharpness, `1 / (s2 (1 + 1 / n_c))` | f64 `[C]` |
//! | ridge biases | f64 `[C]` |
//! | ridge weights | f32 `[C, D]` |
//! | class means in steps of 1/256, within -127 to 127 | i16 `[C, D]` |
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use alloc::vec::Vec;

use crate::calibration::{Calibration, SCORES_MAX, can_promise};
use crate::format::{HeadFormatError, Reader, optional, range};
use crate::known::{Known, MEAN_MAX, Means};
use crate::linear::Linear;
use crate::temperature::INVERSE_MAX;

const NONE: f64 = -1.0;

pub(crate) fn encode(calibration: &Calibration, bytes: &mut Vec<u8>) {
    let Calibration { known: Known { ridge, means }, scores, negatives, inverse_temperature, rate } = calibration;
    for value in [inverse_temperature.unwrap_or(NONE), rate.unwrap_or(NONE)] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    // Both are capped at SCORES_MAX.
    for n in [scores.len() as u32, negatives.len() as u32] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    let doubles = scores.iter().chain(negatives).chain(&means.sharpness).chain(&ridge.biases);
    doubles.for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    ridge.weights.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    means.rows.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

pub(crate) fn decode(reader: &mut Reader<'_>, n_classes: usize, d: usize) -> Result<Calibration, HeadFormatError> {
    let inverse_temperature = optional("temperature", reader.f64("temperature")?, INVERSE_MAX)?;
    let rate = optional("false-reject rate", reader.f64("false-reject rate")?, 1.0)?;
    let n_max = SCORES_MAX as u32;
    let n = range("calibration scores", reader.u32("calibration scores")?, 1, n_max)? as usize;
    let n_negatives = range("negatives", reader.u32("negatives")?, 0, n_max)? as usize;
    if rate.is_some_and(|rate| !can_promise(rate, n)) {
        return Err(HeadFormatError::Number { field: "false-reject rate" });
    }
    let scores = ascending(reader, "calibration scores", n)?;
    let negatives = ascending(reader, "negatives", n_negatives)?;
    let sharpness = reader.vector("sharpness", n_classes)?;
    if sharpness.iter().any(|value| value.is_sign_negative()) {
        return Err(HeadFormatError::Number { field: "sharpness" });
    }
    let biases = reader.vector("calibration biases", n_classes)?;
    let weights = reader.matrix("calibration weights", n_classes * d)?;
    let (rows, _) = reader.slice("class means", 2 * n_classes * d)?.as_chunks::<2>();
    let rows: Vec<i16> = rows.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    if rows.iter().any(|value| value.unsigned_abs() > MEAN_MAX.unsigned_abs()) {
        return Err(HeadFormatError::Number { field: "class means" });
    }
    let known = Known { ridge: Linear { biases, weights }, means: Means { sharpness, rows, embedding_len: d } };
    Ok(Calibration { known, scores, negatives, inverse_temperature, rate })
}

fn ascending(reader: &mut Reader<'_>, field: &'static str, n: usize) -> Result<Vec<f64>, HeadFormatError> {
    let values = reader.vector(field, n)?;
    let sorted = values.is_sorted_by(|a, b| a.total_cmp(b).is_le());
    if sorted { Ok(values) } else { Err(HeadFormatError::Number { field }) }
}

#[cfg(test)]
mod tests {
    use crate::synthetic;
    use crate::{Head, SampleSet};
    use alloc::string::ToString;
    use graft_wire::message::HeadChoice;
    use graft_wire::{LabelKind, SampleMeta};
    use proptest::prelude::*;

    fn set() -> SampleSet {
        let mut set = synthetic::clusters(2, 4, 3, 1);
        set.insert(SampleMeta { kind: LabelKind::Negative, ..synthetic::meta(9, 99) }, &[1, 2, 3]).unwrap();
        set
    }

    fn small() -> Head {
        let mut head = Head::train(&set(), HeadChoice::Ncm).unwrap();
        head.calibrate(&set(), Some(0.2)).unwrap();
        head
    }

    /// Where the calibration starts: a head without one is the same bytes, but for the version.
    fn start() -> usize {
        Head::train(&set(), HeadChoice::Ncm).unwrap().encode().len()
    }

    #[test]
    fn a_calibrated_head_round_trips_and_is_version_2() {
        let bytes = small().encode();
        assert_eq!(bytes[8..10], [2, 0]);
        assert_eq!(bytes.len() - start(), 16 + 8 + 8 * (8 + 1) + 8 * 2 + 8 * 2 + 4 * 6 + 2 * 6);
        assert_eq!(Head::decode(&bytes), Ok(small()));
    }

    #[test]
    fn every_shortened_head_is_refused() {
        let bytes = small().encode();
        for n in 0..bytes.len() {
            assert!(Head::decode(&bytes[..n]).is_err(), "{n}");
        }
        assert!(Head::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn damage_is_named() {
        let refused = |at: usize, to: &[u8]| {
            let mut bytes = small().encode();
            bytes[start() + at..][..to.len()].copy_from_slice(to);
            Head::decode(&bytes).unwrap_err().to_string()
        };
        let number = |field: &str| alloc::format!("head holds a number in its {field} that cannot be there");
        assert_eq!(refused(0, &f64::NAN.to_le_bytes()), number("temperature"));
        assert_eq!(refused(8, &1.5f64.to_le_bytes()), number("false-reject rate"));
        // 8 samples promise no less than 1 / 9.
        assert_eq!(refused(8, &0.1f64.to_le_bytes()), number("false-reject rate"));
        assert_eq!(refused(96, &(-1f64).to_le_bytes()), number("sharpness"));
        assert_eq!(refused(16, &[0; 4]), "head has 0 calibration scores; allowed are 1 to 4096");
        assert_eq!(refused(20, &4097u32.to_le_bytes()), "head has 4097 negatives; allowed are 0 to 4096");
        assert_eq!(refused(16, &4096u32.to_le_bytes()), "head ends within its calibration scores");
        assert_eq!(refused(24, &9e9f64.to_le_bytes()), number("calibration scores"));
        assert_eq!(refused(24, &f64::NEG_INFINITY.to_le_bytes()), number("calibration scores"));
        assert_eq!(refused(88, &f64::INFINITY.to_le_bytes()), number("negatives"));
        assert_eq!(refused(152, &i16::MIN.to_le_bytes()), number("class means"));
    }

    proptest! {
        /// Whatever decodes is what encodes: no second encoding, no panic.
        #[test]
        fn damaged_heads_decode_to_themselves_or_not_at_all(flips in proptest::collection::vec((0usize..2000, any::<u8>()), 1..6)) {
            let mut bytes = small().encode();
            for (at, to) in flips {
                let at = at % bytes.len();
                bytes[at] = to;
            }
            if let Ok(head) = Head::decode(&bytes) {
                prop_assert_eq!(head.encode(), bytes);
                head.judge(&[1, 2, 3]);
            }
        }
    }
}
