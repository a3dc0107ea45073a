//! The gradients of a product with the adapters beside it.
//!
//! The bits are those of one product after the other: `dx = dy·W`, then for each adapter `du = s·(dy·B)`, `dB += dyᵀ·u`,
//! `dA += duᵀ·x`, `dx += du·A`, each sum ascending. What reads `dy` is one job, before the base product; what concerns some columns of `x` and
//! `dx` is done where the base product has just computed them.

use super::Pair;
use crate::error::{check, require};
use crate::gemm::{Around, Block, SMALL, backward_and, blocks};
use crate::packed::PANEL;
use crate::pool::Shards;
use crate::tile::{Dims, Lhs, Out, Rhs, Sums, dense};
use crate::{Packed, Pool, Result};
use std::ops::Range;

/// One adapter of a product: what its forward pass left, and where its gradients go.
#[derive(Debug)]
pub struct Part<'a> {
    /// The adapter.
    pub pair: Pair<'a>,
    /// First column of `dy`.
    pub first: usize,
    /// (N, R), from [`super::down`].
    pub u: &'a [f32],
    /// Gradient by A, (R, I), added to.
    pub da: &'a mut [f32],
    /// Gradient by B, (O, R), added to.
    pub db: &'a mut [f32],
}

/// `dx = dy·W`, then [`backward`].
///
/// # Shapes
/// `w`: (O, I), else as [`backward`], `ld` = O.
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::Argument`].
#[expect(
    clippy::too_many_arguments,
    reason = "one fused product: operands, adapters, work space, results"
)]
pub fn linear_backward(
    pool: &Pool,
    rows: usize,
    x: &[f32],
    w: &Packed,
    parts: &mut [Part<'_>],
    dy: &[f32],
    du: &mut [f32],
    dx: &mut [f32],
) -> Result<()> {
    let (i, o) = (w.inputs(), w.outputs());
    check!("lora.linear_backward", x: rows * i, dy: rows * o, dx: rows * i);
    check_parts(rows, x, parts, (dy, o), du, dx)?;
    let adapters = Adapters::new(pool, x, parts, du);
    let around = (!adapters.parts.is_empty()).then_some(&adapters as &dyn Around);
    backward_and(pool, rows, dy, w, dx, around);
    Ok(())
}

/// The gradients of [`super::down`] and [`super::up`] by A, B and x; each is added to what is there.
///
/// # Shapes
/// `x`, `dx`: (N, I) · `dy`: (N, `ld`), with N = `rows` · `du`: (N, R) of one part after the other, overwritten.
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::Argument`] for rank 0 or columns outside of a row.
pub fn backward(
    pool: &Pool,
    rows: usize,
    x: &[f32],
    parts: &mut [Part<'_>],
    (dy, ld): (&[f32], usize),
    du: &mut [f32],
    dx: &mut [f32],
) -> Result<()> {
    check_parts(rows, x, parts, (dy, ld), du, dx)?;
    let adapters = Adapters::new(pool, x, parts, du);
    blocks(pool, rows, dy, ld, &mut |block| adapters.block(block));
    adapters.inputs(rows, dx);
    Ok(())
}

/// The door.
fn check_parts(
    rows: usize,
    x: &[f32],
    parts: &[Part<'_>],
    (dy, ld): (&[f32], usize),
    du: &[f32],
    dx: &[f32],
) -> Result<()> {
    let mut ranks = 0;
    for Part {
        pair,
        first,
        u,
        da,
        db,
    } in parts
    {
        pair.check()?;
        let (i, o, r) = (pair.inputs(), pair.outputs(), pair.rank);
        check!("lora.backward", x: rows * i, dx: rows * i, u: rows * r, da: r * i, db: o * r);
        let inside = o <= ld && *first <= ld - o;
        require!(
            "lora.backward",
            first = *first as f64,
            inside,
            "the columns end inside a row"
        );
        require!(
            "lora.backward",
            outputs = o as f64,
            o > 0,
            "an adapter has outputs"
        );
        ranks += r;
    }
    check!("lora.backward", dy: rows * ld, du: rows * ranks);
    Ok(())
}

/// Rows of a task that computes `du`: two register tiles.
const ROWS: usize = 28;

/// Multiply-adds of a task that takes some 0.2 ms: whoever waits for a turn does not wait long.
const LONG: usize = 1 << 24;

/// Columns of `dy` of a task that computes `dB`: nine register tiles.
const COLUMNS: usize = 126;

/// Work of `cost` multiply-adds: shared by the threads when it is worth it.
fn run(pool: &Pool, tasks: usize, cost: usize, work: &(dyn Fn(usize) + Sync)) {
    if cost < SMALL {
        (0..tasks).for_each(work);
    } else {
        pool.run(tasks, work);
    }
}

/// The adapters of one product.
struct Adapters<'a> {
    pool: &'a Pool,
    x: &'a [f32],
    parts: Vec<Shared<'a>>,
}

/// A part whose results are shared by tasks.
struct Shared<'a> {
    pair: Pair<'a>,
    first: usize,
    u: &'a [f32],
    da: Shards<'a>,
    db: Shards<'a>,
    du: Shards<'a>,
}

impl<'a> Adapters<'a> {
    fn new(
        pool: &'a Pool,
        x: &'a [f32],
        parts: &'a mut [Part<'_>],
        mut du: &'a mut [f32],
    ) -> Adapters<'a> {
        let shared = |part: &'a mut Part<'_>| {
            let own = du.split_off_mut(..part.u.len()).unwrap_or_default();
            Shared {
                pair: part.pair,
                first: part.first,
                u: part.u,
                da: Shards::new(part.da),
                db: Shards::new(part.db),
                du: Shards::new(own),
            }
        };
        let parts = parts.iter_mut().map(shared).collect();
        Adapters { pool, x, parts }
    }

    /// Some rows of the block.
    fn du(&self, part: &Shared<'_>, block: &Block<'_>, rows: &Range<usize>) {
        let (r, all) = (part.pair.rank, part.columns(&block.outputs));
        if all.is_empty() {
            return;
        }
        let from = block.rows.start + rows.start;
        // SAFETY: a row belongs to one task, the part's rows to nobody else.
        let du = unsafe { part.du.part(from * r..(from + rows.len()) * r) };
        let dy = &block.dy[rows.start * block.ld + all.start - block.outputs.start..];
        let b = &part.pair.b[(all.start - part.first) * r..];
        let sums = if all.start == part.first {
            Sums::Start
        } else {
            Sums::Resume
        };
        dense(
            self.pool.isa(),
            Dims::new(rows.len(), r, all.len()),
            Lhs::rows(dy, block.ld),
            Rhs::rows(b, r),
            Out::new(du, r),
            sums,
        );
        if all.end == part.first + part.pair.outputs() {
            du.iter_mut().for_each(|v| *v *= part.pair.scale);
        }
    }

    /// Some columns of `dy`.
    fn db(&self, part: &Shared<'_>, block: &Block<'_>, columns: Range<usize>) {
        let r = part.pair.rank;
        let own = columns.start - part.first..columns.end - part.first;
        // SAFETY: these columns belong to this task.
        let db = unsafe { part.db.part(own.start * r..own.end * r) };
        dense(
            self.pool.isa(),
            Dims::new(columns.len(), r, block.rows.len()),
            Lhs::columns(&block.dy[columns.start - block.outputs.start..], block.ld),
            Rhs::rows(&part.u[block.rows.start * r..], r),
            Out::new(db, r),
            Sums::Resume,
        );
    }

    /// `dA` and what is added to `dx`, where nobody else computes that.
    fn inputs(&self, rows: usize, dx: &mut [f32]) {
        let Some(i) = self.parts.first().map(|part| part.pair.inputs()) else {
            return;
        };
        let panels = i.div_ceil(PANEL);
        let ranks: usize = self.parts.iter().map(|part| part.pair.rank).sum();
        let cost = rows * i * ranks;
        let tasks = panels.min((self.pool.threads() * 4).max(cost / LONG));
        let room = dx.len();
        let dx = Shards::new(dx);
        run(self.pool, tasks, cost, &|task| {
            let columns = panels * task / tasks * PANEL..i.min(panels * (task + 1) / tasks * PANEL);
            if rows == 0 || columns.is_empty() {
                return;
            }
            let at = columns.start;
            // SAFETY: these columns belong to this task.
            let dx = unsafe { Out::raw(dx.as_mut_ptr().add(at), i, room - at) };
            self.columns(&(0..rows), &(0..rows), columns, dx);
        });
    }
}

impl Around for Adapters<'_> {
    /// What it gives to `du` and `dB`.
    fn block(&self, block: &Block<'_>) {
        let by_rows = block.rows.len().div_ceil(ROWS);
        let each = |part: &Shared<'_>| part.columns(&block.outputs).len().div_ceil(COLUMNS);
        let by_columns: usize = self.parts.iter().map(each).sum();
        let ranks: usize = self.parts.iter().map(|part| part.pair.rank).sum();
        let cost = block.rows.len() * block.outputs.len() * ranks;
        run(self.pool, by_rows + by_columns, cost, &|task| {
            let Some(mut task) = task.checked_sub(by_rows) else {
                let rows = task * ROWS..block.rows.len().min((task + 1) * ROWS);
                return self
                    .parts
                    .iter()
                    .for_each(|part| self.du(part, block, &rows));
            };
            for part in &self.parts {
                match task.checked_sub(each(part)) {
                    Some(later) => task = later,
                    None => {
                        let all = part.columns(&block.outputs);
                        let first = all.start + task * COLUMNS;
                        return self.db(part, block, first..all.end.min(first + COLUMNS));
                    }
                }
            }
        });
    }

    /// `dA`, and what is added to `dx`, from `du` and `x`.
    fn columns(&self, rows: &Range<usize>, mine: &Range<usize>, columns: Range<usize>, dx: Out) {
        let (isa, at) = (self.pool.isa(), columns.start);
        // A sum over rows is one task's.
        let sums_rows = mine.start == rows.start;
        for part in self.parts.iter().filter(|_| sums_rows) {
            let (r, i) = (part.pair.rank, part.pair.inputs());
            // SAFETY: all of the rows' blocks have come, so that nobody writes to it.
            let du = unsafe { part.du.shared(rows.start * r..rows.end * r) };
            let dims = Dims::new(r, columns.len(), rows.len());
            let x = Rhs::rows(&self.x[rows.start * i + at..], i);
            // SAFETY: these columns belong to this task, and are in all of the r rows (the door).
            let da = unsafe { Out::raw(part.da.as_mut_ptr().add(at), i, r * i - at) };
            dense(isa, dims, Lhs::columns(du, r), x, da, Sums::Resume);
        }
        for part in &self.parts {
            let (r, i) = (part.pair.rank, part.pair.inputs());
            // SAFETY: as above.
            let du = unsafe { part.du.shared(mine.start * r..mine.end * r) };
            let dims = Dims::new(mine.len(), columns.len(), r);
            let a = Rhs::rows(&part.pair.a[at..], i);
            dense(isa, dims, Lhs::rows(du, r), a, dx, Sums::Resume);
        }
    }
}

impl Shared<'_> {
    /// Those of its columns of `dy` that are among some.
    fn columns(&self, some: &Range<usize>) -> Range<usize> {
        let own = self.first..self.first + self.pair.outputs();
        let start = own.start.max(some.start);
        start..own.end.min(some.end).max(start)
    }
}
