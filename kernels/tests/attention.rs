//! Attention over a cache: parity, gradients, and the same bits for any chunking, threads and instruction set.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use kernels::attention::{self, Backward, Queries, Rows};
use kernels::reference::{self, Heads};
use kernels::{CacheShape, Error, KvCache, Pool};
use std::ops::Range;

/// (heads, key heads, head size), ragged and not.
const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 2), (6, 2, 12), (9, 3, 64), (4, 4, 33)];

fn shape((_, kv_heads, head_dim): (usize, usize, usize)) -> CacheShape {
    CacheShape {
        layers: 2,
        kv_heads,
        head_dim,
    }
}

/// A cache whose layer 1 holds the keys and values (or values and keys) of fused rows.
fn cache(sizes: (usize, usize, usize), qkv: &[f32], n: usize, exchanged: bool) -> KvCache {
    let (heads, kv_heads, d) = sizes;
    let mut cache = KvCache::new(shape(sizes));
    cache.reserve(n);
    let (mut k, mut v) = (heads * d, (heads + kv_heads) * d);
    if exchanged {
        (k, v) = (v, k);
    }
    cache
        .write(
            &Pool::new(2).unwrap(),
            1,
            0,
            (qkv, (heads + 2 * kv_heads) * d),
            k,
            v,
        )
        .unwrap();
    cache
}

/// Attention of rows `from..n`.
fn run(pool: &Pool, sizes: (usize, usize, usize), qkv: &[f32], n: usize, from: usize) -> Vec<f32> {
    let (heads, kv_heads, d) = sizes;
    let ld = (heads + 2 * kv_heads) * d;
    let cache = cache(sizes, qkv, n, false);
    let mut out = vec![f32::NAN; (n - from) * heads * d];
    let q = Queries {
        data: &qkv[from * ld..],
        ld,
        heads,
    };
    let rows = |_| Rows {
        cache: &cache,
        first: 0,
        count: n - from,
        start: from,
    };
    attention::forward(pool, 1, q, 1, &rows, &mut out).unwrap();
    out
}

#[test]
fn attention_is_the_references_and_its_bits_are_the_same_everywhere() {
    for sizes in SHAPES {
        let (heads, kv_heads, head_dim) = sizes;
        for n in [1, 31, 32, 33, 70] {
            let qkv = vector(1, n * (heads + 2 * kv_heads) * head_dim);
            let expected = reference::attention(
                n,
                Heads {
                    heads,
                    kv_heads,
                    head_dim,
                },
                &wide(&qkv),
            );
            let mut first = None;
            for pool in pools() {
                let out = run(&pool, sizes, &qkv, n, 0);
                close(&format!("{sizes:?} {n}"), &out, &expected, 1e-5);
                assert!(
                    bits(first.get_or_insert_with(|| out.clone())) == bits(&out),
                    "{pool:?}"
                );
            }
        }
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_the_chunk_it_is_in() {
    let pool = Pool::new(2).unwrap();
    for sizes in SHAPES {
        let (heads, kv_heads, d) = sizes;
        let n = 75;
        let qkv = vector(2, n * (heads + 2 * kv_heads) * d);
        let whole = bits(&run(&pool, sizes, &qkv, n, 0));
        for from in [1, 5, 31, 32, 33, 74] {
            let part = bits(&run(&pool, sizes, &qkv, n, from));
            assert!(whole[from * heads * d..] == part, "{sizes:?} from {from}");
        }
    }
}

#[test]
fn tokens_behind_a_row_change_nothing() {
    let pool = Pool::new(1).unwrap();
    let sizes = (6, 2, 12);
    let qkv = vector(3, 60 * 120);
    let whole = bits(&run(&pool, sizes, &qkv, 60, 0));
    for n in [1, 32, 59] {
        let part = bits(&run(&pool, sizes, &qkv[..n * 120], n, 0));
        assert!(whole[..n * 72] == part, "{n} tokens");
    }
}

/// The gradients of some rows by themselves, and by the keys and values before them.
fn gradient(
    pool: &Pool,
    sizes: (usize, usize, usize),
    qkv: &[f32],
    (out, dout): (&[f32], &[f32]),
    rows: Range<usize>,
) -> (Vec<f32>, Vec<f32>) {
    let (heads, kv_heads, d) = sizes;
    let (ld, width) = ((heads + 2 * kv_heads) * d, heads * d);
    let seen = &qkv[..rows.end * ld];
    let (keys, mirror) = (
        cache(sizes, seen, rows.end, false),
        cache(sizes, seen, rows.end, true),
    );
    let q = Queries {
        data: &qkv[rows.start * ld..rows.end * ld],
        ld,
        heads,
    };
    let b = Backward {
        layer: 1,
        start: rows.start,
        cache: &keys,
        mirror: &mirror,
        q,
        out: &out[rows.start * width..rows.end * width],
        dout: &dout[rows.start * width..rows.end * width],
    };
    let mut dqkv = vec![f32::NAN; rows.len() * ld];
    let mut dbefore = vec![f32::NAN; rows.start * 2 * kv_heads * d];
    attention::backward(pool, &b, &mut Vec::new(), &mut dqkv, &mut dbefore).unwrap();
    (dqkv, dbefore)
}

#[test]
fn the_gradient_of_a_sequence_is_the_sum_of_its_parts() {
    let pool = Pool::new(2).unwrap();
    for sizes in SHAPES {
        let (heads, kv_heads, d) = sizes;
        let (ld, queries, n) = ((heads + 2 * kv_heads) * d, heads * d, 75);
        let (qkv, dout) = (vector(8, n * ld), vector(9, n * queries));
        let out = run(&pool, sizes, &qkv, n, 0);
        let (whole, none) = gradient(&pool, sizes, &qkv, (&out, &dout), 0..n);
        assert!(none.is_empty());
        for from in [1, 31, 32, 50, 74] {
            let (mut first, _) = gradient(&pool, sizes, &qkv, (&out, &dout), 0..from);
            let (rest, before) = gradient(&pool, sizes, &qkv, (&out, &dout), from..n);
            assert!(
                bits(&whole[from * ld..]) == bits(&rest),
                "{sizes:?} {from}: rows that only later rows see"
            );
            let width = 2 * kv_heads * d;
            for (row, add) in first.chunks_mut(ld).zip(before.chunks(width)) {
                for (to, v) in row[queries..].iter_mut().zip(add) {
                    *to += v;
                }
            }
            close(
                &format!("{sizes:?} {from}"),
                &first,
                &wide(&whole[..from * ld]),
                1e-5,
            );
        }
    }
}

#[test]
fn attentions_gradient_is_its_slope_and_its_bits_are_the_same_everywhere() {
    for (sizes, n) in [((1, 1, 2), 1), ((4, 2, 6), 5), ((3, 1, 4), 35)] {
        let (heads, kv_heads, head_dim) = sizes;
        let ld = (heads + 2 * kv_heads) * head_dim;
        let qkv = vector(4, n * ld);
        let dout = vector(5, n * heads * head_dim);
        let loss = |x: &[f64]| {
            dot(
                &reference::attention(
                    n,
                    Heads {
                        heads,
                        kv_heads,
                        head_dim,
                    },
                    x,
                ),
                &dout,
            )
        };
        let expected = slope(&wide(&qkv), loss);
        let mut first = None;
        for pool in pools() {
            let out = run(&pool, sizes, &qkv, n, 0);
            let (dqkv, _) = gradient(&pool, sizes, &qkv, (&out, &dout), 0..n);
            close(&format!("{sizes:?} {n}"), &dqkv, &expected, 1e-4);
            assert!(
                bits(first.get_or_insert_with(|| dqkv.clone())) == bits(&dqkv),
                "{pool:?}"
            );
        }
    }
}

#[test]
fn the_gradient_adds_up_dout_times_out_in_the_order_that_it_promises() {
    // One row sees itself only: its weight is 1, `out` is v, and the gradient of its score is the difference of two sums of the same
    // products in two orders. So every bit of dq and dk tells the orders.
    for d in [2, 33, 100] {
        let (qkv, dout) = (vector(10, 3 * d), vector(11, d));
        let [q, k, v] = [0, 1, 2].map(|part| &qkv[part * d..][..d]);
        let pairs = || dout.iter().zip(v);
        let score = pairs().fold(0.0f32, |sum, (dout, v)| dout.mul_add(*v, sum));
        let mut chains = [0.0f32; 16];
        for (at, (dout, v)) in pairs().enumerate() {
            chains[at % 16] += dout * v;
        }
        let slope = score - chains.iter().fold(0.0, |sum, chain| sum + chain);
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let dq = k.iter().map(|k| slope * k * scale);
        let dk = q.iter().map(|q| slope * (q * scale));
        let expected: Vec<f32> = dq.chain(dk).chain(dout.iter().copied()).collect();
        assert!(d < 16 || slope != 0.0, "{d}: both orders gave the same");
        for pool in pools() {
            let sizes = (1, 1, d);
            let out = run(&pool, sizes, &qkv, 1, 0);
            assert!(bits(&out) == bits(v));
            let (found, _) = gradient(&pool, sizes, &qkv, (&out, &dout), 0..1);
            assert!(found == expected, "{pool:?}, {d}");
        }
    }
}

#[test]
fn a_cache_copies_prefixes_and_refuses_what_it_does_not_hold() {
    let sizes = (6, 2, 12);
    let qkv = vector(6, 40 * 120);
    let mut full = cache(sizes, &qkv, 40, false);
    full.set_len(40).unwrap();
    let mut copy = KvCache::new(shape(sizes));
    copy.copy_prefix_from(&full, 33).unwrap();
    assert_eq!((copy.len(), copy.bytes()), (33, full.bytes()));
    assert!(matches!(
        copy.copy_prefix_from(&full, 41),
        Err(Error::Argument { .. })
    ));
    assert!(copy.set_len(65).is_err());
    copy.set_len(20).unwrap();
    copy.shrink();
    assert_eq!(copy.bytes() * 2, full.bytes());
    assert!(
        copy.write(&Pool::new(1).unwrap(), 2, 0, (&qkv, 120), 72, 96)
            .is_err(),
        "no such layer"
    );
    assert!(
        copy.write(&Pool::new(1).unwrap(), 0, 30, (&qkv, 120), 72, 96)
            .is_err(),
        "not reserved"
    );
    assert!(
        copy.write(&Pool::new(1).unwrap(), 0, 0, (&qkv[..120], 120), 72, 97)
            .is_err(),
        "columns beyond the row"
    );
    let mut other = KvCache::new(CacheShape {
        layers: 1,
        ..shape(sizes)
    });
    assert!(other.copy_prefix_from(&full, 1).is_err());
}

#[test]
fn attention_refuses_rows_that_are_not_cached_and_heads_that_do_not_divide() {
    let (pool, sizes) = (Pool::new(1).unwrap(), (6, 2, 12));
    let qkv = vector(7, 40 * 120);
    let cache = cache(sizes, &qkv, 40, false);
    let mut out = vec![0.0; 40 * 72];
    let mut attempt = |heads: usize, layer: usize, start: usize, width: usize| {
        let q = Queries {
            data: &qkv,
            ld: 120,
            heads,
        };
        let rows = |_| Rows {
            cache: &cache,
            first: 0,
            count: 40,
            start,
        };
        attention::forward(&pool, layer, q, 1, &rows, &mut out[..40 * width]).is_err()
    };
    assert!(!attempt(6, 1, 0, 72));
    assert!(attempt(5, 1, 0, 60), "heads");
    assert!(attempt(6, 2, 0, 72), "layer");
    assert!(attempt(6, 1, 25, 72), "position");
    assert!(attempt(6, 1, 0, 71), "output");
}
