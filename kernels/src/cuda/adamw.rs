//! The optimizer's arithmetic on flat parameter vectors: [`crate::adamw`] on a GPU, with the same bits for a step.
//!
//! The norm stays on the GPU, and with it the factor that clips: a step waits for nothing.

use half::bf16;

use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::Result;
use crate::adamw::AdamW;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "adamw",
    kernels: &[
        Entry::new("adamw_squares"),
        Entry::new("adamw_norm"),
        Entry::new("adamw_step"),
    ],
};

/// As in `cuda/rows.cuh`.
const THREADS: u32 = 256;

/// Elements whose squares one block sums, as in `cuda/adamw.cu`.
const CHUNK: usize = 8192;

/// How many f64 [`norm`] needs to work in.
pub fn norm_scratch(len: usize) -> usize {
    len.div_ceil(CHUNK)
}

/// The Euclidean norm of all values, and `min(1, clip / (norm + 1e-6))`, the factor of `clip_grad_norm_`.
///
/// # Shapes
/// `scratch`: ([`norm_scratch`]) · `norm`, `factor`: (1).
///
/// # Order
/// In f64. A chunk is 8,192 values; thread t of 256 adds the squares t, t + 256, … of its chunk; lanes by exclusive-or 16,
/// 8, 4, 2, 1; the eight warps ascending. A second launch sums the chunks in the same way.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
pub fn norm(
    on: &Stream,
    values: View<'_, f32>,
    clip: f32,
    scratch: &mut ViewMut<'_, f64>,
    norm: &mut ViewMut<'_, f64>,
    factor: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let chunks = norm_scratch(values.len());
    check!("adamw.norm", scratch: chunks, norm: 1, factor: 1);
    let (len, count) = (
        values.len() as u64,
        i32::try_from(chunks).unwrap_or(i32::MAX),
    );
    // SAFETY: order and types are those of `adamw_squares`; a block has values below `len` and one sum.
    unsafe {
        on.launch(
            "adamw_squares",
            Grid::line(chunks, THREADS),
            &[scratch, &values, &len],
        )
    }?;
    // SAFETY: order and types are those of `adamw_norm`; `scratch` has as many sums as there are chunks.
    unsafe {
        on.launch(
            "adamw_norm",
            Grid::line(1, THREADS),
            &[norm, factor, scratch, &count, &clip],
        )
    }
}

/// What a step changes.
#[derive(Debug)]
pub struct State<'a> {
    /// The parameters.
    pub params: ViewMut<'a, f32>,
    /// Their first moments.
    pub first: ViewMut<'a, f32>,
    /// Their second moments.
    pub second: ViewMut<'a, f32>,
    /// The parameters as products take them, if they are kept.
    pub rounded: Option<ViewMut<'a, bf16>>,
}

/// One AdamW step, in one pass over memory. `step` counts from 1; `factor` multiplies each gradient.
///
/// # Shapes
/// all vectors have the same length · `factor`: (1).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for step 0; [`crate::Error::Driver`].
///
/// # Source
/// Loshchilov & Hutter 2019, algorithm 2, in the order of operations of `torch.optim.AdamW`.
pub fn step(
    on: &Stream,
    settings: &AdamW,
    step: u64,
    grads: View<'_, f32>,
    factor: View<'_, f32>,
    state: &mut State<'_>,
) -> Result<()> {
    let State {
        params,
        first,
        second,
        rounded,
    } = state;
    let len = params.len();
    check!("adamw.step", grads: len, first: len, second: len, factor: 1);
    if let Some(rounded) = rounded {
        check!("adamw.step", rounded: len);
    }
    require!(
        "adamw.step",
        step = step as f64,
        step > 0,
        "steps count from 1"
    );
    let (step_size, root_correction) = settings.corrections(step);
    let rounded = rounded.as_ref().map(ViewMut::as_view);
    let count = len as u64;
    // SAFETY: order and types are those of `adamw_step`; the checks proved all lengths, and the kernel stops at `len`.
    unsafe {
        on.launch(
            "adamw_step",
            Grid::line(len.div_ceil(THREADS as usize), THREADS),
            &[
                params,
                first,
                second,
                &rounded,
                &grads,
                &factor,
                &count,
                &settings.lr,
                &settings.beta1,
                &settings.beta2,
                &settings.eps,
                &settings.weight_decay,
                &step_size,
                &root_correction,
            ],
        )
    }
}
