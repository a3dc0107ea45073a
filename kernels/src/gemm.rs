//! Products with packed weights: `y = x·Wᵀ` forward, `dx = dy·W` backward.
//!
//! The arithmetic contract: each output is one chain of fused multiply-adds in f32, its terms in ascending order (k
//! forward, n backward), starting at zero. Therefore a row's bits do not depend on the other rows, on the threads or on
//! the instruction set. Weights stored in 16 or 8 bits are widened exactly. Another order, and operands of 16 bits: `Dtype::Bf16Pairs`,
//! in `pairs.rs`. Small products of two f32 operands: [`crate::lora`].

use crate::ahead::fetch;
use crate::error::check;
use crate::packed::{Line, PANEL, Packed, Panels};
use crate::pairs::{self, Rounded};
use crate::pool::Shards;
use crate::simd::LANES;
use crate::tile::{
    self, Dims, Lhs, Out, PanelJob, Rhs, Sums, bf16_panel, dense, f32_panel, meet, q8_panel,
};
use crate::unpack;
use crate::{Isa, Pool, Result};
use std::cell::Cell;
use std::ops::Range;

/// Rows that are taken through all panels of a task before the next rows: they stay in the L2 cache.
pub(crate) const ROWS: usize = 112;

/// Rows that the first register tile reads: asked for at once, the others one tile ahead.
pub(crate) const SOON: usize = 14;

/// Inputs (columns of `dx`) of one task of the backward product; whole blocks of [`crate::Dtype::Q8`].
const INPUTS: usize = 96;

/// Outputs whose weights are transposed at a time in the backward product: for as many inputs 288 KiB, a part of the L2 cache.
const OUTPUTS: usize = 768;

/// Outputs and rows of one job of the backward product: its tasks then end soon enough for whoever waits for a turn.
const JOB: usize = 6 * OUTPUTS;
const TALL: usize = 256;

/// Rows below which copying costs more than it saves.
const MANY: usize = 8;

/// Multiply-adds below which a product stays on the calling thread: waking another costs as much.
pub(crate) const SMALL: usize = 1 << 16;

/// `y = x·Wᵀ`.
///
/// # Shapes
/// `x`: (N, K) · `w`: (O, K) · `y`: (N, O), with N = `rows`.
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn forward(pool: &Pool, rows: usize, x: &[f32], w: &Packed, y: &mut [f32]) -> Result<()> {
    check!("gemm.forward", x: rows * w.inputs(), y: rows * w.outputs());
    let x = Input::new(pool, rows, x, w, (0, &|_| ()));
    forward_and(pool, rows, &x, w, y, &Alone);
    Ok(())
}

/// The rows that a product multiplies.
pub(crate) enum Input<'a> {
    Whole(&'a [f32]),
    Rounded(Rounded),
}

impl<'a> Input<'a> {
    /// The rows as the weights want them. Work of some tasks that the product needs, too, is done in the same job.
    pub(crate) fn new(
        pool: &Pool,
        rows: usize,
        x: &'a [f32],
        w: &Packed,
        (tasks, work): (usize, &(dyn Fn(usize) + Sync)),
    ) -> Input<'a> {
        if let Panels::Pairs(_) = w.panels {
            return Input::Rounded(Rounded::new(pool, rows, w.inputs(), x, (tasks, work)));
        }
        pool.run(tasks, work);
        Input::Whole(x)
    }
}

/// What is done beside a product, on the thread that computes some columns of it.
pub(crate) trait Beside: Sync {
    /// Before some columns are computed: asks for the memory that will be needed.
    fn before(&self, columns: Range<usize>);
    /// With some rows and columns of the output once they are summed, while they are in the cache; `out` begins with the first of both.
    /// No two calls have an element in common.
    fn after(&self, rows: Range<usize>, columns: Range<usize>, out: Out);
}

/// Nothing.
struct Alone;

impl Beside for Alone {
    fn before(&self, _: Range<usize>) {}
    fn after(&self, _: Range<usize>, _: Range<usize>, _: Out) {}
}

/// [`forward`], and what is beside it.
pub(crate) fn forward_and(
    pool: &Pool,
    rows: usize,
    x: &Input<'_>,
    w: &Packed,
    y: &mut [f32],
    beside: &dyn Beside,
) {
    let (k, n) = (w.inputs(), w.outputs());
    if rows == 0 {
        return;
    }
    let x = match (x, &w.panels) {
        (Input::Rounded(x), Panels::Pairs(lines)) => {
            return pairs::forward(pool, rows, x, (w, lines), y, beside);
        }
        (Input::Whole(x), _) => *x,
        (Input::Rounded(_), _) => unreachable!("rounded for weights in pairs alone"),
    };
    let whole = k <= tile::TERMS;
    split(pool, rows, w, y, beside, &|first, m, panel, wants, out| {
        if wants.rows {
            let soon = if whole { m.min(SOON) } else { m };
            fetch(&x[first * k..][..soon * k]);
        }
        let job = PanelJob {
            x: &x[first * k..],
            wants: Wants {
                rows: wants.rows && whole,
                ..wants
            },
            m,
            k,
            width: PANEL.min(n - panel * PANEL),
            out,
        };
        match &w.panels {
            Panels::Bf16(lines) => bf16_panel(pool.isa(), job, &lines[panel * k..][..k]),
            Panels::F32(lines) => f32_panel(pool.isa(), job, &lines[panel * k..][..k]),
            Panels::Q8(q8) => q8_panel(pool.isa(), job, q8.panel(panel, k, 0)),
            Panels::Pairs(_) => unreachable!("its input is rounded"),
        }
    });
}

/// The `at`-th of `tasks` in an order in which those that threads take at the same time are far apart, and those that one takes after
/// another are neighbours: two threads do not write to one cache line, and each reads memory in order.
pub(crate) fn apart(at: usize, tasks: usize, threads: usize) -> usize {
    // The first of `longer` threads have one task more than the others.
    let (each, longer) = (tasks / threads, tasks % threads);
    let (turn, thread) = (at / threads, at % threads);
    thread * each + thread.min(longer) + turn
}

/// What a thread should ask for while it multiplies with a panel.
#[derive(Clone, Copy)]
pub(crate) struct Wants {
    /// The rows, which are far: in memory, or where another core has written them.
    pub(crate) rows: bool,
    /// The next panel, which is this thread's, too.
    pub(crate) panel: bool,
}

/// Shares the panels of a product among the threads: `one` multiplies some rows (the first and how many) with a panel.
pub(crate) fn split(
    pool: &Pool,
    rows: usize,
    w: &Packed,
    y: &mut [f32],
    beside: &dyn Beside,
    one: &(dyn Fn(usize, usize, usize, Wants, Out) + Sync),
) {
    let (n, panels) = (w.outputs(), w.panel_count());
    let tasks = if rows * w.inputs() * n < SMALL {
        1
    } else {
        panels.min(pool.threads() * 16)
    };
    let room = y.len();
    let y = Shards::new(y);
    pool.run(tasks, &|at| {
        let task = apart(at, tasks, pool.threads());
        let mine = panels * task / tasks..panels * (task + 1) / tasks;
        let columns = mine.start * PANEL..n.min(mine.end * PANEL);
        if columns.is_empty() {
            return;
        }
        beside.before(columns.clone());
        for first in (0..rows).step_by(ROWS) {
            let m = ROWS.min(rows - first);
            let out = |column| {
                let at = first * n + column;
                // SAFETY: `at < rows * n`, and the columns of a panel belong to one task.
                unsafe { Out::raw(y.as_mut_ptr().add(at), n, room - at) }
            };
            for panel in mine.clone() {
                let wants = Wants {
                    rows: at < pool.threads() && panel == mine.start,
                    panel: panel + 1 < mine.end || at + pool.threads() < tasks,
                };
                one(first, m, panel, wants, out(panel * PANEL));
            }
            beside.after(first..first + m, columns.clone(), out(columns.start));
        }
    });
}

thread_local! {
    /// Transposed weights of one step of the backward product.
    static TURNED: Cell<Vec<Line<f32>>> = const { Cell::new(Vec::new()) };
    /// The part of `dy` of one job that this thread has started.
    static COPIED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `dx = dy·W`, the gradient of [`forward`] by its input.
///
/// # Shapes
/// `dy`: (N, O) · `w`: (O, K) · `dx`: (N, K), with N = `rows`.
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn backward(pool: &Pool, rows: usize, dy: &[f32], w: &Packed, dx: &mut [f32]) -> Result<()> {
    let (k, n) = (w.inputs(), w.outputs());
    check!("gemm.backward", dy: rows * n, dx: rows * k);
    backward_and(pool, rows, dy, w, dx, None);
    Ok(())
}

/// Some rows of `dy`, and some of its columns, with the first of which each row begins.
pub(crate) struct Block<'a> {
    pub(crate) dy: &'a [f32],
    /// Distance of two rows.
    pub(crate) ld: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) outputs: Range<usize>,
}

/// What is computed from the rows of a gradient, too.
pub(crate) trait Around: Sync {
    /// With a block of `dy`: rows ascend, in each block of rows its outputs.
    fn block(&self, block: &Block<'_>);
    /// With some columns of `dx` once all terms are added, on the thread that added them: in the rows `mine` of `rows`, all of whose blocks
    /// have come. `dx` begins with the first of both. No two calls have an element in common.
    fn columns(&self, rows: &Range<usize>, mine: &Range<usize>, columns: Range<usize>, dx: Out);
}

/// [`backward`], and what is around it.
pub(crate) fn backward_and(
    pool: &Pool,
    rows: usize,
    dy: &[f32],
    w: &Packed,
    dx: &mut [f32],
    around: Option<&dyn Around>,
) {
    let (k, n) = (w.inputs(), w.outputs());
    if let Panels::Pairs(lines) = &w.panels {
        if let Some(around) = around {
            blocks(pool, rows, dy, n, &mut |block| around.block(block));
        }
        return pairs::backward(pool, rows, dy, (w, lines), dx, around);
    }
    blocks(pool, rows, dy, n, &mut |block| {
        if let Some(around) = around {
            around.block(block);
        }
        let some = block.rows.start * k..block.rows.end * k;
        let last = block.outputs.end == n;
        add_outputs(pool, block, w, &mut dx[some], around.filter(|_| last));
    });
}

/// Takes a matrix of gradients block by block; one whose rows would meet in the cache is copied.
pub(crate) fn blocks(
    pool: &Pool,
    rows: usize,
    dy: &[f32],
    n: usize,
    one: &mut dyn FnMut(&Block<'_>),
) {
    let mut copied = COPIED.take();
    for row in (0..rows).step_by(TALL) {
        let rows = row..rows.min(row + TALL);
        for first in (0..n).step_by(JOB) {
            let outputs = first..n.min(first + JOB);
            let from = &dy[rows.start * n + first..rows.end * n];
            let (dy, ld) = if rows.len() < MANY || !meet(n) {
                (from, n)
            } else {
                let ld = copy(pool, from, n, outputs.len(), &mut copied);
                (&copied[..], ld)
            };
            one(&Block {
                dy,
                ld,
                rows: rows.clone(),
                outputs,
            });
        }
    }
    COPIED.set(copied);
}

/// Copies the first columns of rows whose distance makes them meet to rows of another distance, which is returned.
fn copy(pool: &Pool, from: &[f32], ld: usize, columns: usize, to: &mut Vec<f32>) -> usize {
    // What is copied is a multiple of what makes rows meet; a line more, and they do not.
    let apart = columns + LANES;
    let rows = from.len().div_ceil(ld);
    if to.len() < rows * apart {
        to.resize(rows * apart, 0.0);
    }
    let to = Shards::new(to);
    let tasks = rows.min(pool.threads() * 4);
    pool.run(tasks, &|task| {
        for row in rows * task / tasks..rows * (task + 1) / tasks {
            // SAFETY: a row belongs to one task.
            let to = unsafe { to.part(row * apart..row * apart + columns) };
            to.copy_from_slice(&from[row * ld..][..columns]);
        }
    });
    apart
}

/// Adds the terms of a block's outputs to the `dx` of its rows; the first outputs start the sums.
fn add_outputs(
    pool: &Pool,
    block: &Block<'_>,
    w: &Packed,
    dx: &mut [f32],
    after: Option<&dyn Around>,
) {
    let Block {
        dy,
        ld,
        rows: ref all,
        ref outputs,
    } = *block;
    let (k, rows) = (w.inputs(), all.len());
    let room = dx.len();
    let dx = Shards::new(dx);
    let wide = k.div_ceil(INPUTS);
    // Each part of the rows transposes the weights again: no more parts than it takes to keep the threads busy.
    let tall = if wide.is_multiple_of(pool.threads()) && wide >= 2 * pool.threads() {
        1
    } else {
        (rows / ROWS).max(1)
    };
    let tasks = wide * tall;
    pool.run(tasks, &|at| {
        let task = apart(at, tasks, pool.threads());
        let first = task % wide * INPUTS;
        let inputs = first..k.min(first + INPUTS);
        let mine = rows * (task / wide) / tall..rows * (task / wide + 1) / tall;
        let mut turned = TURNED.take();
        turned.resize(INPUTS / PANEL * OUTPUTS, Line([0.0; PANEL]));
        for n0 in outputs.clone().step_by(OUTPUTS) {
            let terms = OUTPUTS.min(outputs.end - n0);
            turn(pool.isa(), w, n0..n0 + terms, inputs.clone(), &mut turned);
            let sums = if n0 == 0 { Sums::Start } else { Sums::Resume };
            for m0 in mine.clone().step_by(ROWS) {
                let m = ROWS.min(mine.end - m0);
                let a = Lhs::rows(&dy[m0 * ld + n0 - outputs.start..], ld);
                for (column, lines) in inputs.clone().step_by(PANEL).zip(turned.chunks(OUTPUTS)) {
                    let at = m0 * k + column;
                    // SAFETY: `at < rows * k`; these columns of these rows belong to this task.
                    let out = unsafe { Out::raw(dx.as_mut_ptr().add(at), k, room - at) };
                    let dims = Dims::new(m, PANEL.min(inputs.end - column), terms);
                    let b = Rhs::rows(Line::flat(lines), PANEL);
                    dense(pool.isa(), dims, a, b, out, sums);
                }
            }
        }
        TURNED.set(turned);
        if let Some(after) = after {
            let at = mine.start * k + inputs.start;
            // SAFETY: as above.
            let out = unsafe { Out::raw(dx.as_mut_ptr().add(at), k, room - at) };
            let mine = all.start + mine.start..all.start + mine.end;
            after.columns(all, &mine, inputs, out);
        }
    });
}

/// Transposes some weights, whole panels from the first output on: a strip of [`OUTPUTS`] lines for each 32 inputs.
fn turn(
    isa: Isa,
    w: &Packed,
    outputs: Range<usize>,
    inputs: Range<usize>,
    turned: &mut [Line<f32>],
) {
    let k = w.inputs();
    for (strip, turned) in turned.chunks_mut(OUTPUTS).enumerate() {
        let first = inputs.start + strip * PANEL;
        if first >= inputs.end {
            return;
        }
        let count = PANEL.min(inputs.end - first);
        let panels = outputs.start / PANEL..outputs.end.div_ceil(PANEL);
        for (panel, to) in panels.zip(turned.as_chunks_mut().0) {
            let line = panel * k + first;
            match &w.panels {
                Panels::Bf16(lines) => unpack::bf16(isa, &lines[line..][..count], to),
                Panels::F32(lines) => unpack::f32(isa, &lines[line..][..count], to),
                Panels::Q8(q8) => {
                    let mut lines = q8.panel(panel, k, first);
                    lines.codes = &lines.codes[..count];
                    unpack::q8(isa, lines, to);
                }
                Panels::Pairs(_) => unreachable!("multiplied in pairs"),
            }
        }
    }
}

/// `C (+)= A·B` of f32 operands, shared by the threads when it is worth it.
///
/// # Panics
/// When an operand is too short for the sizes.
pub(crate) fn parallel_dense(
    pool: &Pool,
    d: Dims,
    a: Lhs<'_>,
    b: Rhs<'_>,
    c: (&mut [f32], usize),
    sums: Sums,
) {
    let Dims { m, n, k } = d;
    let (c, ld) = c;
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * ld + n <= c.len(), "output");
    if m * n * k < SMALL {
        dense(pool.isa(), d, a, b, Out::new(c, ld), sums);
        return;
    }
    let (tall, wide) = (m.div_ceil(56), n.div_ceil(128));
    let room = c.len();
    let c = Shards::new(c);
    pool.run(tall * wide, &|task| {
        let (i, j) = (task / wide * 56, task % wide * 128);
        let at = i * ld + j;
        // SAFETY: (i, j) is inside (m, n), whose elements are in the slice (asserted); tasks have disjoint elements.
        let out = unsafe { Out::raw(c.as_mut_ptr().add(at), ld, room - at) };
        let d = Dims::new(56.min(m - i), 128.min(n - j), k);
        let a = Lhs {
            data: a.data.get(i * a.row..).unwrap_or(&[]),
            ..a
        };
        let b = Rhs {
            data: b.data.get(j..).unwrap_or(&[]),
            ..b
        };
        dense(pool.isa(), d, a, b, out, sums);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_comes_once_in_the_order_that_keeps_threads_apart() {
        for threads in 1..6 {
            for tasks in 1..40 {
                let mut order: Vec<usize> = (0..tasks).map(|t| apart(t, tasks, threads)).collect();
                order.sort_unstable();
                assert!(order.into_iter().eq(0..tasks), "{tasks} on {threads}");
            }
        }
    }
}
