//! The gradients of attention: one pass over the queries, one over the keys.
//!
//! Each pass computes the scores of its tiles again, and each sum has one order, whatever the threads: [`backward`] says which. Not
//! here: what is in the forward pass, [`super::forward`].

use super::{Queries, Rows, SPACE, Space, Tile, check_rows, scale, scale_of, tall, tile_rows};
use crate::cache::{BLOCK, KvCache};
use crate::error::{check, require};
use crate::pool::Shards;
use crate::simd::{Isa, LANES, Simd, dispatch};
use crate::softmax::exp_row;
use crate::tile::{Dims, Lhs, Out, Rhs, Sums, dense};
use crate::{Pool, Result};

/// What the pass over queries leaves of each row and head for the pass over keys: max, inverse sum, dout·out.
const MARKS: usize = 3;

/// What [`backward`] reads: consecutive rows of one sequence, one layer.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// The layer in both caches.
    pub layer: usize,
    /// Position of the first row: how many keys were there before these rows'.
    pub start: usize,
    /// Keys and values, as in the forward pass.
    pub cache: &'a KvCache,
    /// The same with keys and values exchanged.
    pub mirror: &'a KvCache,
    /// The queries.
    pub q: Queries<'a>,
    /// The forward result: (N, H·D).
    pub out: &'a [f32],
    /// Its gradient: (N, H·D).
    pub dout: &'a [f32],
}

/// The gradients of [`super::forward`] by q, k and v, written into the columns of one fused matrix.
///
/// The rows see keys and values of earlier rows, too; whoever computed those adds the part of `dbefore` to their own gradients.
///
/// # Order
/// By a query: one chain over the keys, ascending, times 1/√D at the end. By a key and by a value: one chain over the rows, ascending,
/// and in a row over the heads of the group, ascending; the queries of the former were multiplied with 1/√D before. A row's maximum
/// and sum of exponentials: as in [`super::forward`]. dout·out of a row and head: 16 chains, by element mod 16, of products that are
/// rounded before they are added; the chains are added from left to right, not in a tree.
///
/// # Shapes
/// `dqkv`: (N, (H + 2K)·D), queries first, then keys, then values; overwritten · `dbefore`: (`start`, 2K·D), keys, then values, of the
/// earlier rows; overwritten · `stats`: work space.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] as in [`super::forward`].
///
/// # Source
/// Dao et al. 2022, algorithm 4, with one pass over queries and one over keys, so that no sum depends on threads.
pub fn backward(
    pool: &Pool,
    b: &Backward<'_>,
    stats: &mut Vec<f32>,
    dqkv: &mut [f32],
    dbefore: &mut [f32],
) -> Result<()> {
    let shape = b.cache.shape();
    let (d, heads) = (shape.head_dim, b.q.heads);
    let n = b.q.data.len() / b.q.ld.max(1);
    let (out, dout) = (b.out, b.dout);
    let width = b.width();
    check!("attention.backward", out: n * heads * d, dout: n * heads * d, dqkv: n * width);
    check!("attention.backward", dbefore: b.start * 2 * shape.kv_heads * d);
    let all = Rows {
        cache: b.cache,
        first: 0,
        count: n,
        start: b.start,
    };
    check_rows(&b.q, &all)?;
    check_rows(
        &b.q,
        &Rows {
            cache: b.mirror,
            ..all
        },
    )?;
    let layers = shape.layers;
    let fits = b.mirror.shape() == shape && b.layer < layers;
    require!(
        "attention.backward",
        layers = layers as f64,
        fits,
        "the caches fit the model"
    );
    // Of each row and head three numbers, query and gradient.
    stats.resize(n * heads * (MARKS + 2 * d), 0.0);
    let (shards, marks) = (Shards::new(dqkv), Shards::new(stats));
    let before = Shards::new(dbefore);
    let height = tile_rows(&b.q, &all);
    let tiles = shape.kv_heads * n.div_ceil(height);
    pool.run(tiles, &|at| {
        let task = tiles - 1 - at;
        let tile = b.tile(
            task % shape.kv_heads,
            task / shape.kv_heads * height,
            height,
            n,
        );
        SPACE.with_borrow_mut(|space| query_tile(pool.isa(), b, &tile, space, &shards, &marks));
    });
    let stats: &[f32] = stats;
    let blocks = (b.start + n).div_ceil(BLOCK);
    pool.run(shape.kv_heads * blocks, &|task| {
        let place = (task % shape.kv_heads, task / shape.kv_heads);
        let to = (&shards, &before);
        SPACE.with_borrow_mut(|space| key_block(pool.isa(), b, place, space, to, stats));
    });
    Ok(())
}

impl<'a> Backward<'a> {
    fn tile(&self, head: usize, row: usize, height: usize, rows: usize) -> Tile<'a> {
        let count = height.min(rows - row);
        Tile {
            layer: self.layer,
            head,
            cache: self.cache,
            row,
            count,
            position: self.start + row,
        }
    }

    fn group(&self) -> usize {
        self.q.heads / self.cache.shape().kv_heads
    }

    /// Where the work space has the queries and the gradients of a tile's rows, (row, head of the group, D): behind all marks, the rows
    /// of one key head after those of another.
    fn gathered(&self, tile: &Tile<'_>) -> [std::ops::Range<usize>; 2] {
        let rows = self.q.data.len() / self.q.ld;
        let (all, own) = (
            rows * self.q.heads,
            self.group() * self.cache.shape().head_dim,
        );
        let first = all * MARKS + (tile.head * rows + tile.row) * own;
        let second = first + all * self.cache.shape().head_dim;
        [first, second].map(|at| at..at + tile.count * own)
    }

    /// Elements of a row of `dqkv`.
    fn width(&self) -> usize {
        (self.q.heads + 2 * self.cache.shape().kv_heads) * self.cache.shape().head_dim
    }
}

/// The gradient by the queries of one tile, and what the pass over keys needs of each row: max, sum, dout·out.
fn query_tile(
    isa: Isa,
    b: &Backward<'_>,
    tile: &Tile<'_>,
    space: &mut Space,
    dqkv: &Shards<'_>,
    stats: &Shards<'_>,
) {
    let d = b.cache.shape().head_dim;
    let (group, heads) = (b.group(), b.q.heads);
    let m = tile.count * group;
    let keys = tile.position + tile.count;
    let blocks = keys.div_ceil(BLOCK);
    let ld = blocks * BLOCK;
    let [q, dout] = b.gathered(tile);
    // SAFETY: the heads of a tile's rows belong to this tile alone.
    let (q, dout) = unsafe { (stats.part(q), stats.part(dout)) };
    tile.gather(isa, (b.q.data, b.q.ld), scale_of(d), q);
    tile.gather(isa, (b.dout, heads * d), 1.0, dout);
    space.scores.resize(m * ld, 0.0);
    space.dscores.resize(m * ld, 0.0);
    space.out.resize(m * d, 0.0);
    tile.scores(isa, m, q, 0..blocks, &mut space.scores);
    let mirror = Tile {
        cache: b.mirror,
        ..*tile
    };
    mirror.scores(isa, m, dout, 0..blocks, &mut space.dscores);
    for i in 0..m {
        let (row, head) = (tile.row + i / group, tile.head * group + i % group);
        let at = row * heads + head;
        // SAFETY: the heads of a tile's rows belong to this tile alone.
        let mark = unsafe { stats.part(at * MARKS..(at + 1) * MARKS) };
        let dot = dot(isa, &b.out[at * d..][..d], &dout[i * d..][..d]);
        let (seen, behind) = space.scores[i * ld..][..ld].split_at_mut(b.start + row + 1);
        let (max, sum) = exp_row(isa, seen, None);
        mark.copy_from_slice(&[max, 1.0 / sum, dot]);
        behind.fill(0.0);
        slope(isa, seen, &space.dscores[i * ld..], mark);
    }
    for block in 0..blocks {
        let k = BLOCK.min(keys - block * BLOCK);
        let a = Lhs::rows(&space.scores[block * BLOCK..], ld);
        let rhs = Rhs::rows(b.mirror.values(b.layer, tile.head, block), d);
        let sums = if block == 0 {
            Sums::Start
        } else {
            Sums::Resume
        };
        dense(
            isa,
            Dims::new(m, d, k),
            a,
            rhs,
            Out::new(&mut space.out, d),
            sums,
        );
    }
    for i in 0..m {
        let at = (tile.row + i / group) * b.width() + (tile.head * group + i % group) * d;
        // SAFETY: the heads of a tile's rows belong to this tile alone.
        let to = unsafe { dqkv.part(at..at + d) };
        scale(isa, &space.out[i * d..][..d], scale_of(d), to);
    }
}

/// The gradients by the keys and values of one block.
fn key_block(
    isa: Isa,
    b: &Backward<'_>,
    (head, block): (usize, usize),
    space: &mut Space,
    (dqkv, dbefore): (&Shards<'_>, &Shards<'_>),
    stats: &[f32],
) {
    let d = b.cache.shape().head_dim;
    let (group, heads) = (b.group(), b.q.heads);
    let n = b.q.data.len() / b.q.ld;
    let first = block * BLOCK;
    let keys = BLOCK.min(b.start + n - first);
    space.dk.clear();
    space.dk.resize(keys * d, 0.0);
    space.dv.clear();
    space.dv.resize(keys * d, 0.0);
    // Twice as tall: the gradients of the block are read and written once for each tile.
    let height = 2 * tall(group);
    for row in (first.saturating_sub(b.start)..n).step_by(height) {
        let tile = b.tile(head, row, height, n);
        let m = tile.count * group;
        let [q, dout] = b.gathered(&tile).map(|range| &stats[range]);
        space.scores.resize(m * BLOCK, 0.0);
        space.dscores.resize(m * BLOCK, 0.0);
        tile.scores(isa, m, q, block..block + 1, &mut space.scores);
        let mirror = Tile {
            cache: b.mirror,
            ..tile
        };
        mirror.scores(isa, m, dout, block..block + 1, &mut space.dscores);
        let scores = space.scores.as_chunks_mut().0.iter_mut();
        let both = scores.zip(space.dscores.as_chunks_mut().0);
        for (i, (p, dp)) in both.take(m).enumerate() {
            let row = row + i / group;
            let mark = &stats.as_chunks().0[row * heads + head * group + i % group];
            weigh(isa, (b.start + row + 1 - first).min(keys), mark, p, dp);
        }
        let dims = Dims::new(keys, d, m);
        let rows = |data| Rhs::rows(data, d);
        let a = Lhs::columns(&space.scores, BLOCK);
        dense(
            isa,
            dims,
            a,
            rows(dout),
            Out::new(&mut space.dv, d),
            Sums::Resume,
        );
        let a = Lhs::columns(&space.dscores, BLOCK);
        dense(
            isa,
            dims,
            a,
            rows(q),
            Out::new(&mut space.dk, d),
            Sums::Resume,
        );
    }
    let kv_heads = b.cache.shape().kv_heads;
    for key in 0..keys {
        let position = first + key;
        let (to, row, width, before) = match position.checked_sub(b.start) {
            Some(row) => (dqkv, row, b.width(), heads),
            None => (dbefore, position, 2 * kv_heads * d, 0),
        };
        for (offset, from) in [(head, &space.dk), (kv_heads + head, &space.dv)] {
            let at = row * width + (before + offset) * d;
            // SAFETY: the keys of a block belong to this task alone; the columns are not those of queries.
            unsafe { to.part(at..at + d) }.copy_from_slice(&from[key * d..][..d]);
        }
    }
}

#[inline(always)]
fn weigh_kernel<S: Simd>(s: S, seen: usize, mark: &[f32; MARKS], p: &mut Keys, dp: &mut Keys) {
    let [max, inverse, dot] = mark.map(|v| s.splat(v));
    let (ps, dps) = (p.as_chunks_mut().0, dp.as_chunks_mut().0);
    for (p, dp) in ps.iter_mut().zip(dps) {
        let weight = s.mul(s.exp(s.sub(s.load(p), max)), inverse);
        s.store(p, weight);
        s.store(dp, s.mul(weight, s.sub(s.load(dp), dot)));
    }
    p[seen..].fill(0.0);
    dp[seen..].fill(0.0);
}

/// Numbers of the keys of one block.
type Keys = [f32; BLOCK];

dispatch! {
    /// Scores of one row become probabilities `p`, and their gradients `dp` gradients of the scores; zero from `seen` on.
    fn weigh(seen: usize, mark: &[f32; MARKS], p: &mut Keys, dp: &mut Keys) = weigh_kernel
}

#[inline(always)]
fn slope_kernel<S: Simd>(_: S, p: &mut [f32], dp: &[f32], mark: &[f32]) {
    let (inverse, dot) = (mark[1], mark[2]);
    for (p, dp) in p.iter_mut().zip(dp) {
        *p *= inverse * (dp - dot);
    }
}

dispatch! {
    /// Exponentials of one row's scores become gradients of the scores, from those of the probabilities.
    fn slope(p: &mut [f32], dp: &[f32], mark: &[f32]) = slope_kernel
}

#[inline(always)]
fn dot_kernel<S: Simd>(_: S, x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_tail).zip(y_tail) {
        *lane += x * y;
    }
    lanes.iter().sum()
}

dispatch! {
    /// Σ x·y in sixteen chains, by index mod 16, which are added from left to right.
    fn dot(x: &[f32], y: &[f32]) -> f32 = dot_kernel
}
