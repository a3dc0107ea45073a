//! Draws tokens: a pure function of a row of logits, its settings and (seed, request, position).
//!
//! The meaning is that of the policy's sampler on a CPU: the same counter-based numbers (Philox 4x32-10), temperature,
//! then top-k, then top-p, then min-p; biases and penalties are added to the logits before. The recorded log-prob is not
//! computed here: it is the output op's, of the untruncated distribution, as in training.

use super::launch::{Entry, Grid, Module};
use super::{Element, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "sample",
    kernels: &[Entry::new("sample_draw")],
};

/// As in `cuda/sample.cu`.
const THREADS: u32 = 512;

/// A row's settings.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub struct Draw {
    /// The seed of all requests.
    pub seed: u64,
    /// Which of the requests under one seed.
    pub request: u64,
    /// Tokens before this one.
    pub position: u64,
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// 1 leaves nothing out.
    pub top_p: f32,
    /// Tokens less likely than this times the most likely are left out; 0 leaves nothing out.
    pub min_p: f32,
    /// 0 leaves nothing out.
    pub top_k: u32,
}

// SAFETY: four-byte and eight-byte numbers, 40 bytes without a gap; every pattern is a value.
unsafe impl Element for Draw {}

/// A token for each row: the vocabulary's size where no token is possible, every logit being −∞ or not a number.
///
/// A weight is e^((logit − largest) / temperature) in f32, by 2^x, 0 below 2^-126. What top-k and top-p leave is a prefix
/// of the tokens ordered by weight, equal ones by id; the draw walks what is left by id.
///
/// # Shapes
/// `logits`: (N, `vocab`) · `draws`, `tokens`: (N).
///
/// # Order
/// Sums of weights in f64, thread t of 512 the ids t, t + 512, …; lanes by exclusive-or; the sixteen warps ascending. The
/// walk: sixteen spans of ids, each a warp's, the one that it ends in again in sixteen, until it has at most 64.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
///
/// # Source
/// Salmon et al. 2011; Holtzman et al. 2020.
pub fn draw(
    on: &Stream,
    vocab: usize,
    logits: View<'_, f32>,
    draws: View<'_, Draw>,
    tokens: &mut ViewMut<'_, u32>,
) -> Result<()> {
    let rows = draws.len();
    check!("sample.draw", logits: rows * vocab, tokens: rows);
    let counted = (1..1 << 24).contains(&vocab);
    require!(
        "sample.draw",
        vocab = vocab as f64,
        counted,
        "a vocabulary has 1 to 2^24 tokens"
    );
    let width = i32::try_from(vocab).unwrap_or(i32::MAX);
    // SAFETY: order and types are those of `sample_draw`; the checks proved (N, V) and (N).
    unsafe {
        on.launch(
            "sample_draw",
            Grid::line(rows, THREADS),
            &[tokens, &logits, &draws, &width],
        )
    }
}
