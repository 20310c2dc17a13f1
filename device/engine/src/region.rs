//! A program as one tract op.
//!
//! tract sees a single node; the arena lives in the node's state, so that inferences after the first allocate nothing
//! in here: even the output tensors are written in place again once the reader has let go of them.

use std::sync::Arc;

use graft_bundle::DataType;
use graft_kernels::{View, ViewMut};
use tract_core::internal::*;

use crate::program::{Memory, Program};

/// Integer (and exact float) steps, run by our kernels.
#[derive(Clone)]
pub(crate) struct IntegerRegion {
    pub program: Arc<Program>,
}

impl std::fmt::Debug for IntegerRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntegerRegion({} steps)", self.program.steps.len())
    }
}

/// Regions are equal if they are one.
impl PartialEq for IntegerRegion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }
}

impl Eq for IntegerRegion {}

impl Op for IntegerRegion {
    fn name(&self) -> StaticName {
        "IntegerRegion".into()
    }

    op_as_typed_op!();
}

impl EvalOp for IntegerRegion {
    not_out_of_plan!();

    fn state(&self, _ctx: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let outputs =
            self.program.outputs.iter().map(|tensor| blank(&self.program, *tensor)).collect::<TractResult<_>>()?;
        Ok(Some(Box::new(RegionState { program: self.program.clone(), memory: self.program.memory(), outputs })))
    }
}

impl TypedOp for IntegerRegion {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.program.outputs.iter().map(|tensor| fact(&self.program, *tensor)).collect()
    }

    as_op!();
}

/// Type and shape `[H, W, C]` of one of the program's tensors.
pub(crate) fn fact(program: &Program, tensor: usize) -> TractResult<TypedFact> {
    let info = program.tensors.get(tensor).context("no such tensor")?;
    let shape = info.shape.map(|size| size as usize);
    Ok(datum_type(info.data_type).fact(shape))
}

/// A tensor of zeros like one of the program's.
pub(crate) fn blank(program: &Program, tensor: usize) -> TractResult<Arc<Tensor>> {
    let info = program.tensors.get(tensor).context("no such tensor")?;
    let shape = info.shape.map(|size| size as usize);
    Ok(Arc::new(Tensor::zero_dt(datum_type(info.data_type), &shape)?))
}

fn datum_type(data_type: DataType) -> DatumType {
    match data_type {
        DataType::I8 => DatumType::I8,
        DataType::I16 => DatumType::I16,
        DataType::I32 => DatumType::I32,
        DataType::F32 => DatumType::F32,
    }
}

/// A tract tensor's elements.
pub(crate) fn view_of(tensor: &Tensor) -> TractResult<View<'_>> {
    let plain = tensor.try_as_plain_ram()?;
    Ok(match tensor.datum_type() {
        DatumType::I8 => View::I8(plain.as_slice()?),
        DatumType::I16 => View::I16(plain.as_slice()?),
        DatumType::I32 => View::I32(plain.as_slice()?),
        DatumType::F32 => View::F32(plain.as_slice()?),
        other => bail!("{other:?} is not a type of integer regions"),
    })
}

#[derive(Clone)]
struct RegionState {
    program: Arc<Program>,
    memory: Memory,
    outputs: Vec<Arc<Tensor>>,
}

impl std::fmt::Debug for RegionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegionState({} steps)", self.program.steps.len())
    }
}

impl OpState for RegionState {
    fn eval(&mut self, _ctx: &EvalContext, _op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Self { program, memory, outputs } = self;
        ensure!(inputs.len() == program.inputs.len(), "region takes {} inputs", program.inputs.len());
        for (tensor, value) in program.inputs.iter().zip(&inputs) {
            program.write_input(memory, *tensor, view_of(value)?)?;
        }
        program.run(memory)?;
        for (tensor, output) in program.outputs.iter().zip(outputs.iter_mut()) {
            if Arc::get_mut(output).is_none() {
                // Someone still reads the last one.
                *output = blank(program, *tensor)?;
            }
            let place = program.place(*tensor).context("output is not planned")?;
            let values = memory.arena.view(place).context("output is not planned")?;
            let output = Arc::get_mut(output).context("output tensor is shared")?;
            let data_type = output.datum_type();
            let mut plain = output.try_as_plain_ram_mut()?;
            let target = match data_type {
                DatumType::I8 => ViewMut::I8(plain.as_slice_mut()?),
                DatumType::I16 => ViewMut::I16(plain.as_slice_mut()?),
                DatumType::I32 => ViewMut::I32(plain.as_slice_mut()?),
                _ => ViewMut::F32(plain.as_slice_mut()?),
            };
            graft_kernels::shape::reshape(program.setup.isa, values, target)?;
        }
        Ok(outputs.iter().map(|output| TValue::from_const(output.clone())).collect())
    }

    /// Nothing is carried from one inference to the next.
    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}
