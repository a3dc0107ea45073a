//! Product with the output matrix, log-softmax and choice in one op: log-probs of given tokens, and their gradient.
//!
//! The logits of the vocabulary exist for one tile of rows at a time. The arithmetic is that of [`crate::gemm`] and
//! [`crate::softmax`], so that a log-prob has the bits that sampling recorded: a logit is one chain over the inputs, the sum of
//! exponentials 16 chains and a tree, `dx` one chain over the whole vocabulary. A row with one target, as nearly all have, gets its
//! gradient for an upstream of 1 while its logits are there: the gradient itself is that times the upstream, and the product with
//! the vocabulary is not computed a second time. Logits of a row with several targets are computed again.

use crate::error::{check, require};
use crate::memory::Buffer;
use crate::packed::Packed;
use crate::softmax::{self, Normalizer, Target};
use crate::{Pool, Result, gemm};

/// Rows whose logits exist at the same time: as many as one block of [`gemm`].
pub const TILE: usize = 112;

/// One tile's logits, and what the forward pass leaves for the gradient; grows once and stays.
#[derive(Clone, Debug, Default)]
pub struct Output {
    logits: Buffer,
    /// (N, K): of each row with one target, the gradient of its log-prob.
    slopes: Buffer,
    /// Rows of the last forward pass that can be followed by its gradient, and its temperature.
    rows: usize,
    temperature: f32,
    tile: Tile,
}

/// What belongs to the rows of one tile.
#[derive(Clone, Debug, Default)]
struct Tile {
    normalizers: Vec<Normalizer>,
    targets: Vec<Target>,
    upstream: Vec<f32>,
    /// Rows with several targets, their input and its gradient.
    several: Vec<usize>,
    x: Vec<f32>,
    dx: Buffer,
}

/// What is asked of hidden rows.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Ordered by row.
    pub targets: &'a [Target],
    /// Positive and finite.
    pub temperature: f32,
    /// Whether [`backward`] will be called: it costs another product with the vocabulary, now.
    pub gradient: bool,
}

/// The targets of each row that has some.
fn by_row(targets: &[Target]) -> impl Iterator<Item = &[Target]> {
    targets.chunk_by(|a, b| a.row == b.row)
}

/// `out[i] = ln p(target i)` at a temperature. Calls `between` after each tile.
///
/// # Shapes
/// `x`: (N, K) · `w`: (V, K) · `out`: one for each target.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for targets out of order or outside the logits, or a temperature that is not positive.
pub fn log_probs(
    pool: &Pool,
    x: &[f32],
    w: &Packed,
    wanted: Wanted<'_>,
    output: &mut Output,
    out: &mut [f32],
    between: &mut dyn FnMut(),
) -> Result<()> {
    let Wanted {
        targets,
        temperature,
        gradient,
    } = wanted;
    let (k, v) = (w.inputs(), w.outputs());
    let rows = x.len() / k;
    // A pass that fails leaves nothing to go back from.
    output.rows = 0;
    check!("output.log_probs", x: rows * k, out: targets.len());
    check_targets(targets, rows, v)?;
    if gradient {
        output.slopes.fit(rows * k);
    }
    let mut done = 0;
    for first in (0..rows).step_by(TILE) {
        let rows = first..rows.min(first + TILE);
        let some = &x[rows.start * k..rows.end * k];
        let logits = logits(pool, some, w, &mut output.logits)?;
        let Tile {
            normalizers,
            targets: lone,
            upstream,
            ..
        } = &mut output.tile;
        softmax::normalizers(pool, logits, v, temperature, normalizers)?;
        lone.clear();
        let of_tile = targets[done..].partition_point(|t| t.row < rows.end);
        let of_tile = &targets[done..][..of_tile];
        for of_row in by_row(of_tile) {
            let row = of_row[0].row - first;
            for target in of_row {
                let logit = logits[row * v + target.token as usize];
                out[done] = normalizers[row].log_prob(logit);
                done += 1;
            }
            if let [Target { token, .. }] = *of_row {
                lone.push(Target { row, token });
            }
        }
        if gradient && !lone.is_empty() {
            upstream.clear();
            upstream.resize(lone.len(), 1.0);
            softmax::backward(pool, logits, normalizers, lone, upstream)?;
            let slopes = &mut output.slopes[rows.start * k..rows.end * k];
            gemm::backward(pool, rows.len(), logits, w, slopes)?;
        }
        between();
    }
    if gradient {
        (output.rows, output.temperature) = (rows, temperature);
    }
    Ok(())
}

/// `dx`, the gradient of `Σ upstream[i] · out[i]` by the `x` of the last [`log_probs`] with this `output`; `targets` are the same. Calls `between` after each tile of rows with several targets.
///
/// # Shapes
/// `x`, `dx`: (N, K) · `upstream`: one for each target.
///
/// # Errors
/// As [`log_probs`]; [`crate::Error::Shape`] for another number of rows than it had, or when it failed or was not to be followed by this.
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
    let rows = output.rows;
    check!("output.backward", x: rows * k, dx: rows * k, upstream: targets.len());
    check_targets(targets, rows, v)?;
    dx.fill(0.0);
    let several = &mut output.tile.several;
    several.clear();
    let mut done = 0;
    for of_row in by_row(targets) {
        let row = of_row[0].row;
        if let [_] = of_row {
            let (slopes, upstream) = (&output.slopes[row * k..][..k], upstream[done]);
            // What counts for nothing stays out, whatever its slope is: zero times infinity is no number.
            if upstream != 0.0 {
                for (dx, slope) in dx[row * k..][..k].iter_mut().zip(slopes) {
                    *dx = upstream * slope;
                }
            }
        } else {
            several.push(row);
        }
        done += of_row.len();
    }
    for first in (0..output.tile.several.len()).step_by(TILE) {
        again(pool, x, w, (targets, upstream), output, first, dx)?;
        between();
    }
    Ok(())
}

/// The gradients of rows with several targets, from the `first` of them on.
fn again(
    pool: &Pool,
    x: &[f32],
    w: &Packed,
    (targets, upstream): (&[Target], &[f32]),
    output: &mut Output,
    first: usize,
    all: &mut [f32],
) -> Result<()> {
    let (k, v) = (w.inputs(), w.outputs());
    let tile = &mut output.tile;
    let rows = &tile.several[first..];
    let rows = &rows[..rows.len().min(TILE)];
    tile.x.clear();
    tile.targets.clear();
    tile.upstream.clear();
    for (at, &row) in rows.iter().enumerate() {
        tile.x.extend_from_slice(&x[row * k..][..k]);
        let begin = targets.partition_point(|t| t.row < row);
        let own = targets[begin..].iter().take_while(|t| t.row == row);
        for (target, upstream) in own.zip(&upstream[begin..]) {
            let token = target.token;
            tile.targets.push(Target { row: at, token });
            tile.upstream.push(*upstream);
        }
    }
    let logits = logits(pool, &tile.x, w, &mut output.logits)?;
    softmax::normalizers(pool, logits, v, output.temperature, &mut tile.normalizers)?;
    softmax::backward(
        pool,
        logits,
        &tile.normalizers,
        &tile.targets,
        &tile.upstream,
    )?;
    let dx = tile.dx.fit(rows.len() * k);
    gemm::backward(pool, rows.len(), logits, w, dx)?;
    for (dx, row) in dx.chunks_exact(k).zip(rows) {
        all[row * k..][..k].copy_from_slice(dx);
    }
    Ok(())
}

/// The logits of some rows.
fn logits<'a>(pool: &Pool, x: &[f32], w: &Packed, space: &'a mut Buffer) -> Result<&'a mut [f32]> {
    let rows = x.len() / w.inputs();
    let logits = space.fit(rows * w.outputs());
    gemm::forward(pool, rows, x, w, logits)?;
    Ok(logits)
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
