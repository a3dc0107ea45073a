//! Gradients of [`super::attention`] by queries, keys and values, for whole sequences. No atomics: the same bits every time.

use half::bf16;

use super::attention::{Heads, Plan, Queries, aligned, int, whole};
use super::kv::{Layer, PageTable};
use super::launch::{Argument, Entry, Grid, Module};
use super::{Buffer, Gpu, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "attention_backward",
    kernels: &[
        Entry::new("attention_prepare_d64"),
        Entry::new("attention_prepare_d128"),
        Entry {
            name: "attention_backward_q_d64",
            shared: by_queries(64),
        },
        Entry {
            name: "attention_backward_q_d128",
            shared: by_queries(128),
        },
        Entry {
            name: "attention_backward_kv_d64",
            shared: by_keys(64),
        },
        Entry {
            name: "attention_backward_kv_d128",
            shared: by_keys(128),
        },
    ],
};

/// 128 rows of queries and of dout, and two stages of a page of keys and of values.
const fn by_queries(head_dim: u32) -> u32 {
    (2 * 128 + 4 * 64) * head_dim * 2
}

/// A page of keys and of values, two stages of 32 rows of queries and of dout, and their two marks.
const fn by_keys(head_dim: u32) -> u32 {
    (2 * 64 + 4 * 32) * head_dim * 2 + 4 * 32 * 4
}

/// What [`backward`] keeps between its kernels.
#[derive(Debug)]
pub struct Work {
    rows: usize,
    /// dout, rounded: (row, head, D).
    dout: Buffer<bf16>,
    /// Σ dout·out: (row, head).
    delta: Buffer<f32>,
}

impl Work {
    /// For up to `rows` rows of a plan's heads.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] when there is not enough memory.
    pub fn new(gpu: &Gpu, plan: &Plan, rows: usize) -> Result<Work> {
        let heads = plan.heads();
        Ok(Work {
            rows,
            dout: gpu.buffer(rows * heads.heads * heads.head_dim)?,
            delta: gpu.buffer(rows * heads.heads)?,
        })
    }
}

/// What the forward pass read and left.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The queries.
    pub q: Queries<'a>,
    /// The result: (N, H·D).
    pub out: View<'a, bf16>,
    /// Log2 of the sum of 2^score: (N, H).
    pub lse: View<'a, f32>,
}

/// The gradients of [`super::attention::forward`] by q, k and v, for the rows of whole sequences. Other rows of `dqkv` stay as
/// they are.
///
/// # Shapes
/// `dout`: (N, H·D) · `dqkv`: (N, (H + 2K)·D), queries first, then keys, then values; overwritten.
///
/// # Order
/// `dout` is rounded to bf16. Weights are p = 2^(score − lse); p and p·(dout·v − Σ dout·out) are rounded to bf16. By
/// queries: one sum over keys, ascending in steps of 16. By keys and values: one sum over (row, head of the group), ascending
/// in steps of 16 from the first that sees a key of the page. Σ dout·out: two elements a lane and 64, ascending; lanes by exclusive-or 1 to 16.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for a plan with sequences that do not start at position 0, and as the
/// forward pass; [`crate::Error::Driver`].
///
/// # Source
/// Dao et al. 2022, algorithm 4, with one pass over queries and one over keys.
pub fn backward(
    on: &Stream,
    plan: &Plan,
    (layer, table): (&Layer, &PageTable),
    saved: &Saved<'_>,
    dout: View<'_, f32>,
    work: &mut Work,
    dqkv: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let rows = plan.check(layer, table, &saved.q)?;
    whole(plan)?;
    let heads = plan.heads();
    let width = heads.heads * heads.head_dim;
    let all = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
    let (out, lse) = (saved.out, saved.lse);
    check!("attention.backward", out: rows * width, lse: rows * heads.heads, dout: rows * width, dqkv: rows * all);
    require!(
        "attention.backward",
        rows = rows as f64,
        rows <= work.rows && rows * heads.heads < 1 << 31,
        "there is room for fewer"
    );
    aligned(out)?;
    prepare(on, heads, dout, out, work)?;
    let count = int(heads.heads);
    let (keys, values, pages) = (layer.keys.view(), layer.values.view(), table.view());
    let (rounded, delta) = (work.dout.view(), work.delta.view());
    let (kv_heads, ld, q_ld, dqkv_ld) = (
        int(heads.kv_heads),
        int(table.ld()),
        int(saved.q.ld),
        int(all),
    );
    let (scale, inverse) = (heads.scale(), (1.0 / (heads.head_dim as f64).sqrt()) as f32);
    let sequences = plan.sequence_list()?;
    let d = heads.head_dim as u32;
    let by_tile = (plan.tiles, 256, by_queries(d), plan.tile_list()?);
    let by_page = (plan.pages, 128, by_keys(d), plan.page_list()?);
    for (pass, (tasks, threads, shared, list)) in [
        (
            heads.pick("attention_backward_q_d64", "attention_backward_q_d128"),
            by_tile,
        ),
        (
            heads.pick("attention_backward_kv_d64", "attention_backward_kv_d128"),
            by_page,
        ),
    ] {
        let grid = Grid {
            blocks: [tasks, heads.kv_heads, 1],
            threads,
            shared,
        };
        let arguments: [&dyn Argument; 17] = [
            &saved.q.data,
            &keys,
            &values,
            &rounded,
            &lse,
            &delta,
            &pages,
            &list,
            &sequences,
            dqkv,
            &count,
            &kv_heads,
            &ld,
            &q_ld,
            &dqkv_ld,
            &scale,
            &inverse,
        ];
        // SAFETY: order and types are those of `attention_backward_q_d*` and `_kv_d*`. `plan.check` proved that the planned
        // rows lie in q and their pages in the table and pools; all others have as many rows as q; rows start on 16 bytes.
        unsafe { on.launch(pass, grid, &arguments) }?;
    }
    Ok(())
}

/// Rounds dout, and sums dout·out of each (row, head): all rows of `dout` and `out`, which are as many as `work` has or fewer.
fn prepare(
    on: &Stream,
    heads: Heads,
    dout: View<'_, f32>,
    out: View<'_, bf16>,
    work: &mut Work,
) -> Result<()> {
    let marks = dout.len() / heads.head_dim;
    let (count, heads_in_row, out_ld) = (
        int(marks),
        int(heads.heads),
        int(heads.heads * heads.head_dim),
    );
    let name = heads.pick("attention_prepare_d64", "attention_prepare_d128");
    // SAFETY: order and types are those of `attention_prepare_d64` and `_d128` in cuda/attention_backward.cu; dout, out and
    // the work space have at least `marks` heads, as `backward` proved.
    unsafe {
        on.launch(
            name,
            Grid::line(marks.div_ceil(4), 128),
            &[
                &dout,
                &out,
                &work.dout.view_mut(),
                &work.delta.view_mut(),
                &count,
                &heads_in_row,
                &out_ld,
            ],
        )
    }
}
