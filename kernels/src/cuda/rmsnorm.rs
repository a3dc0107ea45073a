//! Root-mean-square norm of rows of the residual stream. The norm of attention heads is part of [`super::rope`].

use half::bf16;

use super::adapters::aligned;
use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "rmsnorm",
    kernels: &[
        Entry::new("rmsnorm_forward"),
        Entry::new("rmsnorm_backward"),
    ],
};

/// As in `cuda/rows.cuh`.
const THREADS: u32 = 256;

/// `out = x / rms(x) * weight` over the last axis, rounded once. With `add`, `x += add` first.
///
/// # Shapes
/// `x`, `add`: (N, C) · `weight`: (C) · `out`: (N, C). C is a multiple of 4.
///
/// # Order
/// Thread t of 256 sums the squares of the columns 4·(t + 256·i) to 4·(t + 256·i) + 3 in one chain, ascending; lanes by
/// exclusive-or 16, 8, 4, 2, 1; then the eight warps ascending.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
///
/// # Source
/// Zhang & Sennrich 2019, eq. 4. Departs from it: `eps` is added to the mean square, as in Llama.
pub fn forward(
    on: &Stream,
    x: &mut ViewMut<'_, f32>,
    add: Option<View<'_, f32>>,
    weight: View<'_, f32>,
    eps: f32,
    out: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    let (rows, c) = rows("rmsnorm.forward", x.len(), weight.len())?;
    check!("rmsnorm.forward", x: rows * c, out: rows * c);
    if let Some(add) = add {
        check!("rmsnorm.forward", add: rows * c);
        aligned("rmsnorm.forward", "add", add.address())?;
    }
    aligned("rmsnorm.forward", "x", x.address())?;
    aligned("rmsnorm.forward", "weight", weight.address())?;
    aligned("rmsnorm.forward", "out", out.address())?;
    let width = i32::try_from(c).unwrap_or(i32::MAX);
    // SAFETY: order and types are those of `rmsnorm_forward`; the checks proved (N, C) and (C), and a block's rows are
    // below N. It waits for the kernel before it first of all.
    unsafe {
        on.launch_early(
            "rmsnorm_forward",
            Grid::line(rows, THREADS),
            &[out, x, &add, &weight, &width, &eps],
        )
    }
}

/// [`forward`] of rows that nothing is added to.
///
/// # Errors
/// As [`forward`].
pub fn norm(
    on: &Stream,
    x: View<'_, f32>,
    weight: View<'_, f32>,
    eps: f32,
    out: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    let (rows, c) = rows("rmsnorm.forward", x.len(), weight.len())?;
    check!("rmsnorm.forward", x: rows * c, out: rows * c);
    let width = i32::try_from(c).unwrap_or(i32::MAX);
    let nothing: Option<View<'_, f32>> = None;
    // SAFETY: as in `forward`; without an addend the kernel only reads x.
    unsafe {
        on.launch_early(
            "rmsnorm_forward",
            Grid::line(rows, THREADS),
            &[out, &x, &nothing, &weight, &width, &eps],
        )
    }
}

/// The gradient of [`forward`] by x, added to `dx`. The weight is frozen.
///
/// # Shapes
/// `x`, `dout`, `dx`: (N, C) · `weight`: (C).
///
/// # Order
/// Both sums as in [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn backward(
    on: &Stream,
    x: View<'_, f32>,
    weight: View<'_, f32>,
    eps: f32,
    dout: View<'_, f32>,
    dx: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let (rows, c) = rows("rmsnorm.backward", x.len(), weight.len())?;
    check!("rmsnorm.backward", x: rows * c, dout: rows * c, dx: rows * c);
    aligned("rmsnorm.backward", "x", x.address())?;
    aligned("rmsnorm.backward", "weight", weight.address())?;
    aligned("rmsnorm.backward", "dout", dout.address())?;
    aligned("rmsnorm.backward", "dx", dx.address())?;
    let width = i32::try_from(c).unwrap_or(i32::MAX);
    // SAFETY: order and types are those of `rmsnorm_backward`; sizes as in `forward`.
    unsafe {
        on.launch(
            "rmsnorm_backward",
            Grid::line(rows, THREADS),
            &[dx, &x, &weight, &dout, &width, &eps],
        )
    }
}

/// Rows and columns.
fn rows(op: &'static str, elements: usize, c: usize) -> Result<(usize, usize)> {
    if c == 0 || !c.is_multiple_of(4) {
        return Err(crate::Error::Argument {
            op,
            what: "columns",
            rule: "a row has a positive multiple of 4",
            found: c as f64,
        });
    }
    require!(
        "rmsnorm",
        rows = (elements / c) as f64,
        elements / c <= i32::MAX as usize,
        "a grid has fewer"
    );
    Ok((elements / c, c))
}
