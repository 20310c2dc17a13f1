//! A record's identity: everything about a sample that does not depend on the backbone.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Digest, SampleId, SessionId};
use crate::label::Label;

/// What a label says about its sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LabelKind {
    /// The sample shows this class.
    Class,
    /// The sample shows none of the classes; it serves rejection and never becomes a class.
    Negative,
}

/// Which part of the input the sample is; parts of one input are left out together in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// All of it.
    Whole,
    /// A stretch of time.
    Window {
        /// Start from the input's beginning, in ms.
        start_ms: u32,
        /// Length in ms.
        len_ms: u32,
    },
    /// A rectangle, in pixels of the input after EXIF orientation.
    Box {
        /// Left edge.
        x: u32,
        /// Upper edge.
        y: u32,
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
}

/// A labelled sample without its embedding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SampleMeta {
    /// Class, or the name of a kind of negative.
    pub label: Label,
    /// What was taken in one go.
    pub session: SessionId,
    /// The board that took it.
    pub origin: DeviceId,
    /// BLAKE3 of the input's original bytes.
    pub digest: Digest,
    /// Which part of the input.
    pub part: Part,
    /// Class or negative.
    pub kind: LabelKind,
}

impl SampleMeta {
    /// First 16 bytes of BLAKE3 over `"graft sample v1"` and the fields in a fixed layout.
    ///
    /// Layout: label length u8, label, session `[8]`, origin `[16]`, digest `[32]`, part tag u8 (0 whole, 1 window,
    /// 2 box) and its four u32 little-endian (unused ones zero), kind u8 (0 class, 1 negative).
    pub fn sample_id(&self) -> SampleId {
        let label = self.label.as_str().as_bytes();
        let (tag, numbers) = match self.part {
            Part::Whole => (0u8, [0; 4]),
            Part::Window { start_ms, len_ms } => (1, [start_ms, len_ms, 0, 0]),
            Part::Box { x, y, width, height } => (2, [x, y, width, height]),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graft sample v1");
        // A label has at most 64 bytes.
        hasher.update(&[label.len() as u8]);
        hasher.update(label);
        hasher.update(&self.session.0);
        hasher.update(&self.origin.0);
        hasher.update(&self.digest.0);
        hasher.update(&[tag]);
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&[match self.kind {
            LabelKind::Class => 0,
            LabelKind::Negative => 1,
        }]);
        let mut id = [0u8; 16];
        hasher.finalize_xof().fill(&mut id);
        SampleId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn meta() -> SampleMeta {
        SampleMeta {
            label: Label::new("bolt").unwrap(),
            session: SessionId([1; 8]),
            origin: DeviceId([2; 16]),
            digest: Digest([3; 32]),
            part: Part::Whole,
            kind: LabelKind::Class,
        }
    }

    #[test]
    fn sample_id_is_golden() {
        assert_eq!(format!("{}", meta().sample_id()), "2a830e34d42599aadbec65892953ffac");
    }

    #[test]
    fn every_field_changes_the_id() {
        let id = meta().sample_id();
        let others = [
            SampleMeta { label: Label::new("nut").unwrap(), ..meta() },
            SampleMeta { session: SessionId([9; 8]), ..meta() },
            SampleMeta { origin: DeviceId([9; 16]), ..meta() },
            SampleMeta { digest: Digest([9; 32]), ..meta() },
            SampleMeta { part: Part::Window { start_ms: 0, len_ms: 0 }, ..meta() },
            SampleMeta { part: Part::Box { x: 0, y: 0, width: 0, height: 0 }, ..meta() },
            SampleMeta { kind: LabelKind::Negative, ..meta() },
        ];
        for other in others {
            assert_ne!(other.sample_id(), id, "{other:?}");
        }
    }
}
