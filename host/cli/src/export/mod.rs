//! A head as files that other programs read: ONNX to run it, alone or behind its backbone, safetensors and npz for its
//! numbers.
//!
//! Labels and origin travel along: in ONNX and safetensors as metadata, in npz as arrays of text.

mod backbone;
mod npz;
mod onnx;
mod onnx_graph;
mod protobuf;
mod safetensors;

use graft_heads::{Head, HeadNumbers};
use serde_json::json;

pub use backbone::{Precision, Unexportable, onnx_with_backbone};
pub use npz::npz;
pub use onnx::onnx;
pub use safetensors::safetensors;

/// What every format holds.
pub struct Exported<'a> {
    /// `[D]`; None for a linear head.
    pub centre: Option<&'a [f64]>,
    /// `[C, D]`, row-major.
    pub matrix: &'a [f32],
    /// `[C]`.
    pub offsets: &'a [f64],
    /// C.
    pub n_classes: usize,
    /// D.
    pub embedding_len: usize,
    /// Key and text: `labels` (a JSON list in the order of scores), `kind`, `head`, `space`, `set_digest`, `formula`.
    pub metadata: Vec<(&'static str, String)>,
}

impl<'a> Exported<'a> {
    /// The numbers of `head`; None for a head that no format can hold. `kind` in one word.
    pub fn of(head: &'a Head, kind: &str) -> Option<Self> {
        let (centre, matrix, offsets, formula) = match head.numbers() {
            Some(HeadNumbers::Linear { matrix, offsets }) => (None, matrix, offsets, "matrix @ x + offsets"),
            Some(HeadNumbers::Cosine { centre, matrix, offsets }) => {
                (Some(centre), matrix, offsets, "matrix @ ((x - centre) / |x - centre|) + offsets")
            }
            _ => return None,
        };
        let labels: Vec<&str> = head.classes().iter().map(|label| label.as_str()).collect();
        let metadata = vec![
            ("labels", json!(labels).to_string()),
            ("kind", kind.to_owned()),
            ("head", head.digest().to_string()),
            ("space", head.space().to_string()),
            ("set_digest", head.set_digest().to_string()),
            ("formula", format!("scores = {formula}, x: int8 embedding as graft stores it")),
        ];
        let (n_classes, embedding_len) = (labels.len(), head.embedding_len());
        Some(Self { centre, matrix, offsets, n_classes, embedding_len, metadata })
    }

    /// Named arrays with their type (numpy's), shape and little-endian bytes, row-major.
    fn arrays(&self) -> Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)> {
        let doubles = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let matrix = self.matrix.iter().flat_map(|value| value.to_le_bytes()).collect();
        let centre = self.centre.map(|centre| ("centre", Dtype::F64, vec![self.embedding_len], doubles(centre)));
        let offsets = ("offsets", Dtype::F64, vec![self.n_classes], doubles(self.offsets));
        let matrix = ("matrix", Dtype::F32, vec![self.n_classes, self.embedding_len], matrix);
        centre.into_iter().chain([offsets, matrix]).collect()
    }
}

/// Element type of an exported array.
#[derive(Clone, Copy)]
enum Dtype {
    F32,
    F64,
}

#[cfg(test)]
mod tests {
    use graft_heads::SampleSet;
    use graft_wire::message::HeadChoice;
    use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId, SpaceId};

    /// A head of two classes, or three samples of each along the axes.
    pub(super) fn head(choice: HeadChoice) -> graft_heads::Head {
        let mut set = SampleSet::new(SpaceId([7; 32]), 3);
        for (i, (class, row)) in
            [("a \"b\"", [90, 10, 5]), ("a \"b\"", [80, 5, 9]), ("ü", [3, 90, 9]), ("ü", [9, 80, 1])].iter().enumerate()
        {
            let meta = SampleMeta {
                label: Label::new(class).unwrap(),
                session: SessionId([i as u8; 8]),
                origin: DeviceId([1; 16]),
                digest: Digest([i as u8; 32]),
                part: Part::Whole,
                kind: LabelKind::Class,
            };
            set.insert(meta, row).unwrap();
        }
        graft_heads::Head::train(&set, choice).unwrap()
    }
}
