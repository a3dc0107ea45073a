//! Attention of one query row for each sequence of a batch: the decode step. The bits are those of [`super::attention`].

use half::bf16;

use super::attention::{Heads, Queries, int};
use super::kv::{Layer, PageTable, SPLIT};
use super::launch::{Entry, Grid, Module};
use super::{Buffer, Gpu, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "decode_attention",
    kernels: &[
        Entry {
            name: "attention_split_d64",
            shared: shared(64),
        },
        Entry {
            name: "attention_split_d128",
            shared: shared(128),
        },
        Entry::new("attention_combine_d64"),
        Entry::new("attention_combine_d128"),
    ],
};

/// Query heads that may share a key head: the rows of one tensor-core tile.
const GROUP: usize = 16;

/// 16 rows of queries, two stages of a page of keys and of values, the tile's weights and maxima.
const fn shared(head_dim: u32) -> u32 {
    (16 + 4 * 64) * head_dim * 2 + 4 * 32 * 16 + 4 * 16 * 4
}

/// The splits' sums, for the largest batch and the longest sequence.
#[derive(Debug)]
pub struct Work {
    heads: Heads,
    sequences: usize,
    splits: usize,
    /// (sequence, head, split, D).
    out: Buffer<f32>,
    /// (sequence, head, split): maximum and sum of weights.
    sums: Buffer<f32>,
}

impl Work {
    /// For up to `sequences` of up to `keys` each.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] when there is not enough memory.
    pub fn new(gpu: &Gpu, heads: Heads, sequences: usize, keys: usize) -> Result<Work> {
        let splits = keys.div_ceil(SPLIT);
        let count = sequences * heads.heads * splits;
        Ok(Work {
            heads,
            sequences,
            splits,
            out: gpu.buffer(count * heads.head_dim)?,
            sums: gpu.buffer(count * 2)?,
        })
    }
}

/// `out = softmax(q·Kᵀ / √D)·V` for one row of each sequence: row i belongs to row i of the page table, is at
/// `positions[i]`, and sees the keys up to it. A position below 0 leaves a row as it is. Nothing else of a call depends on the
/// positions, so that it can be recorded in a graph: `keys` is the most that any sequence will have then. A row with more
/// keys, or more than its pages hold, becomes NaN.
///
/// # Shapes
/// `q`: (B, `ld`) · `positions`: (B) · `out`: (B, H·D).
///
/// # Order
/// That of [`super::attention::forward`]: a split of 512 keys is one block's, and they are folded ascending.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for heads, caches or sizes that do not fit; [`crate::Error::Driver`].
pub fn forward(
    on: &Stream,
    (layer, table): (&Layer, &PageTable),
    q: Queries<'_>,
    (positions, keys): (View<'_, i32>, usize),
    work: &mut Work,
    out: &mut ViewMut<'_, bf16>,
) -> Result<()> {
    let heads = work.heads;
    heads.check(layer, table)?;
    let rows = q.rows(heads)?;
    let width = heads.heads * heads.head_dim;
    check!("decode_attention", positions: rows, out: rows * width);
    let group = heads.group() as f64;
    require!(
        "decode_attention",
        group = group,
        heads.group() <= GROUP,
        "up to 16 heads share a key head"
    );
    let fits = rows <= work.sequences.min(table.sequences());
    require!(
        "decode_attention",
        rows = rows as f64,
        fits,
        "there is room for fewer sequences"
    );
    let splits = keys.div_ceil(SPLIT);
    require!(
        "decode_attention",
        keys = keys as f64,
        splits <= work.splits,
        "there is room for fewer keys"
    );
    let (count, kv_heads, ld) = (int(heads.heads), int(heads.kv_heads), int(table.ld()));
    let (q_ld, out_ld, scale) = (int(q.ld), int(width), heads.scale());
    let (parts, most) = (int(splits), int(table.room().min(splits * SPLIT)));
    let grid = Grid {
        blocks: [splits, heads.kv_heads, rows],
        threads: 128,
        shared: shared(heads.head_dim as u32),
    };
    let name = heads.pick("attention_split_d64", "attention_split_d128");
    let (keys, values) = (layer.keys.view(), layer.values.view());
    // SAFETY: order and types are those of `attention_split_d64` and `_d128` in cuda/decode_attention.cu. q has `rows` rows on
    // 16 bytes, the table as many, with entries below the pools' pages; a sequence with more than `most` keys is
    // left out, so that no entry beyond a row is read; the work space has `rows` sequences of `splits` splits.
    unsafe {
        on.launch(
            name,
            grid,
            &[
                &q.data,
                &keys,
                &values,
                &table.view(),
                &positions,
                &work.out.view_mut(),
                &work.sums.view_mut(),
                &count,
                &kv_heads,
                &ld,
                &q_ld,
                &most,
                &scale,
            ],
        )
    }?;
    let grid = Grid {
        blocks: [heads.heads, rows, 1],
        threads: heads.head_dim as u32,
        shared: 0,
    };
    let name = heads.pick("attention_combine_d64", "attention_combine_d128");
    // SAFETY: order and types are those of `attention_combine_d64` and `_d128`; sizes as above, and out has `rows` rows.
    unsafe {
        on.launch(
            name,
            grid,
            &[
                &work.out.view(),
                &work.sums.view(),
                &positions,
                out,
                &parts,
                &out_ld,
                &most,
            ],
        )
    }
}
