//! The loss of samples over per-token streams, and its derivative by each log-prob. The meaning of the numbers is the
//! trainer's; here they are arithmetic.

use std::ffi::c_void;

use super::launch::{Argument, Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "loss",
    kernels: &[Entry::new("loss_samples")],
};

/// As in `cuda/rows.cuh`.
const THREADS: u32 = 256;

/// Numbers of a sample's figures.
pub const FIGURES: usize = 6;

/// The surrogate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Kind {
    /// −A·r.
    ImportanceSampling = 0,
    /// −A·min(r, 1 + ε_high)·log π, the factor without a gradient.
    Cispo = 1,
    /// The clipped ratio.
    Ppo = 2,
    /// The clipped ratio of the sequence: e to the weighted mean of the log-ratios.
    Gspo = 3,
}

/// What a step minimises; as `loss::Objective` in `cuda/loss.cu`.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub struct Objective {
    /// ε.
    pub clip_low: f64,
    /// ε_high.
    pub clip_high: f64,
    /// Cap of the truncated importance weight; a negative one leaves it out.
    pub tis_cap: f64,
    /// β.
    pub kl_beta: f64,
    /// What every derivative is multiplied with: one over the samples that count.
    pub share: f64,
    /// The surrogate.
    pub kind: Kind,
    /// Fills the last word.
    pub reserved: i32,
}

impl Argument for Objective {
    fn place(&self) -> (*const c_void, usize) {
        (std::ptr::from_ref(self).cast(), size_of::<Objective>())
    }
}

/// The streams of all samples, one after another: (T) each.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a> {
    /// `log π_θ`.
    pub logprobs: View<'a, f32>,
    /// `log π_old`; read only for the truncated importance weight.
    pub old: View<'a, f32>,
    /// `log π_ref`; none leaves the KL out.
    pub reference: Option<View<'a, f32>>,
    /// `log μ`.
    pub behaviour: View<'a, f32>,
    /// The advantages.
    pub advantage: View<'a, f32>,
    /// A token with weight 0 is left out.
    pub weight: View<'a, f32>,
}

/// Each sample's figures, and `share · dloss/dlogprob` of each token. A sample without a positive weight gives zeros.
///
/// # Shapes
/// `starts`: (S + 1), ascending from 0 to at most T: sample s has the tokens `starts[s]` to `starts[s + 1] − 1` ·
/// `dlogprobs`: (T), written where a sample is · `figures`: (S, 6): the surrogate's weighted mean, KL3's, Σ π_θ/μ, the
/// largest π_θ/μ (NaN when one is), clipped tokens, tokens.
///
/// # Order
/// In f64. Thread t of 256 adds its sample's tokens t, t + 256, …; lanes by exclusive-or 16, 8, 4, 2, 1; the eight warps
/// ascending.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for starts that do not ascend; [`crate::Error::Driver`].
///
/// # Source
/// PPO: Schulman et al. 2017, eq. 7, with the upper bound of DAPO (arXiv 2503.14476). CISPO: arXiv 2506.13585, eq. 4.
/// GSPO: arXiv 2507.18071, eq. 13. KL3: Schulman 2020, "Approximating KL divergence".
pub fn samples(
    on: &Stream,
    objective: &Objective,
    streams: &Streams<'_>,
    starts: &Starts,
    dlogprobs: &mut ViewMut<'_, f32>,
    figures: &mut ViewMut<'_, f64>,
) -> Result<()> {
    let Streams {
        logprobs,
        old,
        reference,
        behaviour,
        advantage,
        weight,
    } = *streams;
    let tokens = logprobs.len();
    check!("loss.samples", old: tokens, behaviour: tokens, advantage: tokens, weight: tokens);
    check!("loss.samples", dlogprobs: tokens, figures: starts.samples * FIGURES);
    if let Some(reference) = reference {
        check!("loss.samples", reference: tokens);
    }
    require!(
        "loss.samples",
        end = starts.end as f64,
        starts.end <= tokens,
        "the last sample ends inside the streams"
    );
    // SAFETY: order and types are those of `loss_samples`; the streams are (T), and every start is at most T.
    unsafe {
        on.launch(
            "loss_samples",
            Grid::line(starts.samples, THREADS),
            &[
                dlogprobs,
                figures,
                &logprobs,
                &old,
                &reference,
                &behaviour,
                &advantage,
                &weight,
                &starts.device.view(),
                objective,
            ],
        )
    }
}

/// Where each sample begins in the streams.
#[derive(Debug)]
pub struct Starts {
    samples: usize,
    end: usize,
    device: super::Buffer<i32>,
}

impl Starts {
    /// From each sample's number of tokens.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for more tokens than an `i32` counts; [`crate::Error::Driver`].
    pub fn new(on: &Stream, lengths: &[usize]) -> Result<Starts> {
        let mut starts = vec![0];
        let mut end = 0usize;
        for length in lengths {
            end = end.saturating_add(*length);
            starts.push(i32::try_from(end).unwrap_or(i32::MAX));
        }
        require!(
            "loss.starts",
            end = end as f64,
            end < i32::MAX as usize,
            "tokens are counted in 31 bits"
        );
        Ok(Starts {
            samples: lengths.len(),
            end,
            device: on.upload(&starts)?,
        })
    }
}
