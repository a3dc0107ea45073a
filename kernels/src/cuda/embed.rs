//! The embedding lookup: where a row's residual stream begins.

use half::bf16;

use super::adapters::aligned;
use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "embed",
    kernels: &[Entry::new("embed_forward")],
};

/// As in `cuda/rows.cuh`.
const THREADS: u32 = 256;

/// The embedding of each token, widened. A token outside the vocabulary gives a row of NaN.
///
/// # Shapes
/// `table`: (`vocab`, C) · `tokens`: (N) · `out`: (N, C). C is a multiple of 8.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
pub fn forward(
    on: &Stream,
    table: View<'_, bf16>,
    vocab: usize,
    tokens: View<'_, u32>,
    out: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let c = table.len() / vocab.max(1);
    check!("embed.forward", table: vocab * c, out: tokens.len() * c);
    require!(
        "embed.forward",
        columns = c as f64,
        c.is_multiple_of(8),
        "a row has a multiple of 8"
    );
    aligned("embed.forward", "table", table.address())?;
    aligned("embed.forward", "out", out.address())?;
    let [vocab, width] = [vocab, c].map(|n| i32::try_from(n).unwrap_or(i32::MAX));
    // SAFETY: order and types are those of `embed_forward`; the checks proved (V, C) and (N, C), and the kernel reads no
    // row from V on. It waits for the kernel before it first of all.
    unsafe {
        on.launch_early(
            "embed_forward",
            Grid::line(tokens.len(), THREADS),
            &[out, &table, &tokens, &vocab, &width],
        )
    }
}
