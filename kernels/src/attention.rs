//! Causal grouped-query attention over a [`KvCache`], forward and backward.
//!
//! The contract: a score is one chain over the head's elements, of a query times 1/√D; an output one chain over the keys in
//! ascending order, times the inverse of the row's sum of exponentials (16 chains, by key mod 16, and a tree). Keys behind a
//! row's position add exact zeros. So a row depends on its query and on the cache only, not on how a prompt is cut into
//! chunks or on what else is in the batch. The backward pass recomputes the scores tile by tile; it never holds rows × keys.

mod backward;

pub use backward::{Backward, backward};

use crate::ahead::fetch;
use crate::cache::{BLOCK, KvCache};
use crate::error::{check, require};
use crate::pool::Shards;
use crate::simd::{Isa, Simd, dispatch};
use crate::softmax::exp_row;
use crate::tile::{Dims, Lhs, Out, Rhs, Sums, dense};
use crate::{Pool, Result};
use std::cell::RefCell;

/// Rows of a register tile: those of an attention tile, times heads, are a multiple of it where that is not too many.
const ROWS: usize = 14;

/// Rows × heads of a tile are at most about as many.
const MANY: usize = 84;

/// Consecutive query rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The sequence's keys and values, those of these rows included.
    pub cache: &'a KvCache,
    /// The first row in `q` and `out`.
    pub first: usize,
    /// How many rows.
    pub count: usize,
    /// The position of the first row in the sequence.
    pub start: usize,
}

/// Where queries are: heads side by side in the first columns of rows with `ld` elements.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// (N, `ld`).
    pub data: &'a [f32],
    /// Elements of a whole row.
    pub ld: usize,
    /// Query heads, a multiple of the key heads.
    pub heads: usize,
}

thread_local! {
    /// Work space of one tile.
    static SPACE: RefCell<Space> = const { RefCell::new(Space::new()) };
}

/// Work space; grows to the largest tile and stays.
struct Space {
    q: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
    dscores: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Space {
    const fn new() -> Space {
        Space {
            q: Vec::new(),
            scores: Vec::new(),
            out: Vec::new(),
            dscores: Vec::new(),
            dk: Vec::new(),
            dv: Vec::new(),
        }
    }
}

/// `out = softmax(q·Kᵀ / √D)·V` for the rows of several sequences; `rows(i)` is the i-th of `sequences`.
///
/// # Shapes
/// `q`: (N, `ld`) · `out`: (N, H·D).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for heads that do not divide, or rows beyond the caches.
///
/// # Source
/// Vaswani et al. 2017, eq. 1; heads share keys as in Ainslie et al. 2023.
pub fn forward<'a>(
    pool: &Pool,
    layer: usize,
    q: Queries<'_>,
    sequences: usize,
    rows: &(dyn Fn(usize) -> Rows<'a> + Sync),
    out: &mut [f32],
) -> Result<()> {
    if sequences == 0 {
        return Ok(());
    }
    let shape = rows(0).cache.shape();
    let count = q.data.len() / q.ld.max(1);
    let width = q.heads * shape.head_dim;
    check!("attention.forward", out: count * width);
    let mut tiles = 0;
    let mut work = 0;
    for i in 0..sequences {
        let part = rows(i);
        check_rows(&q, &part)?;
        let (layers, same) = (
            shape.layers,
            part.cache.shape() == shape && layer < shape.layers,
        );
        require!(
            "attention.forward",
            layers = layers as f64,
            same,
            "the caches fit the model"
        );
        tiles += shape.kv_heads * part.count.div_ceil(tile_rows(&q, &part));
        work += part.count * (part.start + part.count) * width;
    }
    let shards = Shards::new(out);
    // The last rows see the most keys: whoever is last has little left to do.
    let one = |at: usize| {
        let mut tile = tiles - 1 - at;
        for i in 0..sequences {
            let part = rows(i);
            let height = tile_rows(&q, &part);
            let here = shape.kv_heads * part.count.div_ceil(height);
            if tile >= here {
                tile -= here;
                continue;
            }
            let first = tile / shape.kv_heads * height;
            let tile = Tile {
                layer,
                head: tile % shape.kv_heads,
                cache: part.cache,
                row: part.first + first,
                count: height.min(part.count - first),
                position: part.start + first,
            };
            SPACE.with_borrow_mut(|space| forward_tile(pool.isa(), &q, &tile, space, &shards));
            return;
        }
    };
    if work < crate::gemm::SMALL {
        (0..tiles).for_each(one);
    } else {
        pool.run(tiles, &one);
    }
    Ok(())
}

fn check_rows(q: &Queries<'_>, part: &Rows<'_>) -> Result<()> {
    let shape = part.cache.shape();
    let heads = q.heads;
    let divides = heads > 0 && heads.is_multiple_of(shape.kv_heads.max(1));
    require!(
        "attention",
        heads = heads as f64,
        divides,
        "key heads divide query heads"
    );
    let width = heads * shape.head_dim;
    require!(
        "attention",
        width = width as f64,
        width <= q.ld,
        "query heads fit a row"
    );
    let end = (part.first + part.count) * q.ld;
    require!(
        "attention",
        end = end as f64,
        end <= q.data.len(),
        "rows are in the queries"
    );
    let keys = part.start + part.count;
    require!(
        "attention",
        keys = keys as f64,
        keys <= part.cache.room(),
        "fewer tokens are cached"
    );
    Ok(())
}

/// Query rows of a tile.
fn tile_rows(q: &Queries<'_>, part: &Rows<'_>) -> usize {
    tall(q.heads / part.cache.shape().kv_heads)
}

/// Rows of a tile with `group` heads.
fn tall(group: usize) -> usize {
    let whole = (1..=ROWS).find(|rows| (rows * group).is_multiple_of(ROWS));
    match whole {
        Some(rows) if rows * group <= MANY => rows.max(2 * ROWS / group),
        _ => (2 * ROWS / group).max(1),
    }
}

/// Some rows of one sequence and the query heads of one key head.
struct Tile<'a> {
    layer: usize,
    head: usize,
    cache: &'a KvCache,
    /// First row in the queries.
    row: usize,
    count: usize,
    /// Position of the first row.
    position: usize,
}

impl Tile<'_> {
    fn group(&self, q: &Queries<'_>) -> usize {
        q.heads / self.cache.shape().kv_heads
    }

    /// Copies the tile's heads out of some matrix with `ld` columns, times `scale`: (row, head of the group, D).
    fn gather(&self, isa: Isa, (data, ld): (&[f32], usize), by: f32, to: &mut [f32]) {
        let heads = to.len() / self.count;
        for (row, to) in to.chunks_exact_mut(heads).enumerate() {
            let at = (self.row + row) * ld + self.head * heads;
            scale(isa, &data[at..][..heads], by, to);
        }
    }

    /// Scores of all heads of the tile against the keys below `blocks` blocks: (row, head; key), `blocks`·32 columns.
    fn scores(
        &self,
        isa: Isa,
        m: usize,
        q: &[f32],
        blocks: std::ops::Range<usize>,
        to: &mut [f32],
    ) {
        let d = self.cache.shape().head_dim;
        let ld = blocks.len() * BLOCK;
        let last = blocks.end;
        for (i, block) in blocks.enumerate() {
            if self.count == 1 {
                if i == 0 {
                    fetch(self.cache.keys(self.layer, self.head, block));
                }
                if block + 1 < last {
                    fetch(self.cache.keys(self.layer, self.head, block + 1));
                }
                fetch(self.cache.values(self.layer, self.head, block));
            }
            let a = Lhs::rows(q, d);
            let b = Rhs::rows(self.cache.keys(self.layer, self.head, block), BLOCK);
            let c = Out::new(&mut to[i * BLOCK..], ld);
            dense(isa, Dims::new(m, BLOCK, d), a, b, c, Sums::Start);
        }
    }
}

fn scale_of(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

fn forward_tile(isa: Isa, q: &Queries<'_>, tile: &Tile<'_>, space: &mut Space, out: &Shards<'_>) {
    let d = tile.cache.shape().head_dim;
    let group = tile.group(q);
    let m = tile.count * group;
    let keys = tile.position + tile.count;
    let blocks = keys.div_ceil(BLOCK);
    let ld = blocks * BLOCK;
    space.q.resize(m * d, 0.0);
    tile.gather(isa, (q.data, q.ld), scale_of(d), &mut space.q);
    space.scores.resize(m * ld, 0.0);
    space.out.resize(m * (d + 1), 0.0);
    let (sums, outs) = space.out.split_at_mut(m);
    tile.scores(isa, m, &space.q, 0..blocks, &mut space.scores);
    for (i, (row, sum)) in space
        .scores
        .chunks_exact_mut(ld)
        .zip(sums.iter_mut())
        .take(m)
        .enumerate()
    {
        let (seen, behind) = row.split_at_mut(tile.position + i / group + 1);
        *sum = exp_row(isa, seen, None).1;
        behind.fill(0.0);
    }
    for block in 0..blocks {
        let k = BLOCK.min(keys - block * BLOCK);
        let a = Lhs::rows(&space.scores[block * BLOCK..], ld);
        let b = Rhs::rows(tile.cache.values(tile.layer, tile.head, block), d);
        let sums = if block == 0 {
            Sums::Start
        } else {
            Sums::Resume
        };
        dense(isa, Dims::new(m, d, k), a, b, Out::new(outs, d), sums);
    }
    for i in 0..m {
        let at = (tile.row + i / group) * q.heads * d + (tile.head * group + i % group) * d;
        // SAFETY: the heads of a tile's rows belong to this tile alone.
        let to = unsafe { out.part(at..at + d) };
        let inverse = 1.0 / sums[i];
        scale(isa, &outs[i * d..][..d], inverse, to);
    }
}

#[inline(always)]
fn scale_kernel<S: Simd>(_: S, from: &[f32], by: f32, to: &mut [f32]) {
    for (to, v) in to.iter_mut().zip(from) {
        *to = v * by;
    }
}

dispatch! {
    /// `to = from · by`.
    fn scale(from: &[f32], by: f32, to: &mut [f32]) = scale_kernel
}
