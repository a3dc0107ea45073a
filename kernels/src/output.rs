//! Product with the output matrix, log-softmax and choice in one op: log-probs of given tokens, and their gradient.
//!
//! The logits of the vocabulary exist for one tile of rows at a time. The arithmetic is that of [`crate::gemm`] and
//! [`crate::softmax`], so that a log-prob has the bits that sampling recorded. The gradient computes each tile's logits again, but
//! for the last tile of the forward pass, which is still there.

use crate::error::{check, require};
use crate::packed::Packed;
use crate::softmax::{self, Normalizer, Target};
use crate::{Pool, Result, gemm};
use std::ops::Range;

/// Rows whose logits exist at the same time: as many as one block of [`gemm`].
pub const TILE: usize = 112;

/// One tile's logits, and what the forward pass leaves for the gradient; grows once and stays.
#[derive(Clone, Debug, Default)]
pub struct Output {
    logits: Vec<f32>,
    /// First row of the tile whose logits are there.
    held: Option<usize>,
    /// Of every row.
    normalizers: Vec<Normalizer>,
    /// Of the tile.
    some: Vec<Normalizer>,
    targets: Vec<Target>,
}

/// `out[i] = ln p(target i)` at a temperature; `targets` are ordered by row. Calls `between` after each tile.
///
/// # Shapes
/// `x`: (N, K) · `w`: (V, K) · `out`: one for each target.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for targets out of order or outside the logits, or a temperature that is not positive.
#[expect(
    clippy::too_many_arguments,
    reason = "one fused op: product, softmax, choice"
)]
pub fn log_probs(
    pool: &Pool,
    x: &[f32],
    w: &Packed,
    targets: &[Target],
    temperature: f32,
    output: &mut Output,
    out: &mut [f32],
    between: &mut dyn FnMut(),
) -> Result<()> {
    let (k, v) = (w.inputs(), w.outputs());
    let rows = x.len() / k;
    check!("output.log_probs", x: rows * k, out: targets.len());
    check_targets(targets, rows, v)?;
    output.normalizers.clear();
    let mut done = 0;
    for first in (0..rows).step_by(TILE) {
        let tile = first..rows.min(first + TILE);
        output.compute(pool, x, w, tile.clone())?;
        let logits = &output.logits[..tile.len() * v];
        softmax::normalizers(pool, logits, v, temperature, &mut output.some)?;
        while let Some(target) = targets.get(done).filter(|t| t.row < tile.end) {
            let row = target.row - first;
            let logit = output.logits[row * v + target.token as usize];
            out[done] = output.some[row].log_prob(logit);
            done += 1;
        }
        output.normalizers.extend_from_slice(&output.some);
        between();
    }
    Ok(())
}

/// `dx`, the gradient of `Σ upstream[i] · out[i]` by the `x` of the last [`log_probs`] with this `output`; `targets` are the same.
///
/// # Shapes
/// `x`, `dx`: (N, K) · `upstream`: one for each target.
///
/// # Errors
/// As [`log_probs`]; [`crate::Error::Shape`] for another number of rows than it had.
#[expect(
    clippy::too_many_arguments,
    reason = "one fused op: product, softmax, choice"
)]
pub fn backward(
    pool: &Pool,
    x: &[f32],
    w: &Packed,
    targets: &[Target],
    upstream: &[f32],
    output: &mut Output,
    dx: &mut [f32],
    between: &mut dyn FnMut(),
) -> Result<()> {
    let (k, v) = (w.inputs(), w.outputs());
    let rows = output.normalizers.len();
    check!("output.backward", x: rows * k, dx: rows * k, upstream: targets.len());
    check_targets(targets, rows, v)?;
    let mut end = targets.len();
    // Backwards: the logits of the last tile are there.
    for first in (0..rows).step_by(TILE).rev() {
        let tile = first..rows.min(first + TILE);
        let begin = targets.partition_point(|t| t.row < first);
        if output.held.take() != Some(first) {
            output.compute(pool, x, w, tile.clone())?;
            output.held = None;
        }
        output.targets.clear();
        let own = targets[begin..end].iter();
        output.targets.extend(own.map(|t| Target {
            row: t.row - first,
            token: t.token,
        }));
        let logits = &mut output.logits[..tile.len() * v];
        let normalizers = &output.normalizers[tile.clone()];
        softmax::backward(
            pool,
            logits,
            normalizers,
            &output.targets,
            &upstream[begin..end],
        )?;
        let dx = &mut dx[tile.start * k..tile.end * k];
        gemm::backward(pool, tile.len(), logits, w, dx)?;
        end = begin;
        between();
    }
    Ok(())
}

impl Output {
    fn compute(&mut self, pool: &Pool, x: &[f32], w: &Packed, tile: Range<usize>) -> Result<()> {
        let (k, v) = (w.inputs(), w.outputs());
        let len = tile.len() * v;
        if self.logits.len() < len {
            self.logits.resize(len, 0.0);
        }
        let logits = &mut self.logits[..len];
        gemm::forward(
            pool,
            tile.len(),
            &x[tile.start * k..tile.end * k],
            w,
            logits,
        )?;
        self.held = Some(tile.start);
        Ok(())
    }
}

fn check_targets(targets: &[Target], rows: usize, vocabulary: usize) -> Result<()> {
    let ordered = targets.is_sorted_by_key(|t| t.row);
    let count = targets.len() as f64;
    require!(
        "output",
        targets = count,
        ordered,
        "they are ordered by row"
    );
    for target in targets {
        let (row, token) = (target.row, target.token as usize);
        require!(
            "output",
            row = row as f64,
            row < rows,
            "there are fewer rows"
        );
        require!(
            "output",
            token = token as f64,
            token < vocabulary,
            "the vocabulary is smaller"
        );
    }
    Ok(())
}
