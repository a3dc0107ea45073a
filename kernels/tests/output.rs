//! Log-probs of given tokens straight from the hidden rows: parity, gradients, and the bits of sampling.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use kernels::output::{self, Output, TILE, Wanted};
use kernels::softmax::{self, Target};
use kernels::{Dtype, Packed, Pool, gemm, reference};

const K: usize = 24;
const V: usize = 77;
const TEMPERATURE: f32 = 0.7;

/// Several a row, none in some rows, in order.
fn targets(rows: usize) -> Vec<Target> {
    let rows = (0..rows).filter(|row| row % 5 != 3);
    rows.flat_map(|row| {
        (0..1 + row % 2).map(move |i| Target {
            row,
            token: ((row * 31 + i * 17) % V) as u32,
        })
    })
    .collect()
}

fn run(pool: &Pool, dtype: Dtype, rows: usize) -> (Vec<f32>, Vec<f32>) {
    let targets = targets(rows);
    let (x, upstream) = (vector(1, rows * K), vector(3, targets.len()));
    let (out, dx, pauses) = pass(pool, dtype, &x, &targets, &upstream);
    let several = (0..rows).filter(|row| row % 5 != 3 && row % 2 == 1).count();
    assert_eq!(pauses, rows.div_ceil(TILE) + several.div_ceil(TILE));
    (out, dx)
}

fn wanted(targets: &[Target], temperature: f32) -> Wanted<'_> {
    Wanted {
        targets,
        temperature,
        gradient: true,
    }
}

/// Log-probs and gradient, and how often others were let in between.
fn pass(
    pool: &Pool,
    dtype: Dtype,
    x: &[f32],
    targets: &[Target],
    upstream: &[f32],
) -> (Vec<f32>, Vec<f32>, usize) {
    let w = Packed::pack(pool, &[&vector(2, V * K)], K, dtype).unwrap();
    let (mut out, mut dx) = (vec![f32::NAN; targets.len()], vec![f32::NAN; x.len()]);
    let (mut state, mut pauses) = (Output::default(), 0);
    let mut pause = || pauses += 1;
    output::log_probs(
        pool,
        x,
        &w,
        wanted(targets, TEMPERATURE),
        &mut state,
        &mut out,
        &mut pause,
    )
    .unwrap();
    output::backward(
        pool, x, &w, targets, upstream, &mut state, &mut dx, &mut pause,
    )
    .unwrap();
    (out, dx, pauses)
}

#[test]
fn a_rows_gradient_has_the_bits_that_it_has_alone() {
    let (pool, rows) = (Pool::new(2).unwrap(), TILE + 9);
    let (targets, x) = (targets(rows), vector(1, rows * K));
    let upstream = vector(3, targets.len());
    for dtype in [Dtype::F32, Dtype::Bf16Pairs] {
        let (_, dx, _) = pass(&pool, dtype, &x, &targets, &upstream);
        // No target, one, several; in both tiles.
        for row in [3, 4, 5, TILE + 1, TILE + 2, TILE + 3] {
            let own = |row: usize| targets.iter().filter(move |t| t.row == row);
            let before = targets.partition_point(|t| t.row < row);
            let alone: Vec<Target> = own(row).map(|t| Target { row: 0, ..*t }).collect();
            let upstream = &upstream[before..][..alone.len()];
            let x = &x[row * K..][..K];
            let (_, own, _) = pass(&pool, dtype, x, &alone, upstream);
            assert_eq!(bits(&dx[row * K..][..K]), bits(&own), "{dtype:?} {row}");
        }
    }
}

#[test]
fn log_probs_and_gradients_are_the_references_and_their_bits_the_same_everywhere() {
    for rows in [1, 9, TILE, 2 * TILE + 5] {
        let mut first = None;
        for pool in pools() {
            let found = run(&pool, Dtype::F32, rows);
            let found_bits = (bits(&found.0), bits(&found.1));
            assert!(
                first.get_or_insert_with(|| found_bits.clone()) == &found_bits,
                "{pool:?}"
            );
        }
        let pool = Pool::new(2).unwrap();
        let (out, dx) = run(&pool, Dtype::F32, rows);
        let (x, w, targets) = (vector(1, rows * K), vector(2, V * K), targets(rows));
        let upstream = vector(3, targets.len());
        let logits = reference::matmul_t(rows, V, K, &x, &w);
        let all: Vec<Vec<f64>> = logits
            .chunks(V)
            .map(|row| reference::log_softmax(row, f64::from(TEMPERATURE)))
            .collect();
        let expected: Vec<f64> = targets
            .iter()
            .map(|t| all[t.row][t.token as usize])
            .collect();
        close("log_probs", &out, &expected, 1e-5);
        // ∂ ln p_t / ∂ logit_v = (1[v = t] − p_v) / T, then times W.
        let mut slope = vec![0.0; rows * K];
        for (t, g) in targets.iter().zip(&upstream) {
            for v in 0..V {
                let hit = f64::from(u8::from(v == t.token as usize));
                let by_logit = f64::from(*g) * (hit - all[t.row][v].exp()) / f64::from(TEMPERATURE);
                for k in 0..K {
                    slope[t.row * K + k] += by_logit * f64::from(w[v * K + k]);
                }
            }
        }
        close("gradient", &dx, &slope, 1e-5);
    }
}

#[test]
fn a_log_prob_has_the_bits_that_sampling_records() {
    let pool = Pool::new(2).unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let rows = TILE + 9;
        let (out, _) = run(&pool, dtype, rows);
        let x = vector(1, rows * K);
        let w = Packed::pack(&pool, &[&vector(2, V * K)], K, dtype).unwrap();
        for (target, found) in targets(rows).iter().zip(out) {
            let mut logits = vec![f32::NAN; V];
            gemm::forward(&pool, 1, &x[target.row * K..][..K], &w, &mut logits).unwrap();
            let sampled = softmax::normalizer(&pool, &logits, TEMPERATURE).unwrap();
            let sampled = sampled.log_prob(logits[target.token as usize]);
            assert_eq!(sampled.to_bits(), found.to_bits());
        }
    }
}

#[test]
fn targets_out_of_order_or_outside_are_refused() {
    let pool = Pool::new(1).unwrap();
    let (x, w) = (
        vector(1, 3 * K),
        Packed::pack(&pool, &[&vector(2, V * K)], K, Dtype::F32).unwrap(),
    );
    let attempt = |targets: &[(usize, u32)], temperature| {
        let targets: Vec<Target> = targets
            .iter()
            .map(|&(row, token)| Target { row, token })
            .collect();
        let mut out = vec![0.0; targets.len()];
        let state = &mut Output::default();
        output::log_probs(
            &pool,
            &x,
            &w,
            wanted(&targets, temperature),
            state,
            &mut out,
            &mut || (),
        )
    };
    assert!(attempt(&[(0, 1), (2, 76)], 1.0).is_ok());
    assert!(attempt(&[(2, 1), (0, 1)], 1.0).is_err(), "order");
    assert!(attempt(&[(3, 1)], 1.0).is_err(), "row");
    assert!(attempt(&[(0, 77)], 1.0).is_err(), "token");
    assert!(attempt(&[(0, 1)], 0.0).is_err(), "temperature");
    let mut dx = vec![0.0; 3 * K];
    let never = output::backward(
        &pool,
        &x,
        &w,
        &[],
        &[],
        &mut Output::default(),
        &mut dx,
        &mut || (),
    );
    assert!(never.is_err(), "there was no forward pass");
}

#[test]
fn only_a_pass_that_succeeds_and_was_to_be_is_followed_by_its_gradient() {
    let pool = Pool::new(1).unwrap();
    let (x, w) = (
        vector(1, 3 * K),
        Packed::pack(&pool, &[&vector(2, V * K)], K, Dtype::F32).unwrap(),
    );
    let targets = targets(3);
    let good = wanted(&targets, 1.0);
    let scored = Wanted {
        gradient: false,
        ..good
    };
    let mut state = Output::default();
    let mut attempt = |wanted: Wanted<'_>| {
        let mut out = vec![f32::NAN; targets.len()];
        let (mut dx, upstream) = (vec![f32::NAN; x.len()], vec![1.0; targets.len()]);
        let forward = output::log_probs(&pool, &x, &w, wanted, &mut state, &mut out, &mut || ());
        let back = output::backward(
            &pool,
            &x,
            &w,
            &targets,
            &upstream,
            &mut state,
            &mut dx,
            &mut || (),
        );
        (forward.map(|()| out), back.map(|()| dx))
    };
    let (out, dx) = attempt(good);
    assert_eq!(attempt(scored).0.unwrap(), out.unwrap());
    assert!(attempt(scored).1.is_err(), "no gradient was wanted");
    assert!(attempt(good).1.is_ok());
    let (out, back) = attempt(wanted(&targets, 0.0));
    assert!(
        out.is_err() && back.is_err(),
        "the pass before had as many rows"
    );
    assert_eq!(attempt(good).1.unwrap(), dx.unwrap());
}

#[test]
fn what_counts_for_nothing_has_no_gradient_whatever_its_logits_are() {
    let pool = Pool::new(1).unwrap();
    // The second row's logits are infinite, its slopes no numbers.
    let mut x = vector(1, 2 * K);
    x[K..].fill(f32::INFINITY);
    let targets: Vec<Target> = (0..2).map(|row| Target { row, token: 5 }).collect();
    let (_, dx, _) = pass(&pool, Dtype::F32, &x, &targets, &[1.0, 0.0]);
    assert!(dx[..K].iter().any(|dx| *dx != 0.0));
    assert!(dx[K..].iter().all(|dx| *dx == 0.0), "{:?}", &dx[K..]);
}
