//! A checked and planned graph: everything that inferences share.

use graft_bundle::graph::{DataType, Tensor};
use graft_kernels::packed::Line;
use graft_kernels::{Dims, Isa, KernelError, View};

use crate::arena::{Arena, Place, Plan};
use crate::chain::ChainScratch;
use crate::check::range_of;
use crate::error::EmbedError;
use crate::kernel::{Kernel, Scratch};

/// How a program is made from a graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub isa: Isa,
    pub n_threads: usize,
    /// Runs convolutions together where that pays. Then not every tensor has a place.
    pub fuse: bool,
}

/// A tensor whose sizes were checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorInfo {
    pub dims: Dims,
    /// `dims` as the graph has them.
    pub shape: [u32; 3],
    pub data_type: DataType,
    pub scale: f64,
    pub zero_point: i32,
    /// Smallest and largest integer that the step which writes it lets through.
    pub limits: [i32; 2],
}

impl TensorInfo {
    pub(crate) fn new(tensor: &Tensor) -> Self {
        let [h, w, c] = tensor.shape.map(|size| size as usize);
        let Tensor { shape, data_type, scale, zero_point } = *tensor;
        Self { dims: Dims { h, w, c }, shape, data_type, scale, zero_point, limits: range_of(data_type).into() }
    }
}

/// A checked step.
#[derive(Clone, Debug)]
pub(crate) struct ProgramStep {
    pub name: String,
    /// For reports: what it does, and on which type if not on eight bits.
    pub op: String,
    pub kernel: Kernel,
    pub inputs: Vec<Place>,
    pub output: Place,
    /// Index of the tensor at `output`.
    pub tensor: usize,
}

/// Steps with their memory plan.
///
/// Inputs and outputs are lists, so that a graph can be cut into several programs with other ops between them; today
/// one program has one of each.
#[derive(Debug)]
pub(crate) struct Program {
    pub setup: Setup,
    pub tensors: Vec<TensorInfo>,
    pub steps: Vec<ProgramStep>,
    /// Indices of tensors that the caller writes.
    pub inputs: Vec<usize>,
    /// Indices of tensors that the caller reads.
    pub outputs: Vec<usize>,
    pub plan: Plan,
    pub scratch: ScratchLens,
}

/// Lengths of what kernels need between input and output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScratchLens {
    /// i16 values.
    pub wide: usize,
    /// Bytes of bands, of each thread.
    pub bands: usize,
    /// Lines, of each thread.
    pub lines: usize,
}

impl ScratchLens {
    /// Enough for both.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { wide: self.wide.max(other.wide), bands: self.bands.max(other.bands), lines: self.lines.max(other.lines) }
    }
}

/// What one running program writes to; made once, reused.
#[derive(Clone)]
pub(crate) struct Memory {
    pub arena: Arena,
    scratch: Scratch,
}

impl Program {
    pub(crate) fn memory(&self) -> Memory {
        let ScratchLens { wide, bands, lines } = self.scratch;
        let bands = vec![Line::ZERO; bands.div_ceil(size_of::<Line>())];
        let chain = ChainScratch { bands, lines: vec![Line::ZERO; lines] };
        let scratch = Scratch { wide: vec![0; wide], chains: vec![chain; self.setup.n_threads] };
        Memory { arena: Arena::new(&self.plan), scratch }
    }

    pub(crate) fn place(&self, tensor: usize) -> Option<Place> {
        self.plan.places.get(tensor).copied()
    }

    /// Copies an input into its place.
    pub(crate) fn write_input(&self, memory: &mut Memory, tensor: usize, values: View<'_>) -> Result<(), KernelError> {
        let place = self.place(tensor).ok_or(NOT_PLANNED)?;
        let (_, target) = memory.arena.split(place).ok_or(NOT_PLANNED)?;
        graft_kernels::shape::reshape(self.setup.isa, values, target)
    }

    /// Runs one step; its inputs are in place.
    pub(crate) fn run_step(&self, memory: &mut Memory, step: &ProgramStep) -> Result<(), EmbedError> {
        let (rest, output) = memory.arena.split(step.output).ok_or(NOT_PLANNED)?;
        step.kernel.run(self.setup.isa, &step.inputs, &rest, &mut memory.scratch, output)
    }

    /// Runs all steps; allocates nothing, unless one is an ONNX model.
    pub(crate) fn run(&self, memory: &mut Memory) -> Result<(), EmbedError> {
        self.steps.iter().try_for_each(|step| self.run_step(memory, step))
    }
}

/// A place outside the arena: the plan and the program are not of one graph.
const NOT_PLANNED: KernelError = KernelError::Shapes { op: "arena" };
