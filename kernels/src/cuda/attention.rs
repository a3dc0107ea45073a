//! Causal grouped-query attention of rows of any number of sequences, over the paged cache: prompts, chunks of them, and
//! training samples. Single rows are [`super::decode_attention`]'s, with the same bits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use half::bf16;

use super::kv::{Layer, PAGE, PageTable};
use super::launch::{Entry, Grid, Module};
use super::tensor_map::TensorMap;
use super::{Buffer, Gpu, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "attention",
    kernels: &[
        Entry {
            name: "attention_d64",
            shared: shared(64, Variant::Sync),
        },
        Entry {
            name: "attention_d128",
            shared: shared(128, Variant::Sync),
        },
    ],
};

/// For compute capability 9.0 alone.
pub(super) const HOPPER: Module = Module {
    name: "attention_wgmma",
    kernels: &[
        Entry {
            name: "attention_wgmma_d64",
            shared: shared(64, Variant::Wgmma),
        },
        Entry {
            name: "attention_wgmma_d128",
            shared: shared(128, Variant::Wgmma),
        },
    ],
};

/// Flattened rows of a tile, as in `cuda/attention_rows.cuh` and in the pass by queries of `cuda/attention_backward.cu`.
const TILE: usize = 128;

/// Keys of a block, as in `cuda/attention.cuh`.
const BLOCK: usize = 128;

/// Of a tile's rows, a warpgroup's.
const HALF: usize = 64;

/// Which kernel computes [`forward`]: the bits are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// `mma.sync`, everywhere.
    Sync,
    /// `wgmma`, on compute capability 9.0.
    Wgmma,
}

/// 128 rows of queries and a block of keys and of values, or two of each and 128 rows of sums in f32.
const fn shared(head_dim: u32, variant: Variant) -> u32 {
    match variant {
        Variant::Sync => (128 + 2 * 128) * head_dim * 2,
        Variant::Wgmma => (128 + 2 * 2 * 128) * head_dim * 2 + 128 * head_dim * 4,
    }
}

/// How many heads of which size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// Query heads, a multiple of the key heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Elements of a head: 64 or 128.
    pub head_dim: usize,
}

impl Heads {
    /// Columns of a row of queries, keys and values.
    pub fn columns(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Query heads that share a key head.
    pub fn group(self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// log2(e) / √D: what a product of query and key becomes an exponent of 2 with.
    pub(super) fn scale(self) -> f32 {
        (std::f64::consts::LOG2_E / (self.head_dim as f64).sqrt()) as f32
    }

    /// Picks a kernel by the heads' size.
    pub(super) fn pick(self, d64: &'static str, d128: &'static str) -> &'static str {
        if self.head_dim == 64 { d64 } else { d128 }
    }

    /// Refuses heads that no kernel is made for, and a cache of other heads.
    pub(super) fn check(self, layer: &Layer, table: &PageTable) -> Result<()> {
        let size = self.head_dim as f64;
        let known = matches!(self.head_dim, 64 | 128);
        require!(
            "cuda.attention",
            size = size,
            known,
            "a head has 64 or 128 elements"
        );
        let divides = self.kv_heads > 0
            && self.heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && self.kv_heads <= u16::MAX as usize;
        let heads = self.heads as f64;
        require!(
            "cuda.attention",
            heads = heads,
            divides,
            "key heads divide query heads"
        );
        let shape = layer.shape();
        let fits = (shape.kv_heads, shape.head_dim) == (self.kv_heads, self.head_dim);
        require!(
            "cuda.attention",
            heads = heads,
            fits,
            "the cache has the same key heads"
        );
        let pages = table.pages() as f64;
        let fits = table.pages() <= shape.pages;
        require!(
            "cuda.attention",
            pages = pages,
            fits,
            "the pools have the table's pages"
        );
        Ok(())
    }
}

/// Where queries are: heads side by side in the first columns of rows of `ld` elements.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// (N, `ld`).
    pub data: View<'a, bf16>,
    /// Elements of a whole row, a multiple of 8.
    pub ld: usize,
}

impl Queries<'_> {
    /// Refuses rows that are not whole, too short, or not on 16 bytes; gives their number.
    pub(super) fn rows(&self, heads: Heads) -> Result<usize> {
        let width = heads.heads * heads.head_dim;
        let whole = self.ld >= width
            && self.ld.is_multiple_of(8)
            && self.data.len().is_multiple_of(self.ld)
            && self.ld <= i32::MAX as usize;
        let ld = self.ld as f64;
        require!(
            "cuda.attention",
            ld = ld,
            whole,
            "rows are whole, hold the heads, and have a multiple of 8 elements"
        );
        aligned(self.data)?;
        Ok(self.data.len() / self.ld)
    }
}

/// Refuses memory that the kernels' copies of 16 bytes cannot start at.
pub(super) fn aligned<T: super::Element>(view: View<'_, T>) -> Result<()> {
    let address = *view.address();
    require!(
        "cuda.attention",
        address = address as f64,
        address.is_multiple_of(16),
        "rows start at a multiple of 16 bytes"
    );
    Ok(())
}

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    /// The first row in the queries and in the result.
    pub first: usize,
    /// How many rows.
    pub count: usize,
    /// The position of the first row; the cache holds every position to that of the last.
    pub start: usize,
    /// The sequence's row of the page table.
    pub sequence: usize,
}

/// Which block computes what, for one batch of rows: made once, used by every layer.
#[derive(Debug)]
pub struct Plan {
    heads: Heads,
    variant: Variant,
    room: Room,
    /// Sequences (4 each), then tiles of rows (2 each), then where each block's tasks begin, and tasks.
    lists: Buffer<i32>,
    pub(super) sequences: usize,
    pub(super) tiles: usize,
    /// What it plans for.
    parts: Vec<Rows>,
    /// Blocks that take task after task.
    blocks: usize,
    /// One behind the last row.
    end: usize,
    /// The page table must have as many rows.
    owners: usize,
    /// The page table must have as many entries a row.
    deepest: usize,
}

/// What a [`Plan`] can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Rows.
    pub rows: usize,
    /// Sequences.
    pub sequences: usize,
}

impl Plan {
    /// An empty plan.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn new(gpu: &Gpu, heads: Heads, room: Room) -> Result<Plan> {
        let tiles = (room.rows * heads.group()).div_ceil(TILE) + room.sequences;
        let hopper = gpu.is_hopper();
        Ok(Plan {
            heads,
            variant: if hopper {
                Variant::Wgmma
            } else {
                Variant::Sync
            },
            room,
            lists: gpu.buffer(4 * room.sequences + 2 * tiles + 2 * tiles * heads.kv_heads + 1)?,
            sequences: 0,
            tiles: 0,
            parts: Vec::new(),
            blocks: 0,
            end: 0,
            owners: 0,
            deepest: 0,
        })
    }

    /// Plans for these rows, which ascend. The longest work comes first; the order changes no bits.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for rows that do not ascend, or more than there is room for; [`crate::Error::Driver`].
    pub fn lay(&mut self, on: &Stream, parts: &[Rows]) -> Result<()> {
        let rows: usize = parts.iter().map(|part| part.count).sum();
        let fits = rows <= self.room.rows && parts.len() <= self.room.sequences;
        require!(
            "attention.plan",
            rows = rows as f64,
            fits,
            "there is room for fewer"
        );
        let group = self.heads.group();
        let mut end = 0;
        let mut tiles = Vec::new();
        let mut lists = Vec::with_capacity(self.lists.len());
        for (i, part) in parts.iter().enumerate() {
            let keys = part.start.saturating_add(part.count);
            let last = part.first.saturating_add(part.count);
            let fits = part.first >= end && last.max(keys).saturating_mul(group) < 1 << 31;
            let first = part.first as f64;
            require!(
                "attention.plan",
                first = first,
                fits,
                "rows ascend, and are counted in 31 bits"
            );
            end = last;
            lists.extend([part.first, part.count, part.start, part.sequence].map(int));
            for row in (0..part.count * group).step_by(TILE) {
                let seen = part.start + (row + TILE - 1).min(part.count * group - 1) / group;
                tiles.push((seen, [int(i), int(row)]));
            }
        }
        tiles.sort_by_key(|&(work, _)| Reverse(work));
        lists.extend(tiles.iter().flat_map(|&(_, task)| task));
        let work: Vec<usize> = tiles.iter().map(|&(seen, _)| seen / BLOCK + 2).collect();
        let blocks = on.stays(work.len() * self.heads.kv_heads)?;
        let shared = share(&work, self.heads.kv_heads, blocks);
        self.blocks = shared.len();
        let starts = shared.iter().scan(0, |end, tasks| {
            *end += tasks.len();
            Some(int(*end))
        });
        lists.extend(std::iter::once(0).chain(starts));
        lists.extend(shared.iter().flatten());
        (self.sequences, self.tiles, self.end) = (parts.len(), tiles.len(), end);
        self.parts = parts.to_vec();
        let ends = parts.iter().map(|part| part.start + part.count);
        self.deepest = ends.max().unwrap_or(0).div_ceil(PAGE);
        self.owners = parts
            .iter()
            .map(|part| part.sequence + 1)
            .max()
            .unwrap_or(0);
        on.write(&lists, &mut self.lists.view_mut().part(0..lists.len())?)
    }

    /// Takes another kernel than the GPU's best; on a GPU that has not got it, [`forward`] refuses.
    #[must_use]
    pub fn with_variant(self, variant: Variant) -> Plan {
        Plan { variant, ..self }
    }

    /// Its heads.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// The rows that it plans for.
    pub fn parts(&self) -> &[Rows] {
        &self.parts
    }

    /// Which kernel computes it.
    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    /// (`sequences`, 4): first row, rows, position of the first, row of the page table.
    pub(super) fn sequence_list(&self) -> Result<View<'_, i32>> {
        self.lists.view().part(0..4 * self.sequences)
    }

    /// (`tiles`, 2): sequence, first flattened row.
    pub(super) fn tile_list(&self) -> Result<View<'_, i32>> {
        let first = 4 * self.sequences;
        self.lists.view().part(first..first + 2 * self.tiles)
    }

    /// (`blocks` + 1) where each block's tasks begin, then the tasks.
    fn order(&self) -> Result<View<'_, i32>> {
        let first = 4 * self.sequences + 2 * self.tiles;
        let count = self.blocks + 1 + self.tiles * self.heads.kv_heads;
        self.lists.view().part(first..first + count)
    }

    /// Refuses a cache or queries that the planned rows do not lie in; gives the number of rows in the queries.
    pub(super) fn check(&self, layer: &Layer, table: &PageTable, q: &Queries<'_>) -> Result<usize> {
        self.heads.check(layer, table)?;
        let rows = q.rows(self.heads)?;
        let end = self.end as f64;
        require!(
            "cuda.attention",
            end = end,
            self.end <= rows,
            "the planned rows are in the queries"
        );
        let inside = self.owners <= table.sequences() && self.deepest <= table.ld();
        require!(
            "cuda.attention",
            end = end,
            inside,
            "the planned rows are in the page table"
        );
        Ok(rows)
    }
}

/// The tasks of each block: every tile, `work` each and descending, for every key head (`tile · kv_heads + head`). The longest
/// goes to whoever has least to do; every block has one.
fn share(work: &[usize], kv_heads: usize, blocks: usize) -> Vec<Vec<i32>> {
    let count = work.len() * kv_heads;
    let mut tasks = vec![Vec::new(); blocks.min(count)];
    let mut least: BinaryHeap<_> = (0..tasks.len()).map(|block| Reverse((0, block))).collect();
    for (task, work) in (0..count).map(|task| (task, work[task / kv_heads])) {
        let Some(mut block) = least.peek_mut() else {
            break;
        };
        let Reverse((load, block)) = &mut *block;
        *load += work;
        tasks[*block].push(int(task));
    }
    tasks
}

pub(super) fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// `out = softmax(q·Kᵀ / √D)·V` for the planned rows; each sees the keys of its sequence to its own position. Other rows of
/// `out` and `lse` stay as they are.
///
/// # Shapes
/// `q`: (N, `ld`) · `out`: (N, H·D) · `lse`: (N, H), the log2 of the sum of 2^score in units of log2, for the backward pass.
///
/// # Order
/// A score: D in steps of 16, ascending. A split of 512 keys at absolute positions: blocks of 128 keys ascending, in each eight
/// steps of 16, with weights 2^(score − reference). The reference is the largest score of the first block that the row sees;
/// before a block with one larger by more than 8 it becomes that, and everything is multiplied by 2^(old − new). The
/// weights are rounded to bf16 for the product with values; their sum is that of the ones before, by four chains of blocks, in
/// each of which a block is a tree, added at the end of a split. Splits are folded ascending with the larger of both
/// references, `total = fma(split, 2^(its − larger), total · 2^(old − larger))`. The quotient is rounded once to bf16. Keys and values of a tile must be finite: a key that a row does not see has the weight 0.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for heads, caches or rows that do not fit; [`crate::Error::Driver`].
///
/// # Source
/// Vaswani et al. 2017, eq. 1; heads share keys as in Ainslie et al. 2023; blocks as in Dao et al. 2022.
pub fn forward(
    on: &Stream,
    plan: &Plan,
    (layer, table): (&Layer, &PageTable),
    q: Queries<'_>,
    out: &mut ViewMut<'_, bf16>,
    lse: Option<&mut ViewMut<'_, f32>>,
) -> Result<()> {
    let rows = plan.check(layer, table, &q)?;
    let heads = plan.heads;
    check!("attention.forward", out: rows * heads.heads * heads.head_dim);
    aligned(out.as_view())?;
    if let Some(lse) = &lse {
        check!("attention.forward", lse: rows * heads.heads);
    }
    let job = Job {
        plan,
        layer,
        table,
        q,
        out: out.as_view(),
        lse: lse.map(|lse| lse.as_view()),
    };
    match plan.variant {
        Variant::Sync => launch_sync(on, &job),
        Variant::Wgmma => launch_wgmma(on, &job),
    }
}

/// What [`forward`] has checked: the planned rows lie in q and out and lse, their pages in the table, whose entries are
/// pages of the pools; all rows start on 16 bytes.
struct Job<'a> {
    plan: &'a Plan,
    layer: &'a Layer,
    table: &'a PageTable,
    q: Queries<'a>,
    /// Written.
    out: View<'a, bf16>,
    /// Written.
    lse: Option<View<'a, f32>>,
}

fn launch_sync(on: &Stream, job: &Job<'_>) -> Result<()> {
    let (plan, heads) = (job.plan, job.plan.heads);
    let grid = Grid {
        blocks: [plan.tiles, heads.kv_heads, 1],
        threads: 256,
        shared: shared(heads.head_dim as u32, Variant::Sync),
    };
    // SAFETY: order and types are those of NS_ATTENTION_ROWS in cuda/attention.cu; a job has been checked.
    unsafe {
        on.launch(
            heads.pick("attention_d64", "attention_d128"),
            grid,
            &[
                &job.q.data,
                &job.layer.keys.view(),
                &job.layer.values.view(),
                &job.table.view(),
                &plan.tile_list()?,
                &plan.sequence_list()?,
                &job.out,
                &job.lse,
                &int(heads.heads),
                &int(heads.kv_heads),
                &int(job.table.ld()),
                &int(job.q.ld),
                &int(heads.heads * heads.head_dim),
                &heads.scale(),
            ],
        )
    }
}

fn launch_wgmma(on: &Stream, job: &Job<'_>) -> Result<()> {
    let (plan, heads) = (job.plan, job.plan.heads);
    let (keys, values) = (job.layer.keys.view(), job.layer.values.view());
    let shape = job.layer.shape();
    let rows = shape.pages * shape.kv_heads * PAGE;
    let map = |pool| TensorMap::new(pool, rows, shape.head_dim, PAGE as u32);
    // A tile's queries are a box where whole positions make the 64 rows of a warpgroup.
    let group = heads.group();
    let by_tma = HALF.is_multiple_of(group);
    let queries = if by_tma {
        let box_of = [(HALF / group) as u32, group as u32];
        TensorMap::of_heads(job.q.data, job.q.ld, [heads.heads, heads.head_dim], box_of)?
    } else {
        map(keys)?
    };
    let grid = Grid {
        blocks: [plan.blocks, 1, 1],
        threads: 384,
        shared: shared(heads.head_dim as u32, Variant::Wgmma),
    };
    // SAFETY: order and types are those of NS_ATTENTION_WGMMA in cuda/attention_wgmma.cu, the maps' boxes a page of 64 columns, and
    // that of queries, where it is one, 64 rows; a job has been checked.
    unsafe {
        on.launch(
            heads.pick("attention_wgmma_d64", "attention_wgmma_d128"),
            grid,
            &[
                &job.q.data,
                &queries,
                &map(keys)?,
                &map(values)?,
                &values,
                &job.table.view(),
                &plan.tile_list()?,
                &plan.sequence_list()?,
                &job.out,
                &job.lse,
                &int(heads.heads),
                &int(heads.kv_heads),
                &int(job.table.ld()),
                &int(job.q.ld),
                &int(heads.heads * heads.head_dim),
                &heads.scale(),
                &plan.order()?,
                &i32::from(by_tma),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn every_block_has_a_task_and_every_task_one_block() {
        for (work, kv_heads, blocks) in [(vec![9, 8, 3, 1], 2, 3), (vec![4], 3, 7), (vec![], 2, 5)]
        {
            let shared = share(&work, kv_heads, blocks);
            assert_eq!(shared.len(), blocks.min(work.len() * kv_heads));
            assert!(shared.iter().all(|tasks| !tasks.is_empty()));
            let mut all: Vec<i32> = shared.into_iter().flatten().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..(work.len() * kv_heads) as i32));
        }
    }

    #[test]
    fn the_block_with_most_to_do_has_not_a_task_more_than_others() {
        let work = [16, 13, 9, 8, 8, 5, 3, 2, 1, 1];
        let shared = share(&work, 4, 6);
        let load = |tasks: &Vec<i32>| tasks.iter().map(|&t| work[t as usize / 4]).sum::<usize>();
        let loads: Vec<usize> = shared.iter().map(load).collect();
        let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
        assert!(most - least <= 1, "{loads:?}");
    }
}
