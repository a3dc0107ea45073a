//! Low-rank adapters: their inner results and their gradients. Their part of a product is in [`super::gemm`].
//!
//! Forward `u = bf16(s·(x·Aᵀ))`, backward `du = bf16(s·(dy·B))`, `dA += duᵀ·x`, `dB += dyᵀ·u`, for adapters of any rank side by
//! side. **Order**: the terms of u and du are dealt to eight chains, each a contiguous run of steps of 16, ascending; the chains
//! are added in ascending order. Gradients: runs of 512 rows, each in steps of 16, ascending, from zero; the runs ascending; one
//! addition to what is there.
//! Start at [`down`].

use std::ops::Range;

use half::bf16;

use super::adapters::{Adapters, STEP, Shape, Side, aligned, ints};
use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "lora",
    kernels: &[
        Entry {
            name: "lora_down",
            shared: DOWN_SHARED,
        },
        Entry {
            name: "lora_down_backward",
            shared: DOWN_SHARED,
        },
        Entry {
            name: "lora_gradient",
            shared: GRADIENT_SHARED,
        },
        Entry::new("lora_gradient_sum"),
        Entry::new("lora_pack"),
    ],
};

/// Columns of a block, its rank, and its stages: cuda/lora.cu.
const WIDE: usize = 64;
const RANK: usize = 64;
const DOWN_SHARED: u32 = 8 * 4 * 32 * 128;
const GRADIENT_SHARED: u32 = 4 * 32 * (64 + 64) * 2;

/// Rows whose products are one sum of a gradient.
const RUN: usize = 512;

/// `u = bf16(s·(x·Aᵀ))` for the rows that have an adapter; other rows keep what they have, which no product reads.
///
/// # Shapes
/// `x`: (N, I) · `u`: (N, [`Adapters::inner`]), with N = `rows`.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
///
/// # Source
/// Hu et al. 2021.
pub fn down(
    on: &Stream,
    rows: usize,
    map: Shape,
    x: View<'_, bf16>,
    adapters: &Adapters<'_>,
    u: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    check!("lora.down", x: rows * map.inputs);
    inner(on, "lora_down", rows, map, x, adapters, u, Side::Inputs)
}

/// `du = bf16(s·(dy·B))`, the gradient by `s·(x·Aᵀ)` with the scale, for the rows that have an adapter.
///
/// # Shapes
/// `dy`: (N, O) · `du`: (N, [`Adapters::inner`]), with N = `rows`.
///
/// # Errors
/// As [`down`].
pub fn down_backward(
    on: &Stream,
    rows: usize,
    map: Shape,
    dy: View<'_, bf16>,
    adapters: &Adapters<'_>,
    du: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    check!("lora.down_backward", dy: rows * map.outputs);
    let kernel = "lora_down_backward";
    inner(on, kernel, rows, map, dy, adapters, du, Side::Outputs)
}

#[expect(clippy::too_many_arguments, reason = "two doors before one launch")]
fn inner(
    on: &Stream,
    kernel: &'static str,
    rows: usize,
    map: Shape,
    wide: View<'_, bf16>,
    adapters: &Adapters<'_>,
    u: &mut ViewMut<'_, bf16>,
    side: Side,
) -> Result<()> {
    check!("lora.down", u: rows * adapters.inner());
    let raw = adapters.raw(on, kernel, rows, map, u.address(), side)?;
    aligned(kernel, "operand", wide.address())?;
    if rows == 0 || adapters.parts.is_empty() {
        return Ok(());
    }
    let columns = match side {
        Side::Inputs => map.inputs,
        Side::Outputs => map.outputs,
    };
    let [n, ld] = ints(kernel, [rows, columns])?;
    let grid = Grid {
        blocks: [
            rows.div_ceil(STEP),
            adapters.inner() / STEP,
            adapters.segments.capacity().min(STEP),
        ],
        threads: 256,
        shared: DOWN_SHARED,
    };
    // SAFETY: order and types are those of `lora_down`; the checks proved the wide matrix and u, `Adapters::raw` the rest. It waits
    // for the kernel before it first of all.
    unsafe { on.launch_early(kernel, grid, &[&wide, &raw, &n, &ld]) }
}

/// Some columns of a matrix whose rows have `ld` elements.
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    /// The matrix.
    pub of: View<'a, bf16>,
    /// Elements of a row, a multiple of 8.
    pub ld: usize,
    /// Which columns, from a multiple of 8 on, as many as a multiple of 16.
    pub which: Range<usize>,
}

/// Elements that a gradient needs to work with: for so many rows, columns of the wide matrix, and rank, filled up.
pub fn gradient_work(rows: usize, columns: usize, rank: usize) -> usize {
    rows.div_ceil(RUN) * columns * rank
}

/// `dA += duᵀ·x` over some rows: those of one segment.
///
/// # Shapes
/// `x`: columns I · `du`: columns of one part, the rank filled up · `work`: [`gradient_work`] or more · `da`: (R, I).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
pub fn gradient_a(
    on: &Stream,
    rows: Range<usize>,
    x: &Columns<'_>,
    du: &Columns<'_>,
    work: &mut ViewMut<'_, f32>,
    da: &mut ViewMut<'_, f32>,
) -> Result<()> {
    gradient(on, rows, (x, du), work, da, true)
}

/// `dB += dyᵀ·u` over some rows: those of one segment.
///
/// # Shapes
/// `dy`: columns O of one part · `u`: columns of that part, the rank filled up · `work`: [`gradient_work`] or more · `db`: (O, R).
///
/// # Errors
/// As [`gradient_a`].
pub fn gradient_b(
    on: &Stream,
    rows: Range<usize>,
    dy: &Columns<'_>,
    u: &Columns<'_>,
    work: &mut ViewMut<'_, f32>,
    db: &mut ViewMut<'_, f32>,
) -> Result<()> {
    gradient(on, rows, (dy, u), work, db, false)
}

fn gradient(
    on: &Stream,
    rows: Range<usize>,
    (wide, u): (&Columns<'_>, &Columns<'_>),
    work: &mut ViewMut<'_, f32>,
    out: &mut ViewMut<'_, f32>,
    transposed: bool,
) -> Result<()> {
    let (columns, rank) = (wide.which.len(), u.which.len());
    let kept = out.len() / columns.max(1);
    check!("lora.gradient", out: kept * columns);
    require!(
        "lora.gradient",
        rank = kept as f64,
        kept > 0 && kept <= rank,
        "u has as many columns as the rank, filled up"
    );
    let (from, narrow) = (begin("wide", wide, &rows)?, begin("u", u, &rows)?);
    if rows.is_empty() {
        return Ok(());
    }
    let mut runs = work.part(0..gradient_work(rows.len(), columns, rank))?;
    let count = rows.len().div_ceil(RUN);
    let grid = Grid {
        blocks: [columns.div_ceil(WIDE), rank.div_ceil(RANK), count],
        threads: 128,
        shared: GRADIENT_SHARED,
    };
    let sizes = [rows.len(), columns, rank, wide.ld, u.ld];
    let [n, i, r, ldw, ldu] = ints("lora.gradient", sizes)?;
    // SAFETY: order and types are those of `lora_gradient`; `begin` proved both operands, the part the output; columns and
    // ranks past the end are guarded.
    unsafe {
        on.launch(
            "lora_gradient",
            grid,
            &[&from, &narrow, &mut runs, &n, &i, &r, &ldw, &ldu],
        )
    }?;
    let (by_wide, by_rank) = if transposed { (1, columns) } else { (kept, 1) };
    let sizes = [count, kept, by_wide, by_rank, kept * columns];
    let [count, k, by_wide, by_rank, _] = ints("lora.gradient", sizes)?;
    let grid = Grid::line((kept * columns).div_ceil(256), 256);
    // SAFETY: order and types are those of `lora_gradient_sum`; the checks proved `out`, (R, I) or (I, R).
    unsafe {
        on.launch(
            "lora_gradient_sum",
            grid,
            &[&runs, out, &count, &i, &r, &k, &by_wide, &by_rank],
        )
    }
}

/// Where the rows of these columns begin. The kernel copies 16 bytes at a time.
fn begin<'a>(
    what: &'static str,
    columns: &Columns<'a>,
    rows: &Range<usize>,
) -> Result<View<'a, bf16>> {
    let Columns { of, ld, which } = columns;
    let sound = ld.is_multiple_of(8)
        && which.start.is_multiple_of(8)
        && !which.is_empty()
        && which.len().is_multiple_of(STEP)
        && which.end <= *ld
        && rows.start <= rows.end
        && rows.end * ld <= of.len();
    if !sound {
        return Err(crate::Error::Argument {
            op: "lora.gradient",
            what,
            rule: "columns lie inside a row, in whole steps, and rows inside the matrix",
            found: which.end as f64,
        });
    }
    let part = of.part((rows.start * ld + which.start).min(of.len())..of.len())?;
    aligned("lora.gradient", what, part.address())?;
    Ok(part)
}
