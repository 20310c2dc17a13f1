//! Ten thousand random operations on sets, and the heads of what remains: byte for byte those of a fit from scratch.

use std::collections::BTreeMap;

use graft_heads::{Head, SampleSet};
use graft_wire::message::HeadChoice;
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleId, SampleMeta, SessionId, SpaceId};

const SPACE: SpaceId = SpaceId([3; 32]);
const D: usize = 48;
const N_BOARDS: usize = 3;
const N_OPERATIONS: u32 = 10_000;
/// Heads are compared after as many operations.
const COMPARED_EVERY: u32 = 500;
/// Knuth's MMIX linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// Sample of a number: always the same, one of five classes, two to a session.
fn sample(number: u32) -> (SampleMeta, Vec<i8>) {
    let mut session = [0; 8];
    session[..4].copy_from_slice(&(number / 2).to_le_bytes());
    let class = number % 5;
    let mut random = Random(u64::from(number) + 1);
    let component = |p: usize| (random.below(81) as i32 - 40 + if p as u32 % 5 == class { 30 } else { 0 }) as i8;
    let meta = SampleMeta {
        label: Label::new(&format!("class {class}")).unwrap(),
        session: SessionId(session),
        origin: DeviceId([1; 16]),
        digest: Digest::of(&number.to_le_bytes()),
        part: Part::Whole,
        kind: LabelKind::Class,
    };
    (meta, (0..D).map(component).collect())
}

/// A board as the rules have it: what was ever added, and what was ever removed.
#[derive(Clone, Default)]
struct Plain {
    added: BTreeMap<SampleId, u32>,
    removed: BTreeMap<SampleId, u32>,
}

impl Plain {
    /// A set that was given what is live, newest number first, and nothing else.
    fn scratch(&self) -> SampleSet {
        let mut live: Vec<u32> =
            self.added.iter().filter(|(id, _)| !self.removed.contains_key(id)).map(|(_, number)| *number).collect();
        live.sort_unstable_by(|a, b| b.cmp(a));
        let mut set = SampleSet::new(SPACE, D);
        for number in live {
            let (meta, embedding) = sample(number);
            set.insert(meta, &embedding).unwrap();
        }
        set
    }
}

#[test]
fn heads_after_ten_thousand_operations_equal_fits_from_scratch() {
    let mut random = Random(20);
    let mut boards: Vec<(SampleSet, Plain)> = vec![(SampleSet::new(SPACE, D), Plain::default()); N_BOARDS];
    let (mut n_compared, mut n_samples) = (0, Vec::new());
    for operation in 1..=N_OPERATIONS {
        let at = random.below(N_BOARDS as u32) as usize;
        let (set, plain) = &mut boards[at];
        match random.below(100) {
            0..50 => {
                // Numbers grow with time, so that what is removed for good is replaced.
                let number = operation / 40 + random.below(100);
                let (meta, embedding) = sample(number);
                plain.added.insert(meta.sample_id(), number);
                set.insert(meta, &embedding).unwrap();
            }
            50..95 => {
                let number = (operation / 40).saturating_sub(20) + random.below(60);
                let id = sample(number).0.sample_id();
                plain.removed.insert(id, number);
                set.remove(id);
            }
            _ => {
                let (other_set, other) = boards[(at + 1) % N_BOARDS].clone();
                let (set, plain) = &mut boards[at];
                plain.added.extend(other.added);
                plain.removed.extend(other.removed);
                set.merge(&other_set).unwrap();
            }
        }
        if operation % COMPARED_EVERY == 0 {
            for (set, plain) in &boards {
                let scratch = plain.scratch();
                assert_eq!(set.digest(), scratch.digest(), "after {operation}");
                n_samples.push(set.len());
                for choice in HeadChoice::all() {
                    let bytes = |set: &SampleSet| Head::train(set, choice).unwrap().encode();
                    assert!(bytes(set) == bytes(&scratch), "{choice:?} after {operation} operations");
                    n_compared += 1;
                }
            }
        }
    }
    assert_eq!(n_compared, 20 * N_BOARDS * HeadChoice::all().count());
    let (least, most) = (n_samples.iter().min().unwrap(), n_samples.iter().max().unwrap());
    assert!(*least < D && *most > D, "both forms of the solvers: {least} to {most} samples");
}
