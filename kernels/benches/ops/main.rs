//! Every op at the shapes of SmolLM2-135M, against what the processor can do at most in the same run:
//! `cargo bench -p kernels [-- THREADS] [ISA] [NAME…]`, ISA one of `Portable`, `Avx2`, `Avx512`, `Avx512Bf16`, or the best.
//!
//! A row's figure is GFLOP/s against the measured peak of multiply-adds where an op computes, GB/s against the measured speed of
//! reading where it moves; both are shown where it is not plain which one limits it (NAME picks rows by their beginning). Best of
//! several runs, since other processes may share the cores; the peaks are the best of several, too. Not a test; asserts nothing.
//! Drawing a token from logits is the policy's: `cargo bench -p policy --bench model -- MODEL 2 bf16 sample`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]

mod attention;
mod products;
mod rows;
mod vocabulary;

use kernels::{Isa, Pool, peak};
use std::time::Instant;

/// Hidden, feed-forward, vocabulary, query heads, key heads, head size, adapter rank, layers.
const C: usize = 576;
const F: usize = 1536;
const V: usize = 49152;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const D: usize = 64;
const RANK: usize = 16;
const LAYERS: usize = 30;

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
    let isa = |name: &str| {
        let mut all = Isa::available().iter();
        all.find(|isa| format!("{isa:?}") == name).copied()
    };
    let chosen = arguments.iter().find_map(|a| isa(a));
    let only = arguments
        .iter()
        .filter(|a| a.parse::<usize>().is_err() && isa(a).is_none());
    let threads = threads.unwrap_or_else(Pool::default_threads);
    let pool = Pool::with_isa(threads, chosen.unwrap_or_else(Isa::best)).unwrap();
    let bench = Bench::new(pool, only.cloned().collect());
    println!(
        "{:?}: peak {:.0} GFLOP/s of multiply-adds, {:.1} GB/s read",
        bench.pool, bench.peaks.0, bench.peaks.1
    );
    println!("small operands stay in the caches, so that GB/s may exceed the memory's");
    products::products(&bench);
    products::adapters(&bench);
    products::crowd(&bench);
    products::prompt(&bench);
    rows::rows(&bench);
    rows::embed(&bench);
    attention::decode(&bench);
    attention::prompts(&bench);
    attention::cache(&bench);
    vocabulary::logits(&bench);
    vocabulary::hidden(&bench);
    rows::optimizer(&bench);
}
