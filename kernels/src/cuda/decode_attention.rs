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
            shared: shared(64, Parts::One),
        },
        Entry {
            name: "attention_split_d128",
            shared: shared(128, Parts::One),
        },
    ],
};

/// For compute capability 9.0 alone.
pub(super) const HOPPER: Module = Module {
    name: "decode_attention_few",
    kernels: &[
        Entry {
            name: "attention_halves_d64",
            shared: shared(64, Parts::Two),
        },
        Entry {
            name: "attention_halves_d128",
            shared: shared(128, Parts::Two),
        },
        Entry {
            name: "attention_quarters_d64",
            shared: shared(64, Parts::Four),
        },
        Entry {
            name: "attention_quarters_d128",
            shared: shared(128, Parts::Four),
        },
    ],
};

/// Query heads that may share a key head: the rows of one tensor-core tile.
const GROUP: usize = 16;

/// How many blocks share the columns of a split's values: the bits are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parts {
    /// One has them all; everywhere.
    One,
    /// Two, each of which asks for all keys at once; on compute capability 9.0.
    Two,
    /// The same with four.
    Four,
}

impl Parts {
    const fn count(self) -> usize {
        match self {
            Parts::One => 1,
            Parts::Two => 2,
            Parts::Four => 4,
        }
    }
}

/// 16 rows of queries; a block of keys and one of values, or a split of keys and a part of its values; for each four warps,
/// weights by step and lane, maxima, and sums by warp and lane.
const fn shared(head_dim: u32, parts: Parts) -> u32 {
    const WARPS: u32 = 8 * 32 * 16 + 4 * 16 * 4 + 4 * 32 * 2 * 4;
    match parts {
        Parts::One => (16 + 2 * 128) * head_dim * 2 + WARPS,
        _ => (16 + 512) * head_dim * 2 + 512 * head_dim / parts.count() as u32 * 2 + 4 * WARPS,
    }
}

/// The splits' sums. Many short sequences use it as few long ones do.
#[derive(Debug)]
pub struct Work {
    heads: Heads,
    sequences: usize,
    /// Of all sequences.
    splits: usize,
    /// Other than what suits a grid best.
    parts: Option<Parts>,
    /// (sequence, head, split, D).
    out: Buffer<f32>,
    /// (sequence, head, split): maximum and sum of weights.
    sums: Buffer<f32>,
    /// (sequence, key head, part): blocks that are done, zero between launches.
    counters: Buffer<u32>,
}

impl Work {
    /// For up to `sequences` of up to `keys` each, on this stream.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] when there is not enough memory.
    pub fn new(on: &Stream, heads: Heads, sequences: usize, keys: usize) -> Result<Work> {
        Work::with_splits(on, heads, sequences, sequences * keys.div_ceil(SPLIT))
    }

    /// For up to `sequences`, which have up to `splits` splits of [`SPLIT`] keys in all, each counted as if it were the longest, on this
    /// stream.
    ///
    /// # Errors
    /// As [`Work::new`].
    pub fn with_splits(on: &Stream, heads: Heads, sequences: usize, splits: usize) -> Result<Work> {
        let count = heads.heads * splits;
        let gpu = on.gpu();
        let mut counters = gpu.buffer(sequences * heads.kv_heads * Parts::Four.count())?;
        on.fill(&mut counters.view_mut(), 0)?;
        Ok(Work {
            heads,
            sequences,
            splits,
            parts: None,
            out: gpu.buffer(count * heads.head_dim)?,
            sums: gpu.buffer(count * 2)?,
            counters,
        })
    }

    /// Takes this many parts whatever suits best; on a GPU that has not got the kernel, [`forward`] refuses.
    #[must_use]
    pub fn with_parts(self, parts: Parts) -> Work {
        Work {
            parts: Some(parts),
            ..self
        }
    }
}

/// As many parts as there are multiprocessors for, so that each reads as little as it can; whoever has enough to do for all
/// reads keys once only.
fn parts(gpu: &Gpu, blocks: usize) -> Result<Parts> {
    let most = gpu.multiprocessors()? as usize;
    Ok(match () {
        () if !gpu.is_hopper() => Parts::One,
        () if Parts::Four.count() * blocks <= most => Parts::Four,
        () if Parts::Two.count() * blocks <= most => Parts::Two,
        () => Parts::One,
    })
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
        rows.saturating_mul(splits) <= work.splits,
        "there is room for fewer keys"
    );
    let blocks = splits * heads.kv_heads * rows;
    let parts = work.parts.map_or_else(|| parts(on.gpu(), blocks), Ok)?;
    let (name, threads) = match parts {
        Parts::One => (
            heads.pick("attention_split_d64", "attention_split_d128"),
            128,
        ),
        Parts::Two => (
            heads.pick("attention_halves_d64", "attention_halves_d128"),
            512,
        ),
        Parts::Four => (
            heads.pick("attention_quarters_d64", "attention_quarters_d128"),
            512,
        ),
    };
    let grid = Grid {
        blocks: [splits * parts.count(), heads.kv_heads, rows],
        threads,
        shared: shared(heads.head_dim as u32, parts),
    };
    // SAFETY: order and types are those of NS_DECODE_ATTENTION in cuda/decode_attention.cuh. q and out have `rows` rows, q's on
    // 16 bytes, the table as many, with entries below the pools' pages; a sequence with more keys than the table or the splits
    // have room for is left out, so that no entry beyond a row is read; the work space has `rows` sequences of `splits` splits. It
    // waits for the kernel before it first of all.
    unsafe {
        on.launch_early(
            name,
            grid,
            &[
                &q.data,
                &layer.keys.view(),
                &layer.values.view(),
                &table.view(),
                &positions,
                &work.out.view_mut(),
                &work.sums.view_mut(),
                &work.counters.view_mut(),
                out,
                &int(heads.heads),
                &int(heads.kv_heads),
                &int(table.ld()),
                &int(q.ld),
                &int(width),
                &int(table.room().min(splits * SPLIT)),
                &heads.scale(),
            ],
        )
    }
}
