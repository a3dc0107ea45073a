//! Draws tokens: a pure function of a row of logits, its settings and (seed, request, position).
//!
//! The meaning is that of the policy's sampler on a CPU: the same counter-based numbers (Philox 4x32-10), temperature,
//! then top-k, then top-p, then min-p; biases and penalties are added to the logits before. The recorded log-prob is not
//! computed here: it is the output op's, of the untruncated distribution, as in training.

use super::launch::{Argument, Entry, Grid, Module};
use super::{Buffer, Element, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "sample",
    kernels: &[
        Entry::new("sample_best"),
        Entry::new("sample_bins"),
        Entry::new("sample_top_k"),
        Entry::new("sample_top_p"),
        Entry::new("sample_token"),
    ],
};

/// As in `cuda/sample.cu`: threads of a block, tokens of its chunk, bins of weights, listed tokens of a bin, a row's state in words.
const THREADS: u32 = 256;
const CHUNK: usize = 32 * THREADS as usize;
const BINS: usize = 2048;
const LISTED: usize = 8192;
const STATE: usize = 5;

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

impl Draw {
    /// The most likely token.
    pub const GREEDY: Draw = Draw {
        seed: 0,
        request: 0,
        position: 0,
        temperature: 0.0,
        top_p: 1.0,
        min_p: 0.0,
        top_k: 0,
    };
}

// SAFETY: four-byte and eight-byte numbers, 40 bytes without a gap; every pattern is a value.
unsafe impl Element for Draw {}

/// Memory for draws: what the blocks of a row tell each other.
#[derive(Debug)]
pub struct Work {
    words: Buffer<u64>,
    rows: usize,
    vocab: usize,
}

impl Work {
    /// For `rows` rows at most.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a vocabulary that [`draw`] refuses; [`crate::Error::Driver`].
    pub fn new(on: &Stream, rows: usize, vocab: usize) -> Result<Work> {
        let counted = (1..1 << 24).contains(&vocab);
        require!(
            "sample.work",
            vocab = vocab as f64,
            counted,
            "a vocabulary has 1 to 2^24 tokens"
        );
        let chunks = vocab.div_ceil(CHUNK);
        let each = STATE + BINS + BINS / 2 + 2 * chunks + vocab.min(LISTED);
        let mut words = on.gpu().buffer(rows * each)?;
        on.zero(&mut words.view_mut())?;
        Ok(Work { words, rows, vocab })
    }
}

/// A token for each row: the vocabulary's size where no token is possible, every logit being −∞ or not a number.
///
/// A weight is e^((logit − largest) / temperature) in f32, by 2^x, 0 below 2^-126. What top-k and top-p leave is a prefix
/// of the tokens ordered by weight, equal ones by id; the draw walks what is left by id.
///
/// # Shapes
/// `logits`: (N, V), V that of `work` · `draws`, `tokens`: (N), as many as `work` has rows at most.
///
/// # Order
/// Weights of one bin (exponent and four bits of the fraction) are summed exactly, as whole numbers; bins in f64, heaviest first,
/// eight a thread, then lanes, then the eight warps. The walk: a chunk of 8,192 ids is summed by thread t taking t, t + 256, …,
/// lanes by exclusive-or, warps ascending; then chunks ascending; the chunk that it ends in by eight spans, each a warp's, the span
/// that it ends in again, until 16 tokens are left, which are added by id.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
///
/// # Source
/// Salmon et al. 2011; Holtzman et al. 2020.
pub fn draw(
    on: &Stream,
    logits: View<'_, f32>,
    draws: View<'_, Draw>,
    work: &mut Work,
    tokens: &mut ViewMut<'_, u32>,
) -> Result<()> {
    let (rows, vocab) = (draws.len(), work.vocab);
    check!("sample.draw", logits: rows * vocab, tokens: rows);
    require!(
        "sample.draw",
        rows = rows as f64,
        rows <= work.rows,
        "the memory is for fewer"
    );
    let width = i32::try_from(vocab).unwrap_or(i32::MAX);
    let grid = Grid {
        blocks: [vocab.div_ceil(CHUNK), rows, 1],
        threads: THREADS,
        shared: 0,
    };
    let memory = work.words.view_mut();
    // SAFETY: order and types are those of `sample_best`; the checks proved (N, V), `Work` the memory of each row.
    unsafe { on.launch("sample_best", grid, &[&memory, &logits, &width]) }?;
    for name in ["sample_bins", "sample_top_k", "sample_top_p"] {
        // SAFETY: the same for `draws`, (N); what the kernel before left in the memory is of this row.
        unsafe { on.launch(name, grid, &[&memory, &logits, &draws, &width]) }?;
    }
    let arguments: [&dyn Argument; 5] = [tokens, &memory, &logits, &draws, &width];
    // SAFETY: the same for `tokens`, (N).
    unsafe { on.launch("sample_token", grid, &arguments) }
}
