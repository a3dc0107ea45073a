//! Every op at the shapes of SmolLM2-135M, against what the processor can do at most in the same run:
//! `cargo bench -p kernels [-- THREADS] [NAME…]`.
//!
//! A row's figure is GFLOP/s against the measured peak of multiply-adds where an op computes, GB/s against the measured speed of
//! reading where it moves; both are shown where it is not plain which one limits it (NAME picks rows by their beginning). Best of
//! several runs, since other processes may share the cores; the peaks are the best of several, too. Not a test; asserts nothing.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]

use kernels::adamw::AdamW;
use kernels::attention::{self, Backward, Queries, Rows};
use kernels::lora::{self, Columns, Pair, Segment};
use kernels::rope::{Scaling, Table};
use kernels::softmax::{self, Target};
use kernels::{CacheShape, Dtype, KvCache, Packed, Pool, adamw, elementwise, gemm, peak};
use kernels::{rmsnorm, rope, swiglu};
use std::time::Instant;

/// Hidden, feed-forward, vocabulary, query heads, key heads, head size, adapter rank.
const C: usize = 576;
const F: usize = 1536;
const V: usize = 49152;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const D: usize = 64;
const RANK: usize = 16;

/// What one call does.
#[derive(Clone, Copy)]
struct Work {
    /// Floating-point operations; a multiply-add is two.
    flops: f64,
    /// Bytes that must be moved: each operand once.
    bytes: f64,
}

struct Bench {
    pool: Pool,
    only: Vec<String>,
    /// GFLOP/s and GB/s.
    peaks: (f64, f64),
}

/// Seconds of one call: the best of five times as many as take some milliseconds.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    run();
    let once = start.elapsed().as_secs_f64();
    let repeats = ((4e-3 / once) as usize).clamp(1, 2000);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        (0..repeats).for_each(|_| run());
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    best
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5)
        .collect()
}

impl Bench {
    fn new(pool: Pool, only: Vec<String>) -> Self {
        let rounds = 20;
        let flops = 2.0 * (rounds * peak::ROUND * pool.threads()) as f64;
        let compute = flops
            / best(|| {
                std::hint::black_box(peak::multiply_adds(&pool, rounds));
            });
        let data = numbers(64 << 20);
        let read = best(|| {
            std::hint::black_box(peak::read(&pool, &data));
        });
        let memory = (data.len() * 4) as f64 / read;
        Self {
            pool,
            only,
            peaks: (compute / 1e9, memory / 1e9),
        }
    }

    fn row(&self, name: &str, work: Work, run: impl FnMut()) {
        if !(self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only))) {
            return;
        }
        let seconds = best(run);
        let (flops, bytes) = (work.flops / seconds / 1e9, work.bytes / seconds / 1e9);
        let (f, b) = (100.0 * flops / self.peaks.0, 100.0 * bytes / self.peaks.1);
        println!(
            "{name:34} {:10.1} µs {flops:8.1} GFLOP/s {f:4.0} % {bytes:8.1} GB/s {b:4.0} %",
            seconds * 1e6
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let threads = arguments.iter().find_map(|a| a.parse().ok());
    let only = arguments.iter().filter(|a| a.parse::<usize>().is_err());
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads)).unwrap();
    let bench = Bench::new(pool, only.cloned().collect());
    println!(
        "{:?}: peak {:.0} GFLOP/s of multiply-adds, {:.1} GB/s read",
        bench.pool, bench.peaks.0, bench.peaks.1
    );
    println!("small operands stay in the caches, so that GB/s may exceed the memory's");
    products(&bench);
    adapters(&bench);
    crowd(&bench);
    prompt(&bench);
    rows(&bench);
    attend(&bench);
    vocabulary(&bench);
    optimizer(&bench);
}

fn products(bench: &Bench) {
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

fn adapters(bench: &Bench) {
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
            let into = lora::Into {
                du: &mut du,
                da: &mut da,
                db: &mut db,
                dx: &mut dx,
            };
            let forward = lora::Forward { x: &x, u: &u };
            lora::backward(pool, m, &pair, forward, (&y, at), into).unwrap();
        });
    }
}

/// A decoding batch of 32 sequences with 8 adapters in both halves of `gate_up`: one after the other, and all at once.
fn crowd(bench: &Bench) {
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
fn prompt(bench: &Bench) {
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

fn rows(bench: &Bench) {
    let pool = &bench.pool;
    let weight = numbers(C);
    let table = Table::new(D, 2048, 1e5, Scaling::None).unwrap();
    for m in [1usize, 32, 256] {
        let (x, mut out) = (numbers(m * C), vec![0.0; m * C]);
        let work = |elements: usize, moved: usize, flops: usize| Work {
            flops: (m * elements * flops) as f64,
            bytes: 4.0 * (m * moved) as f64,
        };
        bench.row(&format!("rmsnorm × {m}"), work(C, 2 * C, 4), || {
            rmsnorm::forward(pool, m, &x, &weight, 1e-5, &mut out).unwrap();
        });
        let mut dx = numbers(m * C);
        bench.row(
            &format!("rmsnorm-backward × {m}"),
            work(C, 4 * C, 8),
            || {
                rmsnorm::backward(pool, m, &x, &weight, 1e-5, &out, &mut dx).unwrap();
            },
        );
        bench.row(&format!("add × {m}"), work(C, 3 * C, 1), || {
            elementwise::add(pool, &mut dx, &x).unwrap();
        });
        let width = (HEADS + 2 * KV_HEADS) * D;
        let mut qkv = numbers(m * width);
        let turned = (HEADS + KV_HEADS) * D;
        bench.row(&format!("rope × {m}"), work(turned, 2 * turned, 3), || {
            rope::forward(pool, &table, &mut qkv, width, 0..turned, 0).unwrap();
        });
        let (mut gate_up, mut hidden) = (numbers(m * 2 * F), vec![0.0; m * F]);
        // An exponential counts as ten.
        bench.row(&format!("swiglu × {m}"), work(F, 3 * F, 14), || {
            swiglu::forward(pool, m, F, &gate_up, &mut hidden).unwrap();
        });
        bench.row(
            &format!("swiglu-backward × {m}"),
            work(F, 5 * F, 20),
            || {
                swiglu::backward(pool, m, F, &mut gate_up, &hidden).unwrap();
            },
        );
    }
}

fn attend(bench: &Bench) {
    let pool = &bench.pool;
    let shape = CacheShape {
        layers: 1,
        kv_heads: KV_HEADS,
        head_dim: D,
    };
    let width = (HEADS + 2 * KV_HEADS) * D;
    let filled = |tokens: usize, (keys, values): (usize, usize)| {
        let mut cache = KvCache::new(shape);
        cache.reserve(tokens);
        let rows = numbers(tokens * width);
        cache.write(0, 0, &rows, width, keys, values).unwrap();
        cache.set_len(tokens).unwrap();
        cache
    };
    let (keys, values) = (HEADS * D, (HEADS + KV_HEADS) * D);
    for context in [128usize, 1024] {
        let cache = filled(context, (keys, values));
        for sequences in [1usize, 32] {
            let (q, mut out) = (numbers(sequences * width), vec![0.0; sequences * HEADS * D]);
            let queries = Queries {
                data: &q,
                ld: width,
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
    for n in [256usize, 1024] {
        let (cache, mirror) = (filled(n, (keys, values)), filled(n, (values, keys)));
        let (q, mut out) = (numbers(n * width), vec![0.0; n * HEADS * D]);
        let queries = Queries {
            data: &q,
            ld: width,
            heads: HEADS,
        };
        // Causal: half of the scores.
        let work = Work {
            flops: 2.0 * (n * n * HEADS * D) as f64,
            bytes: 4.0 * (n * (width + HEADS * D)) as f64,
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
        let (mut stats, mut dqkv) = (Vec::new(), vec![0.0; n * width]);
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

fn vocabulary(bench: &Bench) {
    let pool = &bench.pool;
    for m in [1usize, 32, 128] {
        let (mut logits, mut normalizers) = (numbers(m * V), Vec::new());
        let work = |passes: usize, flops: usize| Work {
            flops: (m * V * flops) as f64,
            bytes: 4.0 * (m * V * passes) as f64,
        };
        bench.row(&format!("softmax × {m}"), work(1, 14), || {
            softmax::normalizers(pool, &logits, V, 1.0, &mut normalizers).unwrap();
        });
        let targets: Vec<Target> = (0..m).map(|row| Target { row, token: 5 }).collect();
        let upstream = vec![1.0; m];
        bench.row(&format!("softmax-backward × {m}"), work(2, 12), || {
            // The gradient lies over the logits: from the second call on they are other numbers of the same size.
            softmax::backward(pool, &mut logits, &normalizers, &targets, &upstream).unwrap();
        });
    }
}

fn optimizer(bench: &Bench) {
    let (pool, n) = (&bench.pool, 4_884_480);
    let (mut params, grads) = (numbers(n), numbers(n));
    let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
    let settings = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let moved = |numbers: usize, flops: usize| Work {
        flops: (n * flops) as f64,
        bytes: 4.0 * (n * numbers) as f64,
    };
    bench.row("adamw × 4.9 M", moved(7, 12), || {
        adamw::step(
            pool,
            &settings,
            1,
            1.0,
            &mut params,
            &grads,
            &mut first,
            &mut second,
        )
        .unwrap();
    });
    bench.row("adamw-norm × 4.9 M", moved(1, 2), || {
        std::hint::black_box(adamw::norm(pool, &grads));
    });
}
