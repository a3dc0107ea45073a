//! A base product and the adapters of a whole batch beside it, of any ranks, in two jobs for the pool.
//!
//! The bits are those of [`crate::gemm::forward`], then [`super::down`] and [`super::up`] for one sequence after the other. A
//! decoding batch has a row of each of many sequences: their chains over the inputs run side by side, since one alone waits for
//! itself. Not here: the gradients, and whose adapter it is.

use super::Pair;
use crate::ahead::fetch;
use crate::error::{check, require};
use crate::gemm::{Beside, Input, SMALL, forward_and};
use crate::pool::Shards;
use crate::simd::{LANES, Simd, dispatch};
use crate::tile::{Dims, Lhs, Out, Rhs, Sums, dense};
use crate::{Isa, Packed, Pool, Result};
use std::cell::Cell;
use std::ops::Range;

/// Rows of one sequence, the adapter of one projection, and where its two results go.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// First row of the input and of the output.
    pub first: usize,
    /// Rows.
    pub count: usize,
    /// The adapter.
    pub pair: Pair<'a>,
    /// First column of the output.
    pub column: usize,
    /// Where its inner result, (`count`, R), begins among those of all.
    pub inner: usize,
}

impl Segment<'_> {
    fn rows(&self) -> Range<usize> {
        self.first..self.first + self.count
    }

    fn columns(&self) -> Range<usize> {
        self.column..self.column + self.pair.outputs()
    }

    fn inner(&self) -> Range<usize> {
        self.inner..self.inner + self.count * self.pair.rank
    }
}

/// `y = x·Wᵀ`, for the rows and columns of each segment `u = s·(x·Aᵀ)`, `y += u·Bᵀ`, and at last `y += residual`, if there is one.
///
/// Segments come in order: by rows, those of the same rows by columns; their parts of `u` ascend, too.
///
/// # Shapes
/// `x`: (N, I) · `w`: (O, I) · `u`: has room for each segment's (count, R) · `y`, `residual`: (N, O), with N = `rows`.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for rank 0, and for segments out of order or outside the matrices.
#[expect(
    clippy::too_many_arguments,
    reason = "one fused product: operands, adapters, residual, results"
)]
pub fn linear(
    pool: &Pool,
    rows: usize,
    x: &[f32],
    w: &Packed,
    segments: &[Segment<'_>],
    residual: Option<&[f32]>,
    u: &mut [f32],
    y: &mut [f32],
) -> Result<()> {
    let (i, o) = (w.inputs(), w.outputs());
    check!("lora.linear", x: rows * i, y: rows * o);
    if let Some(residual) = residual {
        check!("lora.linear", residual: rows * o);
    }
    check_segments(segments, rows, (i, o), u.len())?;
    let mut order = ORDER.take();
    order.clear();
    order.extend(0..segments.len());
    order.sort_unstable_by_key(|&at| (segments[at].pair.a_t.as_ptr(), at));
    let crowd = Crowd {
        segments,
        order: &order,
    };
    let down = Down::new(pool, crowd, (x, i), u);
    let downs = down.tasks(pool);
    let x = Input::new(pool, rows, x, w, (downs, &|task| down.run(task, downs)));
    let residual = residual.map(|residual| (residual, o));
    let beside = Up {
        isa: pool.isa(),
        crowd,
        u,
        residual,
    };
    forward_and(pool, rows, &x, w, y, &beside);
    ORDER.set(order);
    Ok(())
}

thread_local! {
    /// See [`Crowd`], of the product that this thread has started.
    static ORDER: Cell<Vec<usize>> = const { Cell::new(Vec::new()) };
}

/// Segments in an order in which those of one adapter follow each other: its weights are then in the cache.
#[derive(Clone, Copy)]
struct Crowd<'a> {
    segments: &'a [Segment<'a>],
    order: &'a [usize],
}

impl<'a> Crowd<'a> {
    fn iter(self) -> impl Iterator<Item = &'a Segment<'a>> {
        self.order.iter().map(move |&at| &self.segments[at])
    }
}

/// `y += u·Bᵀ` of all segments, beside the base product.
struct Up<'a> {
    isa: Isa,
    crowd: Crowd<'a>,
    u: &'a [f32],
    /// And the length of its rows.
    residual: Option<(&'a [f32], usize)>,
}

impl Beside for Up<'_> {
    fn before(&self, columns: Range<usize>) {
        let mut last = std::ptr::null();
        for segment in self.crowd.iter() {
            let weights = segment.pair.b_t.as_ptr();
            if std::mem::replace(&mut last, weights) == weights {
                continue;
            }
            let own = meet(&columns, &segment.columns());
            if own.is_empty() {
                continue;
            }
            let (at, o) = (own.start - segment.column, segment.pair.outputs());
            for row in segment.pair.b_t.chunks_exact(o) {
                fetch(&row[at..at + own.len()]);
            }
        }
    }

    fn after(&self, some: Range<usize>, all: Range<usize>, out: Out) {
        for segment in self.crowd.iter() {
            let rows = meet(&some, &segment.rows());
            let columns = meet(&all, &segment.columns());
            if rows.is_empty() || columns.is_empty() {
                continue;
            }
            let Pair { b_t, rank, .. } = segment.pair;
            let inner = &self.u[segment.inner + (rows.start - segment.first) * rank..];
            let weights = &b_t[columns.start - segment.column..];
            dense(
                self.isa,
                Dims::new(rows.len(), columns.len(), rank),
                Lhs::rows(inner, rank),
                Rhs::rows(weights, segment.pair.outputs()),
                out.from(rows.start - some.start, columns.start - all.start),
                Sums::Resume,
            );
        }
        if let Some((residual, o)) = self.residual {
            let from = &residual[some.start * o + all.start..];
            add(self.isa, from, o, (some.len(), all.len()), out);
        }
    }
}

#[inline(always)]
fn add_kernel<S: Simd>(_: S, from: &[f32], ld: usize, (rows, columns): (usize, usize), to: Out) {
    if rows == 0 {
        return;
    }
    to.check(rows, columns);
    for (row, from) in from.chunks(ld).take(rows).enumerate() {
        // SAFETY: the block lies in the output (checked), and nobody else has it (the promise of `Beside::after`).
        let to = unsafe { std::slice::from_raw_parts_mut(to.row(row), columns) };
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }
}

dispatch! {
    /// Adds a block of rows to one of the output; the first row of `from` begins with the block.
    fn add(from: &[f32], ld: usize, block: (usize, usize), to: Out) = add_kernel
}

/// What two ranges share.
fn meet(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// The door: every part is inside, and no two write the same place.
fn check_segments(
    segments: &[Segment<'_>],
    rows: usize,
    (i, o): (usize, usize),
    room: usize,
) -> Result<()> {
    let mut before: Option<&Segment<'_>> = None;
    for segment in segments {
        segment.pair.check()?;
        let a = segment.pair.a;
        check!("lora.linear", a: segment.pair.rank * i);
        let first = segment.first as f64;
        let inside =
            segment.rows().end <= rows && segment.columns().end <= o && segment.inner().end <= room;
        require!(
            "lora.linear",
            first = first,
            inside,
            "a segment lies inside input, output and inner results"
        );
        let ordered = before.is_none_or(|before| {
            let beside =
                before.rows() == segment.rows() && before.columns().end <= segment.columns().start;
            (beside || before.rows().end <= segment.rows().start)
                && before.inner().end <= segment.inner
        });
        require!(
            "lora.linear",
            first = first,
            ordered,
            "segments ascend without overlap"
        );
        before = Some(segment);
    }
    Ok(())
}

/// Chains that run side by side.
const CHAINS: usize = 8;

/// Rows of one segment from which on a tile of them is faster than chains of several segments.
const TILE: usize = 4;

/// One row's inner result.
struct Chain<'a> {
    x: &'a [f32],
    a_t: &'a [f32],
    u: &'a mut [f32],
    scale: f32,
}

/// `u = s·(x·Aᵀ)` of all segments, whose rows are shared by tasks.
struct Down<'a> {
    isa: Isa,
    crowd: Crowd<'a>,
    x: &'a [f32],
    inputs: usize,
    u: Shards<'a>,
    /// Of all segments.
    rows: usize,
}

impl<'a> Down<'a> {
    fn new(
        pool: &Pool,
        crowd: Crowd<'a>,
        (x, inputs): (&'a [f32], usize),
        u: &'a mut [f32],
    ) -> Self {
        Down {
            isa: pool.isa(),
            crowd,
            x,
            inputs,
            u: Shards::new(u),
            rows: crowd.iter().map(|s| s.count).sum(),
        }
    }

    fn tasks(&self, pool: &Pool) -> usize {
        let each = self
            .crowd
            .iter()
            .map(|s| s.count * s.pair.rank * self.inputs);
        match each.sum() {
            0 => 0,
            1..SMALL => 1,
            _ => self.rows.div_ceil(TILE).min(pool.threads() * 4),
        }
    }

    fn run(&self, task: usize, tasks: usize) {
        let mine = self.rows * task / tasks..self.rows * (task + 1) / tasks;
        let mut group = Group {
            isa: self.isa,
            rank: 0,
            len: 0,
            chains: std::array::from_fn(|_| Chain::none()),
        };
        let i = self.inputs;
        let mut before = 0;
        for segment in self.crowd.iter() {
            let own = meet(&mine, &(before..before + segment.count));
            let own = own.start.saturating_sub(before)..own.end.saturating_sub(before);
            before += segment.count;
            if own.is_empty() {
                continue;
            }
            let Pair {
                a_t, rank, scale, ..
            } = segment.pair;
            let x = &self.x[(segment.first + own.start) * i..][..own.len() * i];
            let at = segment.inner + own.start * rank;
            // SAFETY: the parts of segments do not overlap (the door), and a row belongs to one task.
            let u = unsafe { self.u.part(at..at + own.len() * rank) };
            if own.len() >= TILE {
                let (a, b) = (Lhs::rows(x, i), Rhs::rows(a_t, rank));
                let dims = Dims::new(own.len(), rank, i);
                dense(self.isa, dims, a, b, Out::new(u, rank), Sums::Start);
                u.iter_mut().for_each(|v| *v *= scale);
            } else {
                for (x, u) in x.chunks_exact(i).zip(u.chunks_exact_mut(rank)) {
                    group.push(rank, Chain { x, a_t, u, scale });
                }
            }
        }
        group.compute();
    }
}

impl Chain<'_> {
    fn none() -> Self {
        Chain {
            x: &[],
            a_t: &[],
            u: &mut [],
            scale: 0.0,
        }
    }
}

/// Chains of one rank that wait for others.
struct Group<'a> {
    isa: Isa,
    rank: usize,
    len: usize,
    chains: [Chain<'a>; CHAINS],
}

impl<'a> Group<'a> {
    fn push(&mut self, rank: usize, chain: Chain<'a>) {
        if self.len == CHAINS || rank != self.rank {
            self.compute();
        }
        self.rank = rank;
        self.chains[self.len] = chain;
        self.len += 1;
    }

    fn compute(&mut self) {
        if self.len > 0 {
            run_chains(self.isa, self.rank, &mut self.chains[..self.len]);
        }
        self.len = 0;
    }
}

#[inline(always)]
fn chains_kernel<S: Simd>(s: S, rank: usize, chains: &mut [Chain<'_>]) {
    let mut first = 0;
    macro_rules! groups_of {
        ($($n:literal)*) => {$(
            while let Some(group) = chains[first..].first_chunk_mut::<$n>() {
                side_by_side(s, rank, group);
                first += $n;
            }
        )*};
    }
    groups_of!(8 4 2 1);
}

dispatch! {
    /// The inner results of rows that may have different adapters, all of one rank and one length.
    fn run_chains(rank: usize, chains: &mut [Chain<'_>]) = chains_kernel
}

#[inline(always)]
fn side_by_side<S: Simd, const N: usize>(s: S, rank: usize, chains: &mut [Chain<'_>; N]) {
    let inputs = chains[0].x.len();
    for chain in chains.iter() {
        let fits = chain.x.len() == inputs && chain.a_t.len() == inputs * rank;
        assert!(fits && chain.u.len() == rank, "operands");
    }
    for first in (0..rank).step_by(LANES) {
        let lanes = LANES.min(rank - first);
        let mut sums = [s.splat(0.0); N];
        for k in 0..inputs {
            for (sum, chain) in sums.iter_mut().zip(chains.iter()) {
                // SAFETY: k is below `inputs`, and `first + lanes` not above the rank: inside both operands (asserted).
                let (x, column) = unsafe {
                    let from = chain.a_t.as_ptr().add(k * rank + first);
                    let column = if lanes == LANES {
                        s.load(&*from.cast())
                    } else {
                        s.load_first(from, lanes)
                    };
                    (*chain.x.get_unchecked(k), column)
                };
                *sum = s.fma(s.splat(x), column, *sum);
            }
        }
        for (sum, chain) in sums.into_iter().zip(chains.iter_mut()) {
            let scaled = s.mul(sum, s.splat(chain.scale));
            s.store_tail(&mut chain.u[first..first + lanes], scaled);
        }
    }
}
