//! The gated activation of the feed-forward block. Gate and up lie side by side in one row, as the fused product leaves
//! them.

use half::bf16;

use super::adapters::aligned;
use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "swiglu",
    kernels: &[Entry::new("swiglu_forward"), Entry::new("swiglu_backward")],
};

/// As in `cuda/rows.cuh`.
const THREADS: usize = 256;

/// `out = gate / (1 + e^-gate) * up` in f32, rounded once.
///
/// # Shapes
/// `gate_up`: (N, 2F), gate first · `out`: (N, F). F is a multiple of 8.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
///
/// # Source
/// Shazeer 2020, "GLU variants improve transformer".
pub fn forward(
    on: &Stream,
    f: usize,
    gate_up: View<'_, bf16>,
    out: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    let rows = out.len() / f.max(1);
    check!("swiglu.forward", gate_up: rows * 2 * f, out: rows * f);
    aligned("swiglu.forward", "gate_up", gate_up.address())?;
    aligned("swiglu.forward", "out", out.address())?;
    let (grid, width) = shape(rows, f)?;
    // SAFETY: order and types are those of `swiglu_forward`; the checks proved (N, 2F) and (N, F). It waits for the kernel before
    // it first of all.
    unsafe { on.launch_early("swiglu_forward", grid, &[out, &gate_up, &width]) }
}

/// The gradient of [`forward`] by gate and up, rounded once for the products that take it.
///
/// # Shapes
/// `gate_up`, `dgate_up`: (N, 2F) · `dout`: (N, F).
///
/// # Errors
/// As [`forward`].
pub fn backward(
    on: &Stream,
    f: usize,
    gate_up: View<'_, bf16>,
    dout: View<'_, f32>,
    dgate_up: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    let rows = dout.len() / f.max(1);
    check!("swiglu.backward", dout: rows * f, gate_up: rows * 2 * f, dgate_up: rows * 2 * f);
    aligned("swiglu.backward", "gate_up", gate_up.address())?;
    aligned("swiglu.backward", "dout", dout.address())?;
    aligned("swiglu.backward", "dgate_up", dgate_up.address())?;
    let (grid, width) = shape(rows, f)?;
    // SAFETY: order and types are those of `swiglu_backward`; the checks proved (N, 2F) and (N, F).
    unsafe {
        on.launch(
            "swiglu_backward",
            grid,
            &[dgate_up, &gate_up, &dout, &width],
        )
    }
}

/// A block for each row and `8 · THREADS` columns.
fn shape(rows: usize, f: usize) -> Result<(Grid, i32)> {
    let whole = f > 0 && f.is_multiple_of(8);
    require!(
        "swiglu",
        columns = f as f64,
        whole,
        "a row has a positive multiple of 8"
    );
    let grid = Grid {
        blocks: [rows, f.div_ceil(8 * THREADS), 1],
        threads: THREADS as u32,
        shared: 0,
    };
    Ok((grid, i32::try_from(f).unwrap_or(i32::MAX)))
}
