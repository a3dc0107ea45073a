//! Attention with its keys, and its gradient with its rows, dealt out to the threads.

use super::{COPIES, D, HEADS, KV_HEADS, QKV, Sums, add, numbers};
use kernels::attention::{self, Backward, Queries, Rows};
use kernels::{CacheShape, KvCache, Pool};
use std::cell::Cell;
use std::sync::Mutex;

/// The columns of a fused row where keys and values begin.
const COLUMNS: [usize; 2] = [HEADS * D, (HEADS + KV_HEADS) * D];

/// The cache of one layer.
fn filled(pool: &Pool, tokens: usize, [keys, values]: [usize; 2]) -> KvCache {
    let mut cache = KvCache::new(CacheShape {
        layers: 1,
        kv_heads: KV_HEADS,
        head_dim: D,
    });
    cache.reserve(tokens);
    let rows = numbers(tokens * QKV);
    cache.write(pool, 0, 0, (&rows, QKV), keys, values).unwrap();
    cache.set_len(tokens).unwrap();
    cache
}

/// The gradient of a sample's attention against that of two parts of its rows, of equal work; what both have of the gradients by
/// the keys of the first is added.
pub(crate) fn attend_backward(sums: &mut Sums, pool: &Pool, rows: usize, times: f64) {
    let (keys, values) = (filled(pool, rows, COLUMNS), {
        let [keys, values] = COLUMNS;
        filled(pool, rows, [values, keys])
    });
    let (qkv, out, dout) = (
        numbers(rows * QKV),
        numbers(rows * HEADS * D),
        numbers(rows * HEADS * D),
    );
    // Rows see as many keys as they have others before them: the work of the first n is n².
    let cut = (rows as f64 * 0.5_f64.sqrt()) as usize;
    let run = |part: std::ops::Range<usize>, own: &mut Gradient| {
        let backward = Backward {
            layer: 0,
            start: part.start,
            cache: &keys,
            mirror: &values,
            q: Queries {
                data: &qkv[part.start * QKV..part.end * QKV],
                ld: QKV,
                heads: HEADS,
            },
            out: &out[part.start * HEADS * D..part.end * HEADS * D],
            dout: &dout[part.start * HEADS * D..part.end * HEADS * D],
        };
        own.own.resize(part.len() * QKV, 0.0);
        own.before.resize(part.start * 2 * KV_HEADS * D, 0.0);
        let Gradient { stats, own, before } = own;
        attention::backward(pool, &backward, stats, own, before).unwrap();
    };
    let mut exact = Gradient::default();
    let space = [0, 1].map(|_| Mutex::new(Gradient::default()));
    sums.row(
        &format!("attention backward, {rows} rows"),
        (0.0, times),
        || run(0..rows, &mut exact),
        || {
            pool.run(2, &|half| {
                let part = [0..cut, cut..rows][half].clone();
                run(part, &mut space[half].lock().unwrap());
            });
            let (first, second) = (&mut *space[0].lock().unwrap(), &*space[1].lock().unwrap());
            let before = second.before.chunks_exact(2 * KV_HEADS * D);
            for (row, part) in first.own.chunks_exact_mut(QKV).zip(before) {
                add(&mut row[HEADS * D..], part);
            }
        },
    );
}

/// Work space, the gradients of some rows, and of the keys and values before them.
#[derive(Default)]
struct Gradient {
    stats: Vec<f32>,
    own: Vec<f32>,
    before: Vec<f32>,
}

/// One query against all its keys, and against the two halves of them. What combines the halves is 576 multiply-adds and left out.
pub(crate) fn attend(sums: &mut Sums, pool: &Pool, context: usize, times: f64) {
    let whole: Vec<KvCache> = (0..COPIES)
        .map(|_| filled(pool, context, COLUMNS))
        .collect();
    let halves = (0..2 * COPIES).map(|_| filled(pool, context / 2, COLUMNS));
    let parts: Vec<KvCache> = halves.collect();
    let q = numbers(2 * QKV);
    let queries = Queries {
        data: &q,
        ld: QKV,
        heads: HEADS,
    };
    let one = Queries {
        data: &q[..QKV],
        ..queries
    };
    let (mut out, mut both) = (vec![0.0; HEADS * D], vec![0.0; 2 * HEADS * D]);
    let (turn, other) = (Cell::new(0), Cell::new(0));
    let next = |turn: &Cell<usize>| turn.replace((turn.get() + 1) % COPIES);
    sums.row(
        &format!("attention, 1 row, {context} keys"),
        (times, 0.0),
        || {
            let cache = &whole[next(&turn)];
            let rows = |first| Rows {
                cache,
                first,
                count: 1,
                start: context - 1,
            };
            attention::forward(pool, 0, one, 1, &rows, &mut out).unwrap();
        },
        || {
            let at = 2 * next(&other);
            let rows = |first: usize| Rows {
                cache: &parts[at + first],
                first,
                count: 1,
                start: context / 2 - 1,
            };
            attention::forward(pool, 0, queries, 2, &rows, &mut both).unwrap();
        },
    );
}
