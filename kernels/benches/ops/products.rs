//! Products with packed weights, and the adapters beside them.

use super::{Bench, C, D, F, HEADS, KV_HEADS, RANK, V, Work, numbers};
use kernels::lora::{self, Columns, Pair, Part, Segment};
use kernels::{Dtype, Packed, gemm};

pub(crate) fn products(bench: &Bench) {
    let pool = &bench.pool;
    let shapes = [
        ("qkv", C, (HEADS + 2 * KV_HEADS) * D),
        ("o", C, C),
        ("gate_up", C, 2 * F),
        ("down", F, C),
        ("head", C, V),
    ];
    for (dtype, kind) in [
        (Dtype::Bf16, "bf16"),
        (Dtype::F32, "f32"),
        (Dtype::Q8, "q8"),
        (Dtype::Bf16Pairs, "bf16-pairs"),
    ] {
        for (shape, k, n) in shapes {
            let weights = Packed::pack(pool, &[&numbers(n * k)], k, dtype).unwrap();
            for m in [1usize, 8, 32, 128, 512] {
                if n == V && m > 128 {
                    continue;
                }
                let (x, mut y, mut dx) = (numbers(m * k), numbers(m * n), vec![0.0; m * k]);
                let work = Work {
                    flops: 2.0 * (m * n * k) as f64,
                    bytes: (weights.bytes() + 4 * m * (n + k)) as f64,
                };
                bench.row(&format!("gemm {kind} {shape} × {m}"), work, || {
                    gemm::forward(pool, m, &x, &weights, &mut y).unwrap();
                });
                if m > 1 {
                    bench.row(
                        &format!("gemm-backward {kind} {shape} × {m}"),
                        work,
                        || {
                            gemm::backward(pool, m, &y, &weights, &mut dx).unwrap();
                        },
                    );
                }
            }
        }
    }
}

/// What an adapter of the first columns needs for its gradients.
fn part<'a>(pair: Pair<'a>, u: &'a [f32], da: &'a mut [f32], db: &'a mut [f32]) -> Part<'a> {
    Part {
        pair,
        first: 0,
        u,
        da,
        db,
    }
}

pub(crate) fn adapters(bench: &Bench) {
    let (pool, outputs) = (&bench.pool, 2 * F);
    let (a, b) = (numbers(RANK * C), numbers(outputs * RANK));
    let pair = Pair {
        a: &a,
        b: &b,
        // Only the speed is looked at: any numbers do.
        a_t: &a,
        b_t: &b,
        rank: RANK,
        scale: 2.0,
    };
    let weights = Packed::pack(pool, &[&numbers(outputs * C)], C, Dtype::Bf16).unwrap();
    for m in [1usize, 4, 32, 256] {
        let (x, mut u, mut y) = (numbers(m * C), vec![0.0; m * RANK], vec![0.0; m * outputs]);
        let at = Columns {
            first: 0,
            ld: outputs,
        };
        let work = Work {
            flops: 2.0 * (m * RANK * (C + outputs)) as f64,
            bytes: 4.0 * (RANK * (C + outputs) + m * (C + 2 * outputs)) as f64,
        };
        bench.row(&format!("lora gate_up × {m}"), work, || {
            lora::down(pool, m, &x, &pair, &mut u).unwrap();
            lora::up(pool, m, &u, &pair, &mut y, at).unwrap();
        });
        let (mut du, mut dx) = (vec![0.0; m * RANK], vec![0.0; m * C]);
        let (mut da, mut db) = (vec![0.0; RANK * C], vec![0.0; outputs * RANK]);
        let twice = Work {
            flops: 2.0 * work.flops,
            bytes: 2.0 * work.bytes,
        };
        let u = numbers(m * RANK);
        bench.row(&format!("lora-backward gate_up × {m}"), twice, || {
            let parts = &mut [part(pair, &u, &mut da, &mut db)];
            lora::backward(pool, m, &x, parts, (&y, outputs), &mut du, &mut dx).unwrap();
        });
        let product = 2.0 * (m * C * outputs) as f64;
        let weights_bytes = (weights.bytes() + 4 * m * (C + outputs)) as f64;
        let whole = Work {
            flops: twice.flops + product,
            bytes: twice.bytes + weights_bytes,
        };
        bench.row(&format!("linear-backward gate_up × {m}"), whole, || {
            let parts = &mut [part(pair, &u, &mut da, &mut db)];
            lora::linear_backward(pool, m, &x, &weights, parts, &y, &mut du, &mut dx).unwrap();
        });
    }
}

/// A decoding batch of 32 sequences with 8 adapters in both halves of `gate_up`: one after the other, and all at once.
pub(crate) fn crowd(bench: &Bench) {
    let (pool, n) = (&bench.pool, 2 * F);
    let weights = Packed::pack(pool, &[&numbers(n * C)], C, Dtype::Bf16).unwrap();
    let halves = (numbers(RANK * C), numbers(F * RANK));
    let copies: Vec<_> = (0..16).map(|_| halves.clone()).collect();
    let pair = |sequence: usize, half: usize| {
        let (a, b) = &copies[sequence % 8 * 2 + half];
        Pair {
            a,
            b,
            a_t: a,
            b_t: b,
            rank: RANK,
            scale: 2.0,
        }
    };
    let (x, mut y, mut u) = (numbers(32 * C), vec![0.0; 32 * n], vec![0.0; 64 * RANK]);
    let segments: Vec<Segment<'_>> = (0..64)
        .map(|at| Segment {
            first: at / 2,
            count: 1,
            pair: pair(at / 2, at % 2),
            column: at % 2 * F,
            inner: at * RANK,
        })
        .collect();
    let flops = 2.0 * (32 * (n * C + RANK * (2 * C + n))) as f64;
    let bytes = (weights.bytes() + 4 * 32 * (n + C) + 8 * 4 * RANK * (2 * C + n)) as f64;
    let work = Work { flops, bytes };
    bench.row("linear gate_up × 32, one by one", work, || {
        gemm::forward(pool, 32, &x, &weights, &mut y).unwrap();
        for s in &segments {
            let (x, u) = (&x[s.first * C..][..C], &mut u[s.inner..][..RANK]);
            let y = &mut y[s.first * n..][..n];
            let at = Columns {
                first: s.column,
                ld: n,
            };
            lora::down(pool, 1, x, &s.pair, u).unwrap();
            lora::up(pool, 1, u, &s.pair, y, at).unwrap();
        }
    });
    bench.row("linear gate_up × 32, segments", work, || {
        lora::linear(pool, 32, &x, &weights, &segments, None, &mut u, &mut y).unwrap();
    });
}

/// A prompt with one adapter in both halves of `gate_up`.
pub(crate) fn prompt(bench: &Bench) {
    let (pool, n, m) = (&bench.pool, 2 * F, 256);
    let weights = Packed::pack(pool, &[&numbers(n * C)], C, Dtype::Bf16Pairs).unwrap();
    let (a, b) = (numbers(RANK * C), numbers(F * RANK));
    let pair = Pair {
        a: &a,
        b: &b,
        a_t: &a,
        b_t: &b,
        rank: RANK,
        scale: 2.0,
    };
    let segments = [0, 1].map(|half| Segment {
        first: 0,
        count: m,
        pair,
        column: half * F,
        inner: half * m * RANK,
    });
    let (x, mut y, mut u) = (numbers(m * C), vec![0.0; m * n], vec![0.0; 2 * m * RANK]);
    for (name, adapted) in [("base alone", 0), ("adapter", 2)] {
        let extra = adapted / 2 * RANK * (2 * C + n);
        let work = Work {
            flops: 2.0 * (m * (n * C + extra)) as f64,
            bytes: (weights.bytes() + 4 * m * (n + C) + 4 * extra) as f64,
        };
        bench.row(&format!("linear gate_up × 256, {name}"), work, || {
            let segments = &segments[..adapted];
            lora::linear(pool, m, &x, &weights, segments, None, &mut u, &mut y).unwrap();
        });
    }
}
