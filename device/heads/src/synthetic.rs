//! Sample sets for tests, from a linear congruential generator.

use alloc::format;
use alloc::vec::Vec;

use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId, SpaceId};

use crate::set::SampleSet;

/// Knuth's MMIX generator; the upper bits are good enough for test data.
pub(crate) struct Lcg(pub u64);

impl Lcg {
    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((u64::from((self.0 >> 32) as u32) * u64::from(bound)) >> 32) as u32
    }

    /// A component of an embedding in `-bound..=bound`.
    pub fn component(&mut self, bound: i8) -> i8 {
        (self.below(2 * bound as u32 + 1) as i32 - i32::from(bound)) as i8
    }
}

/// Space of all synthetic sets.
pub(crate) const SPACE: SpaceId = SpaceId([7; 32]);

/// A class sample named by its number, in a session of its own.
pub(crate) fn meta(class: u32, number: u32) -> SampleMeta {
    let mut session = [0; 8];
    session[..4].copy_from_slice(&number.to_le_bytes());
    SampleMeta {
        label: Label::new(&format!("class {class:03}")).unwrap(),
        session: SessionId(session),
        origin: DeviceId([1; 16]),
        digest: Digest::of(&number.to_le_bytes()),
        part: Part::Whole,
        kind: LabelKind::Class,
    }
}

/// One sample per row (class, embedding).
pub(crate) fn set_of(rows: &[(u32, Vec<i8>)]) -> SampleSet {
    let mut set = SampleSet::new(SPACE, rows.first().map_or(0, |(_, row)| row.len()));
    for (number, (class, row)) in rows.iter().enumerate() {
        set.insert(meta(*class, number as u32), row).unwrap();
    }
    set
}

/// Rows (class, embedding) of `n_classes` overlapping clusters with `shots` samples each, `[D]` components.
pub(crate) fn rows(n_classes: u32, shots: u32, d: usize, seed: u64) -> Vec<(u32, Vec<i8>)> {
    rows_with_noise(n_classes, shots, d, seed, 40)
}

/// [`rows`] whose components lie within `noise` of their cluster's centre.
pub(crate) fn rows_with_noise(n_classes: u32, shots: u32, d: usize, seed: u64, noise: i8) -> Vec<(u32, Vec<i8>)> {
    let mut lcg = Lcg(seed);
    let centres: Vec<Vec<i8>> = (0..n_classes).map(|_| (0..d).map(|_| lcg.component(20)).collect()).collect();
    let mut rows = Vec::new();
    for class in 0..n_classes {
        for _ in 0..shots {
            let centre = &centres[class as usize];
            rows.push((class, centre.iter().map(|c| c + lcg.component(noise)).collect()));
        }
    }
    rows
}

/// The set of [`rows`].
pub(crate) fn clusters(n_classes: u32, shots: u32, d: usize, seed: u64) -> SampleSet {
    set_of(&rows(n_classes, shots, d, seed))
}
