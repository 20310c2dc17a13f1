//! What every tensor holds; for reports.

use graft_bundle::{Bundle, TensorId};
use graft_kernels::{Isa, View};

use crate::check::program_of;
use crate::error::{EmbedError, LoadError};
use crate::program::{Memory, Program, Setup, TensorInfo};

/// A loaded bundle that runs step by step, so that every tensor can be looked at.
pub struct Tracer {
    program: Program,
    memory: Memory,
}

impl Tracer {
    /// As [`Engine::load_with`](crate::Engine::load_with), with one thread.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(bundle: &Bundle, isa: Isa) -> Result<Tracer, LoadError> {
        let program = program_of(bundle, Setup { isa, n_threads: 1, fuse: false })?;
        Ok(Tracer { memory: program.memory(), program })
    }

    /// The real value of every tensor, input first, then in execution order.
    ///
    /// Shapes: `tensor` `[H, W, C]` int8 as the bundle's input spec makes it.
    ///
    /// # Errors
    /// [`EmbedError`] for a wrong length.
    pub fn run(&mut self, tensor: &[i8]) -> Result<Vec<(TensorId, Vec<f32>)>, EmbedError> {
        let Self { program, memory } = self;
        let mut values = Vec::with_capacity(program.steps.len() + 1);
        let mut read = |memory: &Memory, tensor: usize| {
            let place = program.place(tensor).and_then(|place| memory.arena.view(place));
            let info = program.tensors.get(tensor);
            let (Some(view), Some(info)) = (place, info) else {
                return Err(EmbedError::Engine("tensor is not planned".to_owned()));
            };
            values.push((TensorId(tensor as u32), real_values(view, info)));
            Ok(())
        };
        for input in &program.inputs {
            let expected = program.tensors.get(*input).map_or(0, |info| info.dims.len());
            if tensor.len() != expected {
                return Err(EmbedError::InputLength { found: tensor.len(), expected });
            }
            program.write_input(memory, *input, View::I8(tensor))?;
            read(memory, *input)?;
        }
        for step in &program.steps {
            program.run_step(memory, step)?;
            read(memory, step.tensor)?;
        }
        Ok(values)
    }
}

fn real_values(view: View<'_>, info: &TensorInfo) -> Vec<f32> {
    let real = |q: i32| (f64::from(q.wrapping_sub(info.zero_point)) * info.scale) as f32;
    match view {
        View::I8(values) => values.iter().map(|q| real((*q).into())).collect(),
        View::I16(values) => values.iter().map(|q| real((*q).into())).collect(),
        View::I32(values) => values.iter().map(|q| real(*q)).collect(),
        View::F32(values) => values.to_vec(),
    }
}
