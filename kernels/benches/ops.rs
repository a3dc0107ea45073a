//! GFLOP/s of the products at the shapes of SmolLM2-135M: `cargo bench -p kernels [-- THREADS]`.
//!
//! Minimum of several runs, since other processes may share the cores. Not a test; asserts nothing.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]

use kernels::{Dtype, Packed, Pool, gemm};
use std::fmt::Write;
use std::time::Instant;

fn best(flops: f64, mut run: impl FnMut()) -> f64 {
    let repeats = ((1e9 / flops) as usize).clamp(1, 200);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        (0..repeats).for_each(|_| run());
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    best
}

fn main() {
    let threads = std::env::args().filter_map(|a| a.parse().ok()).next();
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads)).unwrap();
    println!("{pool:?}; GFLOP/s forward and backward; GB/s of weights at 1 row");
    let shapes = [
        ("qkv", 576, 960),
        ("o", 576, 576),
        ("gate_up", 576, 3072),
        ("down", 1536, 576),
        ("head", 576, 49152),
    ];
    for dtype in [Dtype::Bf16, Dtype::F32, Dtype::Q8] {
        for (name, k, n) in shapes {
            let w: Vec<f32> = (0..n * k)
                .map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5)
                .collect();
            let packed = Packed::pack(&pool, &[&w], k, dtype).unwrap();
            let mut line = format!("{dtype:?} {name:8}");
            for m in [1usize, 8, 32, 128, 512] {
                if n > 10_000 && m > 128 {
                    continue;
                }
                let x: Vec<f32> = (0..m * k)
                    .map(|i| (i * 104_729 % 1000) as f32 * 1e-3)
                    .collect();
                let mut y = vec![0.0; m * n];
                let mut dx = vec![0.0; m * k];
                let flops = 2.0 * (m * n * k) as f64;
                let forward = best(flops, || {
                    gemm::forward(&pool, m, &x, &packed, &mut y).unwrap()
                });
                let backward = best(flops, || {
                    gemm::backward(&pool, m, &y, &packed, &mut dx).unwrap()
                });
                let (f, b) = (flops / forward / 1e9, flops / backward / 1e9);
                write!(line, " | {m}: {f:.0} {b:.0}").unwrap();
                if m == 1 {
                    let rate = packed.bytes() as f64 / forward / 1e9;
                    write!(line, " ({rate:.1} GB/s)").unwrap();
                }
            }
            println!("{line}");
        }
    }
}
