//! Attention, and the cache that it reads.

use super::{Bench, D, HEADS, KV_HEADS, LAYERS, Work, numbers};
use kernels::attention::{self, Backward, Queries, Rows};
use kernels::{CacheShape, KvCache, Pool};

/// A row of queries, keys and values, and the columns where keys and values begin.
const WIDTH: usize = (HEADS + 2 * KV_HEADS) * D;
const KEYS: usize = HEADS * D;
const VALUES: usize = (HEADS + KV_HEADS) * D;

fn shape(layers: usize) -> CacheShape {
    CacheShape {
        layers,
        kv_heads: KV_HEADS,
        head_dim: D,
    }
}

/// One layer of some tokens.
fn filled(pool: &Pool, tokens: usize, (keys, values): (usize, usize)) -> KvCache {
    let mut cache = KvCache::new(shape(1));
    cache.reserve(tokens);
    let rows = numbers(tokens * WIDTH);
    cache
        .write(pool, 0, 0, (&rows, WIDTH), keys, values)
        .unwrap();
    cache.set_len(tokens).unwrap();
    cache
}

/// Single rows against a cache.
pub(crate) fn decode(bench: &Bench) {
    let pool = &bench.pool;
    for context in [128usize, 1024] {
        let cache = filled(pool, context, (KEYS, VALUES));
        for sequences in [1usize, 32] {
            let (q, mut out) = (numbers(sequences * WIDTH), vec![0.0; sequences * HEADS * D]);
            let queries = Queries {
                data: &q,
                ld: WIDTH,
                heads: HEADS,
            };
            let work = Work {
                flops: 4.0 * (sequences * HEADS * D * context) as f64,
                bytes: 8.0 * (sequences * KV_HEADS * D * context) as f64,
            };
            let name = format!("attention {sequences} decode, {context} keys");
            bench.row(&name, work, || {
                let rows = |index: usize| Rows {
                    cache: &cache,
                    first: index,
                    count: 1,
                    start: context - 1,
                };
                attention::forward(pool, 0, queries, sequences, &rows, &mut out).unwrap();
            });
        }
    }
}

/// Prompts, forward and backward.
pub(crate) fn prompts(bench: &Bench) {
    let pool = &bench.pool;
    for n in [256usize, 1024] {
        let (cache, mirror) = (
            filled(pool, n, (KEYS, VALUES)),
            filled(pool, n, (VALUES, KEYS)),
        );
        let (q, mut out) = (numbers(n * WIDTH), vec![0.0; n * HEADS * D]);
        let queries = Queries {
            data: &q,
            ld: WIDTH,
            heads: HEADS,
        };
        // Causal: half of the scores.
        let work = Work {
            flops: 2.0 * (n * n * HEADS * D) as f64,
            bytes: 4.0 * (n * (WIDTH + HEADS * D)) as f64,
        };
        bench.row(&format!("attention prompt of {n}"), work, || {
            let rows = |_| Rows {
                cache: &cache,
                first: 0,
                count: n,
                start: 0,
            };
            attention::forward(pool, 0, queries, 1, &rows, &mut out).unwrap();
        });
        let dout = numbers(n * HEADS * D);
        let (mut stats, mut dqkv) = (Vec::new(), vec![0.0; n * WIDTH]);
        let (flops, bytes) = (2.5 * work.flops, 2.0 * work.bytes);
        let five = Work { flops, bytes };
        bench.row(&format!("attention-backward prompt of {n}"), five, || {
            let backward = Backward {
                layer: 0,
                start: 0,
                cache: &cache,
                mirror: &mirror,
                q: queries,
                out: &out,
                dout: &dout,
            };
            attention::backward(pool, &backward, &mut stats, &mut dqkv, &mut []).unwrap();
        });
    }
}

/// What is written of a layer, and what a sequence that begins like another one takes from it.
pub(crate) fn cache(bench: &Bench) {
    for m in [1usize, 256] {
        let mut cache = KvCache::new(shape(1));
        cache.reserve(m);
        let rows = numbers(m * WIDTH);
        // Read and written.
        let work = Work {
            flops: 0.0,
            bytes: 8.0 * (m * 2 * KV_HEADS * D) as f64,
        };
        bench.row(&format!("cache-write × {m}"), work, || {
            cache
                .write(&bench.pool, 0, 0, (&rows, WIDTH), KEYS, VALUES)
                .unwrap();
        });
    }
    let mut full = KvCache::new(shape(LAYERS));
    full.reserve(256);
    full.set_len(256).unwrap();
    let mut copy = KvCache::new(shape(LAYERS));
    let work = Work {
        flops: 0.0,
        bytes: 2.0 * full.bytes() as f64,
    };
    bench.row("cache-copy 256 tokens, 30 layers", work, || {
        copy.copy_prefix_from(&full, 256).unwrap();
    });
}
