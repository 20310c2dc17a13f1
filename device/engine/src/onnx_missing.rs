//! In the place of `onnx` where the engine is built without tract's float code: such steps are refused.

use crate::error::{EmbedError, Fault};

/// There is none.
#[derive(Clone, Debug)]
pub(crate) enum OnnxModel {}

impl OnnxModel {
    pub(crate) fn load(_bytes: &[u8], _inputs: &[usize], _output: usize) -> Result<OnnxModel, Fault> {
        Err(Fault::NotBuilt)
    }

    pub(crate) fn run(&self, _inputs: &[&[f32]], _output: &mut [f32]) -> Result<(), EmbedError> {
        match *self {}
    }

    pub(crate) fn n_bytes(&self) -> usize {
        match *self {}
    }
}
