//! What exactness costs: each op against a variant of it that is free to sum in any order, at the shapes of SmolLM2-135M:
//! `cargo bench -p kernels --bench exactness [-- THREADS]`.
//!
//! The free variants live here alone. They do what an engine without our contract would: products whose terms are dealt out to the
//! threads and added at the end (split-K), attention whose keys are, norms and log-sum-exps in as many chains as are fastest. A
//! ratio is the exact op's time by the free one's: above 1 exactness costs. Rounds alternate, and the median of their ratios is
//! shown, so that what the machine does beside hits both. Ops without a sum have nothing to compare, nor has an adapter's `up`
//! (sixteen terms) or the gradient of a softmax, whose one sum is over a row's targets; attention's gradient by one pass instead of
//! two is not written: it could save two products of seven. The last lines weigh the ops as a decode step and a training pass use
//! them, with the faster of both for every op on the free side. Not a test; asserts nothing.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]
#![expect(
    unsafe_code,
    reason = "the free norm is compiled for AVX-512 as the exact one is"
)]

mod adapters;
mod attention;
mod norms;

use adapters::{down, down_backward};
use attention::{attend, attend_backward};
use kernels::{Dtype, Packed, Pool, gemm, softmax};
use norms::{gradients_norm, norm, norm_backward};
use std::cell::Cell;
use std::sync::Mutex;
use std::time::Instant;

/// Layers, hidden, feed-forward, vocabulary, query heads, key heads, head size, adapter rank.
const LAYERS: f64 = 30.0;
const C: usize = 576;
const F: usize = 1536;
const V: usize = 49152;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const D: usize = 64;
const RANK: usize = 16;
/// Outputs of q, k and v together.
const QKV: usize = (HEADS + 2 * KV_HEADS) * D;
/// Copies of a layer's matrix that are used in turn, so that weights come from memory as they do in a model.
const COPIES: usize = 12;
/// Rows of a training pass, and of a tile of the vocabulary.
const PASS: usize = 256;
const TILE: usize = 112;
const ROUNDS: usize = 15;

/// Seconds of both sides, by op and by how often a decode step and a training pass use it.
#[derive(Default)]
struct Sums {
    decode: [f64; 2],
    training: [f64; 2],
}

impl Sums {
    fn row(
        &mut self,
        name: &str,
        (decode, training): (f64, f64),
        mut exact: impl FnMut(),
        mut free: impl FnMut(),
    ) {
        let time = |run: &mut dyn FnMut(), repeats: usize| {
            let start = Instant::now();
            (0..repeats).for_each(|_| run());
            start.elapsed().as_secs_f64() / repeats as f64
        };
        time(&mut free, 2);
        let once = time(&mut exact, 2);
        let repeats = ((3e-3 / once) as usize).clamp(1, 2000);
        let mut rounds: Vec<[f64; 2]> = (0..ROUNDS)
            .map(|_| [time(&mut exact, repeats), time(&mut free, repeats)])
            .collect();
        rounds.sort_by(|a, b| (a[0] / a[1]).total_cmp(&(b[0] / b[1])));
        let [a, b] = rounds[ROUNDS / 2];
        println!(
            "{name:38} {:10.1} µs {:10.1} µs {:6.2}",
            a * 1e6,
            b * 1e6,
            a / b
        );
        for (sum, times) in [(&mut self.decode, decode), (&mut self.training, training)] {
            sum[0] += times * a;
            sum[1] += times * a.min(b);
        }
    }
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5)
        .collect()
}

fn matrix(pool: &Pool, n: usize, k: usize) -> Packed {
    Packed::pack(pool, &[&numbers(n * k)], k, Dtype::Bf16).unwrap()
}

fn add(to: &mut [f32], part: &[f32]) {
    to.iter_mut().zip(part).for_each(|(to, v)| *to += v);
}

/// Calls `one` for two halves on the threads of the pool, each with memory of its own.
fn halves(pool: &Pool, space: &[Mutex<Vec<f32>>; 2], one: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    pool.run(2, &|half| one(half, &mut space[half].lock().unwrap()));
}

/// `y = x·Wᵀ` against the two halves of its terms.
fn product(
    sums: &mut Sums,
    pool: &Pool,
    (name, n, k): (&str, usize, usize),
    rows: usize,
    times: (f64, f64),
) {
    let copies = if n == V { 1 } else { COPIES };
    let whole: Vec<Packed> = (0..copies).map(|_| matrix(pool, n, k)).collect();
    let parts: Vec<[Packed; 2]> = (0..copies)
        .map(|_| [matrix(pool, n, k / 2), matrix(pool, n, k / 2)])
        .collect();
    let (x, half) = (numbers(rows * k), numbers(rows * k / 2));
    let (mut y, mut sum) = (vec![0.0; rows * n], vec![0.0; rows * n]);
    let space = [0, 1].map(|_| Mutex::new(vec![0.0; rows * n]));
    let (turn, other) = (Cell::new(0), Cell::new(0));
    let next = |turn: &Cell<usize>| turn.replace((turn.get() + 1) % copies);
    sums.row(
        &format!("product {name}, {rows} rows"),
        times,
        || gemm::forward(pool, rows, &x, &whole[next(&turn)], &mut y).unwrap(),
        || {
            let parts = &parts[next(&other)];
            halves(pool, &space, &|at, out| {
                gemm::forward(pool, rows, &half, &parts[at], out).unwrap()
            });
            sum.copy_from_slice(&space[0].lock().unwrap());
            add(&mut sum, &space[1].lock().unwrap());
        },
    );
}

/// `dx = dy·W` against the two halves of its terms.
fn gradient(
    sums: &mut Sums,
    pool: &Pool,
    (name, n, k): (&str, usize, usize),
    rows: usize,
    times: f64,
) {
    let whole = matrix(pool, n, k);
    let parts = [0, 1].map(|_| matrix(pool, n / 2, k));
    let (dy, half) = (numbers(rows * n), numbers(rows * n / 2));
    let (mut dx, mut sum) = (vec![0.0; rows * k], vec![0.0; rows * k]);
    let space = [0, 1].map(|_| Mutex::new(vec![0.0; rows * k]));
    sums.row(
        &format!("gradient {name}, {rows} rows"),
        (0.0, times),
        || gemm::backward(pool, rows, &dy, &whole, &mut dx).unwrap(),
        || {
            halves(pool, &space, &|at, out| {
                gemm::backward(pool, rows, &half, &parts[at], out).unwrap()
            });
            sum.copy_from_slice(&space[0].lock().unwrap());
            add(&mut sum, &space[1].lock().unwrap());
        },
    );
}

/// The log-sum-exp of a row of the vocabulary against that of its halves.
fn normalizer(sums: &mut Sums, pool: &Pool) {
    let logits = numbers(V);
    let space = [0, 1].map(|_| Mutex::new(vec![0.0; 1]));
    sums.row(
        "log-sum-exp of the vocabulary, 1 row",
        (1.0, 0.0),
        || {
            std::hint::black_box(softmax::normalizer(pool, &logits, 1.0).unwrap());
        },
        || {
            halves(pool, &space, &|at, out| {
                let half = &logits[at * V / 2..(at + 1) * V / 2];
                out[0] = -softmax::normalizer(pool, half, 1.0).unwrap().log_prob(0.0);
            });
            let [a, b] = [0, 1].map(|at| space[at].lock().unwrap()[0]);
            std::hint::black_box(a.max(b) + (-(a - b).abs()).exp().ln_1p());
        },
    );
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads)).unwrap();
    println!("{pool:?}; of each op: exact, in any order, ratio");
    let mut sums = Sums::default();
    let matrices = [
        ("qkv", QKV, C),
        ("o", C, HEADS * D),
        ("gate_up", 2 * F, C),
        ("down", C, F),
    ];
    for rows in [1, 32, PASS] {
        // A training pass computes a layer's products once, or twice when it keeps nothing: once here.
        let times = match rows {
            1 => (LAYERS, 0.0),
            PASS => (0.0, LAYERS),
            _ => (0.0, 0.0),
        };
        for matrix in matrices {
            product(&mut sums, &pool, matrix, rows, times);
        }
    }
    let tiles = PASS as f64 / TILE as f64;
    product(&mut sums, &pool, ("vocabulary", V, C), 1, (1.0, 0.0));
    product(&mut sums, &pool, ("vocabulary", V, C), TILE, (0.0, tiles));
    for matrix in matrices {
        gradient(&mut sums, &pool, matrix, PASS, LAYERS);
    }
    gradient(&mut sums, &pool, ("vocabulary", V, C), TILE, tiles);
    // Seven projections, of which this is a middling one.
    down(&mut sums, &pool, 1, 0.0);
    down(&mut sums, &pool, PASS, 7.0 * LAYERS);
    down_backward(&mut sums, &pool, PASS, 7.0 * LAYERS);
    norm(&mut sums, &pool, 1, (2.0 * LAYERS + 1.0, 0.0));
    norm(&mut sums, &pool, PASS, (0.0, 2.0 * LAYERS));
    norm_backward(&mut sums, &pool, PASS, 2.0 * LAYERS);
    // Once for the four samples of a step.
    gradients_norm(&mut sums, &pool, 0.25);
    normalizer(&mut sums, &pool);
    attend(&mut sums, &pool, 256, LAYERS);
    attend(&mut sums, &pool, 2048, 0.0);
    attend_backward(&mut sums, &pool, PASS, LAYERS);
    for (name, [exact, free]) in [
        ("a decode step, 256 keys", sums.decode),
        ("a training pass of 256", sums.training),
    ] {
        println!(
            "{name:38} {:10.1} µs {:10.1} µs {:6.2}",
            exact * 1e6,
            free * 1e6,
            exact / free
        );
    }
}
