//! Gradients of [`super::attention`] by queries, keys and values: the same bits every time, whoever comes first.

use half::bf16;

use super::attention::{Heads, Plan, Queries, Rows, Variant, aligned, int};
use super::kv::{Layer, PAGE, PageTable};
use super::launch::{Argument, Entry, Grid, Module};
use super::tensor_map::TensorMap;
use super::{Buffer, Gpu, Stream, View, ViewMut};
use crate::Result;
use crate::error::{check, require};

pub(super) const MODULE: Module = Module {
    name: "attention_backward",
    kernels: &[
        Entry::new("attention_hand_back"),
        Entry::new("attention_prepare_d64"),
        Entry::new("attention_prepare_d128"),
        Entry {
            name: "attention_backward_q_d64",
            shared: by_queries(64, TILE),
        },
        Entry {
            name: "attention_backward_q_d128",
            shared: by_queries(128, TILE),
        },
        Entry {
            name: SMALL,
            shared: by_queries(128, TILE / 2),
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

/// For compute capability 9.0 alone.
pub(super) const HOPPER: Module = Module {
    name: "attention_backward_wgmma",
    kernels: &[Entry {
        name: "attention_backward_wgmma_d128",
        shared: TOGETHER,
    }],
};

/// The head that [`HOPPER`]'s kernel is for.
const HOPPER_HEAD: usize = 128;

/// 128 keys and values, two stages of 64 rows of queries and of dout, twice 128 × 64 elements of ds, 64 rows of dq in f32, two stages of two marks, barriers, the block's task.
const TOGETHER: u32 = (2 * 128 + 4 * 64 + 128) * 128 * 2 + 64 * 128 * 4 + 4 * 64 * 4 + 8 * 8 + 64;

/// Flattened rows of a plan's tile.
const TILE: u32 = 128;

/// Half a tile a block, where a block can have less than 128 KiB of shared memory: the same bits.
const SMALL: &str = "attention_backward_q_small_d128";

/// `rows` of queries and of dout, and two stages of a page of keys and of values.
const fn by_queries(head_dim: u32, rows: u32) -> u32 {
    (2 * rows + 4 * 64) * head_dim * 2
}

/// A page of keys and of values, two stages of 32 rows of queries and of dout, and their two marks.
const fn by_keys(head_dim: u32) -> u32 {
    (2 * 64 + 4 * 32) * head_dim * 2 + 4 * 32 * 4
}

/// Which block computes the gradients of which keys, for one plan: made once, used by every layer.
#[derive(Debug)]
pub struct Keys {
    /// Pages of keys, then every second page: sequence, page, the sequence's first row in `dbefore`.
    list: Buffer<i32>,
    pages: usize,
    pairs: usize,
    /// What the plan that it is for plans for.
    parts: Vec<Rows>,
}

impl Keys {
    /// For no rows.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn new(gpu: &Gpu) -> Result<Keys> {
        Ok(Keys {
            list: gpu.buffer(0)?,
            pages: 0,
            pairs: 0,
            parts: Vec::new(),
        })
    }

    /// Takes the rows of a plan. The longest work comes first, and in a sequence earlier keys before later ones: a block may
    /// wait for those before it.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn lay(&mut self, on: &Stream, plan: &Plan) -> Result<()> {
        let (mut tasks, mut before) = (Vec::new(), 0);
        for (i, part) in plan.parts().iter().enumerate() {
            let keys = part.start + part.count;
            // Without rows nobody sees the keys.
            let pages = if part.count > 0 {
                keys.div_ceil(PAGE)
            } else {
                0
            };
            tasks.extend((0..pages).map(|page| {
                let work = part.count.min(keys - page * PAGE);
                (work, [int(i), int(page), int(before)])
            }));
            before += part.start;
        }
        tasks.sort_by_key(|&(work, _)| std::cmp::Reverse(work));
        let pairs = tasks.iter().filter(|(_, [_, page, _])| page % 2 == 0);
        let list: Vec<i32> = tasks
            .iter()
            .chain(pairs)
            .flat_map(|&(_, task)| task)
            .collect();
        self.pages = tasks.len();
        self.pairs = list.len() / 3 - self.pages;
        if self.list.len() < list.len() {
            self.list = on.gpu().buffer(list.len())?;
        }
        self.parts = plan.parts().to_vec();
        on.write(&list, &mut self.list.view_mut().part(0..list.len())?)
    }

    /// Rows of `dbefore`: the positions before each sequence's first row.
    pub fn before(&self) -> usize {
        self.parts.iter().map(|part| part.start).sum()
    }

    /// (`pages`, 3), or every second of them.
    fn tasks(&self, pairs: bool) -> Result<(usize, View<'_, i32>)> {
        let (first, count) = if pairs {
            (self.pages, self.pairs)
        } else {
            (0, self.pages)
        };
        let list = self.list.view().part(3 * first..3 * (first + count))?;
        Ok((count, list))
    }
}

/// What [`backward`] keeps between its kernels.
#[derive(Debug)]
pub struct Work {
    rows: usize,
    /// dout, rounded: (row, head, D).
    dout: Buffer<bf16>,
    /// Σ dout·out: (row, head).
    delta: Buffer<f32>,
    /// How many blocks of keys have added to the queries' gradients: (first row of a tile, head).
    turns: Buffer<i32>,
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
            turns: gpu.buffer(rows * heads.heads)?,
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

/// The gradients of [`super::attention::forward`] by q, k and v, for the planned rows. Other rows of `dqkv` stay as they are.
///
/// The rows of a sequence see keys and values from before its first row, too; whoever has computed those adds their part of `dbefore` to
/// their own gradients.
///
/// # Shapes
/// `dout`: (N, H·D) · `dqkv`: (N, (H + 2K)·D), queries first, then keys, then values; overwritten · `dbefore`: ([`Keys::before`],
/// 2K·D), keys, then values, one sequence after the other; overwritten.
///
/// # Order
/// `dout` is rounded to bf16. Weights are p = 2^(score − lse); p and p·(dout·v − Σ dout·out) are rounded to bf16. Σ dout·out: two
/// elements a lane and 64, ascending; lanes by exclusive-or 1 to 16. By queries: one sum over keys, ascending in steps of 16. By keys
/// and values: one sum over (row, head of the group), ascending in steps of 16 from the first that sees a key of the page.
///
/// The kernel of Hopper, for heads of 128, has others: by queries, a sum over each 128 keys, and these are added to one another,
/// ascending. By keys and values: one sum over tiles of 64 positions, the last first, heads ascending in each, rows ascending in
/// steps of 16. There 2^x is the hardware's.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for keys of another plan, and as the forward pass; [`crate::Error::Driver`].
///
/// # Source
/// Dao et al. 2022, algorithm 4: on Hopper in one pass, as Shah et al. 2024, otherwise with one over queries and one over keys.
pub fn backward(
    on: &Stream,
    (plan, keys): (&Plan, &Keys),
    cache: (&Layer, &PageTable),
    saved: &Saved<'_>,
    dout: View<'_, f32>,
    work: &mut Work,
    (dqkv, dbefore): (&mut ViewMut<'_, f32>, &mut ViewMut<'_, f32>),
) -> Result<()> {
    let rows = plan.check(cache.0, cache.1, &saved.q)?;
    let heads = plan.heads();
    let width = heads.heads * heads.head_dim;
    let before = keys.before() * 2 * heads.kv_heads * heads.head_dim;
    let (out, lse) = (saved.out, saved.lse);
    check!("attention.backward", out: rows * width, lse: rows * heads.heads, dout: rows * width);
    check!("attention.backward", dqkv: rows * heads.columns(), dbefore: before);
    require!(
        "attention.backward",
        rows = rows as f64,
        rows <= work.rows && rows * heads.heads < 1 << 31 && keys.before() < 1 << 31,
        "there is room for fewer"
    );
    require!(
        "attention.backward",
        rows = rows as f64,
        keys.parts == plan.parts(),
        "the keys are laid for the plan's rows"
    );
    aligned(out)?;
    prepare(on, heads, dout, out, work)?;
    let to = (dqkv.as_view(), dbefore.as_view());
    let together = plan.variant() == Variant::Wgmma && heads.head_dim == HOPPER_HEAD;
    if together {
        on.zero(&mut work.turns.view_mut())?;
    }
    let launch = |pass, tasks| {
        let from = (plan, cache, saved, &*work);
        queue(on, pass, tasks, from, to)
    };
    if together {
        return launch(Pass::Together, keys.tasks(true)?);
    }
    launch(Pass::Queries, (plan.tiles, plan.tile_list()?))?;
    launch(Pass::Keys, keys.tasks(false)?)
}

/// Adds what later rows left in `dbefore` for the keys and values of some rows, which are consecutive from `first` on, to their gradients.
///
/// # Shapes
/// `dbefore`: (rows, 2K·D) · `dqkv`: (N, (H + 2K)·D).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for rows that are not there; [`crate::Error::Driver`].
pub fn hand_back(
    on: &Stream,
    heads: Heads,
    first: usize,
    dbefore: View<'_, f32>,
    dqkv: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let (ld, columns) = (heads.columns(), 2 * heads.kv_heads * heads.head_dim);
    let (n, rows) = (dqkv.len() / ld, dbefore.len() / columns);
    check!("attention.hand_back", dqkv: n * ld, dbefore: rows * columns);
    let fits = first.checked_add(rows).is_some_and(|end| end <= n);
    require!(
        "attention.hand_back",
        first = first as f64,
        fits,
        "the rows are in dqkv"
    );
    let to = dqkv.as_view().part(first * ld + ld - columns..n * ld)?;
    aligned(to)?;
    aligned(dbefore)?;
    let (columns, ld) = (int(columns), int(ld));
    // SAFETY: order and types are those of `attention_hand_back` in cuda/attention_backward.cu; `rows` rows from `to` on lie in dqkv, as
    // checked; a head has a multiple of 4 elements, so that all rows start on 16 bytes.
    unsafe {
        on.launch(
            "attention_hand_back",
            Grid::line(rows, 128),
            &[&to, &dbefore, &columns, &ld],
        )
    }
}

/// What one launch computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// dq.
    Queries,
    /// dk and dv.
    Keys,
    /// All, on Hopper.
    Together,
}

impl Pass {
    /// Its kernel, the blocks of a task, the threads of a block, and their shared memory.
    fn kernel(self, gpu: &Gpu, heads: Heads) -> Result<(&'static str, usize, u32, u32)> {
        let d = heads.head_dim as u32;
        Ok(match self {
            Pass::Queries => {
                let name = heads.pick("attention_backward_q_d64", "attention_backward_q_d128");
                if gpu.kernel(name)?.fits {
                    (name, 1, 2 * TILE, by_queries(d, TILE))
                } else {
                    (SMALL, 2, TILE, by_queries(d, TILE / 2))
                }
            }
            Pass::Keys => {
                let name = heads.pick("attention_backward_kv_d64", "attention_backward_kv_d128");
                (name, 1, 128, by_keys(d))
            }
            Pass::Together => ("attention_backward_wgmma_d128", 1, 384, TOGETHER),
        })
    }
}

/// Queues a pass; `backward` has checked everything.
fn queue(
    on: &Stream,
    pass: Pass,
    (blocks, tasks): (usize, View<'_, i32>),
    (plan, (layer, table), saved, work): (&Plan, (&Layer, &PageTable), &Saved<'_>, &Work),
    (dqkv, dbefore): (View<'_, f32>, View<'_, f32>),
) -> Result<()> {
    let heads = plan.heads();
    let (name, parts, threads, shared) = pass.kernel(on.gpu(), heads)?;
    let grid = Grid {
        blocks: [blocks, heads.kv_heads, parts],
        threads,
        shared,
    };
    let (keys, values, pages) = (layer.keys.view(), layer.values.view(), table.view());
    let (dout, delta, turns) = (work.dout.view(), work.delta.view(), work.turns.view());
    let (count, kv_heads, ld) = (int(heads.heads), int(heads.kv_heads), int(table.ld()));
    let (q_ld, dqkv_ld) = (int(saved.q.ld), int(heads.columns()));
    let (scale, inverse) = (heads.scale(), (1.0 / (heads.head_dim as f64).sqrt()) as f32);
    let sequences = plan.sequence_list()?;
    let rows = saved.lse.len() / heads.heads;
    let map = |data, columns| TensorMap::new(data, rows, columns, 64);
    let maps;
    let mut arguments: Vec<&dyn Argument> = Vec::new();
    if pass == Pass::Together {
        let width = heads.heads * heads.head_dim;
        let rounded = dout.part(0..rows * width)?;
        let sums = TensorMap::wide(dqkv, rows, heads.columns(), 64)?;
        maps = [map(saved.q.data, saved.q.ld)?, map(rounded, width)?, sums];
        arguments.extend(maps.iter().map(|map| map as &dyn Argument));
    }
    let others: [&dyn Argument; 11] = [
        &saved.q.data,
        &keys,
        &values,
        &dout,
        &saved.lse,
        &delta,
        &pages,
        &tasks,
        &sequences,
        &dqkv,
        &dbefore,
    ];
    arguments.extend(others);
    if pass == Pass::Together {
        arguments.push(&turns);
    }
    arguments.extend([&count as &dyn Argument, &kv_heads, &ld, &q_ld, &dqkv_ld]);
    arguments.extend([&scale as &dyn Argument, &inverse]);
    // SAFETY: order and types are those of `attention_backward_q_d*`, `_kv_d*` and `attention_backward_wgmma_d128`, which alone has
    // tensor maps and `turns`. `plan.check` proved that the planned rows lie in q and their pages in the table and pools, and `backward` that the tasks
    // are of these rows and that dbefore has their positions; all others have as many rows as q; rows start on 16 bytes.
    unsafe { on.launch(name, grid, &arguments) }
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
