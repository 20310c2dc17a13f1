//! The engine: load once, embed often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use graft_bundle::Bundle;
use graft_kernels::embed::{NoSignal, normalise};
use graft_kernels::{Isa, View};
use rayon::ThreadPool;
use tract_core::internal::*;

use crate::check::program_of;
use crate::error::{EmbedError, LoadError, SelfTestError};
use crate::program::{Program, Setup};
use crate::region::{IntegerRegion, blank, fact, view_of};

/// A loaded bundle, ready to run.
pub struct Engine {
    program: Arc<Program>,
    state: TypedSimpleState,
    /// Of several threads.
    pool: Option<ThreadPool>,
    /// Written in place for every inference.
    input: Arc<Tensor>,
    /// The backbone output minus its zero point, `[D]`.
    x: Vec<i32>,
    inv_scale: f64,
}

/// Least cosine between an embedding of a self-test of a bundle that is not exact and the expected one: two CPUs differ in
/// the last bits of floats, by a step of an integer here and there; an operator that is wrong gives far less.
pub const INEXACT_COSINE_MIN: f64 = 0.999;

/// What one step costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCost<'a> {
    /// Name of the ONNX node.
    pub name: &'a str,
    /// Name of the op, with `int16` behind it where that is the type of its activations.
    pub op: &'a str,
    /// Multiply-accumulates; 0 for all but convolutions.
    pub n_macs: u64,
}

impl Engine {
    /// Checks a bundle's graph, plans its memory and makes it ready, with the plain kernels.
    ///
    /// # Errors
    /// [`LoadError`] naming the step that cannot be run, before anything runs.
    pub fn load(bundle: &Bundle) -> Result<Engine, LoadError> {
        Self::load_with(bundle, Isa::Scalar, 1)
    }

    /// [`Engine::load`] with the kernels of `isa`, see [`crate::detect_isa`], and that many threads (0 counts as 1).
    /// Neither changes a bit of what comes out.
    ///
    /// # Errors
    /// As [`Engine::load`]; [`LoadError::Threads`] if the system gives no threads.
    pub fn load_with(bundle: &Bundle, isa: Isa, n_threads: usize) -> Result<Engine, LoadError> {
        let n_threads = n_threads.max(1);
        let program = Arc::new(program_of(bundle, Setup { isa, n_threads, fuse: true })?);
        let pool = match n_threads {
            1 => None,
            _ => Some(pool_of(n_threads).map_err(|error| LoadError::Threads { n_threads, reason: error.to_string() })?),
        };
        let model = |error: TractError| LoadError::Model(format!("{error:#}"));
        let state = state_of(&program).map_err(model)?;
        let input = program.inputs.first().copied().unwrap_or_default();
        let input = blank(&program, input).map_err(model)?;
        let x = vec![0; bundle.manifest().embedding_len as usize];
        Ok(Engine { program, state, pool, input, x, inv_scale: bundle.manifest().inv_scale })
    }

    /// int8 values of an input.
    pub fn input_len(&self) -> usize {
        self.input.len()
    }

    /// Length D of an embedding.
    pub fn embedding_len(&self) -> usize {
        self.x.len()
    }

    /// Which kernels run.
    pub fn isa(&self) -> Isa {
        self.program.setup.isa
    }

    /// How many threads run the convolutions.
    pub fn n_threads(&self) -> usize {
        self.program.setup.n_threads
    }

    /// Bytes of the activation arena.
    pub fn arena_bytes(&self) -> u64 {
        self.program.plan.bytes()
    }

    /// Bytes of weights and what belongs to them, as the kernels read them.
    pub fn packed_bytes(&self) -> u64 {
        self.program.steps.iter().map(|step| step.kernel.packed_bytes() as u64).sum()
    }

    /// Runs the steps one by one, in memory of its own, and calls `after` with the index of each one that is done: for
    /// measuring. Before the first step of each of the `runs` it is called with `None`.
    ///
    /// # Errors
    /// [`EmbedError`] for a wrong length.
    pub fn run_steps(
        &self,
        tensor: &[i8],
        runs: u32,
        mut after: impl FnMut(Option<usize>) + Send,
    ) -> Result<(), EmbedError> {
        self.check_len(tensor)?;
        // Not all of `self`, whose state only one thread may see.
        let program = &self.program;
        let mut memory = program.memory();
        let mut run = move || {
            for _ in 0..runs {
                for input in &program.inputs {
                    program.write_input(&mut memory, *input, View::I8(tensor))?;
                }
                after(None);
                for (i, step) in program.steps.iter().enumerate() {
                    program.run_step(&mut memory, step)?;
                    after(Some(i));
                }
            }
            Ok(())
        };
        match &self.pool {
            Some(pool) => run_awake(pool, run)?,
            None => run(),
        }
    }

    /// What each step costs, in execution order.
    pub fn step_costs(&self) -> impl Iterator<Item = StepCost<'_>> {
        self.program.steps.iter().map(|s| StepCost { name: &s.name, op: &s.op, n_macs: s.kernel.n_macs() })
    }

    /// Runs the backbone and normalises its output into the embedding, `[D]`.
    ///
    /// Shapes: `tensor` `[H, W, C]` int8 as the bundle's input spec makes it. Allocates the result and nothing else, if the
    /// bundle is exact.
    ///
    /// # Errors
    /// [`EmbedError`] for a wrong length, or an output without direction.
    pub fn embed(&mut self, tensor: &[i8]) -> Result<Vec<i8>, EmbedError> {
        let saturated = self.run(tensor)?;
        let mut embedding = vec![0; self.x.len()];
        match normalise(&self.x, self.inv_scale, &mut embedding) {
            Ok(()) if saturated => Err(EmbedError::Saturated),
            Ok(()) => Ok(embedding),
            Err(NoSignal::Zero) => Err(EmbedError::NoSignal),
            Err(error) => Err(EmbedError::Engine(error.to_string())),
        }
    }

    /// Runs the backbone: its integer output minus the zero point, `[D]`.
    ///
    /// # Errors
    /// As [`Engine::embed`], but an output without direction is one, too.
    pub fn output(&mut self, tensor: &[i8]) -> Result<Vec<i32>, EmbedError> {
        self.run(tensor)?;
        Ok(self.x.clone())
    }

    /// Runs the bundle's own cases and compares every byte, or, if the bundle is not exact, the direction
    /// ([`INEXACT_COSINE_MIN`]); returns how many there are.
    ///
    /// # Errors
    /// [`SelfTestError`] of the first case that fails.
    pub fn self_test(&mut self, bundle: &Bundle) -> Result<u32, SelfTestError> {
        for (case, test) in (0..).zip(&bundle.manifest().self_tests) {
            let unreadable = SelfTestError::Unreadable { case };
            let Some(input) = bundle.self_test_input(test) else { return Err(unreadable) };
            let Ok(expected) = bundle.blob(test.expected) else { return Err(unreadable) };
            let input: Vec<i8> = input.into_iter().map(|byte| byte as i8).collect();
            let embedding = self.embed(&input).map_err(|error| SelfTestError::Embed { case, error })?;
            if expected.len() != embedding.len() {
                return Err(unreadable);
            }
            if !bundle.manifest().exact {
                let (cosine, allowed) = (cosine(&embedding, &expected), INEXACT_COSINE_MIN);
                if cosine >= allowed {
                    continue;
                }
                return Err(SelfTestError::Far { case, cosine, allowed });
            }
            let n_bytes =
                embedding.iter().zip(expected.iter()).filter(|(found, byte)| **found != **byte as i8).count() as u32;
            if n_bytes > 0 {
                return Err(SelfTestError::Differs { case, n_bytes, embedding_len: embedding.len() as u32 });
            }
        }
        Ok(bundle.manifest().self_tests.len() as u32)
    }

    fn check_len(&self, tensor: &[i8]) -> Result<(), EmbedError> {
        let (found, expected) = (tensor.len(), self.input.len());
        if found == expected { Ok(()) } else { Err(EmbedError::InputLength { found, expected }) }
    }

    /// Leaves the output minus its zero point in `self.x`; true if every element of it is at an end of its type.
    fn run(&mut self, tensor: &[i8]) -> Result<bool, EmbedError> {
        self.check_len(tensor)?;
        let engine = |error: TractError| EmbedError::Engine(format!("{error:#}"));
        // The last inference has let go of it, unless it failed half-way.
        if Arc::get_mut(&mut self.input).is_none() {
            let input = self.program.inputs.first().copied().unwrap_or_default();
            self.input = blank(&self.program, input).map_err(engine)?;
        }
        let input = Arc::get_mut(&mut self.input).ok_or_else(|| EmbedError::Engine("input is shared".to_owned()))?;
        let mut plain = input.try_as_plain_ram_mut().map_err(engine)?;
        plain.as_slice_mut::<i8>().map_err(engine)?.copy_from_slice(tensor);
        let inputs = tvec!(TValue::from_const(self.input.clone()));
        let outputs = match &self.pool {
            Some(pool) => run_awake(pool, || self.state.run(inputs))?,
            None => self.state.run(inputs),
        };
        let outputs = outputs.map_err(engine)?;
        let output = outputs.first().ok_or_else(|| EmbedError::Engine("no output".to_owned()))?;
        let tensor = self.program.outputs.first().and_then(|tensor| self.program.tensors.get(*tensor));
        let zero_point = tensor.map_or(0, |tensor| tensor.zero_point);
        let mut saturated = true;
        macro_rules! centre {
            ($values:expr, $type:ty) => {
                for (x, value) in self.x.iter_mut().zip($values) {
                    saturated &= *value == <$type>::MIN || *value == <$type>::MAX;
                    *x = i32::from(*value).wrapping_sub(zero_point);
                }
            };
        }
        match view_of(output).map_err(engine)? {
            View::I8(values) => centre!(values, i8),
            View::I16(values) => centre!(values, i16),
            View::I32(values) => centre!(values, i32),
            View::F32(_) => return Err(EmbedError::Engine("output is float".to_owned())),
        }
        Ok(saturated)
    }
}

/// Cosine of two embeddings, the second one as bytes; NaN if one has no direction.
fn cosine(found: &[i8], expected: &[u8]) -> f64 {
    let pairs = found.iter().zip(expected).map(|(a, b)| [i64::from(*a), i64::from(*b as i8)]);
    let [dot, a, b] = pairs.fold([0; 3], |[dot, aa, bb], [a, b]| [dot + a * b, aa + a * a, bb + b * b]);
    dot as f64 / ((a as f64) * (b as f64)).sqrt()
}

/// source -> region -> output.
fn state_of(program: &Arc<Program>) -> TractResult<TypedSimpleState> {
    let mut model = TypedModel::default();
    let sources = (program.inputs.iter().enumerate())
        .map(|(i, tensor)| model.add_source(format!("input {i}"), fact(program, *tensor)?))
        .collect::<TractResult<TVec<OutletId>>>()?;
    let outputs = model.wire_node("integers", IntegerRegion { program: program.clone() }, &sources)?;
    model.select_output_outlets(&outputs)?;
    TypedSimpleState::new(&TypedSimplePlan::new(model)?)
}

/// Runs `work` on one worker while the others look for parts of it all the time: parts are shorter than a thread takes to
/// wake up.
fn run_awake<R: Send>(pool: &ThreadPool, work: impl FnOnce() -> R + Send) -> Result<R, EmbedError> {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let (work, done) = (Mutex::new(Some(work)), AtomicBool::new(false));
    let results = pool.broadcast(|context| {
        if context.index() == 0 {
            let work = work.lock().ok().and_then(|mut work| work.take());
            // Also if it panics.
            let _done = Done(&done);
            return work.map(|work| work());
        }
        let mut n_idle = 0u32;
        while !done.load(Ordering::Acquire) {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::hint::spin_loop();
                n_idle = n_idle.wrapping_add(1);
                // Where there are more threads than cores, the one that works may be waiting.
                if n_idle.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        }
        None
    });
    let none = || EmbedError::Engine("no thread has run it".to_owned());
    results.into_iter().flatten().next().ok_or_else(none)
}

/// Workers of its own, so that what else the process runs in parallel does not share them.
fn pool_of(n_threads: usize) -> Result<ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).thread_name(|i| format!("graft-engine-{i}")).build()
}
