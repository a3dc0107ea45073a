//! What happens to queries, keys and values between their product and attention, in one pass with one rounding: the norm
//! of heads (QK-norm), the rotation, half-split as in Hugging Face, and the writing of keys and values into the cache.

use half::bf16;

use super::adapters::aligned;
pub use super::attention::Heads;
use super::kv::{Layer, PageTable};
use super::launch::{Entry, Grid, Module};
use super::{Stream, View, ViewMut};
use crate::error::{check, require};
use crate::{Error, Result};

pub(super) const MODULE: Module = Module {
    name: "rope",
    kernels: &[
        Entry::new("rope_forward_d64"),
        Entry::new("rope_forward_d128"),
        Entry::new("rope_backward_d64"),
        Entry::new("rope_backward_d128"),
    ],
};

/// The most threads of a block, as in `cuda/rope.cu`; elements that a lane has.
const THREADS: usize = 256;
const EACH: usize = 16;

/// What both directions read.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// How many heads.
    pub heads: Heads,
    /// The weight of the queries' norm, (D); none leaves the norm out.
    pub q_norm: Option<View<'a, f32>>,
    /// The weight of the keys' norm.
    pub k_norm: Option<View<'a, f32>>,
    /// Added to the mean square.
    pub eps: f32,
    /// (positions, D): cosines, then sines, of [`crate::rope::Table::values`].
    pub table: View<'a, f32>,
    /// Each row's position, (N).
    pub positions: View<'a, i32>,
}

/// Where keys and values go.
#[derive(Debug)]
pub struct Cache<'a> {
    /// One layer's pools.
    pub layer: &'a mut Layer,
    /// Whose pages are whose.
    pub table: &'a PageTable,
    /// Each row's sequence, (N); a negative one's keys and values are not written.
    pub sequences: View<'a, i32>,
}

/// Norm and rotation of queries and keys; queries to `q`, keys and values into the cache.
///
/// A row at a position outside the table gives queries of NaN, and writes nothing into the cache.
///
/// # Shapes
/// `qkv`: (N, (H + 2K)·D), queries, keys, values · `q`: (N, H·D).
///
/// # Order
/// A lane has eight neighbours of each half: their squares ascending, those of the lower half first; then the head's D / 16 lanes by
/// exclusive-or, D / 32 first.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`]; [`crate::Error::Driver`].
///
/// # Source
/// Su et al. 2021; the norm as in Qwen 3: before the rotation.
pub fn forward(
    on: &Stream,
    rotation: &Rotation<'_>,
    qkv: View<'_, bf16>,
    q: &mut ViewMut<'_, bf16>,
    cache: &mut Cache<'_>,
) -> Result<()> {
    let rows = rotation.check("rope.forward", qkv.len())?;
    let Heads {
        heads, kv_heads, ..
    } = rotation.heads;
    let (width, d) = (rotation.heads.columns(), rotation.heads.head_dim);
    check!("rope.forward", qkv: rows * width, q: rows * heads * d);
    let sequences = cache.sequences;
    check!("rope.forward", sequences: rows);
    aligned("rope.forward", "q", q.address())?;
    aligned("rope.forward", "qkv", qkv.address())?;
    let shape = cache.layer.shape();
    let fits = shape.kv_heads == kv_heads
        && shape.head_dim == d
        && cache.table.pages() <= shape.pages
        && cache.table.sequences() <= i32::MAX as usize;
    require!(
        "rope.forward",
        pages = shape.pages as f64,
        fits,
        "the cache has these heads, and every page of the table"
    );
    let name = if d == 64 {
        "rope_forward_d64"
    } else {
        "rope_forward_d128"
    };
    let [h, k, context] = rotation.sizes();
    let [all, per] = [cache.table.sequences(), cache.table.ld()].map(small);
    // SAFETY: order and types are those of `rope_forward_*`; the checks proved the shapes, the kernel compares positions
    // with the table and the pages of a sequence, sequences with the table's rows, and its entries are the pools' pages. It waits
    // for the kernel before it first of all.
    unsafe {
        on.launch_early(
            name,
            rotation.grid(rows, 2),
            &[
                q,
                &cache.layer.keys.view_mut(),
                &cache.layer.values.view_mut(),
                &qkv,
                &rotation.q_norm,
                &rotation.k_norm,
                &rotation.table,
                &rotation.positions,
                &sequences,
                &cache.table.view(),
                &h,
                &k,
                &context,
                &all,
                &per,
                &rotation.eps,
            ],
        )
    }
}

/// The gradient of [`forward`] by `qkv`, rounded once for the products that take it. The norms' weights are frozen.
///
/// # Shapes
/// `qkv`, `dqkv`, `out`: (N, (H + 2K)·D); `dqkv` is the gradient by rotated queries, rotated keys, and values.
///
/// # Order
/// Both sums as in [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn backward(
    on: &Stream,
    rotation: &Rotation<'_>,
    qkv: View<'_, bf16>,
    dqkv: View<'_, f32>,
    out: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    let rows = rotation.check("rope.backward", qkv.len())?;
    let width = rotation.heads.columns();
    check!("rope.backward", qkv: rows * width, dqkv: rows * width, out: rows * width);
    aligned("rope.backward", "out", out.address())?;
    aligned("rope.backward", "qkv", qkv.address())?;
    aligned("rope.backward", "dqkv", dqkv.address())?;
    let name = if rotation.heads.head_dim == 64 {
        "rope_backward_d64"
    } else {
        "rope_backward_d128"
    };
    let [h, k, context] = rotation.sizes();
    // SAFETY: order and types are those of `rope_backward_*`; the rest as in `forward`.
    unsafe {
        on.launch(
            name,
            rotation.grid(rows, 1),
            &[
                out,
                &dqkv,
                &qkv,
                &rotation.q_norm,
                &rotation.k_norm,
                &rotation.table,
                &rotation.positions,
                &h,
                &k,
                &context,
                &rotation.eps,
            ],
        )
    }
}

impl Rotation<'_> {
    /// Rows, when everything fits.
    fn check(&self, op: &'static str, elements: usize) -> Result<usize> {
        let Heads {
            heads,
            kv_heads,
            head_dim: d,
        } = self.heads;
        if !matches!(d, 64 | 128) || heads == 0 || kv_heads == 0 {
            return Err(Error::Argument {
                op,
                what: "head_dim",
                rule: "there are heads, of 64 or 128 elements",
                found: d as f64,
            });
        }
        let rows = elements / self.heads.columns();
        let (table, positions) = (self.table, self.positions);
        check!("rope", table: table.len() / d * d, positions: rows);
        for norm in [self.q_norm, self.k_norm].into_iter().flatten() {
            check!("rope", norm: d);
            aligned("rope", "norm", norm.address())?;
        }
        aligned("rope", "table", table.address())?;
        let counted = rows <= i32::MAX as usize;
        require!("rope", rows = rows as f64, counted, "a grid has fewer");
        Ok(rows)
    }

    /// Query heads, key heads, positions of the table.
    fn sizes(&self) -> [i32; 3] {
        let Heads {
            heads,
            kv_heads,
            head_dim,
        } = self.heads;
        [heads, kv_heads, self.table.len() / head_dim].map(small)
    }

    /// A block a row, with lanes for every `share`th of its heads.
    fn grid(&self, rows: usize, share: usize) -> Grid {
        let heads = self.heads.heads + 2 * self.heads.kv_heads;
        let lanes = heads.div_ceil(share) * self.heads.head_dim / EACH;
        Grid::line(rows, lanes.next_multiple_of(32).min(THREADS) as u32)
    }
}

/// Sizes that the checks bounded.
fn small(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
